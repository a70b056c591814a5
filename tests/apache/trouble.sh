#!/usr/bin/env bash
# trouble.sh: mod_socache_larder under the event MPM when things go wrong: children killed while they
# store, a map that is full, graceful restarts under load. And what the other tests show for prefork:
# TLS sessions and passwords, pages that vary, CacheLock.
# shellcheck source-path=SCRIPTDIR source=common.bash
. "$(dirname "$0")/common.bash"
command -v pgrep >/dev/null || { echo "pgrep is not there" && exit 77; }
port=$(free_port)
tls_port=$(free_port)
make_certificate
write_config event "CacheSocache larder:pages(dir=$maps,size=16M,max_value=1M,wait=500ms)
CacheSocacheMaxSize 1100000
CacheLock on
CacheLockPath $scratch/locks
CacheLockMaxAge 5
$(secure_config "")
<Location /varies>
    Header set Vary X-Kind
    Header set X-Answer \"expr=%{req:X-Kind}\"
</Location>"
mkdir -p "$scratch/locks" "$scratch/site/private"
[ "$(id -u)" != 0 ] || chown www-data "$scratch/locks"
write_page page first
write_page varies body
write_page private/page secret
echo "somebody:$(openssl passwd -apr1 right)" >"$scratch/users"
start_httpd

# ---- TLS sessions and passwords, in all children and threads --------------------------------------

contains "$(tls -sess_out "$scratch/session")" '^New, TLSv1.2' || fail "no new TLS session"
for _ in {1..8}; do
    contains "$(tls -sess_in "$scratch/session")" '^Reused, TLSv1.2' || fail "a TLS session was not resumed"
done
graceful
contains "$(tls -sess_in "$scratch/session")" '^Reused, TLSv1.2' || fail "a TLS session did not survive a graceful restart"
contains "$(as_somebody right)" '^secret' || fail "a right password was not taken"
: >"$scratch/users"
for _ in {1..8}; do
    contains "$(as_somebody right)" '^secret' || fail "a password was not in the cache"
done
contains "$(as_somebody wrong)" '^HTTP/1.1 401' || fail "a wrong password was taken from the cache"

# ---- Pages that vary --------------------------------------------------------------------------------

for state in MISS HIT; do
    for kind in a b c; do
        answer=$(get /varies "X-Kind: $kind")
        contains "$answer" "^X-Cache: $state" || fail "kind $kind is no $state"
        contains "$answer" "^X-Answer: $kind" || fail "kind $kind got another's page"
    done
done

# ---- CacheLock: many ask for one cold page -----------------------------------------------------------

head -c 500000 /dev/zero | tr '\0' 'l' >"$scratch/site/locked"
for i in {1..12}; do
    get /locked >"$scratch/locked$i.said" &
    fetches[i]=$!
done
for i in {1..12}; do
    wait "${fetches[i]}"
    [ "$(tr -cd l <"$scratch/locked$i.said" | wc -c)" -ge 500000 ] || fail "page $i of 12 is not whole"
done
check "and it is cached" is_hit /locked

# ---- Children that are killed while they store --------------------------------------------------------

head -c 900000 /dev/zero | tr '\0' 's' >"$scratch/site/stored"
children() { pgrep -P "$httpd_pid"; }
has_children() { [ "$(children | wc -l)" -ge 2 ]; }
store_on() { # cold pages without an end
    local n=0
    while [ ! -e "$scratch/enough" ]; do
        get "/stored?$1-$n" >/dev/null 2>&1
        n=$((n + 1))
    done
}
for i in 1 2 3; do
    store_on "$i" &
    stores[i]=$!
done
for _ in {1..25}; do
    wait_for has_children || fail "httpd has not replaced its children"
    kill -KILL "$(children | shuf -n 1)" 2>/dev/null
    sleep "0.0$((RANDOM % 10))" # in the middle of whatever it is at
done
touch "$scratch/enough"
wait "${stores[@]}"
serves() { contains "$(get /page)" '^first'; }
check "pages are served after 25 children were killed" wait_for serves
cached_again() { get "/stored?after" >/dev/null && is_hit "/stored?after"; }
check "and stored" wait_for cached_again
# the tool has to be where the map's owner may run it
mkdir "$scratch/bin"
cp -L "${LARDER:?the path of larder}" "$builddir/.libs/liblarder.so.0" "$scratch/bin"
as_owner() { if [ "$(id -u)" = 0 ]; then runuser -u www-data -- "$@"; else "$@"; fi; }
is_whole() { as_owner env LD_LIBRARY_PATH="$scratch/bin" "$scratch/bin/larder" -d "$maps" -m pages check >"$scratch/said" 2>&1; }
check "the map is whole" is_whole
! [ "$failures" != 0 ] || cat "$scratch/said"

# ---- A map that is full -------------------------------------------------------------------------------

head -c 100000 /dev/zero | tr '\0' 'f' >"$scratch/site/full"
for i in {1..300}; do # 30 MB into 16
    [ "$(get "/full?$i" | tr -cd f | wc -c)" -ge 100000 ] || fail "page $i of 300 is not whole"
done
check "what was stored last is there" is_hit "/full?300"
said=$(get '/server-status?auto')
contains "$said" '^CacheEvictions: [1-9]' || fail "nothing was evicted: $said"

# ---- Graceful restarts under load -----------------------------------------------------------------------

rm -f "$scratch/enough"
wrong=$scratch/wrong
ask_on() {
    while [ ! -e "$scratch/enough" ]; do
        contains "$(get /page)" '^first' || echo wrong >>"$wrong"
    done
}
for i in 1 2 3; do
    ask_on &
    stores[i]=$!
done
for _ in 1 2 3 4; do
    graceful
done
touch "$scratch/enough"
wait "${stores[@]}"
[ ! -e "$wrong" ] || fail "$(wc -l <"$wrong") requests got no page during graceful restarts"
check "a hit after them" is_hit /page
! grep -qE 'larder: .*(corrupt|damaged)' "$scratch/error.log" || fail "the log tells of damage"
finish trouble
