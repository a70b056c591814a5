# needs: fastapi
# needs: httpx
"""What another host has put into Redis, in a loop: two maps of one name are two hosts here, each with
its larderd, on one Redis."""

import asyncio
import os
import signal
import subprocess

import httpx
import larder
import pytest
from fastapi import Depends, FastAPI
from larder.fastapi import CacheBackend, FastAPILarder, LarderStore, cache

from conftest import insist, wait_until
from served import Redis


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 120))


@pytest.fixture
def hosts(directory):
    """Two maps, connected."""
    redis = Redis(directory, "shared")
    second = directory / "second"
    second.mkdir(mode=0o700)
    redis.daemons.append(subprocess.Popen(
        [os.environ["LARDERD"], "-c", str(directory / "larderd.conf"), "--map", "shared", "--dir", str(second),
         "--redis", f"unix://{redis.socket}"], stderr=subprocess.DEVNULL))
    maps = []
    for where in directory, second:
        wait_until(lambda: (where / "shared" / "control").exists())
        maps.append(insist(lambda: larder.Map("shared", dir=where)))
        wait_until(lambda: maps[-1].stats()["redis_up"])
    yield (*maps, redis)
    for opened in maps:
        opened.close()
    redis.stop()


async def until(condition):
    deadline = asyncio.get_running_loop().time() + 60
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.001)


def sent(cache):
    wait_until(lambda: cache.stats()["dirty"] == 0)


def site_of(cache, calls):
    # A host that is busy is no failure of this: it gets as long as it takes.
    app = FastAPI()
    FastAPILarder(app, cache, read_through=30).caching()

    @app.get("/page/{n}", dependencies=[Depends(larder_page)])
    async def page(n: int):
        calls.append(n)
        return n

    return httpx.AsyncClient(app=app, base_url="http://site")


larder_page = cache(ttl=600)


def test_a_page_of_another_host_is_everybodys_hit(hosts):
    first, second, _ = hosts
    calls = []

    async def main():
        async with site_of(first, calls) as client:
            assert (await client.get("/page/1")).headers["x-redis-cache"] == "MISS"
        sent(first)
        asked = second.stats()
        async with site_of(second, calls) as client:
            pages = await asyncio.gather(*[client.get("/page/1") for _ in range(20)])
            assert {page.headers["x-redis-cache"] for page in pages} == {"HIT"}
            assert {page.content for page in pages} == {b"1"}
            # ... and one that no host has: made once, whoever else waits for it
            pages = await asyncio.gather(*[client.get("/page/2") for _ in range(20)])
            assert sorted(page.headers["x-redis-cache"] for page in pages) == ["HIT"] * 19 + ["MISS"]
        return asked

    asked = run(main())
    assert calls == [1, 2]
    now = second.stats()
    assert now["read_through_absent"] - asked["read_through_absent"] == 1  # by the one with the lease
    # the event may have been there before anybody asked
    assert now["read_through_found"] - asked["read_through_found"] <= 1


def test_values_of_another_host(hosts):
    first, second, redis = hosts

    async def main():
        for key in "a", "b":
            first.set(key, b"v", ttl=600)
        sent(first)
        assert await second.get_async("a", read_through=30) == b"v"
        assert await second.fetch_async("b", lambda: b"mine", read_through=30) == b"v"
        assert await second.get_async("none", b"d", read_through=30) == b"d"
        assert not await second.ask_redis("none", 30) and not await second.ask_redis("none", 0)

    run(main())


def test_an_update_begins_with_what_redis_has(hosts):
    first, _, redis = hosts
    backend = CacheBackend(LarderStore(first, 30))

    async def main():
        assert await backend.update("none", lambda n: n + 1, default=0, ttl=600) == 1
        sent(first)
        assert redis.said("SET", "shared:" + backend._key("n", None), "41") == "OK"
        assert await backend.update("n", lambda n: n + 1, default=0, ttl=600) == 42

    run(main())


def test_who_asks_and_is_cancelled_leaves_the_page_to_others(hosts):
    """Redis hangs, and the one who asked goes: the lease is not its any more."""
    _, second, redis = hosts
    calls = []

    async def main():
        async with site_of(second, calls) as client:
            await client.get("/page/0")  # the next ones come by the short way
            redis.process.send_signal(signal.SIGSTOP)
            try:
                asking = asyncio.ensure_future(client.get("/page/1"))
                await until(lambda: len(second.watch()._waiting) == 1)
                waiting = asyncio.ensure_future(client.get("/page/1"))
                await until(lambda: len(second.watch()._waiting) == 2)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            finally:
                redis.process.send_signal(signal.SIGCONT)
            assert (await waiting).content == b"1"

    run(main())
    assert calls == [0, 1] and second.stats()["lease_takeovers"] == 0
