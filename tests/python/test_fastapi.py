# needs: fastapi
# needs: httpx
"""larder.fastapi: cache(), cache_evict(), cache_put() and CacheBackend at routes of a real application,
over a map and over a (fake) Redis client."""

import asyncio
import contextlib
import datetime
import logging
import threading

import httpx
import larder
import larder.fastapi
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from larder.fastapi import (
    CacheBackend,
    CacheBackendDep,
    FastAPILarder,
    FastAPIRedis,
    Redis,
    cache,
    cache_evict,
    cache_put,
    default_key_builder,
    get_async_redis,
    pydantic_model_coder,
)
from pydantic import BaseModel
from starlette.middleware.gzip import GZipMiddleware


class Product(BaseModel):
    name: str
    price: float


class Site:
    """An application whose every page counts how often its endpoint ran."""

    def __init__(self):
        self.app = FastAPI()
        self.calls = 0

    def call(self):
        self.calls += 1
        return self.calls


def fake_redis():
    aioredis = pytest.importorskip("fakeredis.aioredis")
    return aioredis.FakeRedis()


@pytest.fixture(params=["map", "redis"])
def site(request, cache, directory):
    site = Site()
    FastAPILarder(site.app, cache).lifespan().caching()
    if request.param == "redis":
        client = fake_redis()
        site.app.dependency_overrides[get_async_redis] = lambda: client
    with TestClient(site.app) as site.client:
        yield site


def status(response):
    return response.headers.get("x-redis-cache")


def products(site):
    """The seed's three factories on one path."""

    @site.app.get(
        "/products/{product_id}",
        dependencies=[Depends(cache(ttl=300, eviction_group="products"))],
    )
    async def get_product(product_id: int):
        return {"id": product_id, "call": site.call()}

    @site.app.delete(
        "/products/{product_id}",
        dependencies=[
            Depends(cache_evict(eviction_group="products", key_builder=default_key_builder))
        ],
    )
    def delete_product(product_id: int):
        if product_id == 404:
            raise HTTPException(404)
        return {"deleted": product_id}

    @site.app.put(
        "/products/{product_id}",
        dependencies=[
            Depends(
                cache_put(eviction_group="products", key_builder=default_key_builder, ttl=300)
            )
        ],
    )
    async def replace_product(product_id: int, body: Product, response: Response):
        if body.price < 0:
            raise HTTPException(422)
        response.status_code = 201
        return body

    @site.app.post(
        "/admin/clear-products", dependencies=[Depends(cache_evict(eviction_group="products"))]
    )
    async def clear_products():
        return {"ok": True}


def test_a_hit_does_not_run_the_endpoint(site):
    products(site)
    first, second = site.client.get("/products/1"), site.client.get("/products/1")
    assert (status(first), status(second)) == ("MISS", "HIT")
    assert first.json() == second.json() == {"id": 1, "call": 1} and site.calls == 1
    assert first.headers["cache-control"] == "max-age=300"
    assert 200 <= int(second.headers["cache-control"].split("=")[1]) <= 300
    assert first.headers["etag"] == second.headers["etag"] == larder._larder.http_etag(first.content)
    assert first.headers["content-type"] == second.headers["content-type"]
    assert second.headers["content-length"] == str(len(second.content))


def test_an_eviction_of_a_key_and_of_a_group(site):
    products(site)
    for path in ("/products/1", "/products/2"):
        site.client.get(path)
    assert site.client.delete("/products/1").json() == {"deleted": 1}
    assert status(site.client.get("/products/1")) == "MISS"
    assert status(site.client.get("/products/2")) == "HIT"
    assert site.client.post("/admin/clear-products").status_code == 200
    assert status(site.client.get("/products/1")) == "MISS"
    assert status(site.client.get("/products/2")) == "MISS"


def test_a_failed_endpoint_changes_nothing(site):
    products(site)
    site.client.get("/products/404")
    assert site.client.delete("/products/404").status_code == 404
    assert site.client.put("/products/404", json={"name": "x", "price": -1}).status_code == 422
    assert status(site.client.get("/products/404")) == "HIT"


def test_a_put_is_the_next_gets_page(site):
    products(site)
    site.client.get("/products/1")
    put = site.client.put("/products/1", json={"name": "pear", "price": 2})
    assert put.status_code == 201 and put.headers["etag"]
    got = site.client.get("/products/1")
    assert (got.status_code, status(got)) == (200, "HIT")
    assert got.json() == {"name": "pear", "price": 2.0} and site.calls == 1
    again = site.client.get("/products/1", headers={"If-None-Match": put.headers["etag"]})
    assert again.status_code == 304


def test_a_put_that_may_not_be_stored_removes_the_old_page(site):
    products(site)

    @site.app.put("/products/{product_id}/cookie",
                  dependencies=[Depends(cache_put(key_builder=lambda r, g, p: p + ":own"))])
    def put(product_id: int, response: Response):
        response.set_cookie("a", "b")
        return {}

    @site.app.get("/own", dependencies=[Depends(cache(key_builder=lambda r, g, p: p + ":own"))])
    def own():
        return site.call()

    site.client.get("/own")
    site.client.put("/products/1/cookie")
    site.client.cookies.clear()
    assert status(site.client.get("/own")) == "MISS"


def test_what_a_client_asks_of_the_cache(site):
    products(site)
    get = lambda **headers: site.client.get("/products/1", headers=headers)
    etag = get().headers["etag"]
    for value in (etag, f'"other", {etag}', "*", etag[2:]):
        response = get(**{"If-None-Match": value})
        assert response.status_code == 304 and response.content == b"", value
        assert set(response.headers) == {"etag", "cache-control", "vary", "x-redis-cache"}
    assert get(**{"If-None-Match": '"other"'}).status_code == 200
    bypassed = get(**{"Cache-Control": "no-store"})
    assert status(bypassed) == "BYPASS" and bypassed.json()["call"] == 2
    assert get().json()["call"] == 1  # and nothing was stored
    for value in ("no-cache", "max-age=0"):
        calls = site.calls
        refreshed = get(**{"Cache-Control": value})
        assert status(refreshed) == "MISS" and refreshed.json()["call"] == calls + 1
        assert get().json()["call"] == calls + 1
    assert status(get(**{"Cache-Control": "max-age=100"})) == "HIT"
    assert status(get(**{"Cache-Control": "max-age=nonsense"})) == "HIT"


def test_ttl_zero_private_prefix_and_own_etag(site):
    @site.app.get("/zero", dependencies=[Depends(cache())])
    def zero():
        return site.call()

    @site.app.get("/private", dependencies=[Depends(cache(ttl=60, private=True))])
    def private():
        return site.call()

    @site.app.get("/etag", dependencies=[Depends(cache(ttl=datetime.timedelta(minutes=1)))])
    def etag(response: Response):
        response.headers["ETag"] = '"mine"'
        return site.call()

    assert site.client.get("/zero").headers["cache-control"] == "no-cache"
    assert status(site.client.get("/zero")) == "HIT"
    assert site.client.get("/private").headers["cache-control"] == "private, max-age=60"
    hit = site.client.get("/private")
    assert status(hit) == "HIT" and hit.headers["cache-control"].startswith("private, max-age=")
    assert site.client.get("/etag").headers["etag"] == '"mine"'
    assert site.client.get("/etag").headers["etag"] == '"mine"'
    assert site.client.get("/etag", headers={"If-None-Match": '"mine"'}).status_code == 304


def test_keys(site):
    seen = []

    def spy(request, group, prefix):
        seen.append(default_key_builder(request, group, prefix))
        return seen[-1]

    async def spy_async(request, group, prefix):
        return spy(request, group, prefix)

    @site.app.get("/api/v1/items/", dependencies=[Depends(cache(key_builder=spy))])
    def items():
        return site.call()

    @site.app.get("/items", dependencies=[Depends(
        cache(eviction_group="products", prefix="own:prefix", key_builder=spy_async))])
    def grouped():
        return site.call()

    @site.app.post("/clear", dependencies=[
        Depends(cache_evict(eviction_group="products", prefix="own:prefix"))])
    def clear():
        return {}

    site.client.get("/api/v1/items/")
    site.client.get("/items?z=2&a=1")
    site.client.get("/items?a=1&z=2")
    site.client.get("/items?a=1&a=0&x=%3A")
    assert seen == [
        "redis:fastapi:cache:api:v1:items",
        "own:prefix:{products}:items:a=1:z=2",
        "own:prefix:{products}:items:a=1:z=2",
        "own:prefix:{products}:items:a=1:a=0:x=%3A",
    ]
    assert site.calls == 3
    site.client.post("/clear")
    assert status(site.client.get("/items?z=2&a=1")) == "MISS"


def test_groups_with_strange_names(site):
    for group in ("a", "ab", "a}b", "a{*", "%", "*", "é"):
        site.app.get(f"/of/{len(group)}/{group.encode().hex()}",
                     dependencies=[Depends(cache(eviction_group=group))])(site.call)
        site.app.post(f"/clear/{group.encode().hex()}",
                      dependencies=[Depends(cache_evict(eviction_group=group))])(lambda: {})
    pages = [route.path for route in site.app.routes if route.path.startswith("/of/")]
    for page in pages:
        assert status(site.client.get(page)) == "MISS"
    site.client.post("/clear/" + b"a".hex())
    site.client.post("/clear/" + b"*".hex())
    missed = [page for page in pages if status(site.client.get(page)) == "MISS"]
    assert missed == ["/of/1/61", "/of/1/2a"]


def test_what_is_never_stored(site):
    def page(path, **more):
        return site.app.get(path, dependencies=[Depends(cache(ttl=60))], **more)

    @page("/cookie")
    def cookie(response: Response):
        response.set_cookie("session", str(site.call()))
        return {}

    @page("/error")
    def error():
        site.call()
        raise HTTPException(503)

    @page("/stream")
    def stream():
        site.call()
        return StreamingResponse(iter([b"one", b"two"]))

    @page("/vary")
    def vary(response: Response):
        response.headers["Vary"] = "*"
        return site.call()

    @page("/no-store")
    def no_store(response: Response):
        response.headers["Cache-Control"] = "no-store"
        return site.call()

    @page("/private")
    def private(response: Response):
        response.headers["Cache-Control"] = "private"
        return site.call()

    @page("/raises")
    def raises():
        site.call()
        raise ZeroDivisionError

    for path in ("/cookie", "/error", "/stream", "/vary", "/no-store", "/private"):
        calls = site.calls
        for _ in range(3):
            response = site.client.get(path)
            site.client.cookies.clear()
            assert status(response) == "MISS", path
        assert site.calls == calls + 3, path
    assert site.client.get("/stream").content == b"onetwo"
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            site.client.get("/raises")


@pytest.mark.parametrize("error, tries", [(ZeroDivisionError("origin"), 2), (HTTPException(503), 1)])
def test_requests_of_an_origin_that_fails_queue_behind_nobody(cache, monkeypatch, error, tries):
    """Where it raises, one of those who wait tries, then all others at once; an answer that is not for
    the cache lets all go at once."""
    monkeypatch.setattr(larder._pages, "_WAIT", 600.0)  # which would end a queue, too
    app, running = FastAPI(), []
    FastAPILarder(app, cache).caching()

    @app.get("/page", dependencies=[Depends(larder.fastapi.cache(ttl=60))])
    async def page():
        own = asyncio.Event()
        running.append(own)
        await own.wait()
        raise error

    async def until(count):
        deadline = asyncio.get_running_loop().time() + 60
        while len(running) < count:
            assert asyncio.get_running_loop().time() < deadline, f"{len(running)} run, not {count}"
            await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(running) == count

    async def main():
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
            requests = [asyncio.ensure_future(client.get("/page")) for _ in range(20)]
            for _ in range(tries):
                await until(1)
                running.pop().set()
            await until(20 - tries)
            for own in running:
                own.set()
            assert {answer.status_code for answer in await asyncio.gather(*requests)} <= {500, 503}

    asyncio.run(main())
    assert cache.stats()["lease_takeovers"] == 0  # nor was it a lease's deadline


def test_bodies_are_exact(site):
    bodies = {"binary": bytes(range(256)) * 10, "empty": b"", "utf8": "héé".encode(),
              "large": bytes(300_000)}

    @site.app.get("/body/{name}", dependencies=[Depends(cache(ttl=60))])
    def body(name: str):
        site.call()
        response = Response(bodies[name], media_type="application/x-thing")
        response.raw_headers += [(b"x-two", b"1"), (b"x-two", b"2")]
        return response

    for name, content in bodies.items():
        for expected in ("MISS", "HIT"):
            response = site.client.get(f"/body/{name}")
            assert response.content == content and status(response) == expected
            assert response.headers["content-type"] == "application/x-thing"
            assert response.headers.get_list("x-two") == ["1", "2"]


def test_larger_than_the_limit(cache):
    site = Site()
    FastAPILarder(site.app, cache, max_body=1000).caching()

    @site.app.get("/{size}", dependencies=[Depends(larder.fastapi.cache(ttl=60))])
    def page(size: int):
        site.call()
        return Response(bytes(size))

    client = TestClient(site.app)
    for size in (1000, 1001):
        assert [len(client.get(f"/{size}").content) for _ in range(2)] == [size] * 2
    assert status(client.get("/1000")) == "HIT"


def test_vary_and_compression(cache):
    site = Site()
    site.app.add_middleware(GZipMiddleware, minimum_size=10)
    FastAPILarder(site.app, cache).caching()  # caches what the compressor made

    @site.app.get("/page", dependencies=[Depends(larder.fastapi.cache(ttl=60))])
    def page():
        return {"text": "x" * 1000, "call": site.call()}

    client = TestClient(site.app)
    plain = {"Accept-Encoding": "identity"}
    zipped = {"Accept-Encoding": "gzip"}
    for headers, encoding in ((zipped, "gzip"), (plain, None), (zipped, "gzip"), (plain, None)):
        response = client.get("/page", headers=headers)
        assert response.headers.get("content-encoding") == encoding
        assert response.json()["text"] == "x" * 1000
    assert site.calls == 2


def test_a_missing_setup_says_so(cache):
    app = FastAPI()
    app.get("/x", dependencies=[Depends(larder.fastapi.cache(ttl=60))])(lambda: 1)
    with pytest.raises(RuntimeError, match="FastAPILarder"):
        TestClient(app).get("/x")
    FastAPILarder(app, cache)
    with pytest.raises(RuntimeError, match="caching"):
        TestClient(app).get("/x")
    for wrong in (-1, "60"):
        with pytest.raises((ValueError, TypeError), match="ttl"):
            larder.fastapi.cache(ttl=wrong)
    with pytest.raises(ValueError, match="cache_evict"):
        cache_evict()


def test_trouble_is_not_the_applications(cache, caplog):
    site = Site()
    FastAPILarder(site.app, cache).caching()
    client = TestClient(site.app)

    class Broken:
        def __getattr__(self, name):
            async def broken(*arguments, **named):
                raise ConnectionError("redis is down")

            return broken

    products(site)
    site.app.dependency_overrides[get_async_redis] = Broken
    broken = Broken()
    site.app.dependency_overrides[get_async_redis] = lambda: broken
    with caplog.at_level(logging.INFO, logger="larder"):
        for i in range(3):
            assert client.get("/products/1").json() == {"id": 1, "call": i + 1}
        assert client.delete("/products/1").json() == {"deleted": 1}
        assert client.put("/products/1", json={"name": "a", "price": 1}).status_code == 201
    assert len([r for r in caplog.records if "going on without" in r.getMessage()]) == 1
    site.app.dependency_overrides.clear()
    cache.close()
    assert client.get("/products/1").status_code == 200


def test_a_map_that_cannot_be_opened_is_a_miss(directory, caplog):
    site = Site()
    (directory / "file").write_bytes(b"")
    FastAPILarder(site.app, "m", dir=directory / "file").lifespan().caching().health("/health")
    products(site)

    @site.app.get("/count")
    async def count(backend: CacheBackendDep):
        assert await backend.get("n") is None and not await backend.delete("n")
        return await backend.update("n", lambda n: n + 1, default=0)

    with caplog.at_level(logging.WARNING, logger="larder"), TestClient(site.app) as client:
        assert [client.get("/products/1").json()["call"] for _ in range(3)] == [1, 2, 3]
        assert client.delete("/products/1").json() == {"deleted": 1}
        assert client.put("/products/1", json={"name": "a", "price": 1}).status_code == 201
        assert client.post("/admin/clear-products").status_code == 200
        assert client.get("/count").json() == 1
        assert client.get("/health").json()["cache"] == "unavailable"
    assert len([r for r in caplog.records if "cannot be opened" in r.getMessage()]) <= 2


def test_a_request_without_a_key_goes_past_the_cache(site):
    products(site)
    query = "&".join("a" for _ in range(1025))
    assert status(site.client.get(f"/products/1?{query}")) == "BYPASS"
    assert site.client.get(f"/products/1?{query}").json()["call"] == 2
    assert site.client.delete(f"/products/1?{query}").status_code == 200
    put = site.client.put(f"/products/1?{query}", json={"name": "a", "price": 1})
    assert put.status_code == 201


def test_a_put_that_another_overtook_is_not_stored(cache):
    site, began, gate = Site(), threading.Event(), threading.Event()
    FastAPILarder(site.app, cache).caching()
    key = {"key_builder": lambda request, group, prefix: "own"}

    @site.app.put("/{n}", dependencies=[Depends(cache_put(ttl=60, **key))])
    def put(n: int):
        if n == 1:
            began.set()
            assert gate.wait(60)
        return n

    @site.app.get("/", dependencies=[Depends(larder.fastapi.cache(ttl=60, **key))])
    def get():
        return 2

    client = TestClient(site.app)
    slow = threading.Thread(target=lambda: TestClient(site.app).put("/1"))
    slow.start()
    assert began.wait(60)
    assert client.put("/2").json() == 2 and client.get("/").json() == 2
    gate.set()
    slow.join()
    assert client.get("/").json() == 2


def raced(cache, between):
    """A PUT of a page that is not there, with something between its endpoint and its answer; what a
    GET gives then, and whether it was a hit."""
    site, began, gate = Site(), threading.Event(), threading.Event()
    FastAPILarder(site.app, cache).caching()
    products(site)

    @site.app.put("/slow/{n}", dependencies=[Depends(
        cache_put("products", key_builder=lambda *_: "own", ttl=60))])
    def put(n: int):
        began.set()
        assert gate.wait(60)
        return n

    @site.app.get("/own", dependencies=[Depends(
        larder.fastapi.cache(60, "products", key_builder=lambda *_: "own"))])
    def get():
        return "origin"

    @site.app.delete("/own", dependencies=[Depends(
        cache_evict("products", key_builder=lambda *_: "own"))])
    def delete():
        return {}

    client = TestClient(site.app)
    slow = threading.Thread(target=lambda: TestClient(site.app).put("/slow/1"))
    slow.start()
    assert began.wait(60)
    between(client)
    gate.set()
    slow.join()
    got = client.get("/own")
    return got.json(), status(got)


@pytest.mark.parametrize("between", [
    lambda client: client.delete("/own"),
    lambda client: (client.get("/own"), client.delete("/own")),
    lambda client: client.post("/admin/clear-products"),
    lambda client: (client.get("/own"), client.post("/admin/clear-products")),
])
def test_a_put_does_not_bring_back_what_was_evicted_meanwhile(cache, between):
    assert raced(cache, between) == ("origin", "MISS")


def test_a_put_of_a_page_that_was_not_there_is_the_next_gets(cache):
    assert raced(cache, lambda client: None) == (1, "HIT")
    cache.clear()
    # and where others made the page meanwhile, nobody knows which is newer
    assert raced(cache, lambda client: client.get("/own")) == ("origin", "MISS")


def test_a_page_that_was_begun_before_a_put_is_not_stored_after_it(cache):
    site, began, gate = Site(), threading.Event(), threading.Event()
    FastAPILarder(site.app, cache).caching()
    key = {"key_builder": lambda *_: "own"}
    source = ["old"]

    @site.app.get("/own", dependencies=[Depends(larder.fastapi.cache(ttl=60, **key))])
    def get():
        value = source[0]
        if value == "old":
            began.set()
            assert gate.wait(60)
        return value

    @site.app.put("/own", dependencies=[Depends(cache_put(ttl=60, **key))])
    def put(response: Response, cookie: bool = False):
        source[0] = "new"
        if cookie:  # not for the cache
            response.set_cookie("a", "b")
        return "new"

    client = TestClient(site.app)
    for path in ("/own", "/own?cookie=1"):
        cache.clear()
        source[0] = "old"
        slow = threading.Thread(target=lambda: TestClient(site.app).get("/own"))
        slow.start()
        assert began.wait(60)
        client.put(path)
        client.cookies.clear()
        gate.set()
        slow.join()
        assert client.get("/own").json() == "new"
        began.clear()
        gate.clear()


@pytest.mark.parametrize("comes", [True, False])
def test_who_comes_between_a_puts_note_and_its_page_waits_a_moment(cache, comes):
    """For the page, and where it does not come no longer than that."""
    site = Site()
    FastAPILarder(site.app, cache).caching()
    key = {"key_builder": lambda *_: "own"}

    @site.app.get("/own", dependencies=[Depends(larder.fastapi.cache(ttl=60, **key))])
    async def get():
        return f"call {site.call()}"

    async def main():
        noted, whole = asyncio.Event(), asyncio.Event()

        @site.app.put("/own", dependencies=[Depends(cache_put(ttl=60, **key))])
        async def put():
            async def body():  # begun when the answer has: the note stands
                noted.set()
                await whole.wait()
                yield b'"put"'

            return StreamingResponse(body(), media_type="application/json", headers={"content-length": "5"})

        async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app=site.app), base_url="http://site") as client:
            assert (await client.get("/own")).json() == "call 1"
            answer = asyncio.ensure_future(client.put("/own"))
            await noted.wait()
            loop = asyncio.get_running_loop()
            began = loop.time()
            if comes:
                loop.call_later(0.01, whole.set)
            requests = [client.head("/own"), *[client.get("/own") for _ in range(10)]]
            _, *got = await asyncio.gather(*requests)
            took = loop.time() - began
            whole.set()
            assert (await answer).json() == "put"
            return [(response.json(), status(response)) for response in got], took

    got, took = asyncio.run(asyncio.wait_for(main(), 60))
    if comes:
        assert got == [("put", "HIT")] * 10 and site.calls == 1
    else:
        assert all(page != "put" for page, _ in got) and site.calls > 1
        assert sum(larder._pages._PAUSES) <= took < 5  # where a lease is waited for, for 10 s


# ---- CacheBackend


def test_the_backend_at_a_route(site):
    @site.app.get("/items/{item_id}")
    async def get_item(item_id: int, cache: CacheBackendDep):
        cached = await cache.get(f"item:{item_id}", eviction_group="items")
        if cached is not None:
            return cached
        item = {"status": "published" if item_id else "draft", "call": site.call()}
        if item["status"] == "published":
            await cache.set(f"item:{item_id}", item, ttl=300, eviction_group="items")
        return item

    @site.app.post("/clear")
    async def clear(cache: CacheBackendDep):
        return await cache.delete_group("items")

    assert [site.client.get("/items/1").json()["call"] for _ in range(2)] == [1, 1]
    assert [site.client.get("/items/0").json()["call"] for _ in range(2)] == [2, 3]
    site.client.get("/items/2")
    assert site.client.post("/clear").json() == 2
    assert site.client.get("/items/1").json()["call"] == 5


@pytest.mark.parametrize("kind", ["map", "redis"])
def test_the_backend(cache, kind):
    async def main():
        backend = CacheBackend(cache if kind == "map" else fake_redis())
        for value in (None, False, 0, "", [], {}, {"a": [1, 2.5, "é"]}):
            await backend.set("k", value, ttl=60)
            assert await backend.get("k", default="no") == value and await backend.has("k")
        assert await backend.get("none", default="d") == "d" and not await backend.has("none")
        assert await backend.delete("k") and not await backend.delete("k")
        when = datetime.datetime(2020, 1, 2)
        await backend.set("model", {"when": when, "p": Product(name="a", price=1)},
                          ttl=datetime.timedelta(minutes=30))
        assert (await backend.get("model"))["p"] == {"name": "a", "price": 1.0}
        for group in ("a", "ab", "a*", "[a]"):
            await backend.set("k", group, eviction_group=group)
        assert await backend.delete_group("a") == 1
        assert await backend.delete_group("a*") == 1
        assert await backend.get("k", eviction_group="ab") == "ab"
        assert await backend.get("k", eviction_group="[a]") == "[a]"
        with pytest.raises(ValueError, match="without a group"):
            await backend.delete_group("")
        with pytest.raises(ValueError, match="negative"):
            await backend.set("k", 1, ttl=-1)
        await backend.store.set(backend._key("bad", None), b"\xff not json", {}, None)
        assert await backend.get("bad", default="d") == "d"
        assert [await backend.update("n", lambda n: n + 1, default=0) for _ in range(3)] == [1, 2, 3]
        typed = CacheBackend(backend.store, pydantic_model_coder(Product))
        await typed.set("p", Product(name="a", price=1))
        assert await typed.get("p") == Product(name="a", price=1)
        await backend.set("p", {"name": "without a price"})
        assert await typed.get("p") is None

    asyncio.run(main())


def test_a_miss_an_outage_and_nonsense_are_one_to_the_caller_and_three_in_the_figures(cache):
    async def main():
        backend = CacheBackend(cache)
        before = larder.fastapi.figures(cache)
        assert await backend.get("none", default="d") == "d"
        missed = larder.fastapi.figures(cache)
        assert missed["misses"] > before["misses"]
        await backend.store.set(backend._key("bad", None), b"\xff not json", {}, None)
        assert await backend.get("bad", default="d") == "d"

        class Out:
            async def get(self, key):
                raise ConnectionError

        assert await CacheBackend(Out()).get("k", default="d") == "d"
        after = larder.fastapi.figures(cache)
        assert after["misses"] == missed["misses"]
        changed = {name: after["process"][name] - before["process"][name]
                   for name in ("failed", "undecodable", "bypassed")}
        assert changed == {"failed": 1, "undecodable": 1, "bypassed": 0}

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["map", "redis"])
def test_a_key_without_a_group_is_in_none(cache, kind):
    async def main():
        backend = CacheBackend(cache if kind == "map" else fake_redis(), prefix="p")
        keys = ["{x}:b:k", "%7Bx}:b:k", "%257Bx}:b:k", "{", "%", "k"]
        await backend.set("b:k", "of x", eviction_group="x")
        assert await backend.get("{x}:b:k") is None and not await backend.has("{x}:b:k")
        for key in keys:
            await backend.set(key, key)
        assert [await backend.get(key) for key in keys] == keys
        assert await backend.get("b:k", eviction_group="x") == "of x"
        assert await backend.delete_group("x") == 1
        assert [await backend.get(key) for key in keys] == keys

    asyncio.run(main())


def test_a_values_key_is_a_pages(site):
    """So a value's deletion is a page's, as redis_fastapi has it."""
    products(site)

    @site.app.post("/cascade/{product_id}")
    async def cascade(product_id: int, cache: CacheBackendDep):
        return await cache.delete(f"products:{product_id}", eviction_group="products")

    site.client.get("/products/1")
    assert site.client.post("/cascade/1").json() is True
    assert status(site.client.get("/products/1")) == "MISS"


def test_the_store_by_the_name_of_redis(site):
    @site.app.get("/has")
    async def has(key: str, redis: Redis = Depends(get_async_redis)):
        return await larder.fastapi.CacheBackend(redis).has(key)

    assert site.client.get("/has?key=a").json() is False
    assert issubclass(larder.fastapi.LarderStore, Redis) and issubclass(larder.fastapi.RedisStore, Redis)


@pytest.mark.parametrize("how", ["refused", "cancelled"])
def test_a_group_is_evicted_whatever_keeps_it_from_being_counted(cache, monkeypatch, how):
    async def main():
        backend, waits = CacheBackend(cache), asyncio.Event()
        for n in range(300):
            await backend.set(str(n), n, eviction_group="g")
        keys = type(cache).keys

        def failing(self, prefix):
            yield from keys(self, prefix)
            raise larder.BusyError("busy")

        async def sleep(_):
            waits.set()
            await asyncio.Event().wait()

        if how == "refused":
            monkeypatch.setattr(type(cache), "keys", failing)
            assert await backend.delete_group("g") == 0
        else:
            monkeypatch.setattr(larder._store.asyncio, "sleep", sleep)
            task = asyncio.ensure_future(backend.delete_group("g"))
            await waits.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert not await backend.has("0", eviction_group="g")

    asyncio.run(main())


def test_updates_of_a_client_that_decodes_are_kept():
    aioredis = pytest.importorskip("fakeredis.aioredis")

    async def main():
        backend = CacheBackend(aioredis.FakeRedis(decode_responses=True))
        for number in range(1, 4):
            assert await backend.update("n", lambda n: n + 1, default=0) == number
            assert await backend.get("n") == number

    asyncio.run(main())


def test_updates_do_not_lose_each_other(cache):
    async def main():
        async def add(backend):
            for _ in range(50):
                await backend.update("n", lambda n: n + 1, default=0, eviction_group="g")
                await asyncio.sleep(0)

        await asyncio.gather(*[add(CacheBackend(cache)) for _ in range(10)])
        return await CacheBackend(cache).get("n", eviction_group="g")

    assert asyncio.run(main()) == 500


# ---- Setting up


def test_the_seeds_test_runs_with_the_import_changed():
    fakeredis = pytest.importorskip("fakeredis.aioredis")
    app = FastAPI()
    FastAPIRedis(app).caching()

    @app.get("/items", dependencies=[Depends(cache(ttl=60))])
    async def get_items():
        return {"items": [1, 2, 3]}

    fake = fakeredis.FakeRedis()
    app.dependency_overrides[get_async_redis] = lambda: fake
    with TestClient(app) as client:
        r1 = client.get("/items")
        assert r1.headers["X-Redis-Cache"] == "MISS"
        r2 = client.get("/items")
        assert r2.headers["X-Redis-Cache"] == "HIT"


def test_lifespan_and_health(directory, monkeypatch, caplog):
    monkeypatch.setenv("LARDER_DIR", str(directory))
    monkeypatch.setenv("LARDER_MAP", "from-environment")
    monkeypatch.setenv("REDIS_PREFIX", "mine")
    monkeypatch.setenv("REDIS_DEFAULT_TTL", "120")
    monkeypatch.setenv("REDIS_URL", "redis://localhost:1")
    monkeypatch.setattr(larder.fastapi._settings, "settings", larder.fastapi.Settings())
    happened = []
    app = FastAPI(on_startup=[lambda: happened.append("start")],
                  on_shutdown=[lambda: happened.append("stop")])

    @contextlib.asynccontextmanager
    async def also(app):
        happened.append("open" if not builder.store().cache.closed else "closed")
        yield
        happened.append("open" if not builder.store().cache.closed else "closed")

    builder = FastAPILarder(app, map_size=16 << 20).lifespan(also).caching().health("/health")

    @app.get("/x", dependencies=[Depends(cache())])
    def page(request: Request):
        return default_key_builder(request, "", larder.fastapi.get_settings().pattern_prefix("cache"))

    with TestClient(app) as client:
        first = client.get("/x")
        assert first.json() == "mine:cache:x" and first.headers["cache-control"] == "max-age=120"
        health = client.get("/health")
        assert health.status_code == 200
        assert health.json()["redis"] == "disconnected" and health.json()["status"] == "degraded"
        assert health.json()["entries"] == 1
        opened = builder.store().cache
        assert (directory / "from-environment").is_dir()
    assert opened.closed and happened == ["start", "open", "open", "stop"]


@pytest.mark.parametrize("name", ["X-Mine", ""])
def test_the_status_headers_name(cache, monkeypatch, name):
    settings = larder.fastapi.Settings({"LARDER_CACHE_HEADER": name})
    monkeypatch.setattr(larder.fastapi._settings, "settings", settings)
    site = Site()
    FastAPILarder(site.app, cache).caching()
    products(site)
    client = TestClient(site.app)
    for expected in ("MISS", "HIT"):
        response = client.get("/products/1")
        assert "x-redis-cache" not in response.headers
        assert response.headers.get("x-mine") == (expected if name else None)
    assert site.calls == 1


def test_settings_say_what_is_wrong():
    for environment in ({"REDIS_DEFAULT_TTL": "x"}, {"REDIS_DEFAULT_TTL": "-1"},
                        {"REDIS_WARN_UNBOUNDED_CACHE": "maybe"}):
        with pytest.raises(ValueError, match=next(iter(environment))):
            larder.fastapi.Settings(environment)
    settings = larder.fastapi.Settings({"REDIS_WARN_UNBOUNDED_CACHE": "False"})
    assert settings.warn_unbounded_cache is False and settings.prefix == "redis:fastapi"


def test_routes_without_a_ttl_are_told_of(cache, caplog):
    app = FastAPI()
    FastAPILarder(app, cache).lifespan().caching()
    app.get("/x", dependencies=[Depends(larder.fastapi.cache())])(lambda: 1)
    with caplog.at_level(logging.WARNING, logger="larder"), TestClient(app):
        pass
    assert "without a TTL" in caplog.text
