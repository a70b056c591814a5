#!/usr/bin/env bash
# symbols.sh: what liblarder.so exports is what include/*.h declare, function by function, all
# of it under the version LARDER_0.1; and the library is hardened the way it was asked for.
set -eu
library=${LIBLARDER:?the path of liblarder.so}
headers=${srcdir:-$(dirname "$0")/..}/include
compiler=${CC:-cc}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Declared: comments, directives and types of functions gone, then each name before a parenthesis.
# shellcheck disable=SC2086 # CC may have arguments
for header in "$headers"/*.h; do $compiler -E -P -fpreprocessed -dD "$header" 2>/dev/null; done | grep -v '^#' | tr '\n' ' ' |
    sed -E 's/typedef +[a-z_]+ +larder_[a-z0-9_]+ *\(/(/g' |
    grep -oE '\blarder_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u >"$scratch/declared"

# Exported: the dynamic symbols that the library defines, less the version's own.
# shellcheck disable=SC2086 # NM may have arguments
${NM:-nm} -D --defined-only --with-symbol-versions "$library" |
    awk '$2 != "A" { print $3 }' | sort >"$scratch/versioned"
sed 's/@.*//' "$scratch/versioned" | sort -u >"$scratch/exported"

failed=0
[ -s "$scratch/declared" ] || { echo "no function found in $headers" && failed=1; }
if ! diff -u --label declared --label exported "$scratch/declared" "$scratch/exported"; then
    failed=1
fi
if grep -v '@@LARDER_0\.1$' "$scratch/versioned"; then
    echo "   ^ exported without the version LARDER_0.1"
    failed=1
fi

dynamic=$(readelf -W -d "$library")
grep -q 'SONAME.*\[liblarder\.so\.0\]' <<<"$dynamic" || { echo "soname is not liblarder.so.0" && failed=1; }
grep -q 'NODELETE' <<<"$dynamic" || { echo "not linked with -z nodelete" && failed=1; }
if [ "${SANITIZED:-no}" = no ]; then
    grep -q 'NOW' <<<"$dynamic" || { echo "not linked with -z now" && failed=1; }
    while read -r needed; do
        case $needed in
        liblmdb.so.* | libc.so.* | libpthread.so.* | librt.so.* | ld-linux* | libgcov* | libgcc_s*) ;;
        *) echo "needs $needed: workers link nothing but LMDB and libc" && failed=1 ;;
        esac
    done < <(sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' <<<"$dynamic")
fi
readelf -W -l "$library" | grep -q 'GNU_STACK.*RW ' || { echo "wants an executable stack" && failed=1; }

[ $failed -eq 0 ] && echo "symbols: $(wc -l <"$scratch/exported") functions, as declared"
exit $failed
