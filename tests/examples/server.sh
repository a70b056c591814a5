#!/usr/bin/env bash
# server.sh: the example server by itself, without larderd and Redis: what is a hit and what is not,
# HEAD, other methods, a worker that is killed, an orderly end.
set -u
build=$(dirname "$LARDERD")
source=$(cd "${srcdir:-$(dirname "$0")/../..}" && pwd)
scratch=${LARDER_TEST_DIR:-$(mktemp -d)}
server=
cases=0 failed=0

trap '[ -z "$server" ] || kill -TERM "$server" 2>/dev/null; rm -rf "$scratch"' EXIT

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

# request METHOD PATH: the whole answer, as it came.
request() {
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
    printf '%s %s HTTP/1.1\r\nHost: example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' "$1" "$2" >&3
    timeout 10 cat <&3
    exec 3>&-
}

# answers METHOD PATH STATUS LARDER: and keeps the answer in $answer.
answers() {
    answer=$(request "$1" "$2" | tr -d '\r\0')
    grep -q "^HTTP/1.1 $3 " <<<"$answer" && grep -qx "X-Larder: $4" <<<"$answer" &&
        grep -qE '^X-Worker: [12]$' <<<"$answer"
}

header() { grep -qix "$1" <<<"${answer%%$'\n\n'*}"; }
body_size() { request "$1" "$2" | sed '1,/^\r$/d' | wc -c; }
workers() { tr ' ' '\n' <"/proc/$server/task/$server/children" | grep -c .; }

within() { # SECONDS CONDITION...: poll until it holds
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}
listening() { grep -q '^listening on' "$scratch/out"; }
two_workers() { [ "$(workers)" = 2 ]; }
gone() { ! kill -0 "$1" 2>/dev/null; }

printf '%s\n' 'GET /page.html 200 5000' 'GET /pic.png 200 900000' 'GET /gone.html 404 10' \
    'GET /moved 301 10' 'GET /q?a=%7Bx%7D&b=2 200 70' >"$scratch/log"
mkdir -m 700 "$scratch/maps"

start() {
    : >"$scratch/out"
    "$build/examples/server" --log "$scratch/log" --dir "$scratch/maps" --workers 2 \
        >"$scratch/out" 2>"$scratch/err" &
    server=$!
    within 20 listening || return 1
    port=$(sed -n 's/^listening on 127.0.0.1://p' "$scratch/out")
}

# Its pages expire at the next 5-minute mark, and that must not come in the middle of this.
left=$((300 - $(date +%s) % 300))
[ "$left" -gt 8 ] || sleep "$left"

if ! start; then
    echo "Bail out! the server does not start"
    cat "$scratch/err"
    exit 1
fi
check "the first GET is a miss" answers GET /page.html 200 MISS
check "its type follows the path" header 'Content-Type: text/html; charset=utf-8'
check "it may be kept until the mark" header 'Cache-Control: max-age=[0-9]*'
check "the second is a hit, whichever worker answers" answers GET /page.html 200 HIT
check "HEAD is answered from what GET stored" answers HEAD /page.html 200 HIT
check "HEAD tells the length" header 'Content-Length: 5000'
check "HEAD has no body" [ "$(body_size HEAD /page.html)" = 0 ]
check "GET has all of it" [ "$(body_size GET /page.html)" = 5000 ]
check "a large page is capped" [ "$(body_size GET /pic.png)" = 65536 ]
check "a large page is a hit, too" answers GET /pic.png 200 HIT
check "an image is an image" header 'Content-Type: image/png'
check "POST is never answered from the cache" answers POST /page.html 200 BYPASS
check "POST to a page not cached" answers POST '/q?a=%7Bx%7D&b=2' 200 BYPASS
check "and stores nothing" answers GET '/q?a=%7Bx%7D&b=2' 200 MISS
check "HEAD stores nothing" answers HEAD /moved 301 MISS
check "OPTIONS is answered" answers OPTIONS /page.html 204 BYPASS
check "a page that is not there costs a miss" answers GET /gone.html 404 MISS
check "and is then known to be absent" answers GET /gone.html 404 HIT
check "a redirection is not stored" answers GET /moved 301 MISS
check "not the second time either" answers GET /moved 301 MISS

read -r victim _ <"/proc/$server/task/$server/children"
kill -KILL "$victim"
check "a killed worker is missed" within 20 gone "$victim"
check "and replaced" within 20 two_workers
check "what was cached is still there" answers GET /page.html 200 HIT

kill -TERM "$server"
wait "$server"
status=$?
server=
check "SIGTERM ends the server with status 0" [ $status = 0 ]

if start; then
    check "the map outlives its server" answers GET /page.html 200 HIT
    kill -TERM "$server"
    wait "$server"
    server=
fi
"$build/examples/server" --log "$source/configure.ac" --dir "$scratch/maps" 2>"$scratch/err"
check "a log that is none is refused" [ $? = 1 ]
check "with file and line" grep -q 'configure.ac:[0-9]*: ' "$scratch/err"
echo "1..$cases"
[ $failed = 0 ] || cat "$scratch/err"
exit $failed
