#!/usr/bin/env bash
# demo.sh: the demo in short, on a real Redis: it says ok, shows its figures, leaves neither process
# nor file; told to stop in the middle it leaves nothing either; a wrong program is a failure.
set -u
build=$(dirname "$LARDERD")
source=$(cd "${srcdir:-$(dirname "$0")/../..}" && pwd)
scratch=${LARDER_TEST_DIR:-$(mktemp -d)}
cases=0 failed=0

command -v redis-server >/dev/null || {
    echo "no redis-server"
    exit 77
}
demo=
trap '[ -z "$demo" ] || kill -TERM "$demo" 2>/dev/null; rm -rf "$scratch"' EXIT

check() { # NAME CONDITION...
    local name=$1
    shift
    cases=$((cases + 1))
    if "$@"; then
        echo "ok $cases - $name"
    else
        echo "not ok $cases - $name"
        failed=1
    fi
}

# The demo's directory is made in here, so that its programs and files are known by their names.
place=$scratch/demo
log=$scratch/access.log
mkdir "$place"
cat "$source/examples/access.log" >"$log"
export LARDER_DEMO_DIR=$place
run=("$source/examples/demo.sh" "$build" --log "$log")
processes() { # those with the demo's directory in their arguments
    cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -cF "$place/larder-demo."
}
files() { find "$place" -mindepth 1 | wc -l; }
nothing_left() { [ "$(processes)" = 0 ] && [ "$(files)" = 0 ]; }
within() { # SECONDS CONDITION...: poll until it holds
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}
says() { [ -e "$scratch/out" ] && grep -qE -- "$1" "$scratch/out"; }
lines() { [ "$(grep -cE -- "$1" "$scratch/out")" -ge "$2" ]; }

"${run[@]}" --seconds 9 --requests 1500 >"$scratch/out" 2>&1 &
demo=$!
check "it runs" within 30 says '^ +[0-9.]+ s +before'
check "its programs are found" [ "$(processes)" -ge 4 ]
check "its files are found" [ "$(files)" -ge 4 ]
wait $demo
status=$?
demo=
check "the demo succeeds" [ $status = 0 ]
check "no request fails" says '^ +errors +0 +0 +0 +0$'
check "all requests are answered" says '^ +requests +500 +500 +500 +1500$'
check "it shows the outage while it lasts" lines 'Redis down .*redis DOWN' 1
check "the outbox filled" says 'outbox: .*peak [1-9]'
check "the outbox drained" says 'outbox drained [0-9.]+ s after'
check "the empty Redis was filled again" says 'every entry of the map again [0-9.]+ s after'
check "map and Redis are the same" says 'equal=[1-9][0-9]* .*missing=0 different=0 extra=0'
check "every worker served" [ "$(grep -cE '^  [1-4] +[1-9][0-9]* +[0-9.]+$' "$scratch/out")" = 4 ]
check "it leaves nothing behind" within 10 nothing_left
[ $failed = 0 ] || cat "$scratch/out"

rm "$scratch/out" # what one run said is not what the next says
# A machine that stands still for a while is slow, and no failure: the workers do, past the planned end.
workers() { # and their parent
    local file arguments
    for file in /proc/[0-9]*/cmdline; do
        arguments=$(tr '\0' ' ' 2>/dev/null <"$file")
        [[ $arguments != *"$place/larder-demo."*--workers* || $arguments == *--larderd* ]] || basename "${file%/cmdline}"
    done
}
"${run[@]}" --seconds 3 --requests 300 --workers 2 >"$scratch/out" 2>&1 &
demo=$!
check "a short one runs" within 30 says '^ +[0-9.]+ s +(before|Redis down|after)'
stopped=$(workers)
# shellcheck disable=SC2086 # a word a process
kill -STOP $stopped
sleep 19
# shellcheck disable=SC2086
kill -CONT $stopped
wait $demo
status=$?
demo=
check "who stands still for 19 seconds is waited for" [ $status = 0 ]
[ $status = 0 ] || cat "$scratch/out"

rm "$scratch/out"
"${run[@]}" --seconds 60 >"$scratch/out" 2>&1 &
demo=$!
check "it runs again" within 30 says '^ +[0-9.]+ s +before'
kill -TERM $demo
wait $demo
status=$?
demo=
check "told to stop, it says so by its status" [ $status = 143 ]
check "and leaves nothing behind" within 10 nothing_left

echo 'GET /page 200 zwölf' >"$log"
"${run[@]}" --seconds 5 >"$scratch/out" 2>&1
check "a broken log is an error" [ $? = 1 ]
check "that names the line" says 'access.log:1: '
echo "1..$cases"
exit $failed
