# needs: fastapi
# needs: uvicorn
# needs: gunicorn
# needs: redis.asyncio
"""The application that `./dev bench http` measures: every variant answers, one map is one cache for all workers,
and Redis hung changes no answer."""

import http.client
import json
import os
import pathlib
import shutil
import sys

import larder
import pytest

from conftest import wait_until

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench" / "http"))
import servers  # noqa: E402

WORKERS, SIZE = 4, 512


@pytest.fixture(scope="module")
def running():
    if not shutil.which("redis-server", path=os.environ["PATH"] + ":/usr/sbin"):
        pytest.skip("redis-server is not installed")
    with servers.Servers(os.environ.get("LARDER_TEST_DIR"), workers=WORKERS, memory_mb=64) as started:
        started.start_redis()
        started.start_larderd()
        yield started


def page(variant, number):
    """On a connection of its own: any worker may take it. The page, and what the cache says."""
    connection = http.client.HTTPConnection("127.0.0.1", variant.port, timeout=240)
    try:
        connection.request("GET", f"/page/{SIZE}/{number}")
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status == 200
        assert body["number"] == number and len(body["text"]) == SIZE and body["text"].startswith(f"page {number} x")
        return answer.getheader("x-redis-cache") or answer.getheader("x-cache")
    finally:
        connection.close()


@pytest.mark.parametrize("kind", [kind for kind in servers.KINDS if kind != "larder"])
def test_every_variant_answers_and_counts_its_origin(running, kind):
    if kind == "memcached":
        if not shutil.which("memcached"):
            pytest.skip("memcached is not installed")
        running.start_memcached()
    variant = running.start(kind, workers=2)
    try:
        said = [page(variant, number) for number in range(5) for _ in range(8)]
        calls = variant.origin_calls()
        if kind == "none":
            assert calls == 40 and set(said) == {None}
        elif kind == "dict":
            assert 5 <= calls <= 10  # once a worker
        else:
            assert calls == 5
        assert calls == 40 - said.count("HIT")
    finally:
        running.end(variant)


def refused(running):
    """Writes that the map has refused so far. On a busy machine there are some: the page is made once more."""
    with larder.Map("bench", dir=running.top / "maps", attach=True) as cache:
        stats = cache.stats()
        return stats["refused_busy"] + stats["refused_full"]


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_larders_origin_calls_do_not_grow_with_workers(running, workers):
    variant = running.start("larder", name=f"larder-{workers}", workers=workers)
    before = refused(running)
    try:
        first = 1000 * workers  # they share the map
        said = [page(variant, first + number) for number in range(10) for _ in range(12)]
        calls = variant.origin_calls()
        assert 10 <= calls <= 10 + refused(running) - before
        assert said.count("MISS") == calls and said.count("HIT") == 120 - calls
    finally:
        running.end(variant)


def test_redis_hung_changes_no_answer(running):
    variant = running.start("larder", name="larder-hung")
    before = refused(running)
    try:
        for number in range(9000, 9010):
            page(variant, number)
        wait_until(lambda: b"db1:keys" in servers.redis_command(running.redis_port, "INFO", "keyspace"), 120)
        running.hang(True)
        for number in range(9000, 9030):  # ten that are there, twenty that are not
            for _ in range(3):
                page(variant, number)
        running.hang(False)
        wait_until(lambda: servers.redis_command(running.redis_port, "PING").startswith(b"+PONG"))
        for number in range(9000, 9030):
            page(variant, number)
        assert 30 <= variant.origin_calls() <= 30 + refused(running) - before
    finally:
        running.hang(False)
        running.end(variant)


def test_what_does_not_start_says_why_and_leaves_nothing(running, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FileNotFoundError):
        with servers.Servers(os.environ.get("LARDER_TEST_DIR"), memory_mb=64) as broken:
            top = broken.top
            broken.start_redis()
    assert not top.exists()
    with pytest.raises(RuntimeError, match="BENCH_CACHE=nonsense"):
        running.start("nonsense", workers=1)
