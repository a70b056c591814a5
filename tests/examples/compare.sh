#!/usr/bin/env bash
# compare.sh: the demo's comparer must be able to say no. This test plays larderd: it writes to a real
# Redis by hand what the map holds, then one thing too little, too much or different at a time.
set -u
build=$(dirname "$LARDERD")
scratch=${LARDER_TEST_DIR:-$(mktemp -d)}
cases=0 failed=0
redis=

for program in redis-server redis-cli; do
    command -v $program >/dev/null || {
        echo "no $program"
        exit 77
    }
done
trap '[ -z "$redis" ] || kill -TERM "$redis" 2>/dev/null; rm -rf "$scratch"' EXIT

check() { # NAME CONDITION...
    local name=$1
    shift
    cases=$((cases + 1))
    if "$@"; then
        echo "ok $cases - $name"
    else
        echo "not ok $cases - $name"
        cat "$scratch/out"
        failed=1
    fi
}
within() { # SECONDS CONDITION...: poll until it holds
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}
cli() { redis-cli -s "$scratch/redis.sock" "$@"; }
answers() { [ "$(cli PING 2>/dev/null)" = PONG ]; }
map() { "$LARDER" -d "$scratch/maps" -m demo "$@"; }
field() { sed -nE "s/.*\"$1\": *\"?([0-9a-f-]+)\"?[,}].*/\1/p" | head -n 1; }

# says STATUS PATTERN: compare ends with this status and prints a line like that.
says() {
    local status
    "$build/examples/compare" --dir "$scratch/maps" --map demo --redis "$scratch/redis.sock" \
        --prefix 'de*mo:' --wait 0 ${records:+--records} >"$scratch/out" 2>&1
    status=$?
    [ "$status" = "$1" ] && grep -qE -- "$2" "$scratch/out"
}

# push KEY NAME RECORD: write the entry of that key to Redis under these names.
push() {
    local meta version expires
    meta=$(map --json get "$1" | tr -d '\n')
    version=$(field version <<<"$meta" | tr -d -)
    expires=$(field expires_ms <<<"$meta")
    map get "$1" | cli -x SET "$2" >/dev/null
    if [ -n "$expires" ]; then
        cli PEXPIREAT "$2" "$expires" >/dev/null
    fi
    cli SET "$3" "1${version}10123456789abcdef ${expires:--} 5" >/dev/null
}

redis-server --port 0 --unixsocket "$scratch/redis.sock" --save '' --dir "$scratch" \
    >"$scratch/redis.log" 2>&1 &
redis=$!
: >"$scratch/out"
check "Redis answers" within 20 answers
mkdir -m 700 "$scratch/maps"
map create >/dev/null
map set plain 'a value' --ttl 1h
map set 'with{tag}' 'another' --ttl 2h
map set 'open{brace' 'a third'
map set 'looks%7Blike' 'a fourth' --ttl 1h

records=
check "a missing key is seen" says 1 'equal=0 .*missing=4 '
push plain 'de*mo:plain' 'v:{de*mo:plain}'
push 'with{tag}' 'de*mo:with{tag}' 'v:{tag}de*mo:with{tag}'
push 'open{brace' 'de*mo:open%7Bbrace' 'v:{de*mo:open%7Bbrace}'
push 'looks%7Blike' 'de*mo:looks%257Blike' 'v:{de*mo:looks%257Blike}'
check "what is the same is the same" says 0 '^equal=4 absent=0 missing=0 different=0 extra=0 '
records=yes
check "so it is without the values" says 0 '^equal=4 absent=0 missing=0 different=0 extra=0 '
records=

cli SET demo:other x >/dev/null
check "keys of others do not count" says 0 '^equal=4 .*extra=0 '
cli SET 'de*mo:more' x >/dev/null
check "a key too many is seen" says 1 'equal=4 .*extra=1 .*de\*mo:more: in Redis, but not in the map'
cli DEL 'de*mo:more' >/dev/null

cli SET 'de*mo:plain' 'b value' KEEPTTL >/dev/null
check "another value of the same size is seen" says 1 'different=1 .*plain: Redis has another value'
push plain 'de*mo:plain' 'v:{de*mo:plain}'
expires=$(cli PEXPIRETIME 'de*mo:plain')
cli PEXPIREAT 'de*mo:plain' $((expires + 1)) >/dev/null
check "a millisecond of expiry is seen" says 1 'different=1 .*plain: it expires at'
cli PERSIST 'de*mo:plain' >/dev/null
check "a lost expiry is seen" says 1 'different=1 .*plain: it expires at -1 in Redis'
push plain 'de*mo:plain' 'v:{de*mo:plain}'
check "and all is well again" says 0 '^equal=4 '

map set plain 'a value' --ttl 1h
check "a newer version in the map is seen" says 1 'different=1 .*plain: its record'
push plain 'de*mo:plain' 'v:{de*mo:plain}'
cli DEL 'v:{de*mo:plain}' >/dev/null
check "a lost record is seen" says 1 'missing=1 .*plain: its record in Redis is missing'
push plain 'de*mo:plain' 'v:{de*mo:plain}'
map rm plain
check "a key that is gone from the map is seen" says 1 'extra=1 .*plain: in Redis'
cli DEL 'de*mo:plain' >/dev/null
check "deleted on both sides is the same" says 0 '^equal=3 '

kill -KILL "$redis"
wait "$redis" 2>>"$scratch/redis.log"
redis=
check "no Redis is no verdict" says 3 'Redis'
echo "1..$cases"
exit $failed
