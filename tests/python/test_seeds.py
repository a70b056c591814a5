# needs: fastapi
# needs: httpx
"""The jobs of applications that cached in Redis by hand, done with larder: decorators, aligned expiry,
backends, middleware, invalidation by pattern and tag, events, TTL strategies."""

import asyncio
import dataclasses
import datetime
import enum
import json
import threading
import time
import uuid
from typing import List

import larder
import pytest
from fastapi import BackgroundTasks, FastAPI, Request, Response
from fastapi.testclient import TestClient
from larder.backends import LarderBackend
from larder.decorator import cache as cached
from larder.events import CacheEventBus
from larder.invalidation import CacheInvalidator
from larder.middleware import ResponseCacheMiddleware, cache_response
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

pytestmark = pytest.mark.usefixtures("default_map")


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 120))


# ---- Decorators


def test_a_coroutine_function_is_kept(cache):
    calls = []

    @cached(expire=30)
    async def get_data(user_id: int, details=False):
        calls.append(user_id)
        return {"id": user_id, "details": details}

    async def main():
        for _ in range(2):
            assert await get_data(1) == {"id": 1, "details": False}
            assert await get_data(user_id=1) == {"id": 1, "details": False}
        assert await get_data("1") == {"id": "1", "details": False}
        assert await get_data(True) == {"id": True, "details": False}
        await asyncio.gather(*[get_data(7) for _ in range(100)])

    run(main())
    assert calls == [1, "1", True, 7]
    assert 0 < cache.lookup(get_data.cache_key(1)).ttl <= 30


def test_a_plain_function_is_kept(cache):
    calls = []

    @cached(ttl=datetime.timedelta(minutes=10), prefix="users")
    def get_user(user_id):
        calls.append(user_id)
        return {"name": f"User {user_id}"}

    assert [get_user(i)["name"] for i in (1, 2, 1)] == ["User 1", "User 2", "User 1"]
    assert calls == [1, 2]
    assert next(cache.keys("users:")).startswith(b"users:test_seeds.")


def test_a_value_expires_at_the_next_mark(cache):
    def next_five_minutes():
        return (int(time.time()) // 300 + 1) * 300

    @cached(every=300)
    def marked():
        return 1

    @cached(expire_at=next_five_minutes)
    def computed():
        return 1

    @cached(expire_at=lambda: datetime.datetime.now() + datetime.timedelta(hours=1))
    def later():
        return 1

    for function in (marked, computed):
        function()
        assert cache.lookup(function.cache_key()).expires % 300 == 0
    later()
    assert 3500 < cache.lookup(later.cache_key()).ttl <= 3601


def test_what_is_injected_is_no_part_of_a_key():
    class Session:
        pass

    calls = []

    @cached(expire=30, ignore=["session"])
    async def page(request: Request, tasks: BackgroundTasks, response, session, number: int):
        calls.append(number)
        return number

    async def main():
        for _ in range(3):
            request = Request({"type": "http", "headers": [], "method": "GET", "path": "/"})
            assert await page(request, BackgroundTasks(), Response(), Session(), 1) == 1
        assert await page(None, None, None, None, 2) == 2

    run(main())
    assert calls == [1, 2]
    with pytest.raises(TypeError, match="ignore"):
        cached(expire=30, ignore="session")


@dataclasses.dataclass
class Account:
    id: int


@dataclasses.dataclass
class Tenant:
    id: int


def test_no_value_goes_to_another_user():
    class Repository:
        def __init__(self, tenant):
            self.tenant = tenant

        @cached(expire=30)
        def get(self, key):
            return [self.tenant, key]

    class Color(enum.Enum):
        RED = 1

    class Model(BaseModel):
        id: int
        secret: str = Field("", exclude=True)

    @cached(expire=30)
    def orders(user):
        return repr(user)

    users = [Account(1), Account(2), Tenant(1), [Account(1)], {Account.__name__}, Color.RED, 1,
             Model(id=1), Model(id=1, secret="s"), {"a": Account(1)}, {"a": Account(2)}]
    assert [orders(user) for user in users] == [repr(user) for user in users]
    assert len({orders.cache_key(user) for user in users}) == len(users)
    for unknown in (object(), Repository("a"), [object()], {object()}, {"a": object()},
                    Exception("a"), Account(object())):
        with pytest.raises(TypeError, match="'user'.*key_builder"):
            orders(unknown)
    with pytest.raises(TypeError, match="'self'.*Repository.*key_builder"):
        Repository("a").get(5)


def test_what_cannot_be_decoded_is_replaced(cache):
    calls = []

    @cached(expire=30)
    def plain():
        calls.append("plain")
        return 1

    @cached(expire=30)
    async def coroutine():
        calls.append("coroutine")
        return 2

    for function in (plain, coroutine):
        cache.set(function.cache_key(), b"\xffnot json")
    assert [plain() for _ in range(3)] == [1] * 3
    assert [run(coroutine()) for _ in range(3)] == [2] * 3
    assert calls == ["plain", "coroutine"]


def test_arguments_of_all_kinds_have_keys_of_their_own():
    @cached(expire=30)
    def f(*args, **kwargs):
        return 0

    day = datetime.date(2020, 1, 1)
    keys = [f.cache_key(*args, **kwargs) for args, kwargs in [
        ((), {}), ((1,), {}), (("1",), {}), ((True,), {}), ((1.0,), {}), ((None,), {}), ((b"1",), {}),
        (([1],), {}), (([[1]],), {}), (({1: 2},), {}), (({"1": 2},), {}), (({1},), {}), ((day,), {}),
        ((str(day),), {}), ((uuid.UUID(int=1),), {}), ((), {"a": 1}), ((), {"b": 1}), (("x" * 999,), {}),
        (("x" * 998,), {}), (("a:b",), {}), (("a", "b"), {}), (("a,b",), {})]]
    assert len(set(keys)) == len(keys) and max(map(len, keys)) < 600


def test_none_models_tags_and_errors(cache):
    class User(BaseModel):
        name: str

    calls = []

    @cached(expire=30)
    def none():
        calls.append("none")

    @cached(expire=30, cache_none=False)
    def not_none():
        calls.append("not none")

    @cached(expire=30, model=User, tags=lambda user_id: [f"user:{user_id}"], group="users")
    def user(user_id):
        calls.append(user_id)
        return User(name="a")

    @cached(expire=30, key_builder=lambda user_id: f"user:{user_id}:details")
    def custom(user_id):
        return user_id

    @cached(expire=30)
    def big():
        return "x" * (9 << 20)

    @cached(expire=30)
    def fails():
        calls.append("fails")
        raise ZeroDivisionError

    assert none() is None and none() is None and not_none() is None and not_none() is None
    assert user(1) == User(name="a") and user(1) == User(name="a")
    cache.invalidate_tag("user:1")
    assert user(1) == User(name="a")
    assert calls == ["none", "not none", "not none", 1, 1]
    assert custom(5) == 5 and cache.get("user:5:details") == b"5"
    assert len(big()) == 9 << 20
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fails()
    assert calls[-2:] == ["fails", "fails"]
    cache.set(custom.cache_key(6), b"\xffnot json")
    assert custom(6) == 6


class Kind(type):
    """Of a model of Pydantic 2, as its documentation has it: what is deprecated there fails."""

    @property
    def __fields__(cls):
        raise AssertionError("__fields__ is deprecated")


class Model2(metaclass=Kind):
    model_fields = {"name": None}

    def __init__(self, name):
        self.name = name

    def __eq__(self, other):
        return self.name == other.name

    def model_dump(self, mode="python"):
        assert mode == "json"
        return {"name": self.name}

    @classmethod
    def model_validate_json(cls, data):
        return cls(json.loads(data)["name"])

    def dict(self, *args):
        raise AssertionError("dict() is deprecated")

    json = parse_raw = dict


def test_models_of_pydantic_2(cache, monkeypatch):
    """By a stand-in with the documented names; the real one is not in Debian 12."""
    calls = []

    @cached(expire=30, model=Model2)
    def twice(model):
        calls.append(model.name)
        return Model2(model.name * 2)

    assert [twice(Model2(name)) for name in ("a", "a", "b")] == [Model2("aa"), Model2("aa"), Model2("bb")]
    assert calls == ["a", "b"]

    class TypeAdapter:
        def __init__(self, kind):
            self.kind = kind

        def validate_json(self, data):
            return [self.kind.__args__[0](**item) for item in json.loads(data)]

    monkeypatch.setattr("pydantic.TypeAdapter", TypeAdapter, raising=False)

    @cached(expire=30, model=List[Model2])
    def several():
        calls.append("several")
        return [Model2("a"), Model2("b")]

    assert [several() for _ in range(2)] == [[Model2("a"), Model2("b")]] * 2 and calls[2:] == ["several"]


def test_lists_of_models(cache):
    class User(BaseModel):
        name: str

    calls = []

    @cached(expire=30, model=List[User])
    def users():
        calls.append(1)
        return [User(name="a"), User(name="b")]

    assert [users() for _ in range(2)] == [[User(name="a"), User(name="b")]] * 2 and calls == [1]


def test_a_cache_that_is_gone_is_not_the_functions_trouble(directory):
    gone = larder.Map("gone", dir=directory, map_size=16 << 20)
    gone.close()

    @cached(expire=30, store=gone)
    async def coroutine():
        return 1

    @cached(expire=30, store=gone)
    def plain():
        return 2

    @cached(expire=30, store=gone, skip_cache_on_error=False)
    def strict():
        return 3

    assert run(coroutine()) == 1 and plain() == 2
    with pytest.raises(larder.ClosedError):
        strict()
    with pytest.raises(ValueError, match="ttl"):
        cached(expire=-1)


# ---- A backend of fastapi-cache2


def test_the_backend(cache):
    async def main():
        backend = LarderBackend(cache)
        assert await backend.get_with_ttl("k") == (0, None) and await backend.get("k") is None
        await backend.set("ns:k", b"v", 60)
        ttl, value = await backend.get_with_ttl("ns:k")
        assert value == b"v" and 50 < ttl <= 60 and await backend.get("ns:k") == b"v"
        await backend.set("ns:forever", b"v")
        assert (await backend.get_with_ttl("ns:forever"))[0] == -1
        await backend.set("other", b"v", 1)
        assert (await backend.get_with_ttl("other"))[0] == 1  # never 0 while it is there
        assert await backend.clear(namespace="ns") == 2
        assert await backend.clear(key="other") == 1 and await backend.clear(key="other") == 0
        assert await backend.clear() == 0
        aligned = LarderBackend(cache, expire_at=lambda: (time.time() // 300 + 1) * 300)
        await aligned.set("k", b"v")
        assert cache.lookup("k").expires % 300 == 0

    run(main())


# ---- TTL strategies


def test_ttl_strategies(cache):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    cache.set("absolute", b"v", at=at)
    assert 3500 < cache.lookup("absolute").ttl <= 3601
    cache.set("sliding", b"v", sliding=600)
    assert cache.lookup("sliding").sliding
    cache.set("extended", b"v", ttl=5)
    assert cache.lookup("extended", extend=600).ttl > 500
    cache.set("swr", b"v", ttl=0.05, stale=600)
    time.sleep(0.06)
    entry = cache.lookup("swr", stale=True)
    assert (entry.value, entry.stale) == (b"v", True)


# ---- Invalidation and events


def test_invalidation(cache):
    async def main():
        invalidator = CacheInvalidator(cache)
        await invalidator.set_with_tags("users:list", json.dumps([1, 2]), ttl=300,
                                        tags=["user:1", "user:2"])
        for name in ("user:123:a", "user:123:b", "user:1234:a", "user:*:a"):
            cache.set(name, b"v")
        assert await invalidator.invalidate_pattern("user:123:*") == 2
        assert await invalidator.invalidate_pattern(r"user:\*:*") == 1
        assert "user:1234:a" in cache
        assert await invalidator.invalidate_by_tags(["user:2", "user:3"]) == 1
        assert "users:list" not in cache
        assert await invalidator.invalidate_single("user:1234:a")
        assert not await invalidator.invalidate_single("user:1234:a")

    run(main())


def test_events_reach_all_handlers(cache):
    async def main():
        bus, other, heard, done = CacheEventBus(cache), CacheEventBus(cache), [], asyncio.Event()

        async def handle(data):
            heard.append(("coroutine", data))
            cache.delete(f"user:{data}")

        def fails(data):
            raise ZeroDivisionError

        with pytest.raises(RuntimeError, match="before subscribe"):
            await bus.listen()
        cache.set("user:123", b"v")
        await bus.subscribe("user:updated", handle)
        await bus.subscribe("user:updated", fails)
        await bus.subscribe("user:updated", lambda data: heard.append(("plain", data)))
        await bus.subscribe("end", lambda data: done.set())
        listening = asyncio.ensure_future(bus.listen())
        await asyncio.sleep(0.05)
        await other.publish("user", "no")
        await other.publish("user:updated", "123")
        await other.publish("end")
        await asyncio.wait_for(done.wait(), 60)
        assert heard == [("coroutine", "123"), ("plain", "123")] and "user:123" not in cache
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        bus.close()

    run(main())


def test_who_listens_and_is_cancelled_loses_no_event(cache):
    async def main():
        bus, heard = CacheEventBus(cache), []
        await bus.subscribe("e", heard.append)
        for number in range(3):
            listening = asyncio.ensure_future(bus.listen())
            await asyncio.sleep(0)
            await bus.publish("e", str(number))
            cache.watch()._look()  # it was taken; who is cancelled now has not told it
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        listening = asyncio.ensure_future(bus.listen())
        await bus.publish("e", "3")
        for _ in range(6000):
            if len(heard) == 4:
                break
            await asyncio.sleep(0.01)
        assert heard == ["0", "1", "2", "3"]
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        bus.close()

    run(main())


def test_who_is_cancelled_has_invalidated_by_all_tags(cache, monkeypatch):
    """Once it has begun: what the tags stand for has changed already."""
    began, gate, real = threading.Event(), threading.Event(), cache.quick()

    class Slow:
        def invalidate_tag(self, name, count):
            began.set()
            assert gate.wait(60)
            return real.invalidate_tag(name, count=count)

    async def main():
        for name in "ab":
            cache.set(name, b"v", tags=[name])
        monkeypatch.setattr(cache, "quick", Slow)
        task = asyncio.ensure_future(CacheInvalidator(cache).invalidate_by_tags(["a", "b"]))
        while not began.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        gate.set()
        for _ in range(6000):
            if "a" not in cache and "b" not in cache:
                break
            await asyncio.sleep(0.01)
        assert "a" not in cache and "b" not in cache

    run(main())


def test_a_walk_over_the_keys_does_not_hold_the_loop_up():
    class Slow:
        """A map whose walks take as long as the loop needs for a turn of its own."""

        def __init__(self):
            self.turned = threading.Event()

        def quick(self):
            return self

        def walk(self, name, count=True):
            return int(self.turned.wait(30))

        invalidate_match = invalidate_tag = invalidate_prefix = walk

    async def turned(call, slow):
        asked = asyncio.ensure_future(call)
        await asyncio.sleep(0.01)
        slow.turned.set()
        return await asked

    async def main():
        slow = Slow()
        assert await turned(CacheInvalidator(slow).invalidate_pattern("a*"), slow) == 1
        slow = Slow()
        assert await turned(CacheInvalidator(slow).invalidate_by_tags(["a", "b"]), slow) == 2
        slow = Slow()
        assert await turned(LarderBackend(slow).clear(namespace="a"), slow) == 1

    run(main())


def test_a_burst_of_events_is_heard_whole(cache):
    async def main():
        bus, heard = CacheEventBus(cache), []
        await bus.subscribe("e", lambda data: heard.append(int(data)))
        for i in range(200):
            await bus.publish("e", str(i))
        await bus.subscribe("e", lambda data: data == "199" and bus.close())
        await asyncio.wait_for(bus.listen(), 60)
        assert heard == list(range(200))

    run(main())


def test_events_that_were_missed_are_told(cache):
    async def main():
        missed, done = [], asyncio.Event()
        bus = CacheEventBus(cache, on_missed=lambda count: (missed.append(count), done.set()))
        await bus.subscribe("e", lambda data: None)
        for _ in range(9000):
            await bus.publish("e", "x")
        listening = asyncio.ensure_future(bus.listen())
        await asyncio.wait_for(done.wait(), 60)
        assert missed[0] > 0
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        bus.close()

    run(main())


# ---- Responses


def application(cache, **options):
    app, calls = FastAPI(), []
    app.add_middleware(ResponseCacheMiddleware, cache=cache, ttl=300,
                       cacheable_paths=["/api/products", "/api/categories"],
                       excluded_paths=["/health", "/api/products/user"], **options)

    @app.api_route("/{path:path}", methods=["GET", "POST", "HEAD"])
    def page(path: str, request: Request):
        calls.append(path)
        status = 404 if "missing" in path else 200
        response = Response(bytes(range(256)) + path.encode(), status, media_type="image/x")
        response.raw_headers += [(b"x-two", b"1"), (b"x-two", b"2")]
        return response

    return TestClient(app), calls


def test_the_middleware(cache):
    client, calls = application(cache)
    for expected in ("MISS", "HIT"):
        response = client.get("/api/products/1?b=2&a=1")
        assert response.headers["x-cache"] == expected
        assert response.content == bytes(range(256)) + b"api/products/1"
        assert response.headers.get_list("x-two") == ["1", "2"]
    assert client.get("/api/products/1?a=1&b=2").headers["x-cache"] == "HIT"
    assert client.get("/api/products/1", headers={"X-User-ID": "7"}).headers["x-cache"] == "MISS"
    assert client.get("/api/products/1", headers={"X-User-ID": "8"}).headers["x-cache"] == "MISS"
    etag = client.get("/api/products/1").headers["etag"]
    assert client.get("/api/products/1", headers={"If-None-Match": etag}).status_code == 304
    for path in ("/health", "/api/products/user", "/other", "/api"):
        for _ in range(2):
            assert "x-cache" not in client.get(path).headers
    for _ in range(2):
        assert client.get("/api/products/missing").status_code == 404
        client.post("/api/products/1")
    assert calls.count("api/products/missing") == 2


class Bare:
    """The middleware around a bare ASGI application, asked without a server."""

    def __init__(self, cache, body=b"old"):
        self.body, self.headers, self.began, self.gate = body, [], asyncio.Event(), None
        self.middleware = ResponseCacheMiddleware(self.page, cache)

    async def page(self, scope, receive, send):
        body = self.body
        self.began.set()
        if self.gate is not None:
            await self.gate.wait()
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", b"%d" % len(body)), *self.headers]})
        await send({"type": "http.response.body", "body": body})

    async def get(self, path="/", headers=(), **scope):
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"",
                 "headers": list(headers), **scope}
        await self.middleware(scope, None, send)
        return sent


@pytest.mark.parametrize("headers", [[], [(b"vary", b"x-language")]])
@pytest.mark.parametrize("way", ["prefix", "clear", "found"])
def test_a_page_made_before_an_invalidation_is_not_put_back(cache, way, headers):
    async def main():
        bare = Bare(cache)
        bare.headers = headers
        fresh = [(b"cache-control", b"no-cache")]
        if way != "clear":
            await bare.get()
        assert (await bare.get(headers=fresh))[1]["body"] == b"old"
        assert dict((await bare.get())[0]["headers"])[b"X-Cache"] == b"HIT"
        bare.began, bare.gate = asyncio.Event(), asyncio.Event()
        asked = asyncio.ensure_future(bare.get(headers=fresh))
        await bare.began.wait()
        bare.body = b"new"
        cache.clear() if way == "clear" else cache.invalidate_prefix("response:")
        gate, bare.gate = bare.gate, None
        if way == "found":
            await bare.get()
        gate.set()
        assert (await asked)[1]["body"] == b"old"
        assert [(await bare.get())[1]["body"] for _ in range(2)] == [b"new"] * 2

    run(main())


class Failing:
    """An origin that fails whoever asks. From its third caller on it does so when all who wait are
    in it: were they sent one after another, they would never be."""

    def __init__(self, callers):
        self.callers, self.calls, self.all_in = callers, 0, asyncio.Event()

    async def ask(self):
        self.calls += 1
        if self.calls == self.callers:
            self.all_in.set()
        if self.calls > 2:
            await asyncio.wait_for(self.all_in.wait(), 60)
        await asyncio.sleep(0.01)  # the others come meanwhile
        raise ZeroDivisionError


def test_a_failing_origin_does_not_make_requests_queue(cache, monkeypatch):
    monkeypatch.setattr(larder._pages, "_WAIT", 600.0)

    async def main():
        origin = Failing(15)
        bare = Bare(cache)

        async def page(scope, receive, send):
            await origin.ask()

        bare.middleware = ResponseCacheMiddleware(page, cache)
        got = await asyncio.gather(*[bare.get() for _ in range(15)], return_exceptions=True)
        assert all(isinstance(error, ZeroDivisionError) for error in got)
        assert origin.calls == 15

    run(main())


def test_what_has_no_key_goes_past_the_cache(cache, caplog):
    client, calls = application(cache)
    app = FastAPI()
    app.get("/products")(cache_response(ttl=600, cache=cache)(products_of(calls)))
    query = "&".join("a" for _ in range(1025))
    with caplog.at_level("WARNING", logger="larder"):
        for asked, path in ((client, "/api/products/1"), (TestClient(app), "/products")):
            for _ in range(2):
                assert asked.get(f"{path}?{query}").status_code == 200
                assert asked.get(f"{path}/{'x' * 600}?{query}").status_code in (200, 404)
    assert len(calls) == 6
    assert len([r for r in caplog.records if "past the cache" in r.getMessage()]) <= 1


def products_of(calls):
    async def get_products(request: Request):
        calls.append(1)
        return {}

    return get_products


def test_a_file_that_the_server_sends_has_its_start(cache):
    class Files(Bare):
        async def page(self, scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.pathsend", "path": "/etc/hostname"})

    async def main():
        for _ in range(2):
            sent = await Files(cache).get(extensions={"http.response.pathsend": {}})
            assert [message["type"] for message in sent] == [
                "http.response.start", "http.response.pathsend"]

    run(main())


def test_a_path_is_decoded_once(cache):
    async def main():
        bare = Bare(cache)
        for path, raw in (("/%41", None), ("/A", None), ("/a?b", None), ("/é", "/%C3%A9".encode())):
            bare.body = path.encode()
            scope = {"raw_path": raw} if raw else {}
            assert (await bare.get(path, **scope))[1]["body"] == path.encode()
            assert dict((await bare.get(path))[0]["headers"])[b"X-Cache"] == b"HIT"

    run(main())


def test_what_the_middleware_leaves_alone_by_itself(cache):
    async def main():
        bare = Bare(cache)
        for path, kept in (("/health", False), ("/metrics", False), ("/healthy", True), ("/", True)):
            for _ in range(2):
                headers = dict((await bare.get(path))[0]["headers"])
            assert headers.get(b"X-Cache") == (b"HIT" if kept else None)

    run(main())


def test_tasks_in_the_background_are_done(cache):
    app, done = FastAPI(), []

    @app.get("/")
    @cache_response(ttl=600, cache=cache)
    async def page(request: Request):
        return Response(b"x", background=BackgroundTask(done.append, 1))

    client = TestClient(app)
    assert [client.get("/").content for _ in range(2)] == [b"x"] * 2 and done == [1]


def test_the_middleware_keeps_users_apart(cache):
    client, calls = application(cache)
    for name, value in (("Authorization", "a"), ("Authorization", "b"), ("Cookie", "c=1")):
        response = client.get("/api/products/1", headers={name: value})
        assert response.headers["x-cache"] == "MISS"
        client.cookies.clear()
    assert client.get("/api/products/1").headers["x-cache"] == "MISS"
    assert len(calls) == 4


def test_the_decorator_of_an_endpoint(cache):
    app, calls = FastAPI(), []

    @app.get("/products")
    @cache_response(ttl=600)
    async def get_products(request: Request):
        calls.append(1)
        return {"products": [1, 2]}

    client = TestClient(app)
    for expected in ("MISS", "HIT"):
        response = client.get("/products?x=1")
        assert response.headers["x-cache"] == expected
        assert response.json() == {"products": [1, 2]}
    assert len(calls) == 1
