#!/usr/bin/env bash
# http.sh [OPTIONS of bench/http/run.py]: pages of a FastAPI application under gunicorn with 4 uvicorn workers, cached by
# larder.fastapi, redis.asyncio, a dict in each worker, memcached, and not at all; wrk asks for 10,000 addresses by Zipf's
# law (0.9), pages of 0.5 and 50 KiB whose origin takes 5 ms. Then the same for larder while Redis hangs for 10 s at a time,
# in turn with phases in which it does not. About four minutes. Any answer but 200 makes the figures void (exit 1). Prints
# tables, whether each bar is met, and `name value unit` lines last. What it starts it stops. On a machine that has other
# things to do, as root: `setsid --wait bash -c 'echo -20 > /proc/self/autogroup; exec bench/http.sh'`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build_dir=${LARDER_BUILD_DIR:-$PWD/build}
python=${PYTHON:-/usr/bin/python3}
package=$build_dir/bindings/python/package
missing=()
[ -e "$package/larder/.stamp" ] || missing+=("the Python binding (python3-dev)")
for module in fastapi gunicorn uvicorn redis.asyncio; do
    "$python" -c "import $module" 2>/dev/null || missing+=("Python's $module")
done
for command in wrk redis-server; do
    command -v "$command" >/dev/null || missing+=("$command")
done
if [ ${#missing[@]} -gt 0 ]; then
    printf 'http.sh: needs %s\n' "${missing[@]}" >&2
    exit 77
fi
for module in uvloop httptools hiredis; do
    "$python" -c "import $module" 2>/dev/null || echo "without $module: the pure Python form of it is measured"
done
export PYTHONPATH=$package PYTHONDONTWRITEBYTECODE=1 LARDERD=$build_dir/larderd
exec "$python" bench/http/run.py "$@"
