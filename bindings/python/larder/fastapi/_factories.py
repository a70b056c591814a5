"""cache(), cache_evict(), cache_put(): dependencies of routes."""

import contextlib
import functools
import inspect
import logging
import re
from typing import Any, AsyncIterator, Awaitable, Callable, Iterator, Optional, Union

import fastapi
from fastapi import Depends
from fastapi.routing import APIRoute
from starlette.requests import Request

from larder import _larder
from larder._pages import Answer, Capture, Pending, is_somebody, parse, send_answer

from ._backend import Seconds, get_async_redis
from ._settings import get_settings
from ._vary import declared_headers
from larder._store import as_store, bypassed, group_mark

log = logging.getLogger("larder")

KeyBuilder = Callable[[Request, str, str], Union[str, Awaitable[str]]]

SCOPE = "larder.capture"  # where the middleware leaves what catches the answer
_LOOKED = "larder.looked"  # where a Shortcut leaves whose page it has looked for


class Answered(Exception):
    """Ends a request with an answer out of the cache: the endpoint does not run."""

    def __init__(self, answer: Any) -> None:
        super().__init__("answered out of the cache")
        self.answer = answer


def default_key_builder(request: Request, eviction_group: str = "", prefix: str = "") -> str:
    """PREFIX:{GROUP}:PATH:PARAMS: slashes are colons, parameters sorted; ':', '&', '=' and '%' in
    names and values are percent-encoded, so that no two pages share a key."""
    key = _default_key(parse(request.scope), eviction_group, prefix)
    return key.decode("utf-8", "surrogateescape")


def _default_key(parsed: Any, group: str, prefix: str) -> bytes:
    key: bytes = parsed.key(
        form=_larder.HTTP_KEY_ROUTE, prefix=prefix.encode(), group=group.encode()
    )
    return key


def capture_of(request: Request) -> Capture:
    capture = request.scope.get(SCOPE)
    if capture is None:
        raise RuntimeError("cache() and its kin need FastAPILarder(app).caching()")
    return capture


@contextlib.contextmanager
def _noting_failures(capture: Capture) -> Iterator[None]:
    """Around the endpoint and what it depends on: a handler may make a good answer of an exception,
    which is not the page all the same."""
    try:
        yield
    except Answered:
        raise
    except Exception:
        capture.fail()
        raise


async def _guard(request: Request) -> AsyncIterator[None]:
    with _noting_failures(capture_of(request)):
        yield


# Later versions let a route's exceptions no further than to the route itself.
_RAISE_THROUGH = tuple(int(part) for part in re.findall(r"\d+", fastapi.__version__)[:2]) < (0, 100)


class _Factory:
    def __init__(
        self, group: str, prefix: Optional[str], key_builder: Optional[KeyBuilder]
    ) -> None:
        self.group = group
        self._prefix = prefix
        self.key_builder = key_builder

    @property
    def prefix(self) -> str:
        return get_settings().pattern_prefix("cache") if self._prefix is None else self._prefix

    @property
    def mark(self) -> Optional[str]:
        return group_mark(self.prefix, self.group) if self.group else None

    def may_share(self, request: Request) -> bool:
        """Whether the key, the credentials and Vary say whose page it is."""
        return self.key_builder is not None or not is_somebody(request.scope)

    async def key(self, request: Request, parsed: Any) -> bytes:
        if self.key_builder is None or self.key_builder is default_key_builder:
            return _default_key(parsed, self.group, self.prefix)
        result = self.key_builder(request, self.group, self.prefix)
        if inspect.isawaitable(result):
            result = await result
        if not isinstance(result, str) or result == "":
            raise TypeError(f"a key builder returns a str that is not empty, not {result!r}")
        return result.encode("utf-8", "surrogateescape")

    async def key_or_none(self, request: Request, parsed: Any = None) -> Optional[bytes]:
        """None: the request has no key, and so no page."""
        try:
            return await self.key(request, parsed or parse(request.scope))
        except _larder.Error as error:
            bypassed(error)
            return None


def _policy(ttl: Seconds, private: bool) -> Any:
    settings = get_settings()
    return _policy_of(settings.default_ttl if ttl is None else ttl, private, settings.header)


@functools.lru_cache(maxsize=1024)
def _policy_of(ttl: Seconds, private: bool, header: str) -> Any:
    return _larder.HttpPolicy(ttl=ttl, private=private, status_header=header.encode())


_factories: "list[tuple[str, bool]]" = []  # what each cache() and cache_put() was made with


def cache(
    ttl: Seconds = None,
    eviction_group: str = "",
    prefix: Optional[str] = None,
    key_builder: Optional[KeyBuilder] = None,
    private: bool = False,
) -> Callable[..., AsyncIterator[None]]:
    """Serve a GET route out of the cache; on a hit the endpoint does not run.

    ttl: seconds, or a timedelta; 0: no expiry; None: REDIS_DEFAULT_TTL. private: the page is one
    user's, and no cache on the way may keep it. Pages made for a request with Authorization or
    Cookie are served to requests with the same ones only, whatever this says. Everything else about
    a user that the page depends on (another header, say) must be in the key or in Vary.
    """
    _policy(ttl, private)  # a mistake shows where it is made
    factory = _Factory(eviction_group, prefix, key_builder)
    unbounded = ttl is None or not ttl
    _note("cache", ttl is None, unbounded)

    async def look(request: Request, capture: Capture, store: Any) -> Optional[Answer]:
        policy, parsed = _policy(ttl, private), parse(request.scope)
        capture.end()  # of another cache() of the route: the last one counts, and waits for no other
        key = None
        if parsed.classify(policy) == _larder.HTTP_LOOKUP and factory.may_share(request):
            key = await factory.key_or_none(request, parsed)
        if key is None:
            capture.bypass(policy)
            return None
        pending = Pending(store, policy, parsed, key, factory.mark)
        pending.leads = request.method != "HEAD"
        pending.vary = declared_headers(request.scope.get("route"))
        answer = await pending.find()
        if answer is None:
            capture.pending = pending
        return answer

    async def dependency(
        request: Request, redis: Any = Depends(get_async_redis)
    ) -> AsyncIterator[None]:
        capture = capture_of(request)
        if request.scope.pop(_LOOKED, None) is not look:  # else a Shortcut has found nothing
            _take_shortcut(request.scope, dependency, look)
            answer = await look(request, capture, as_store(redis))
            if answer is not None:
                raise Answered(answer)
        with _noting_failures(capture):
            yield

    return dependency


class Shortcut:
    """In front of a route whose first dependency is cache(): a hit goes out before FastAPI works out what
    else the route depends on, which takes longer than all the rest of a hit, and a miss goes on to
    the route without that dependency. Nothing else differs, and where a test overrides dependencies
    nothing at all."""

    def __init__(
        self, inner: Any, rest: Any, look: Callable[..., Awaitable[Optional[Answer]]]
    ) -> None:
        self.inner = inner
        self.rest = rest
        self.look = look

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app, capture = scope["app"], scope.get(SCOPE)
        builder = getattr(app.state, "larder", None)
        if capture is None or builder is None or app.dependency_overrides:
            await self.inner(scope, receive, send)
            return
        answer = await self.look(Request(scope, receive), capture, builder.store_or_none())
        if answer is not None:
            await send_answer(send, answer, scope["method"] == "HEAD")
            return
        scope[_LOOKED] = self.look
        with _noting_failures(capture):
            await self.rest(scope, receive, send)


def _take_shortcut(scope: Any, dependency: Any, look: Any) -> None:
    """From the route's next request on."""
    route = scope.get("route")
    first = getattr(route, "dependencies", None)
    if first and first[0].dependency is dependency and not isinstance(route.app, Shortcut):
        route.app = Shortcut(route.app, _without_first(route), look)


def _without_first(route: Any) -> Any:
    """What serves the route, without the first of its dependencies: made as an included router's routes
    are, from what a route was made with. The whole route where its class makes something else."""
    constructor = type(route).__init__
    if constructor is not APIRoute.__init__ and not getattr(
        constructor, "expands_annotated", False
    ):
        return route.app
    options = {
        name: getattr(route, name)
        for name in inspect.signature(APIRoute).parameters
        if name not in ("path", "endpoint", "dependencies") and hasattr(route, name)
    }
    kept = [*([] if _RAISE_THROUGH else [Depends(_guard)]), *route.dependencies[1:]]
    try:
        return type(route)(route.path, route.endpoint, dependencies=kept, **options).app
    except Exception as error:
        log.info("larder: %s keeps its first dependency on a miss: %r", route.path, error)
        return route.app


def cache_evict(
    eviction_group: str = "",
    key_builder: Optional[KeyBuilder] = None,
    prefix: Optional[str] = None,
) -> Callable[..., AsyncIterator[None]]:
    """After the endpoint has succeeded (2xx, or a redirect, 3xx) delete the page of the key, or without
    a key builder all of the group, before the answer goes out. Where it raised, nothing is deleted,
    whatever a handler makes of that."""
    if key_builder is None and not eviction_group:
        raise ValueError("cache_evict() wants a key_builder, an eviction_group, or both")
    factory = _Factory(eviction_group, prefix, key_builder)

    async def dependency(
        request: Request, redis: Any = Depends(get_async_redis)
    ) -> AsyncIterator[None]:
        capture, store = capture_of(request), as_store(redis)
        key = None if key_builder is None else await factory.key_or_none(request)

        async def evict() -> None:
            if key is not None:
                await store.safely("evict", lambda: store.delete(key), False)
            elif key_builder is None:
                await store.safely(
                    "evict", lambda: store.delete_group(factory.prefix, eviction_group), 0
                )

        capture.after.append(evict)
        with _noting_failures(capture):
            yield

    return dependency


def cache_put(
    eviction_group: str = "",
    key_builder: Optional[KeyBuilder] = None,
    prefix: Optional[str] = None,
    ttl: Seconds = None,
    private: bool = False,
) -> Callable[..., AsyncIterator[None]]:
    """After the endpoint has succeeded store its answer as the page that a GET of the same path
    finds; what may not be stored (a redirect, say) removes the old page. Where it raised, nothing
    changes, whatever a handler makes of that."""
    _policy(ttl, private)
    factory = _Factory(eviction_group, prefix, key_builder)
    unbounded = ttl is None or not ttl
    _note("cache_put", ttl is None, unbounded)

    async def prepare(request: Request, capture: Capture, store: Any) -> None:
        policy = _policy(ttl, private)
        key = await factory.key_or_none(request)
        if key is None:
            return
        if not factory.may_share(request):
            capture.after.append(functools.partial(_forget, store, key))
            return
        parsed = parse(request.scope, b"GET", _unconditional(request.scope["headers"]))
        pending = Pending(store, policy, parsed, key, factory.mark, put=True)
        pending.vary = declared_headers(request.scope.get("route"))
        capture.end()  # as in cache()
        await pending.see_put()
        capture.after.append(pending.forget)
        capture.pending = pending

    async def dependency(
        request: Request, redis: Any = Depends(get_async_redis)
    ) -> AsyncIterator[None]:
        capture = capture_of(request)
        await prepare(request, capture, as_store(redis))
        with _noting_failures(capture):
            yield

    return dependency


async def _forget(store: Any, key: bytes) -> None:
    await store.safely("put", lambda: store.delete(key), False)


_CONDITIONS = {b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since",
               b"if-range", b"range", b"cache-control", b"pragma"}


def _unconditional(headers: Any) -> Any:
    return [(name, value) for name, value in headers if bytes(name).lower() not in _CONDITIONS]



def _note(what: str, default: bool, unbounded: bool) -> None:
    if unbounded:
        _factories.append((what, default))


def unbounded_factories() -> int:
    """How many factories cache without an expiry under today's settings."""
    return sum(1 for _, default in _factories if not default or get_settings().default_ttl == 0)
