#!/usr/bin/env bash
# proxy_hostile.sh: the example server as a caching reverse proxy between clients and an origin that are
# wrong, slow or malicious (proxy_hostile_scenes.py).
set -eu
command -v python3 >/dev/null || exit 77
exec python3 "${srcdir:-$(dirname "$0")/../..}/tests/examples/proxy_hostile_scenes.py"
