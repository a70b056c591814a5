#!/usr/bin/env bash
# package.sh: bindings/python is a Python package like any other: its setup.py builds it against an
# installed larder, and what it builds works and has all its parts.
set -eu
[ "${SANITIZED:-no}" = no ] || exit 77 # Python lacks the sanitizer's runtime
python=${PYTHON:-/usr/bin/python3}
builddir=${BUILDDIR:?the build directory}
[ -e "$builddir/bindings/python/package/larder/.stamp" ] || {
    echo "SKIP: the Python binding was not built: python3-dev was not there"
    exit 77
}
"$python" -c 'import setuptools' 2>/dev/null || {
    echo "SKIP: python3-setuptools is not installed"
    exit 77
}
source=$(cd "${srcdir:-.}" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset MAKEFLAGS MFLAGS MAKELEVEL
"${MAKE:-make}" -C "$builddir" install DESTDIR="$scratch/root" >"$scratch/said" 2>&1 || {
    cat "$scratch/said"
    exit 1
}
pc=$(dirname "$(find "$scratch/root" -name larder.pc)")
prefix=$(sed -n 's/^prefix=//p' "$pc/larder.pc")
cp -r "$source/bindings/python" "$scratch/package" && chmod -R u+w "$scratch/package"
cd "$scratch/package"
export PKG_CONFIG_PATH=$pc PKG_CONFIG_SYSROOT_DIR=$scratch/root
export PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
"$python" setup.py -q build --build-base "$scratch/base" --build-lib "$scratch/lib" \
    >"$scratch/said" 2>&1 || {
    cat "$scratch/said"
    exit 1
}
failed=0
for file in "$source"/bindings/python/larder/*.py "$source"/bindings/python/larder/*/*.py \
    "$source"/bindings/python/larder/*.pyi "$source"/bindings/python/larder/py.typed; do
    [ -e "$file" ] || continue
    name=larder/${file#"$source"/bindings/python/larder/}
    [ -e "$scratch/lib/$name" ] || { echo "not in the package: $name" && failed=1; }
    [ -e "$builddir/bindings/python/package/$name" ] || { echo "not in the build tree: $name" && failed=1; }
done
ls "$scratch"/lib/larder/_larder.abi3.so >/dev/null || failed=1
mkdir -m 0700 "$scratch/maps"
cd /
LD_LIBRARY_PATH=$scratch/root$prefix/lib PYTHONPATH=$scratch/lib PYTHONDONTWRITEBYTECODE=1 \
    "$python" - "$scratch/maps" <<'PY' || failed=1
import sys
import larder

with larder.Map("stranger", dir=sys.argv[1], map_size=16 << 20) as cache:
    cache.set("key", b"value", ttl=60)
    assert cache.get("key") == b"value"
PY
# Without a liblarder the error says what is needed.
if PKG_CONFIG_PATH=/nowhere PKG_CONFIG_LIBDIR=/nowhere "$python" "$scratch/package/setup.py" -q build >"$scratch/said" 2>&1 ||
    ! grep -q 'liblarder is needed' "$scratch/said"; then
    cat "$scratch/said"
    echo "setup.py does not say that liblarder is needed"
    failed=1
fi
[ $failed -eq 0 ] && echo "package: ok"
exit $failed
