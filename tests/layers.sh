#!/usr/bin/env bash
# layers.sh: who includes whom. Prints each include line that crosses a border, and fails.
#   lib/           never daemon/, tools/, hiredis, libevent, libconfig, jansson
#   lmdb.h         only lib/store_lmdb.h, which only lib/store*.c include
#   daemon/, tools/ the ports of the map (lib/*.h), never lmdb.h
#   hiredis        only daemon/redis (and an example that asks Redis itself)
#   OpenSSL        only daemon/redis/tls.c
#   daemon/sync    neither daemon/redis, nor the map, nor a clock, a socket or a library of those; of
#                  lib/replica.h only the types and the two pure functions
#   include/       standard headers alone
# Tests and benchmarks may look anywhere.
set -eu
cd "${srcdir:-$(dirname "$0")/..}"
failed=0

# forbid WHERE-FILES PATTERN REASON: no file may include what matches the pattern (an ERE).
forbid() {
    local found
    # shellcheck disable=SC2086 # a list of folders
    found=$(find $1 -name '*.[ch]' -exec grep -nE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($2)[>\"]" /dev/null {} + || true)
    if [ -n "$found" ]; then
        printf '%s\n   ^ %s\n' "$found" "$3"
        failed=1
    fi
}

map_headers='((\.\./)*lib/)?(chunks|control|error|evict|expiry|format|gate|inspect|key|log|map|read|registry|removal|scan|stats|store|upkeep|wake|write|clock)\.h'

forbid "$(find lib -name '*.[ch]' ! -path 'lib/store*' | tr '\n' ' ')" '(store_)?(lmdb|leaves)\.h' \
    'lib/store*.c are the only users of LMDB'
forbid 'daemon tools examples include' '(.*/)?(store_)?lmdb\.h' 'only lib/store*.c may know LMDB'
forbid lib '(.*/)?daemon/.*|.*tools/.*|hiredis.*|event2?(/.*|\.h)|libconfig\.h|jansson\.h' \
    'lib knows neither the daemon, nor the tool, nor their libraries'
forbid 'lib include tools daemon/sync' 'hiredis.*' 'only daemon/redis may know hiredis'
forbid "$(find daemon -maxdepth 1 -name '*.[ch]' | tr '\n' ' ')" 'hiredis.*' \
    'only daemon/redis may know hiredis'
forbid "$(find lib include tools daemon -name '*.[ch]' ! -path daemon/redis/tls.c | tr '\n' ' ')" 'openssl/.*' \
    'daemon/redis/tls.c is the only user of OpenSSL'
forbid daemon/sync '(.*/)?daemon/redis/.*|(\.\./)?redis/.*' 'the protocol knows no connection'
forbid daemon/sync "$map_headers" 'the protocol knows no map'
forbid daemon/sync '(event2?/.*|event\.h|time\.h|sys/(time|timerfd|socket|un|epoll|select)\.h|netinet/.*|arpa/.*|netdb\.h|poll\.h|unistd\.h|pthread\.h|threads\.h|fcntl\.h)' \
    'the protocol has no clock, no socket, no loop'
forbid include '[^>"]*(lmdb|hiredis|event|xxhash|libconfig|lib/|daemon/).*' \
    'the public header needs standard headers alone'
forbid 'modules' '(lib|daemon|tools)/.*|(store|replica|upkeep|inspect|control|map|handle)\.h|(hiredis|openssl|event2?)/.*' \
    'modules are written against the public header'
forbid 'examples' 'lib/.*|daemon/.*|(store|replica|upkeep|inspect|control|map)\.h' \
    'examples are written against the public header'

# Calls that a clock or a socket needs have no business in the protocol either.
if grep -rnE '\b(clock_gettime|gettimeofday|time\(NULL\)|socket\(|connect\(|larder_[a-z_]+\(|replica_(claim|node|outbox|batch_free|acknowledge|apply|position_read|publish_state|wake_[a-z]+)\()' \
    --include='*.[ch]' daemon/sync; then
    echo '   ^ the protocol calls neither a clock, nor a socket, nor the map'
    failed=1
fi

[ $failed -eq 0 ] && echo "layers: ok"
exit $failed
