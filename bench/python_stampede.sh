#!/usr/bin/env bash
# python_stampede.sh [ROUNDS]: a thousand coroutines of four uvicorn workers on one cold key.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build_dir=${LARDER_BUILD_DIR:-$PWD/build}
python=${PYTHON:-/usr/bin/python3}
package=$build_dir/bindings/python/package
if [ ! -e "$package/larder/.stamp" ] || ! "$python" -c 'import fastapi, gunicorn, uvicorn' 2>/dev/null; then
    echo "python_stampede.sh: needs the Python binding, FastAPI, gunicorn and uvicorn" >&2
    exit 77
fi
export PYTHONPATH=$package PYTHONDONTWRITEBYTECODE=1
exec "$python" bench/python/stampede.py "$@"
