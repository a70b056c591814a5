# needs: fastapi
# needs: httpx
"""What becomes of a page when its endpoint raises, redirects, or when others change its answer on the way
out: cookies that middleware sets, dependencies that a test has replaced."""

import asyncio
import base64
import gc
import itertools
import json
import pathlib

import httpx
import larder.fastapi
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, StreamingResponse
from fastapi.security import APIKeyHeader
from fastapi.testclient import TestClient
from larder._pages import Capture, Final, Pending
from larder.decorator import set_cache
from larder.fastapi import FastAPILarder, cache, cache_evict, cache_put
from larder.middleware import ResponseCacheMiddleware, cache_response
from starlette.datastructures import MutableHeaders
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware


@pytest.fixture
def app(cache):
    app = FastAPI()
    FastAPILarder(app, cache).caching()
    return app


def page(**options):
    return {"dependencies": [Depends(cache(ttl=600, **options))]}


def status(response):
    return response.headers.get("x-redis-cache")


# ---- Dependencies that a test has replaced


def test_an_overriding_dependency_declares_its_headers(app):
    def nobody():
        return "nobody"

    def by_header(x_user: str = Header("")):
        return x_user

    def deeper(user=Depends(nobody)):
        return user

    @app.get("/me", **page())
    def me(user=Depends(nobody)):
        return user

    @app.get("/deep", **page())
    def deep(user=Depends(deeper)):
        return user

    client = TestClient(app)
    users = ["alice", "bob"]
    for override in (by_header, APIKeyHeader(name="X-User")):
        app.dependency_overrides = {nobody: override}
        for path in ("/me", "/deep"):
            for first, second in itertools.permutations(users, 2):
                for user in (first, second, first):
                    response = client.get(path, headers={"X-User": user})
                    assert response.json() == user
                    assert "x-user" in response.headers["vary"].lower()
        assert status(client.get("/me", headers={"X-User": "bob"})) == "HIT"
    app.dependency_overrides = {}
    for _ in range(2):
        assert client.get("/me", headers={"X-User": "carol"}).json() == "nobody"


def test_overrides_in_a_circle_end(app):
    def one():
        return 1

    def two(value=Depends(one)):
        return value

    from larder.fastapi._vary import declared_headers

    @app.get("/circle", **page())
    def circle(value=Depends(one)):
        return value

    app.dependency_overrides = {one: two}
    route = next(route for route in app.routes if route.path == "/circle")
    assert declared_headers(route) == ()


# ---- Cookies that middleware sets


class Sessions:
    """Starlette's SessionMiddleware without its signature: the cookie is set where the session has
    content."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        cookie = Request(scope).cookies.get("session")
        scope["session"] = json.loads(base64.b64decode(cookie)) if cookie else {}

        async def with_cookie(message):
            if message["type"] == "http.response.start" and scope["session"]:
                data = base64.b64encode(json.dumps(scope["session"]).encode()).decode()
                MutableHeaders(scope=message).append("Set-Cookie", f"session={data}; path=/")
            await send(message)

        await self.app(scope, receive, with_cookie)


class Around(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        response = await call_next(request)
        if "csrf" in request.query_params:
            response.set_cookie("csrf", request.query_params["csrf"])
        return response


_tokens = itertools.count(1)


def routes(app, **options):
    @app.get("/form", **options)
    async def form(request: Request):
        return {"csrf": request.session.setdefault("csrf", next(_tokens))}

    @app.get("/plain", **options)
    async def plain(request: Request):
        return next(_tokens)


def own_pages(app, header="x-redis-cache"):
    """Two visitors of a form get two tokens; and a page without a cookie is kept all the same."""
    first, second = TestClient(app), TestClient(app)
    for client in (first, second):
        response = client.get("/form")
        assert response.headers[header] == "MISS" and "session=" in response.headers["set-cookie"]
        assert response.headers.get("cache-control", "private").startswith("private")
    tokens = [client.get("/form").json()["csrf"] for client in (first, second, first)]
    assert tokens[0] == tokens[2] != tokens[1]
    assert [TestClient(app).get("/plain").headers[header] for _ in range(2)] == ["MISS", "HIT"]


@pytest.mark.parametrize("order", ["before", "after", "between", "outside"])
def test_a_page_that_a_session_is_begun_with_is_nobody_elses(cache, order):
    app = FastAPI()
    if order in ("before", "between"):
        app.add_middleware(Sessions if order == "before" else GZipMiddleware)
    FastAPILarder(app, cache).lifespan().caching()
    if order in ("after", "between"):
        app.add_middleware(Sessions)
    routes(app, **page())
    own_pages(Sessions(app) if order == "outside" else app)


def test_a_cookie_by_a_middleware_of_functions(app):
    app.add_middleware(Around)

    @app.get("/page", **page(key_builder=lambda *_: "page"))
    async def endpoint():
        return next(_tokens)

    client = TestClient(app)
    one = client.get("/page?csrf=1")
    client.cookies.clear()
    two = client.get("/page")
    client.cookies.clear()
    assert status(one) == status(two) == "MISS" and one.json() != two.json()
    assert status(client.get("/page")) == "HIT"
    assert one.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("order", ["within", "around", "endpoint"])
@pytest.mark.parametrize("said", [None, "max-age=60", "public", "no-store", "private, max-age=5"])
def test_a_page_with_a_cookie_says_that_it_is_for_one(cache, order, said):
    app = FastAPI()
    if order == "within":
        app.add_middleware(Around)
    FastAPILarder(app, cache).caching()
    if order == "around":
        app.add_middleware(Around)

    @app.get("/page", **page(key_builder=lambda *_: "page"))
    async def endpoint(response: Response):
        if said is not None:
            response.headers["Cache-Control"] = said
        if order == "endpoint":
            response.set_cookie("csrf", "1")
        return next(_tokens)

    said_itself = said is not None and said.startswith(("no-store", "private"))
    for _ in range(2):
        response = TestClient(app).get("/page?csrf=1")
        assert status(response) == "MISS" and "csrf=1" in response.headers["set-cookie"]
        assert response.headers["cache-control"] == (said if said_itself else "private, no-cache")


def test_a_put_that_a_middleware_sets_a_cookie_with_only_removes_the_page(app):
    app.add_middleware(Around)
    key = {"key_builder": lambda *_: "page"}

    @app.get("/page", **page(**key))
    async def endpoint():
        return "origin"

    @app.put("/page", dependencies=[Depends(cache_put(ttl=600, **key))])
    async def put():
        return "put"

    client = TestClient(app)
    assert client.get("/page").json() == "origin"
    client.put("/page?csrf=1")
    client.cookies.clear()
    response = client.get("/page")
    assert (response.json(), status(response)) == ("origin", "MISS")
    client.put("/page")
    assert client.get("/page").json() == "put"


def test_a_mounted_application_and_its_parents_sessions(cache):
    inner, outer = FastAPI(), FastAPI()
    FastAPILarder(inner, cache).caching()
    routes(inner, **page())
    outer.add_middleware(Sessions)
    outer.mount("/inner", inner)
    clients = [TestClient(outer), TestClient(outer)]
    assert len({client.get("/inner/form").json()["csrf"] for client in clients}) == 2


def test_the_middleware_form_and_the_decorator_within_sessions(cache):
    app = FastAPI()
    app.add_middleware(ResponseCacheMiddleware, cache=cache)
    app.add_middleware(Sessions)
    routes(app)
    own_pages(app, "x-cache")
    set_cache(cache)
    app = FastAPI()
    app.add_middleware(Sessions)

    @app.get("/form")
    @cache_response(ttl=600)
    async def form(request: Request):
        return {"csrf": request.session.setdefault("csrf", next(_tokens))}

    @app.get("/plain")
    @cache_response(ttl=600)
    async def plain(request: Request):
        return next(_tokens)

    cache.clear()
    own_pages(app, "x-cache")
    set_cache(None)


# ---- Endpoints that raise


class Late(Exception):
    pass


@pytest.mark.parametrize("short", [False, True])
def test_an_exception_that_a_handler_makes_a_good_answer_of_is_no_page(app, short):
    down, pages = [], itertools.count(1)

    @app.exception_handler(Late)
    async def late(request, error):
        return JSONResponse("come back later")

    def guard():
        if "guard" in down:
            raise Late

    def endpoint():
        if "endpoint" in down:
            raise Late
        return next(pages)

    guards = [Depends(guard)]
    app.get("/", dependencies=[Depends(cache(ttl=600, eviction_group="g")), *guards])(endpoint)
    app.post("/", dependencies=[Depends(cache_evict("g")), *guards])(endpoint)
    app.put("/", dependencies=[Depends(cache_put("g", ttl=600)), *guards])(endpoint)
    client = TestClient(app)
    if short:  # the route's second request takes a shorter way
        client.get("/", headers={"cache-control": "no-store"})
    for who in ("guard", "endpoint"):
        client.post("/")
        down[:] = [who]
        for _ in range(2):
            response = client.get("/")
            assert (response.json(), status(response)) == ("come back later", "MISS")
        down.clear()
        made = client.get("/").json()
        down[:] = [who]
        for method in ("POST", "PUT"):
            assert client.request(method, "/").json() == "come back later"
        down.clear()
        response = client.get("/")
        assert (response.json(), status(response)) == (made, "HIT")


def test_a_redirect_after_a_form_evicts_and_is_no_page(app):
    posts = ["first"]

    @app.get("/blog", **page(eviction_group="blog"))
    async def blog():
        return posts

    @app.post("/blog", dependencies=[Depends(cache_evict(eviction_group="blog"))])
    async def add(text: str, fails: int = 0):
        if fails:
            raise HTTPException(fails)
        posts.append(text)
        return RedirectResponse("/blog", 303)

    @app.put("/blog", dependencies=[Depends(cache_put(eviction_group="blog", ttl=600))])
    async def put():
        posts.append("put")
        return RedirectResponse("/blog", 303)

    client = TestClient(app)
    assert client.get("/blog").json() == ["first"]
    assert client.post("/blog?text=x&fails=400").status_code == 400
    assert status(client.get("/blog")) == "HIT"
    assert client.post("/blog?text=second").json() == ["first", "second"]
    assert client.put("/blog").json() == ["first", "second", "put"]
    assert client.get("/blog").json() == ["first", "second", "put"]


# ---- What the answer says


def test_what_goes_past_the_cache_says_so_whatever_was_asked(app):
    from fastapi.responses import StreamingResponse

    @app.get("/own", **page())
    async def own():
        return JSONResponse("own", headers={"ETag": '"mine"'})

    @app.get("/stream", **page())
    async def stream():
        return StreamingResponse(iter([b"one"]), headers={"ETag": '"mine"'})

    client = TestClient(app)
    for condition in ('"mine"', "*", '"other"'):
        headers = {"If-None-Match": condition, "Cache-Control": "no-store"}
        for path in ("/own", "/stream"):
            response = client.get(path, headers=headers)
            assert (response.status_code, status(response)) == (200, "BYPASS") and response.content
        response = client.get("/stream", headers={"If-None-Match": condition})
        assert (status(response), response.content) == ("MISS", b"one")


def test_the_middleware_form_answers_head_by_what_a_get_left(cache):
    app, calls = FastAPI(), []
    app.add_middleware(ResponseCacheMiddleware, cache=cache)

    @app.api_route("/page", methods=["GET", "HEAD"])
    async def endpoint(request: Request):
        calls.append(request.method)
        return "page"

    client = TestClient(app)
    for _ in range(2):
        response = client.head("/page")
        assert response.status_code == 200 and response.headers["content-length"] == "6"
    assert calls == ["HEAD", "HEAD"] and len(list(cache.keys())) == 0
    got, head = client.get("/page"), client.head("/page")
    assert head.headers["x-cache"] == "HIT" and head.content == b"" and got.content == b'"page"'
    assert head.headers["content-length"] == "6" and head.headers["etag"] == got.headers["etag"]
    assert client.head("/page", headers={"If-None-Match": got.headers["etag"]}).status_code == 304
    assert client.get("/page").headers["x-cache"] == "HIT" and calls == ["HEAD", "HEAD", "GET"]


# ---- Who waits for whom


def at_once(app, *requests):
    """The answers to (method, path) that come in one turn of a loop."""

    async def main():
        async with httpx.AsyncClient(app=app, base_url="http://site") as client:
            return await asyncio.gather(*[client.request(*request) for request in requests])

    return asyncio.run(asyncio.wait_for(main(), 120))


@pytest.mark.parametrize("form", ["dependency", "middleware"])
def test_nobody_waits_for_the_answer_to_a_head(cache, form):
    app, calls = FastAPI(), []
    if form == "dependency":
        FastAPILarder(app, cache).caching()
    else:
        app.add_middleware(ResponseCacheMiddleware, cache=cache)

    @app.api_route("/page", methods=["GET", "HEAD"], **(page() if form == "dependency" else {}))
    async def endpoint(request: Request):
        calls.append(request.method)
        await asyncio.sleep(0.02)
        return "page"

    for _ in range(2):  # the second time by the short way
        cache.clear()
        calls.clear()
        at_once(app, *[("HEAD", "/page")] * 3, *[("GET", "/page")] * 10)
        assert sorted(calls) == ["GET", "HEAD", "HEAD", "HEAD"]


def test_a_request_does_not_wait_for_itself(cache, monkeypatch):
    """A router's cache() and a route's own, of which the latter counts; the middleware around itself."""
    monkeypatch.setattr(larder._pages, "_WAIT", 600.0)  # what ended a wait then is a lease's deadline
    app, inner, calls = FastAPI(), FastAPI(), []
    FastAPILarder(app, cache).caching()
    router = APIRouter(dependencies=[Depends(larder.fastapi.cache(ttl=600))])

    @router.get("/page", dependencies=[Depends(larder.fastapi.cache(ttl=60))])
    @inner.get("/page")
    async def endpoint():
        calls.append(1)
        return "page"

    @router.get("/two", dependencies=[Depends(cache_put(key_builder=lambda *_: name, ttl=60)) for name in "ab"])
    async def two():
        return "two"

    app.include_router(router)
    app.mount("/inner", inner)
    for one in app, inner:
        one.add_middleware(ResponseCacheMiddleware, cache=cache, cacheable_paths=["/inner"])
    client = TestClient(app)
    for path, header in ("/page", "x-redis-cache"), ("/inner/page", "x-cache"):
        for said in ("MISS", "HIT", "HIT"):
            response = client.get(path)
            assert (response.json(), response.headers[header]) == ("page", said)
    assert client.get("/two").json() == "two"
    assert len(calls) == 2 and cache.stats()["lease_takeovers"] == 0


@pytest.mark.parametrize("how", ["cookie", "outer cookie", "empty", "redirect", "stream"])
def test_a_put_that_is_not_stored_leaves_the_page_to_one(app, how):
    key, calls = {"key_builder": lambda *_: "page"}, []
    app.add_middleware(Around)

    @app.get("/page", **page(**key))
    async def endpoint():
        calls.append(1)
        await asyncio.sleep(0.02)
        return "page"

    @app.put("/page", dependencies=[Depends(cache_put(ttl=600, **key))])
    async def put():
        answer = Response(b"put", {"empty": 204, "redirect": 303}.get(how, 200))
        if how == "cookie":
            answer.set_cookie("a", "b")
        return StreamingResponse(iter([b"put"])) if how == "stream" else answer

    at_once(app, ("GET", "/page"))
    at_once(app, ("PUT", "/page?csrf=1" if how == "outer cookie" else "/page"))
    answers = at_once(app, *[("GET", "/page")] * 10)
    assert {(answer.status_code, answer.json()) for answer in answers} == {(200, "page")}
    assert len(calls) == 2


def test_streams_of_a_decorated_endpoint_wait_for_nobody(cache, monkeypatch):
    monkeypatch.setattr(larder._pages, "_WAIT", 600.0)  # as above
    app, calls, all_in = FastAPI(), [], asyncio.Event()

    @app.get("/stream")
    @cache_response(cache=cache)
    async def stream(request: Request):
        calls.append(1)
        if len(calls) == 10:
            all_in.set()
        if len(calls) > 1:
            await all_in.wait()
        await asyncio.sleep(0.02)  # the others come meanwhile
        return StreamingResponse(iter([b"stream"]))

    answers = at_once(app, *[("GET", "/stream")] * 10)
    assert {answer.content for answer in answers} == {b"stream"}
    assert cache.stats()["lease_takeovers"] == 0


# ---- Lengths


def test_an_answer_that_is_cut_short_is_not_taken_for_whole(app):
    """The server, or the client, sees it by the length that was promised. So does a HEAD by a file's."""

    @app.get("/short", **page())
    async def short():
        return StreamingResponse(iter([b"12345"]), headers={"Content-Length": "10"})

    @app.api_route("/file", methods=["GET", "HEAD"], **page())
    async def file():
        return FileResponse(__file__)

    for _ in range(2):
        answer = at_once(app, ("GET", "/short"))[0]
        assert (answer.headers["content-length"], answer.content) == ("10", b"12345")
        assert status(answer) == "MISS"
    size = str(pathlib.Path(__file__).stat().st_size)
    for method in "HEAD", "GET", "HEAD":
        assert at_once(app, (method, "/file"))[0].headers["content-length"] == size
    assert status(at_once(app, ("GET", "/file"))[0]) == "HIT"


# ---- What is left of a request


@pytest.mark.parametrize("form", ["dependency", "middleware", "decorator"])
def test_a_request_leaves_nothing_to_the_collector(app, cache, form):
    """Neither a page that is kept nor one that a cookie goes out with: what it was made of would stay,
    up to the largest body, until the collector comes."""
    set_cache(cache)
    if form == "middleware":
        app.add_middleware(ResponseCacheMiddleware, cache=cache)
    options = page() if form == "dependency" else {}

    class Cookies:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            async def with_cookie(message):
                if message["type"] == "http.response.start" and "cookie" in scope["path"]:
                    MutableHeaders(scope=message).append("set-cookie", "a=b")
                await send(message)

            await self.app(scope, receive, with_cookie)

    app.add_middleware(Cookies)

    async def endpoint(request: Request, number: str):
        return {"number": number}

    app.get("/{number}", **options)(cache_response(ttl=60)(endpoint) if form == "decorator" else endpoint)

    async def ask(path):
        statuses = []

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await app({"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
                   "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
                   "root_path": "", "server": ("shop", 80), "client": ("shop", 1),
                   "headers": [(b"host", b"shop")]}, receive, send)
        assert statuses == [200]

    async def main():
        await ask("/first")
        gc.collect()
        gc.disable()
        try:
            for number in range(5):
                await ask(f"/{number}")
                await ask(f"/{number}-cookie")
            left = [type(one) for one in gc.get_objects() if type(one) in (Pending, Final, Capture)]
        finally:
            gc.enable()
        assert left == []

    asyncio.run(main())
    assert len(list(cache.keys())) == 6  # the first and five
