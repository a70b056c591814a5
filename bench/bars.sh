#!/usr/bin/env bash
# bars.sh [OPTIONS of bench_peers]: what the library is held to beside its peers, measured in one run of
# interleaved rounds: each bar with its figure, met or missed. Exits 0 either way; figures come last.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build_dir=${LARDER_BUILD_DIR:-$PWD/build}
"$build_dir/bench/bench_peers" --bars "$@" | sed '/^bench_peers: ok$/d'
