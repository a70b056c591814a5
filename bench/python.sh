#!/usr/bin/env bash
# python.sh [OPTIONS of bench/python/calls.py]: what a call from Python costs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build_dir=${LARDER_BUILD_DIR:-$PWD/build}
package=$build_dir/bindings/python/package
[ -e "$package/larder/.stamp" ] || {
    echo "python.sh: the Python binding was not built: python3-dev was not there" >&2
    exit 77
}
export PYTHONPATH=$package PYTHONDONTWRITEBYTECODE=1
exec "${PYTHON:-/usr/bin/python3}" bench/python/calls.py "$@"
