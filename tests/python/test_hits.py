# needs: fastapi
# needs: httpx
"""The short way of a hit past FastAPI's dependencies, which a route takes from its second request on."""

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.testclient import TestClient
from larder.fastapi import FastAPILarder, cache, cache_evict, default_key_builder, get_async_redis
from larder.fastapi._factories import Shortcut


class Site:
    """An application that notes who ran."""

    def __init__(self, cache):
        self.app = FastAPI()
        self.ran = []
        FastAPILarder(self.app, cache).lifespan().caching()

    def note(self, what):
        async def dependency():
            self.ran.append(what)

        return Depends(dependency)

    def get(self, path="/page", *dependencies, on=None, **options):
        @(on or self.app).get(path, dependencies=list(dependencies), **options)
        async def endpoint():
            self.ran.append("endpoint")
            return len(self.ran)

    def asked(self, client, path="/page", **options):
        """What the cache said, and who ran for it."""
        self.ran.clear()
        response = client.get(path, **options)
        return response.headers.get("x-redis-cache", response.status_code), list(self.ran)

    def short(self, path="/page"):
        return [isinstance(route.app, Shortcut) for route in self.app.routes if route.path == path] == [True]


@pytest.fixture
def site(cache):
    return Site(cache)


def test_the_second_request_takes_it_and_is_the_same(site):
    site.get("/page", Depends(cache(ttl=60)), site.note("behind"))
    with TestClient(site.app) as client:
        assert site.asked(client) == ("MISS", ["behind", "endpoint"])
        assert site.short()
        first, second = client.get("/page"), client.get("/page")
        assert site.asked(client) == ("HIT", [])
        assert first.headers == second.headers and first.content == second.content == b"2"
        assert client.get("/page", headers={"if-none-match": first.headers["etag"]}).status_code == 304
        assert site.asked(client, headers={"cache-control": "no-store"}) == ("BYPASS", ["behind", "endpoint"])
        assert site.asked(client, "/page?a=1") == ("MISS", ["behind", "endpoint"])  # by the short way
        assert site.asked(client, "/page?a=1") == ("HIT", [])


def test_who_stands_in_front_is_asked_before_every_hit(site):
    site.get("/page", site.note("guard"), Depends(cache(ttl=60)))
    with TestClient(site.app) as client:
        assert site.asked(client) == ("MISS", ["guard", "endpoint"])
        for _ in range(3):
            assert site.asked(client) == ("HIT", ["guard"])
        assert not site.short()


def test_the_application_a_router_and_a_guard_of_the_router(site):
    plain, guarded = APIRouter(prefix="/plain"), APIRouter(prefix="/guarded", dependencies=[site.note("guard")])
    for router in plain, guarded:
        site.get("/page", Depends(cache(ttl=60)), on=router)
        site.app.include_router(router)
    with TestClient(site.app) as client:
        assert site.asked(client, "/plain/page") == ("MISS", ["endpoint"])
        assert site.asked(client, "/guarded/page") == ("MISS", ["guard", "endpoint"])
        for _ in range(2):
            assert site.asked(client, "/plain/page") == ("HIT", [])
            assert site.asked(client, "/guarded/page") == ("HIT", ["guard"])
        assert site.short("/plain/page") and not site.short("/guarded/page")


def test_overrides_are_heard_at_once_and_forgotten_at_once(site):
    fakeredis = pytest.importorskip("fakeredis.aioredis").FakeRedis()
    site.get("/page", Depends(cache(ttl=60)))
    with TestClient(site.app) as client:
        assert [site.asked(client)[0] for _ in range(3)] == ["MISS", "HIT", "HIT"]
        site.app.dependency_overrides[get_async_redis] = lambda: fakeredis
        assert [site.asked(client)[0] for _ in range(3)] == ["MISS", "HIT", "HIT"]
        site.app.dependency_overrides.clear()
        assert site.asked(client) == ("HIT", [])


def test_an_eviction_ends_it_and_a_key_builder_may_refuse(site):
    async def by_name(request: Request, group: str, prefix: str) -> str:
        if "name" not in request.query_params:
            raise HTTPException(418)
        return default_key_builder(request, group, prefix)

    site.get("/page", Depends(cache(ttl=60, eviction_group="pages", key_builder=by_name)))

    @site.app.delete("/page", dependencies=[Depends(cache_evict(eviction_group="pages"))])
    async def evict():
        return None

    with TestClient(site.app) as client:
        for _ in range(2):
            assert site.asked(client) == (418, [])
            assert site.asked(client, "/page?name=a") == ("MISS", ["endpoint"])
            assert site.asked(client, "/page?name=a") == ("HIT", [])
            assert client.delete("/page").status_code == 200


def test_head_has_no_body_and_an_error_frees_the_page(site):
    fails = [True]

    @site.app.api_route("/page", methods=["GET", "HEAD"], dependencies=[Depends(cache(ttl=60))])
    async def endpoint():
        if fails[0]:
            raise HTTPException(503)
        return "page"

    with TestClient(site.app) as client:
        assert [client.get("/page").status_code for _ in range(3)] == [503] * 3  # none waits for another
        fails[0] = False
        assert site.asked(client)[0] == "MISS"
        head, page = client.head("/page"), client.get("/page")
        assert head.headers["x-redis-cache"] == page.headers["x-redis-cache"] == "HIT"
        assert head.content == b"" and page.content == b'"page"'
        assert head.headers["content-length"] == page.headers["content-length"] == "6"


def test_another_applications_routes_are_its_own(site):
    """A mounted application without a cache of its own goes on saying so."""
    inner = FastAPI()

    @inner.get("/page", dependencies=[Depends(cache(ttl=60))])
    async def endpoint():
        return 1

    site.app.mount("/inner", inner)
    with TestClient(site.app, raise_server_exceptions=False) as client:
        assert [client.get("/inner/page").status_code for _ in range(3)] == [500] * 3
