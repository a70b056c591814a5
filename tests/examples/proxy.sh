#!/usr/bin/env bash
# proxy.sh: the example server as a caching reverse proxy between real HTTP clients and a real origin
# (proxy_scenes.py).
set -eu
command -v python3 >/dev/null || exit 77
exec python3 "${srcdir:-$(dirname "$0")/../..}/tests/examples/proxy_scenes.py"
