#!/usr/bin/env bash
# event.sh: mod_socache_larder under the event MPM: children with threads, which open one map once a
# process; pages are shared by all of them and survive restarts.
# shellcheck source-path=SCRIPTDIR source=common.bash
. "$(dirname "$0")/common.bash"
port=$(free_port)
write_config event "CacheSocache larder:pages(dir=$maps,size=16M)"
write_page page first
start_httpd
check "the first request is a miss" is_miss /page
write_page page second
for round in 1 2 3; do
    ask_at_once 8 /page # two children of four threads each
    [ "$hits" = 8 ] || fail "round $round: of 8 connections at once, $hits were hits"
done
graceful
ask_at_once 8 /page
[ "$hits" = 8 ] || fail "after a graceful restart $hits of 8 were hits"
[ "$(children_of /page)" -ge 2 ] || fail "only $(children_of /page) children answered"
contains "$(get /page)" '^first' || fail "the page is not the cached one"

# many cold pages at once, from all threads
for i in {1..24}; do
    write_page "cold$i" "$i"
    get "/cold$i" >"$scratch/cold$i.said" &
    fetches[i]=$!
done
for i in {1..24}; do
    wait "${fetches[i]}"
    contains "$(cat "$scratch/cold$i.said")" "^$i" || fail "cold page $i"
    check "page $i is cached" is_hit "/cold$i"
done
stop_httpd
start_httpd
check "a hit after a stop and a start" is_hit /page
finish event
