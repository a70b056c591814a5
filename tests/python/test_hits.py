# needs: fastapi
# needs: httpx
"""The short way of a hit past FastAPI's dependencies, which a route takes from its second request on."""

import itertools
from typing import Optional

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from larder.fastapi import FastAPILarder, cache, cache_evict, default_key_builder, get_async_redis
from larder.fastapi._factories import Shortcut
from pydantic import BaseModel


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


def test_a_mounted_application_with_a_cache_of_its_own(directory, monkeypatch):
    """In the same map, opened by each: pages of one path below two mounts are two."""
    monkeypatch.setenv("LARDER_DIR", str(directory))
    monkeypatch.setenv("LARDER_MAP", "mounted")
    calls = itertools.count(1)
    outer = FastAPI()
    site = FastAPILarder(outer, map_size=16 << 20).lifespan().caching()
    inner = FastAPI()
    within = FastAPILarder(inner, map_size=16 << 20).caching()
    outer.mount("/inner", inner)

    for app in (outer, inner):
        @app.get("/page", dependencies=[Depends(cache(ttl=60))])
        async def endpoint():
            return next(calls)

    with TestClient(outer) as client:
        assert [client.get(path).json() for path in ("/page", "/inner/page") * 3] == [1, 2] * 3
        assert site.store().cache.stats()["entries"] == 2
    within.close()


def test_a_miss_on_the_short_way_is_answered_as_on_the_long_one(site):
    """Without the dependency whose work is done; with everything else that the route was made with."""
    looked = cache(ttl=60)

    class Page(BaseModel):
        a: str
        b: Optional[int] = None

    async def again(ignored: None = Depends(looked)):
        site.ran.append("again")

    for router in APIRouter(prefix="/plain"), APIRouter(prefix="/timed", route_class=Timed):

        @router.get("/{a}", dependencies=[Depends(looked), site.note("behind"), Depends(again)], status_code=203,
                    response_model=Page, response_model_exclude_none=True, name="the page")
        async def endpoint(a: str, request: Request, b: Optional[int] = None, x_c: str = Header("none")):
            site.ran.append("endpoint")
            return {"a": a + x_c + request.scope["route"].name, "b": b, "secret": 1}

        site.app.include_router(router)
    with TestClient(site.app) as client:
        for path in "/plain/", "/timed/":
            answers = []
            for value in "long", "short":
                assert site.asked(client, path + value, headers={"x-c": "c"}) == (
                    "MISS", ["behind", "again", "endpoint"])
                answers.append(client.get(path + value, headers={"x-c": "c"}))
                assert client.get(path + value, params={"b": "no"}).status_code == 422
                assert client.get(path + value, params={"b": 1}).json() == {"a": value + "nonethe page", "b": 1}
            assert [answer.json() for answer in answers] == [{"a": "longcthe page"}, {"a": "shortcthe page"}]
            assert {answer.status_code for answer in answers} == {203}
            timed = ["1"] * 2 if path == "/timed/" else [None] * 2
            assert [answer.headers.get("x-timed") for answer in answers] == timed


class Timed(APIRoute):
    """What FastAPI's documentation makes of a route's handler."""

    def get_route_handler(self):
        inner = super().get_route_handler()

        async def handler(request):
            response = await inner(request)
            response.headers["x-timed"] = "1"
            return response

        return handler


@pytest.mark.parametrize("fails", [False, True])
def test_a_route_that_is_not_made_again_keeps_its_dependencies(site, monkeypatch, fails):
    made = []

    class Own(APIRoute):
        def __init__(self, path, endpoint, **options):
            made.append(path)
            super().__init__(path, endpoint, **options)

    if fails:  # a later version's constructor, say
        def get_route_handler(self):
            made.append(self.path)
            if len(made) > 2:
                raise TypeError("not like that")
            return super(Failing, self).get_route_handler()

        Failing = type("Failing", (APIRoute,), {"get_route_handler": get_route_handler})
    router = APIRouter(route_class=Failing if fails else Own)
    site.get("/page", Depends(cache(ttl=60)), site.note("behind"), on=router)
    site.app.include_router(router)
    with TestClient(site.app) as client:
        for query in "", "?a", "?b":
            assert site.asked(client, "/page" + query) == ("MISS", ["behind", "endpoint"])
            assert site.asked(client, "/page" + query) == ("HIT", [])
        assert site.short() and len(made) == (3 if fails else 2)
