# needs: fastapi
# needs: httpx
"""Attempts to be answered with another user's page: what tells users apart may be in any part of a
request, in what a dependency makes of it, or in nothing that HTTP knows of."""

import asyncio
import itertools
import random
import types
import urllib.parse

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response, Security
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPBasic, HTTPBasicCredentials, HTTPBearer
from fastapi.testclient import TestClient
from larder.decorator import cache as cached
from larder.decorator import get_cache, set_cache
from larder.fastapi import FastAPILarder, cache, cache_evict, cache_put
from larder.fastapi._vary import declared_headers
from larder.middleware import ResponseCacheMiddleware, cache_response
from larder.sessions import Session, SessionStore


@pytest.fixture(autouse=True)
def default_map(cache):
    set_cache(cache)
    yield
    set_cache(None)


@pytest.fixture
def app(cache):
    app = FastAPI()
    FastAPILarder(app, cache).caching()
    return app


PAGE = {"dependencies": [Depends(cache(ttl=600))]}


def everybody_gets_his_own(app, path, users, said=None, method="GET"):
    """In every order of two, twice: the first request fills, the others could be given its page."""
    client = TestClient(app)
    for first, second in itertools.permutations(users, 2):
        for user in (first, second, first, second):
            client.cookies.clear()
            response = client.request(method, path, headers=users[user])
            assert response.status_code == 200, response.text
            assert response.json() == (said or (lambda user: user))(user), (first, second)


# ---- Users that dependencies know


def test_a_user_by_bearer_basic_or_cookie(app):
    bearer, basic, cookie = HTTPBearer(), HTTPBasic(), APIKeyCookie(name="sid")

    @app.get("/bearer", **PAGE)
    def by_bearer(token=Security(bearer)):
        return token.credentials

    @app.get("/basic", **PAGE)
    def by_basic(user: HTTPBasicCredentials = Depends(basic)):
        return user.username

    @app.get("/cookie", **PAGE)
    def by_cookie(sid: str = Security(cookie)):
        return sid

    users = ("alice", "bob")
    everybody_gets_his_own(app, "/bearer", {u: {"Authorization": f"Bearer {u}"} for u in users})
    basics = {"alice": "YWxpY2U6eA==", "bob": "Ym9iOng="}
    everybody_gets_his_own(app, "/basic", {u: {"Authorization": f"Basic {basics[u]}"} for u in users})
    everybody_gets_his_own(app, "/cookie", {u: {"Cookie": f"sid={u}"} for u in users})
    client = TestClient(app)
    for path in ("/bearer", "/cookie"):
        assert client.get(path).status_code in (401, 403)  # later versions: 401


def test_a_user_by_an_api_key_or_a_header_however_deep(app):
    """The endpoint says nothing of Vary: what it declares does."""
    key = APIKeyHeader(name="X-API-Key")

    def user_of(name: str = Security(key)):
        if name == "wrong":
            raise HTTPException(403)
        return name

    def deeper(user=Depends(user_of)):
        return user

    @app.get("/key", **PAGE)
    def by_key(user=Depends(deeper)):
        return user

    @app.get("/header", **PAGE)
    def by_header(x_user_name: str = Header("nobody"), cache_control: str = Header(None)):
        return x_user_name

    @app.put("/header", dependencies=[Depends(cache_put(ttl=600))])
    def put(x_user_name: str = Header("nobody")):
        return x_user_name

    @app.get("/guard", dependencies=[Depends(cache(ttl=600)), Depends(user_of)])
    def guarded():
        return "secret"

    everybody_gets_his_own(app, "/key", {u: {"X-API-Key": u} for u in ("alice", "bob")})
    everybody_gets_his_own(app, "/header", {"alice": {"X-User-Name": "alice"}, "nobody": {}})
    client = TestClient(app)
    assert "x-user-name" in client.get("/header").headers["vary"]
    client.put("/header", headers={"X-User-Name": "carol"})
    assert client.get("/header", headers={"X-User-Name": "bob"}).json() == "bob"
    assert client.get("/header", headers={"X-User-Name": "carol"}).json() == "carol"
    # A guard behind cache(): who may not see the page does not get it from the cache.
    for _ in range(3):
        assert client.get("/guard", headers={"X-API-Key": "right"}).json() == "secret"
        assert client.get("/guard", headers={"X-API-Key": "wrong"}).status_code == 403
        assert client.get("/guard").status_code in (401, 403)


def test_header_parameters_of_later_versions():
    """Since 0.115 a parameter may be a model of several headers; a model of Pydantic 2 is stood in for."""
    info = types.SimpleNamespace
    model = type("Headers", (), {"model_fields": {
        "save_data": info(alias=None), "trace": info(alias="X-Trace")}})
    several = info(field_info=info(annotation=model), alias="headers")
    one = info(field_info=info(annotation=str), alias="x-one")
    dependant = info(header_params=[several, one], dependencies=[], call=None)
    assert declared_headers(info(dependant=dependant)) == (b"save-data", b"x-one", b"x-trace")
    assert declared_headers(None) == declared_headers(info()) == ()


def test_a_user_that_only_a_middleware_knows(cache):
    """A client's certificate, say: nothing in the request tells; such pages go past the cache."""

    class Certificates:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            name = dict(scope["headers"]).get(b"x-test-certificate")
            if name:
                scope["user"] = types.SimpleNamespace(is_authenticated=True, display_name=name.decode())
            await self.app(scope, receive, send)

    def who(request):
        user = request.scope.get("user")
        return user.display_name if user else "nobody"

    app = FastAPI()
    FastAPILarder(app, cache).caching()
    app.add_middleware(ResponseCacheMiddleware, cache=cache, cacheable_paths=["/middleware"])
    app.add_middleware(Certificates)

    @app.get("/page", **PAGE)
    def page(request: Request):
        return who(request)

    @app.put("/page", dependencies=[Depends(cache_put(ttl=600))])
    def put(request: Request):
        return who(request)

    @app.get("/middleware")
    def by_middleware(request: Request):
        return who(request)

    @app.get("/one")
    @cache_response(ttl=600, cache=cache)
    async def one(request: Request):
        return who(request)

    users = {"alice": {"X-Test-Certificate": "alice"}, "bob": {"X-Test-Certificate": "bob"}, "nobody": {}}
    client = TestClient(app)
    for path in ("/page", "/middleware", "/one"):
        everybody_gets_his_own(app, path, users)
    client.put("/page", headers=users["alice"])
    everybody_gets_his_own(app, "/page", users)
    assert client.get("/page").headers["x-redis-cache"] == "HIT"  # of nobody's


def test_a_request_as_an_argument_of_a_cached_function(app):
    calls = []

    @app.get("/function")
    @cached(expire=600)
    async def function(request: Request):
        calls.append(1)
        return [request.headers.get("authorization"), request.headers.get("cookie")]

    users = {"alice": {"Authorization": "alice"}, "bob": {"Authorization": "bob"},
             "carol": {"Cookie": "sid=carol"}, "nobody": {}}
    said = {user: [headers.get("Authorization"), headers.get("Cookie")] for user, headers in users.items()}
    everybody_gets_his_own(app, "/function", users, said.get)
    assert len(calls) == len(users)
    key = function.cache_key(Request({"type": "http", "headers": [(b"cookie", b"sid=carol")]}))
    assert "carol" not in key  # a digest: keys are seen


def test_sessions_at_cached_routes(app):
    sessions = SessionStore(get_cache())

    @app.get("/profile", dependencies=[Depends(cache(ttl=600, private=True))])
    async def profile(session: Session = Depends(sessions.required)):
        return session.user_id

    @app.post("/login")
    async def login(name: str, response: Response):
        session_id, _ = await sessions.create_session(name)
        sessions.set_cookie(response, session_id)

    client = TestClient(app, base_url="https://testserver")
    users = {}
    for name in ("alice", "bob"):
        cookie = client.post(f"/login?name={name}").headers["set-cookie"].split(";")[0]
        users[name] = {"Cookie": cookie}
        client.cookies.clear()
    everybody_gets_his_own(app, "/profile", users)
    assert client.get("/profile").status_code == 401
    assert client.get("/profile", headers={"Cookie": "session_id=" + "x" * 43}).status_code == 401


# ---- What goes with an answer


def test_cookies_that_are_set_and_vary_that_is_missing(app):
    @app.get("/first-visit", **PAGE)
    def first_visit(request: Request, response: Response):
        sid = request.cookies.get("sid")
        if sid is None:
            sid = request.headers["x-new"]
            response.set_cookie("sid", sid)
        return sid

    client = TestClient(app)
    for name in ("alice", "bob", "alice"):
        client.cookies.clear()
        response = client.get("/first-visit", headers={"X-New": name})
        assert response.json() == name and f"sid={name}" in response.headers["set-cookie"]
        for _ in range(2):
            client.cookies.clear()
            response = client.get("/first-visit", headers={"Cookie": f"sid={name}"})
            assert response.json() == name and "set-cookie" not in response.headers


def test_head_and_get_at_one_route(app):
    @app.api_route("/page", methods=["GET", "HEAD"], **PAGE)
    def page(request: Request):
        who = request.headers.get("authorization", "nobody")
        return Response(b"" if request.method == "HEAD" else who.encode(), headers={"X-Who": who})

    client = TestClient(app)
    for name in ("alice", "bob", "alice", "bob"):
        headers = {"Authorization": name}
        head = client.head("/page", headers=headers)
        assert head.status_code == 200 and head.content == b"" and head.headers["x-who"] == name
        got = client.get("/page", headers=headers)
        assert got.content == name.encode() and got.headers["x-who"] == name
        assert client.head("/page", headers=headers).headers["x-who"] == name


def test_a_304_needs_ones_own_page(app):
    @app.get("/etag", **PAGE)
    def etag(request: Request, response: Response):
        response.headers["ETag"] = '"same-for-all"'
        return request.headers.get("authorization")

    client = TestClient(app)
    alice = {"Authorization": "alice"}
    assert client.get("/etag", headers=alice).json() == "alice"
    conditional = {"If-None-Match": '"same-for-all"'}
    assert client.get("/etag", headers={**alice, **conditional}).status_code == 304
    bob = client.get("/etag", headers={"Authorization": "bob", "If-None-Match": '"other"'})
    assert bob.json() == "bob"
    assert client.get("/etag", headers={"Authorization": "bob"}).json() == "bob"


def test_evictions_are_of_all_users(app):
    @app.get("/page", **PAGE)
    def page(request: Request):
        calls.append(1)
        return request.headers.get("authorization")

    @app.delete("/page", dependencies=[Depends(cache_evict(key_builder=lambda r, g, p: f"{p}:page"))])
    def delete():
        return {}

    calls = []
    client = TestClient(app)
    for round_number in range(1, 3):
        for name in ("alice", "bob", "alice", "bob"):
            assert client.get("/page", headers={"Authorization": name}).json() == name
        assert len(calls) == 2 * round_number
        client.delete("/page", headers={"Authorization": "bob"})


# ---- Paths and parameters


def scope_of(path, raw=None, query=b"", headers=(), root="", method="GET"):
    return {"type": "http", "method": method, "path": path, "query_string": query, "root_path": root,
            "headers": list(headers), **({} if raw is None else {"raw_path": raw})}


async def body_of(app, scope):
    sent = []

    async def send(message):
        sent.append(message)

    await app(scope, None, send)
    return b"".join(message.get("body", b"") for message in sent[1:])


def echo(cache):
    """The middleware around an application that answers with all that it can see of a request."""

    async def page(scope, receive, send):
        seen = [scope.get("root_path", ""), scope["path"].strip("/"), sorted(
            urllib.parse.parse_qsl(scope["query_string"].decode("latin-1"), True), key=lambda p: p[0])]
        seen += [value for name, value in scope["headers"] if name in (b"authorization", b"cookie")]
        body = repr(seen).encode("utf-8", "backslashreplace")
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    return page, ResponseCacheMiddleware(page, cache)


def test_paths_that_were_rewritten_or_mounted(cache):
    """One raw path, made two by a middleware that puts a tenant into it, and one below two mounts."""
    scopes = [
        scope_of("/me", b"/me"), scope_of("/tenants/a/me", b"/me"), scope_of("/tenants/b/me", b"/me"),
        scope_of("/me", root="/a"), scope_of("/me", root="/b"), scope_of("/me"),
        scope_of("/me", b"/a/me", root="/a"), scope_of("/me", b"/b/me", root="/b"),
        scope_of("/é", b"/%C3%A9"), scope_of("/%C3%A9", b"/%25C3%25A9"),
        scope_of("/\ufffd", b"/%FF"), scope_of("/a+b", b"/a+b"), scope_of("/a b", b"/a%20b"),
    ]

    async def main():
        page, middleware = echo(cache)
        for scope in scopes * 2:
            assert await body_of(middleware, dict(scope)) == await body_of(page, dict(scope)), scope

    asyncio.run(main())


def test_requests_at_random(cache):
    """Whatever a request looks like: the answer is that which its own origin gives."""
    generator = random.Random(11)
    pieces = ["a", "b", ":", "=", "&", "%", "{", "}", "*", "é", "\0", "\n", " ", "+", ";", "?", "#", ".", "..",
              "//", "/", "\udcff", "%3A", "%2F", "a=1"]
    names = ["authorization", "cookie", "x-user-id", "accept"]

    def text(count):
        return "".join(generator.choice(pieces) for _ in range(generator.randrange(count)))

    def quoted(value, safe=""):
        return urllib.parse.quote(value, safe=safe, errors="surrogateescape")

    def random_request():
        path = "/" + text(4)
        parameters = [(text(3), text(3)) for _ in range(generator.randrange(4))]
        query = "&".join(quoted(n) + generator.choice(["=", "=" if v else ""]) + quoted(v)
                         for n, v in parameters)
        headers = [(name.encode(), generator.choice([b"", b"1", b"a, b", b"\xff"]))
                   for name in names if generator.random() < 0.3]
        served = urllib.parse.unquote(quoted(path, "/"))
        raw = quoted(path, "/").encode() if generator.random() < 0.7 else None
        return scope_of(served, raw, query.encode(), headers)

    async def main():
        page, middleware = echo(cache)
        requests = [random_request() for _ in range(1500)]
        for scope in requests + generator.sample(requests, 1500):
            assert await body_of(middleware, dict(scope)) == await body_of(page, dict(scope)), scope

    asyncio.run(main())
    assert cache.stats()["hits"] > 1000  # and it is a cache
