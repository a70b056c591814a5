#!/usr/bin/env bash
# no_syscall.sh [HITS]: shows that a hit makes no system call: runs `bench_hit --strace-loop HITS` under
# strace and counts what stands between its two markers. Exits 1 if anything does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build_dir=${LARDER_BUILD_DIR:-$PWD/build}
hits=${1:-100000}
command -v strace >/dev/null || {
    echo "no_syscall.sh: needs strace" >&2
    exit 77
}
trace=$(mktemp)
trap 'rm -f "$trace"' EXIT
strace -f -o "$trace" "$build_dir/bench/bench_hit" --strace-loop "$hits" --entries 10000 >/dev/null
begins=$(grep -c 'write(-1, "hits begin"' "$trace" || true)
ends=$(grep -c 'write(-1, "hits end"' "$trace" || true)
if [ "$begins" != 1 ] || [ "$ends" != 1 ]; then
    echo "no_syscall.sh: the markers are not in the trace" >&2
    exit 1
fi
calls=$(sed -n '/write(-1, "hits begin"/,/write(-1, "hits end"/p' "$trace" | sed '1d;$d')
count=$(grep -c . <<<"$calls" || true)
[ "$count" = 0 ] || printf '%s\n' "$calls" | head -n 20
echo "no_syscall_hits $hits count"
echo "no_syscall_calls $count count"
[ "$count" = 0 ]
