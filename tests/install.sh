#!/usr/bin/env bash
# install.sh: what `make install` leaves is whole: a stranger's program builds against it with nothing
# but pkg-config, and runs; nothing of the build or source tree is in it.
set -eu
[ "${SANITIZED:-no}" = no ] || exit 77 # a stranger's program lacks the sanitizer's runtime
builddir=${BUILDDIR:?the build directory}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root
unset MAKEFLAGS MFLAGS MAKELEVEL

"${MAKE:-make}" -C "$builddir" install DESTDIR="$root" >"$scratch/said" 2>&1 || {
    cat "$scratch/said"
    exit 1
}
prefix=$(sed -n 's/^prefix=//p' "$(find "$root" -name larder.pc)")
cd "$root$prefix"
failed=0
expect() { [ -e "$1" ] || { echo "not installed: $1" && failed=1; }; }
expect bin/larder
expect sbin/larderd
expect include/larder.h
expect include/larder_http.h
expect include/larder_session.h
expect lib/liblarder.so
expect lib/liblarder.so.0
expect lib/pkgconfig/larder.pc
if [ -e lib/liblarder.a ]; then
    echo "a static liblarder is installed: two copies in one process would not know of each other"
    failed=1
fi
headers=$(find include -type f | sort | tr '\n' ' ')
[ "$headers" = "include/larder.h include/larder_http.h include/larder_session.h " ] || { echo "installed headers: $headers" && failed=1; }
source=$(cd "${srcdir:-.}" && pwd)
if found=$(grep -rlF -e "$source/lib" "$root" --include='*.pc' --include='*.h' --include='*.service'); then
    echo "these name the source tree: $found"
    failed=1
fi

# What a document links to is there.
documents=$(dirname "$(find . -name README.md -path '*doc*')")
links=0
while IFS=: read -r document link; do
    links=$((links + 1))
    target=${link%%#*}
    [ -e "$documents/$(dirname "$document")/$target" ] || { echo "$document links to $target, which is not installed" && failed=1; }
done < <(cd "$documents" && grep -roE '\]\([^)#][^)]*\)' --include='*.md' . | grep -vE '\]\((https?|mailto):' | sed -E 's/\]\((.*)\)$/\1/')
[ "$links" -gt 15 ] || { echo "only $links links found in $documents" && failed=1; }

cat >"$scratch/stranger.c" <<'C'
#include <larder.h>
#include <larder_http.h>
#include <larder_session.h>
#include <stdio.h>
#include <string.h>

int main(int count, char **arguments)
{
    larder_options options = {.dir = arguments[count - 1], .map_size = 16u << 20};
    larder *handle = NULL;
    char value[8] = "";
    int code = larder_open("stranger", &options, &handle);
    if (code == LARDER_OK) code = larder_set(handle, "key", 3, "value", 6, NULL);
    if (code == LARDER_OK) code = larder_get(handle, "key", 3, value, sizeof value, NULL);
    if (code != LARDER_OK) fprintf(stderr, "%s: %s\n", larder_strerror(code), larder_last_error());
    larder_session_id id;
    larder_bytes nobody = {0};
    if (larder_session_create(handle, NULL, nobody, NULL, 0, &id) != LARDER_OK) return 1;
    larder_close(&handle);
    char etag[LARDER_HTTP_ETAG_SIZE];
    larder_http_etag((larder_bytes){value, 6}, etag);
    if (strncmp(etag, "W/\"", 3) != 0) return 1;
    return code != LARDER_OK || strcmp(value, "value") != 0;
}
C
flags=$(PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1 \
    PKG_CONFIG_PATH=$root$prefix/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root pkg-config --cflags --libs larder)
# shellcheck disable=SC2086 # several words
${CC:-cc} -std=c11 -Wall -Wextra -Werror -o "$scratch/stranger" "$scratch/stranger.c" $flags
mkdir -m 0700 "${LARDER_TEST_DIR:-$scratch}/stranger.d"
LD_LIBRARY_PATH=$root$prefix/lib "$scratch/stranger" "${LARDER_TEST_DIR:-$scratch}/stranger.d" || failed=1

[ $failed -eq 0 ] && echo "install: ok"
exit $failed
