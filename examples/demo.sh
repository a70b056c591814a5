#!/bin/sh
# demo.sh: runs larder's demo out of a build directory and leaves nothing behind.
#
#     examples/demo.sh BUILD_DIR [--seconds S] [--requests N] [--clients N] [--workers N] [--log FILE]
#
# Replays the access log named by --log or $LARDER_DEMO_LOG (.xz or plain), else a real one where the
# source tree has it beside it, else examples/access.log. All files (map, Redis, logs) live in one
# directory in $LARDER_DEMO_DIR or on a memory file system, removed in the end; examples/demo.c ends
# the programs.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/sbin:/sbin # redis-server is there for some
work=
demo=

# Whatever happens: end the demo (by its process id; it ends its programs), then remove the files.
clean_up() {
    status=$?
    trap - EXIT
    trap '' INT TERM HUP # once is enough
    if [ -n "$demo" ] && kill -TERM "$demo" 2>/dev/null; then
        wait "$demo" || [ "$status" -ne 0 ] || status=$?
    fi
    [ -z "$work" ] || rm -rf "$work"
    exit "$status"
}

die() {
    echo "demo.sh: $*" >&2
    exit 1
}

# The first directory with room for map, Redis's files and logs; memory is preferred.
make_work() {
    for place in ${LARDER_DEMO_DIR:+"$LARDER_DEMO_DIR"} /dev/shm "${TMPDIR:-/tmp}"; do
        free=$(df -Pk "$place" 2>/dev/null | awk 'NR == 2 { print $4 }')
        if [ -w "$place" ] && [ "${free:-0}" -ge 262144 ]; then
            work=$(mktemp -d "$place/larder-demo.XXXXXX")
            return
        fi
    done
    die "neither /dev/shm nor ${TMPDIR:-/tmp} has 256 MiB free"
}

choose_log() {
    real=$here/../../shared/traces/apache_access.txt.xz
    if [ -z "$log" ] && [ -r "$real" ] && command -v xz >/dev/null; then
        log=$real
    fi
    log=${log:-$here/access.log}
    [ -r "$log" ] || die "cannot read $log"
    log_name=$(basename "$log")
    case $log in
    *.xz)
        xz -dc "$log" >"$work/access.log"
        log=$work/access.log
        ;;
    esac
}

[ $# -ge 1 ] || die "usage: demo.sh BUILD_DIR [--seconds S] [--requests N] [--clients N] [--workers N] [--log FILE]"
[ -d "$1" ] || die "there is no build directory $1"
build=$(cd "$1" && pwd)
shift
log=${LARDER_DEMO_LOG:-}
seconds=42 requests='' clients=12 workers=4
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die "$1 needs a value"
    case $1 in
    --seconds) seconds=$2 ;;
    --requests) requests=$2 ;;
    --clients) clients=$2 ;;
    --workers) workers=$2 ;;
    --log) log=$2 ;;
    *) die "unknown option $1" ;;
    esac
    shift 2
done
for program in larderd examples/server examples/compare examples/demo; do
    [ -x "$build/$program" ] || die "$build/$program is not there: build first (./dev build)"
done
command -v redis-server >/dev/null || die "redis-server is not installed"

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
make_work
choose_log

echo "larder demo: $workers pre-forked workers share one map; pages cost 20 ms at their origin and"
echo "are kept until the next 5-minute mark. Redis is killed at one third and comes back, empty, at"
echo "two thirds. Nobody should notice."
echo
set -- --work "$work" --log "$log" --log-name "$log_name" --larderd "$build/larderd" \
    --server "$build/examples/server" --compare "$build/examples/compare" \
    --seconds "$seconds" --clients "$clients" --workers "$workers" ${requests:+--requests "$requests"}
"$build/examples/demo" "$@" &
demo=$!
status=0
wait "$demo" || status=$?
demo=
exit "$status"
