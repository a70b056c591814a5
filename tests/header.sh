#!/usr/bin/env bash
# header.sh: each header of include/ alone, first and twice, as strict C11 and as C++17, and through the
# parser of LuaJIT's ffi.cdef where luajit is installed (programs in other languages read it so).
set -eu
include=${srcdir:-$(dirname "$0")/..}/include
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0
tried=''

cat >"$scratch/use.c" <<'C'
#include "larder.h"
#include "larder.h"

int main(void)
{
    larder_options options = {0};
    larder_policy policy = {0};
    larder *handle = 0;
    policy.expiry = larder_expire_aligned(300000, 0);
    return larder_open("x", &options, &handle) == LARDER_OK && larder_set(handle, "k", 1, "v", 1, &policy);
}
C
cat >"$scratch/use_http.c" <<'C'
#include "larder_http.h"
#include "larder_http.h"

int main(void)
{
    larder_http_request request = {0};
    larder_http_key_options options = {0};
    larder_http_arena arena = {0};
    larder_bytes key = {0};
    options.form = LARDER_HTTP_KEY_METHOD;
    return larder_http_key(&request, &options, &arena, &key) == LARDER_OK;
}
C
cat >"$scratch/use_session.c" <<'C'
#include "larder_session.h"
#include "larder_session.h"

int main(void)
{
    larder_session_options options = {0};
    larder_session_id id = {0};
    larder_bytes nobody = {0};
    larder *handle = 0;
    options.ttl_ms = LARDER_SESSION_TTL_MS;
    return larder_session_create(handle, &options, nobody, 0, 0, &id) == LARDER_OK;
}
C
for use in use use_http use_session; do
    sed 's/= {0}/= {}/; s/ = 0;/ = nullptr;/' "$scratch/$use.c" >"$scratch/$use.cc"
done

# shellcheck disable=SC2086 # CC and CXX may have arguments
try() { # NAME COMMAND...
    local name=$1
    shift
    if "$@" >"$scratch/said" 2>&1; then
        tried="$tried $name"
    else
        echo "$name: $*"
        cat "$scratch/said"
        failed=1
    fi
}

strict='-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror'
for use in use use_http use_session; do
    # shellcheck disable=SC2086
    try "C11 ($use)" ${CC:-cc} -std=c11 $strict -I"$include" -c -o "$scratch/c.o" "$scratch/$use.c"
    # shellcheck disable=SC2086
    if command -v ${CXX:-g++} >/dev/null; then
        try "C++17 ($use)" ${CXX:-g++} -std=c++17 $strict -I"$include" -c -o "$scratch/cc.o" "$scratch/$use.cc"
    fi
done

if command -v luajit >/dev/null; then
    # What a binding does: the preprocessor, without the system's headers (LuaJIT knows their types).
    sed '/^# *include /d' "$include/larder.h" "$include/larder_http.h" "$include/larder_session.h" | ${CC:-cc} -E -P -std=c11 -x c - >"$scratch/larder.cdef"
    cat >"$scratch/read.lua" <<'LUA'
local ffi = require("ffi")
local file = assert(io.open(arg[1]))
ffi.cdef("struct iovec { void *iov_base; size_t iov_len; };")
ffi.cdef(file:read("*a"))
local options = ffi.new("larder_options")
assert(options.map_size == 0 and ffi.sizeof("larder_version") == 16)
assert(ffi.new("larder_http_policy").kind == 0 and ffi.C.LARDER_HTTP_GATEWAY == 1)
assert(ffi.sizeof("larder_session_id") == 44 and ffi.C.LARDER_SESSION_REMOVE == 1)
assert(ffi.C.LARDER_MISS == 1 and ffi.C.LARDER_EBUSY == -1001)
ffi.typeof("int (*)(larder *, const void *, size_t, larder_view *)")
LUA
    try LuaJIT luajit "$scratch/read.lua" "$scratch/larder.cdef"
fi

[ $failed -eq 0 ] && echo "header:$tried"
exit $failed
