#!/usr/bin/env bash
# peers.sh: the comparison of caches still runs: a few thousand entries, the stores that need no package of
# their own. Looks at what a reader of its output counts on: the table, a figure for each cell, the
# plot, the bars, what is said of a peer that cannot run, and that nothing stays behind.
set -euo pipefail
program=$BUILDDIR/bench/bench_peers
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    printf 'peers.sh: %s\n' "$*" >&2
    tail -n 30 "$work/out" "$work/errors" >&2
    exit 1
}
run() {
    PATH=$run_path "$program" --dir "$work/dir" --svg "$work/plot.svg" --rounds 1 --window-ms 2 "$@" \
        >"$work/out" 2>"$work/errors" || fail "failed: $*"
}
mkdir "$work/dir"
run_path=$PATH
run --peers larder,larder-cold,lmdb,table --entries 3000 --size 100
for peer in larder larder_cold lmdb table; do
    for cell in {get,set,mix}_{zipf,uniform}_{1,2}p; do
        for figure in 'mean [0-9.e+]+ ns' 'rate [0-9.e+]+ 1/s' 'p50 [0-9.e+]+ ns' 'p99 [0-9.e+]+ ns' 'p999 [0-9.e+]+ ns'; do
            grep -qE "^peers_3k_100_${cell}_${peer}_$figure\$" "$work/out" ||
                fail "no figure $figure of $peer in $cell"
        done
    done
    grep -qE "^peers_3k_100_${peer}_entry [0-9.e+]+ B\$" "$work/out" || fail "no memory of $peer"
done
grep -qE '^peers_3k_100_get_zipf_1p_larder_to_lmdb [0-9.e+]+ ratio$' "$work/out" || fail 'no ratio'
! grep -q misses "$work/out" || fail 'entries were lost'
! grep -q 'not measured' "$work/out" || fail 'a store was not measured'
grep -q '</svg>' "$work/plot.svg" || fail 'no plot'
# Nothing but figures and the harness's verdict stands behind the first figure.
sed '1,/^peers_/d' "$work/out" | grep -vE '^[a-z0-9_]+ [0-9.e+-]+ [0-9A-Za-z/%]+$|^bench_peers: ok$' &&
    fail 'something stands between the figures'

run_path=/nowhere
run --peers lmdb,redis,memcached --entries 1000 --size 2048
grep -q 'not measured: redis: redis-server is not installed' "$work/out" || fail 'redis was not missed'

run_path=$PATH
run --bars --peers larder,lmdb --entries 2000 --size 100
grep -qE '^bars_unmeasured [0-9]+ count$' "$work/out" || fail 'no sum of the bars'
grep -qE '^bar_' "$work/out" && fail 'a bar was measured with other sizes than its own'

[ -z "$(ls -A "$work/dir")" ] || fail "left behind: $(ls "$work/dir")"
! "$program" --sise 4 >"$work/out" 2>"$work/errors" || fail 'an unknown option was taken'
echo 'peers: ok'
