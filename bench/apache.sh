#!/usr/bin/env bash
# apache.sh [SECONDS [ROUNDS]]: Apache httpd (prefork, 8 children) serving cached pages of 10 KiB from larder, from shmcb and
# from Redis: wrk with 4 connections over 16 addresses. larder and shmcb take turns of SECONDS each (1), ROUNDS times (25), now
# the one first, now the other: a machine's speed varies by more than the two differ, so each round is a ratio, and their median
# counts. Redis is in every fifth. Then it is stopped (SIGSTOP): the server on larder, whose larderd has that Redis, and the one on
# mod_socache_redis are asked again. Prints `name value unit` lines last.
# shellcheck source-path=SCRIPTDIR/../tests/apache source=common.bash
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
BUILDDIR=${LARDER_BUILD_DIR:-$PWD/build}
export BUILDDIR
seconds=${1:-1} rounds=${2:-25} addresses=16
for command in wrk redis-server redis-cli; do
    command -v "$command" >/dev/null || { echo "apache.sh: needs $command" >&2 && exit 77; }
done
. tests/apache/common.bash

# ---- Three servers, each in a directory of its own, and a Redis ----------------------------------

redis_port=$(free_port)
redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --dir "$scratch" >"$scratch/redis.log" 2>&1 &
redis=$!
pids+=("$redis")
check "Redis starts" wait_for redis-cli -p "$redis_port" PING
[ "$failures" = 0 ] || exit 1
head -c 10240 /dev/urandom | base64 -w 0 | head -c 10240 >"$scratch/site/page"
cat >"$scratch/pages.lua" <<'LUA'
local n = 0
request = function()
    n = (n + 7) % 16
    return wrk.format("GET", "/page?" .. n)
end
LUA

top=$scratch
declare -A ports parents
serve() { # NAME CACHE-SOCACHE-ARGUMENT
    local name=$1
    mkdir -p "$top/$name"
    ln -sfn "$top/site" "$top/$name/site"
    port=$(free_port)
    ports[$name]=$port
    scratch=$top/$name write_config prefork "CacheSocache $2
$(load "socache_$name")
MaxKeepAliveRequests 0
LogLevel crit"
    sed -i 's/^CustomLog.*//' "$top/$name/httpd.conf"
    scratch=$top/$name start_httpd
    pids+=("$httpd_pid")
    parents[$name]=$httpd_pid
    httpd_pid=''
    for ((n = 0; n < addresses; n++)); do
        get "/page?$n" >/dev/null
    done
    is_hit /page?0 || { fail "the page is not cached by $name" && exit 1; }
}
serve shmcb "shmcb:$top/shmcb/cache(67108864)" # its largest; it keeps all addresses of one scheme in a 256th of that
serve redis "redis:127.0.0.1:$redis_port"
serve larder "larder:pages(dir=$maps,size=64M)"
"$BUILDDIR/larderd" --map pages --dir "$maps" --redis "redis://127.0.0.1:$redis_port" >"$top/larderd.log" 2>&1 &
pids+=("$!")
replicates() { [ "$(redis-cli -p "$redis_port" --scan --pattern 'pages:*' | wc -l)" -ge "$addresses" ]; }
check "pages reach Redis" wait_for replicates

# ---- Rounds ----------------------------------------------------------------------------------------

cpu_of() { # NAME: seconds of processor that its children have taken
    pgrep -P "${parents[$1]}" | while read -r child; do
        cat "/proc/$child/stat" 2>/dev/null
    done | awk -v tick="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); sum += $12 + $13 } END { print sum / tick }'
}

ask() { # NAME SECONDS: requests a second, the slowest in ms, microseconds of processor a request
    local before after
    before=$(cpu_of "$1")
    wrk -t1 -c4 -d"$2s" --timeout 30s -s "$top/pages.lua" "http://127.0.0.1:${ports[$1]}/page" >"$top/wrk.out" 2>&1
    ! grep -q 'Non-2xx' "$top/wrk.out" || fail "$1: $(grep Non-2xx "$top/wrk.out")"
    after=$(cpu_of "$1")
    awk -v cpu="$(awk -v a="$after" -v b="$before" 'BEGIN { print (a - b) * 1000000 }')" '
        $1 == "Requests/sec:" { rate = $2 }
        $2 == "requests" && $3 == "in" { count = $1 }
        $1 == "Latency" { slow = $4; unit = slow; sub(/[0-9.]*/, "", unit); sub(/[a-z]*$/, "", slow)
            slow *= unit == "us" ? 0.001 : unit == "s" ? 1000 : unit == "m" ? 60000 : 1 }
        END { print rate + 0, slow + 0, (count > 0 ? cpu / count : 0) }' "$top/wrk.out"
}

for ((round = 0; round < rounds; round++)); do
    ((round % 2)) && turns=(shmcb larder) || turns=(larder shmcb)
    ((round % 5)) || turns+=(redis)
    for name in "${turns[@]}"; do
        ask "$name" "$seconds" >>"$top/$name.rounds"
        tail -n 1 "$top/$name.rounds" | sed "s/^/round $round $name: /"
    done
done
kill -STOP "$redis"
for name in larder redis; do
    ask "$name" 8 >"$top/$name.hung"
done
kill -CONT "$redis"

middle() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
median() { # NAME COLUMN
    awk -v column="$2" '{ print $column }' "$top/$1.rounds" | middle
}
to_shmcb=$(paste "$top/larder.rounds" "$top/shmcb.rounds" | awk '{ printf "%.3f\n", $1 / $4 }' | middle)
awk -v ratio="$to_shmcb" 'BEGIN { print (ratio >= 0.95 ? "met   " : "missed") " larder " ratio " x the requests/s of shmcb (0.95), round by round" }'
for name in larder shmcb redis; do
    echo "apache_${name}_rate $(median "$name" 1) requests/s"
    echo "apache_${name}_cpu $(median "$name" 3) us/request"
done
echo "apache_larder_to_shmcb $to_shmcb ratio"
for name in larder redis; do
    awk -v name="$name" '{ print "apache_" name "_hung_rate " $1 " requests/s"; if ($1 > 0) print "apache_" name "_hung_slowest " $2 " ms" }' "$top/$name.hung"
done
[ "$failures" = 0 ]
