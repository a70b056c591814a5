#!/usr/bin/env bash
# python_miss.sh [REQUESTS]: what one miss costs a worker of FastAPI, in one process without a server around it:
# without a cache, with redis.asyncio (GET, SETEX), with larder beside larderd and Redis, and with larder alone.
# On a machine that has other things to do, as root: `chrt -f 30 bench/python_miss.sh` (seconds).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build_dir=${LARDER_BUILD_DIR:-$PWD/build}
python=${PYTHON:-/usr/bin/python3}
package=$build_dir/bindings/python/package
if [ ! -e "$package/larder/.stamp" ] || ! "$python" -c 'import fastapi, redis.asyncio, uvloop' 2>/dev/null; then
    echo "python_miss.sh: needs the Python binding, FastAPI, redis and uvloop" >&2
    exit 77
fi
command -v redis-server >/dev/null || { echo "python_miss.sh: needs redis-server" >&2; exit 77; }
export PYTHONPATH=$package PYTHONDONTWRITEBYTECODE=1 LARDERD=$build_dir/larderd
exec "$python" bench/python/miss.py "$@"
