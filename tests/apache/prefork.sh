#!/usr/bin/env bash
# prefork.sh: mod_socache_larder in the real httpd with children that serve one connection each: one
# child's page is every child's, through restarts of all kinds, with larderd absent, present, and with
# a Redis that hangs; TLS sessions are resumed by other children; every call of the provider, and what
# it says of mistakes in its configuration.
# shellcheck source-path=SCRIPTDIR source=common.bash
. "$(dirname "$0")/common.bash"
command -v redis-server >/dev/null || { echo "redis-server is not there" && exit 77; }
LARDERD=${LARDERD:?the path of larderd}
LARDER=${LARDER:?the path of larder}
port=$(free_port)
tls_port=$(free_port)
fleet_arguments="(dir=$maps,size=32M,wait=200ms)"

make_certificate

prefork_config() { # LARDER'S ARGUMENT FOR PAGES [THE CACHE OF TLS SESSIONS]
    write_config prefork "CacheSocache larder:pages$1
CacheSocacheMaxSize 5000000
$(secure_config "${2:-}")
LoadModule probe_module $builddir/tests/apache/.libs/probe.so
Probe probes(dir=$maps,size=16M,max_value=100K)
<Location /probe>
    SetHandler larder-probe
</Location>"
}

# ---- Mistakes in the configuration: named before the server starts -------------------------------

refused() { # ARGUMENT WHAT-HTTPD-SAYS
    prefork_config "$fleet_arguments" "larder:tls$1"
    if LD_LIBRARY_PATH=$builddir/.libs "$httpd" -f "$scratch/httpd.conf" -t >"$scratch/said" 2>&1; then
        fail "larder:tls$1 was accepted"
    elif ! grep -qF -- "$2" "$scratch/said"; then
        fail "larder:tls$1: $(cat "$scratch/said")"
    fi
}
refused '/x' 'cannot be the name of a map'
refused '(size=64M' 'a ) is missing'
refused '(colour=red)' 'there is no option colour'
refused '(size)' 'option size has no value'
refused '(size=1M)' 'has to be a size like 64M, at least 16M'
refused '(size=64X)' 'has to be a size like 64M'
refused '(size=99999999999T)' 'has to be a size like 64M'
refused '(max_value=0)' 'has to be a size'
refused '(wait=50)' 'has to be a time like 50ms'
refused '(wait=3h)' 'has to be a time like 50ms'
refused '(read_through=61s)' 'at most 60s'
refused '(travel=perhaps)' 'has to be yes or no'
refused '(dir=maps)' 'has to be an absolute path'
refused "(dir=$scratch/nowhere)" 'is no directory'
refused '(size=32M,size=64M)' 'option size is given twice'
refused '(travel=yes,size=32M,travel=no)' 'option travel is given twice'
refused "(dir=$maps,dir=$maps)" 'option dir is given twice'
refused '(size=16M,max_value=2M)' 'more than a sixteenth of size'
refused '(max_value=5G)' 'below 4G'
refused '(travel=no,read_through=20ms)' 'one of them'
# mod_cache_socache reads its argument later than others: then httpd does not start
prefork_config '(size=1M)'
if LD_LIBRARY_PATH=$builddir/.libs "$httpd" -f "$scratch/httpd.conf" -k start >"$scratch/said" 2>&1; then
    fail "httpd starts with a wrong argument"
    httpd_pid=$(cat "$scratch/httpd.pid")
    stop_httpd
fi
check "the log names the mistake" grep -q 'larder: size=1M has to be a size' "$scratch/error.log"

# ---- Pages, without a larderd --------------------------------------------------------------------

prefork_config "$fleet_arguments"
write_page page first
start_httpd
check "the first request is a miss" is_miss /page
write_page page second # which the cache does not see
ask_at_once 4 /page
[ "$hits" = 4 ] || fail "of 4 connections at once, $hits were hits"
[ "$(children_of /page)" -ge 3 ] || fail "only $(children_of /page) children answered"
contains "$(get /page)" '^first' || fail "the page is not the cached one"

graceful
check "a hit after a graceful restart" is_hit /page
stop_httpd
start_httpd
check "a hit after a stop and a start" is_hit /page
contains "$(get /page)" '^first' || fail "the page is not the cached one after a restart"

# over the limit of the map, and of no use to anybody else: served all the same
head -c 3000000 /dev/zero | tr '\0' 'y' >"$scratch/site/large"
for _ in 1 2; do
    answer=$(get /large)
    contains "$answer" '^X-Cache: MISS' || fail "a page over the limit was cached"
    [ "$(tr -cd y <<<"$answer" | wc -c)" -ge 3000000 ] || fail "a page over the limit was not served whole"
done
check "the log says why" grep -q 'not stored in map pages: .*the limit is 2097152' "$scratch/error.log"

# a key that is longer than LMDB's
long="/page?$(printf '%03000d' 0)"
check "a long address is a miss" is_miss "$long"
check "and then a hit" is_hit "$long"

# ---- A writer that is stopped inside the gate: hits are hits, and what is new is served -------------

mkfifo "$scratch/release"
"$builddir/tests/tool/hold_gate" "$maps" pages <"$scratch/release" >"$scratch/held" 2>&1 &
holder=$!
pids+=("$holder")
exec 9>"$scratch/release"
is_held() { grep -q held "$scratch/held"; }
wait_for is_held || fail "the gate is not held: $(cat "$scratch/held")"
check "a hit while the gate is held" is_hit /page
write_page refused refused
for _ in 1 2; do
    contains "$(get /refused)" '^refused' || fail "a new page was not served while the gate was held"
done
check "the log says why" grep -q 'not stored in map pages: another process holds the lock' "$scratch/error.log"
exec 9>&-
check "the gate is released" wait_for gone "$holder"
get /refused >/dev/null
check "a hit after the gate was held" is_hit /refused

# ---- The provider, call by call ------------------------------------------------------------------

probe() { # QUERY PATTERN...
    local said query=$1 pattern
    said=$(get "/probe?$query")
    shift
    for pattern; do
        contains "$said" "$pattern" || fail "probe $query: no $pattern in: $said"
    done
}
probe 'store&one&1000&60000' 'status 0 success'
probe 'retrieve&one&1000' 'size 1000' 'status 0 success'
probe 'retrieve&one&999' 'nomem'
probe 'retrieve&none&1000' 'notfound'
probe 'store&two&102400&60000' 'success'
probe 'store&three&102401&60000' 'nospace'
probe 'store&two&10&-1000' 'success' # in the past: how mod_cache_socache invalidates what is there
probe 'retrieve&two&102400' 'notfound'
probe 'store&two&10&-1000' 'success'
probe 'store&four&0&60000' 'success'
probe 'store&five&1&60000' 'success'
probe 'iterate' '^five 1 ended' '^four 0 ended' '^one 1000 ended' 'success'
probe 'iterate&2' '^five 1 ended' '^four 0 ended' 'general'
! contains "$(get '/probe?iterate&2')" '^one' || fail "iterate went on after it was told to stop"
probe 'remove&one' 'success'
probe 'remove&one' 'notfound'
probe 'retrieve&one&1000' 'notfound'
probe 'store&brief&5&300' 'success'
expired() { contains "$(get '/probe?retrieve&brief&10')" notfound; }
check "an entry expires" wait_for expired

# ---- Passwords: one child's look into the file is every child's -------------------------------------

mkdir "$scratch/site/private"
write_page private/page secret
echo "somebody:$(openssl passwd -apr1 right)" >"$scratch/users"
contains "$(as_somebody wrong)" '^HTTP/1.1 401' || fail "a wrong password was taken"
contains "$(as_somebody right)" '^secret' || fail "a right password was not taken"
: >"$scratch/users"
for _ in 1 2 3 4; do
    contains "$(as_somebody right)" '^secret' || fail "a password was not in the cache"
done
contains "$(as_somebody wrong)" '^HTTP/1.1 401' || fail "a wrong password was taken from the cache"

# ---- Status --------------------------------------------------------------------------------------

said=$(get '/server-status?auto')
for pattern in '^CacheType: LARDER' '^CacheMap: pages' '^CacheMap: tls' '^CacheOpen: 1' \
    '^CacheCurrentEntries: [1-9]' '^CacheHits: [1-9]' '^CacheReplicates: 0'; do
    contains "$said" "$pattern" || fail "no $pattern in the status: $said"
done
contains "$(get /server-status)" 'map: <b>pages</b>' || fail "no map in the status page"

# ---- TLS: a session made by one child is resumed by another ---------------------------------------

contains "$(tls -sess_out "$scratch/session")" '^New, TLSv1.2' || fail "no new TLS session"
: >"$scratch/access.log"
resumed=0
for _ in {1..6}; do # a connection at a time, each kept by its child while the next one comes
    exec {held}<>"/dev/tcp/127.0.0.1/$port"
    printf 'GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n' >&"$held"
    IFS= read -r -t 30 -u "$held" _
    ! contains "$(tls -sess_in "$scratch/session")" '^Reused, TLSv1.2' || resumed=$((resumed + 1))
    [ "$resumed" != 3 ] || exec {held}>&-
done
[ "$resumed" = 6 ] || fail "of 6 TLS connections, $resumed resumed the session"
[ "$(children_of /page)" -ge 2 ] || fail "all TLS connections went to one child"
stop_httpd
start_httpd
contains "$(tls -sess_in "$scratch/session")" '^Reused, TLSv1.2' || fail "a TLS session did not survive a restart"

# ---- The fleet: larderd beside it, and a Redis that hangs -------------------------------------------

redis-server --port 0 --unixsocket "$scratch/redis.sock" --save '' --dir "$scratch" >"$scratch/redis.log" 2>&1 &
redis=$!
pids+=("$redis")
redis_says() { redis-cli -s "$scratch/redis.sock" "$@" 2>/dev/null; }
check "Redis starts" wait_for redis_says PING
(umask 0007 && exec "$LARDERD" --map pages --dir "$maps" --redis "unix://$scratch/redis.sock") >"$scratch/larderd.log" 2>&1 &
larderd=$!
pids+=("$larderd")
redis_has() { [ "$(redis_says DBSIZE)" -gt "$1" ]; }
pages_in_redis() { redis_says --scan --pattern 'pages:*' | grep -c "/$1"; }
check "pages reach Redis" wait_for pages_in_redis page
write_page fleet fleet
check "a new page is a miss" is_miss /fleet
check "it reaches Redis" wait_for pages_in_redis fleet
[ "$(redis_says --scan --pattern '*ssl*' | wc -l)" = 0 ] || fail "secrets of TLS are in Redis"
contains "$(get '/server-status?auto')" '^CacheRedisUp: 1' || fail "the status does not know of Redis"

kill -STOP "$redis"
began=$EPOCHREALTIME
for i in {1..20}; do
    write_page "hung$i" "$i"
    check "with Redis hung, a new page is a miss" is_miss "/hung$i"
    check "and then a hit" is_hit "/hung$i"
done
took=$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { print int((b - a) * 1000) }')
[ "$took" -lt 40000 ] || fail "40 requests took $took ms with Redis hung" # a stall is seconds each
echo "with Redis hung: 40 requests in $took ms"
kill -CONT "$redis"
check "what was cached meanwhile reaches Redis" wait_for pages_in_redis hung20
kill "$larderd" && wait_for gone "$larderd"
check "a hit without larderd" is_hit /hung1

# ---- A map that cannot be had: said once, and every page is served --------------------------------

stop_httpd
if [ "$(id -u)" = 0 ]; then
    mkdir -m 0700 "$scratch/closed"
    prefork_config "(dir=$scratch/closed)"
    : >"$scratch/error.log"
    start_httpd
    for _ in 1 2 3; do
        contains "$(get /page)" '^second' || fail "a page was not served without the map"
    done
    check "the log says why" grep -q 'cannot open map pages, going on without it' "$scratch/error.log"
    said=$(grep -c 'cannot open map pages' "$scratch/error.log")
    [ "$said" -le 8 ] || fail "the log says so $said times" # once a child
    contains "$(get '/server-status?auto')" '^CacheOpen: 0' || fail "the status does not say that the map is not open"
    stop_httpd
fi
finish prefork
