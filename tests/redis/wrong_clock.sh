#!/usr/bin/env bash
# wrong_clock.sh: a host whose clock is five minutes ahead from before its map is made, and stays so,
# beside one whose clock is right, on one Redis: whatever is written last stands on both, by
# whichever of them. (Clocks that are set while all runs: tests/chaos.)
set -u
LC_ALL=C.UTF-8
export LC_ALL
: "${LARDER:?names the tool}" "${LARDERD:?names the daemon}"
shim=$(cd "${BUILDDIR:-.}" && pwd)/tests/chaos/.libs/clock_shim.so
server=$(PATH=$PATH:/usr/sbin command -v redis-server) || { echo "SKIP: redis-server is not installed" && exit 77; }
[ "${SANITIZED:-no}" != yes ] || { echo "SKIP: no clock can be set under the sanitizers" && exit 77; }
[ -r "$shim" ] || { echo "SKIP: tests/chaos/clock_shim was not built" && exit 77; }
directory=$(mktemp -d /dev/shm/larder-clock.XXXXXX) || exit 1
started=()
trap 'kill "${started[@]}" 2>/dev/null; wait; rm -rf "$directory"' EXIT
mkdir -m 700 "$directory/a" "$directory/b"
printf '\xe0\x93\x04\0\0\0\0\0' >"$directory/ahead" # 300,000 ms
printf 'redis = { linger = "1ms"; };\n' >"$directory/conf"
chmod 600 "$directory/conf"
checks=0 failed=0

# on HOST COMMAND...: with that host's clock; COMMAND may begin with exec, so that $! is its pid
on() {
    if [ "$1" = a ]; then
        LD_PRELOAD=$shim LARDER_CHAOS_CLOCK=$directory/ahead "${@:2}"
    else
        "${@:2}"
    fi
}
tool() { on "$1" timeout 60 "$LARDER" -d "$directory/$1" -m m "${@:2}"; }

# within SECONDS COMMAND...: until it succeeds
within() {
    local until=$((SECONDS + $1))
    while ! "${@:2}" >/dev/null 2>&1; do
        [ $SECONDS -lt $until ] || return 1
        sleep 0.02
    done
}
says() { [ "$(tool "$1" get "$2" 2>/dev/null)" = "$3" ]; }
lacks() { ! tool "$1" get "$2" >/dev/null 2>&1; }
check() {
    checks=$((checks + 1))
    if [ "$1" -eq 0 ]; then echo "ok $checks - $2"; else echo "not ok $checks - $2" && failed=1; fi
}

"$server" --port 0 --unixsocket "$directory/redis" --save "" --dir "$directory" >/dev/null &
started+=($!)
within 30 test -S "$directory/redis" || exit 1
for host in a b; do
    on "$host" exec "$LARDERD" -c "$directory/conf" --map m --dir "$directory/$host" \
        --redis "unix://$directory/redis" 2>"$directory/$host.log" &
    started+=($!)
done
for host in a b; do
    if ! within 60 tool "$host" stat; then
        cat "$directory/$host.log"
        exit 1
    fi
done
tool b set first b
within 60 says a first b
check $? "the two are in step"

for round in 1 2 3; do
    for last in a b; do
        other=$([ $last = a ] && echo b || echo a)
        tool "$other" set "k$round" "$round-$other" && within 30 says $last "k$round" "$round-$other"
        check $? "round $round: $last has what $other wrote"
        tool $last set "k$round" "$round-$last" && within 30 says "$other" "k$round" "$round-$last"
        check $? "round $round: $other has what $last wrote over it"
        sleep 0.1
        says a "k$round" "$round-$last" && says b "k$round" "$round-$last"
        check $? "round $round: both keep it"
        tool "$other" rm "k$round" >/dev/null && within 30 lacks $last "k$round"
        check $? "round $round: what $other deletes goes on $last"
        tool $last set "k$round" again && within 30 says "$other" "k$round" again
        check $? "round $round: and what $last writes after that comes to $other"
    done
done
version=$(tool a get k3 --meta | sed -n 's/^version: \([0-9a-f]*\)-.*/\1/p')
ahead=$((0x${version:-ffffffffffff} / 65536 - $(date +%s%3N)))
[ $ahead -lt 10000 ]
check $? "versions are by Redis's clock (the last one is $ahead ms ahead)"
exit $failed
