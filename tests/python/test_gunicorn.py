# needs: fastapi
# needs: httpx
# needs: uvicorn
# needs: gunicorn
"""examples/fastapi/shop.py under gunicorn with four uvicorn workers, as its users run it."""

import asyncio
import os
import pathlib
import shutil
import tempfile

import pytest

from served import WORKERS, Redis, Served, ask, run, until_redis_is


@pytest.fixture(scope="module")
def shop():
    directory = pathlib.Path(
        tempfile.mkdtemp(prefix="shop-", dir=os.environ.get("LARDER_TEST_DIR") or "/dev/shm"))
    running = Served(directory, "shop")
    yield running
    running.stop()
    shutil.rmtree(directory, ignore_errors=True)


def test_one_workers_page_is_every_workers_hit(shop):
    async def main():
        async with shop.client() as client:
            first = await client.get("/products/1")
            assert first.headers["x-redis-cache"] == "MISS"
            pages = await ask(client, "/products/1", 60)
            assert {page.headers["x-redis-cache"] for page in pages} == {"HIT"}
            assert {page.content for page in pages} == {first.content}
            assert {page.headers["etag"] for page in pages} == {first.headers["etag"]}

    run(main())
    assert shop.origin("product:1") == 1


def test_a_stampede_of_requests_asks_the_origin_once(shop):
    async def main():
        async with shop.client() as client:
            pages = await ask(client, "/products/2", 80)
            assert {page.status_code for page in pages} == {200}
            assert len({page.content for page in pages}) == 1

    run(main())
    assert shop.origin("product:2") == 1


def test_a_thousand_coroutines_ask_the_origin_once(shop):
    async def main():
        async with shop.client() as client:
            answers = [page.json() for page in await ask(client, "/stampede/a?callers=250", WORKERS)]
            assert [answer["right"] for answer in answers] == [250] * WORKERS

    run(main())
    assert shop.origin("stampede:a") == 1


def test_what_one_worker_writes_or_evicts_holds_for_all(shop):
    async def main():
        async with shop.client() as client:
            await ask(client, "/products/3", 4)
            put = await client.put("/products/3", json={"name": "pear", "price": 2})
            assert put.status_code == 200
            assert {page.json()["name"] for page in await ask(client, "/products/3", 20)} == {"pear"}
            await client.delete("/products/3")
            await client.get("/products/3")
            assert shop.origin("product:3") == 2
            await client.post("/admin/clear-products")
            assert (await client.get("/products/3")).headers["x-redis-cache"] == "MISS"
            views = await asyncio.gather(*[client.post("/products/3/view") for _ in range(40)])
            assert sorted(view.json()["views"] for view in views) == list(range(1, 41))
            for _ in range(3):
                await ask(client, "/dashboard/7", 4)
                await ask(client, "/prices", 4)
            assert (await client.get("/settings/x")).json() == {"value": "default-value"}

    run(main())
    assert shop.origin("orders:7") <= 4  # cache-aside, without a lease: those who came at once


def test_no_page_goes_to_another_user(shop):
    async def main():
        async with shop.client() as client:
            users = [f"user-{number}" for number in range(8)]
            jobs = [(user, cookie) for user in users for cookie in (None, "c=1", "c=2")] * 3

            async def one(user, cookie):
                headers = {"Authorization": user, **({"Cookie": cookie} if cookie else {})}
                page = await client.get("/me", headers=headers)
                assert page.json() == {"user": user, "cookie": cookie}
                assert page.headers["cache-control"].startswith("private")
                return page.headers["x-redis-cache"]

            seen = await asyncio.gather(*[one(*job) for job in jobs])
            assert (await client.get("/me")).status_code == 401
            return seen

    assert "HIT" in run(main())


def test_redis_may_die_in_the_middle(shop):
    redis = Redis(shop.directory, "shop")

    async def main():
        async with shop.client() as client:
            await until_redis_is(client, "connected")
            assert (await client.get("/products/10")).headers["x-redis-cache"] == "MISS"
            redis.kill()
            for number in range(10, 30):
                pages = await ask(client, f"/products/{number}", 4)
                assert {page.status_code for page in pages} == {200}
                assert len({page.content for page in pages}) == 1
            assert (await until_redis_is(client, "disconnected"))["status"] == "degraded"
            pages = await ask(client, "/products/10", 20)
            assert {page.headers["x-redis-cache"] for page in pages} == {"HIT"}

    try:
        run(main())
        for number in range(10, 30):
            assert shop.origin(f"product:{number}") == 1
    finally:
        redis.stop()
