#!/usr/bin/env bash
# run.sh FILE: one file of Python tests, by pytest, against the package in the build tree; its cases
# are told as `ok N - ...` (tests/python/conftest.py). Skipped, with the reason, where the binding was
# not built or pytest is not there.
set -eu
python=${PYTHON:-/usr/bin/python3}
package=${BUILDDIR:?the build directory}/bindings/python/package
file=$1
skip() {
    echo "SKIP: $*"
    exit 77
}
[ -e "$package/larder/.stamp" ] || skip "the Python binding was not built: python3-dev was not there"
"$python" -c 'import pytest' 2>/dev/null || skip "python3-pytest is not installed"
while read -r module; do
    "$python" -c "import $module" 2>/dev/null || skip "Python's $module is not installed"
done < <(sed -n "s/^# needs: //p" "$file")
if [ "${SANITIZED:-no}" = yes ]; then
    # The runtime has to be there before Python, which leaks by design.
    LD_PRELOAD=$("${CC:-cc}" -print-file-name=libasan.so):$("${CC:-cc}" -print-file-name=libubsan.so)
    export LD_PRELOAD ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0:verify_asan_link_order=0"
fi
source=$(cd "${srcdir:-$(dirname "$0")/../..}" && pwd)
export PYTHONPATH=$package:$source/tests/python PYTHONDONTWRITEBYTECODE=1 PYTHON=$python
export LD_LIBRARY_PATH=$BUILDDIR/.libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec "$python" -X faulthandler -m pytest -q -p no:cacheprovider --tb=short -c /dev/null \
    --rootdir="$source/tests/python" --confcutdir="$source/tests/python" "$file"
