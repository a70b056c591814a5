"""FastAPILarder: one line that gives an application its cache."""

import contextlib
import inspect
import logging
import os
import re
import time
import typing
from typing import Any, AsyncIterator, Callable, Dict, List, Optional

import fastapi
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

import larder
from larder._pages import FINAL, Capture, Final, now_ms, with_length

from . import _factories
from ._settings import Settings, get_settings
from larder._store import LarderStore, NoStore, Store, counts

log = logging.getLogger("larder")

# FastAPI before 0.95 does not know Annotated[..., Depends(...)].
_KNOWS_ANNOTATED = tuple(int(part) for part in re.findall(r"\d+", fastapi.__version__)[:2]) >= (0, 95)


_AGAIN = 1.0  # seconds after which a map that could not be opened is tried again


class FastAPILarder:
    """FastAPILarder(app).lifespan().caching()

    cache: an open larder.Map, or the name of one; None: the settings' (LARDER_MAP). A map that this
    opened is closed with the application.
    """

    def __init__(
        self,
        app: FastAPI,
        cache: "larder.Map | str | None" = None,
        *,
        read_through: float = 0.02,
        max_body: int = 10 << 20,
        **options: Any,
    ) -> None:
        self.app = app
        self.max_body = max_body
        self._read_through = read_through
        self._given = cache
        self._options = options
        self._store: Optional[LarderStore] = None
        self._without: Optional[NoStore] = None  # while the map cannot be opened
        self._again = 0.0
        app.state.larder = self
        if not _KNOWS_ANNOTATED:
            app.router.route_class = expand_annotated(app.router.route_class)

    @property
    def settings(self) -> Settings:
        return get_settings()

    def store(self) -> LarderStore:
        """The application's map, opened at the first use: a worker opens it, not who forks it."""
        if self._store is None or self._store.cache.closed:
            cache = self._given
            if not isinstance(cache, larder.Map):
                options = dict(self._options)
                if self.settings.map_size and "map_size" not in options:
                    options["map_size"] = self.settings.map_size
                cache = larder.Map(cache or self.settings.map, **options)
            self._store = LarderStore(cache, self._read_through)
        return self._store

    def store_or_none(self) -> Store:
        """store(), or where the map cannot be opened one that always misses."""
        if self._without is not None and time.monotonic() < self._again:
            return self._without
        try:
            store = self.store()
        except (larder.Error, OSError) as error:
            if self._without is None:
                log.warning("larder: the map cannot be opened, going on without: %s", error)
                self._without = NoStore()
            self._again = time.monotonic() + _AGAIN
            return self._without
        self._without = None
        return store

    def close(self) -> None:
        """Close the map if this opened it."""
        if self._store is not None and self._store.cache is not self._given:
            self._store.cache.close()
            self._store = None

    # ---- Parts

    def lifespan(self, also: Optional[Callable[[Any], Any]] = None) -> "FastAPILarder":
        """Open the map when the application starts and close it when it ends, around whatever
        lifespan it has already.

        also(app): an asynchronous context manager of the application's own that is entered when the
        map is open, and left before it is closed; in every version of FastAPI.
        """
        inner = self.app.router.lifespan_context

        @contextlib.asynccontextmanager
        async def lifespan(app: Any) -> AsyncIterator[Any]:
            self._start()
            try:
                async with inner(app) as state:
                    async with also(app) if also is not None else contextlib.nullcontext():
                        yield state
            finally:
                self.close()

        self.app.router.lifespan_context = lifespan
        return self

    def _start(self) -> None:
        try:
            self.store().cache.watch()  # now, lest the first request pays for it
        except (larder.Error, OSError) as error:
            log.warning("larder: the map cannot be opened, going on without: %s", error)
        unbounded = _factories.unbounded_factories()
        if unbounded and self.settings.warn_unbounded_cache:
            log.warning(
                "larder: %d routes cache without a TTL (set ttl=, REDIS_DEFAULT_TTL, or "
                "REDIS_WARN_UNBOUNDED_CACHE=false)",
                unbounded,
            )

    def caching(self) -> "FastAPILarder":
        """What cache(), cache_evict() and cache_put() need: the middleware that catches answers,
        and the handler that sends those of the cache.

        Pages are what the middleware added before this makes of them; middleware added later, which
        is around this, changes hits and misses alike. In either order no page is kept that a
        cookie is set with."""
        self.app.add_middleware(CaptureMiddleware, limit=self.max_body)
        _watch_the_end(self.app)
        self.app.add_exception_handler(_factories.Answered, _answered)
        return self

    def health(self, path: str = "/health") -> "FastAPILarder":
        """A route that says how the cache is: 200 whatever happens to Redis."""

        async def health() -> Dict[str, Any]:
            return self.figures()

        self.app.add_api_route(path, health, methods=["GET"], include_in_schema=False)
        return self

    def figures(self) -> Dict[str, Any]:
        try:
            return figures(self.store().cache, self.settings.url)
        except (larder.Error, OSError) as error:
            return {"status": "degraded", "cache": "unavailable", "redis": "unknown",
                    "reason": str(error)}


def figures(cache: "larder.Map", url: Optional[str] = None) -> Dict[str, Any]:
    """What operators ask of a map: state, ratios, latency, memory, what waits for Redis."""
    stats = cache.stats()
    now = now_ms()
    beat = stats["daemon_heartbeat_ms"]
    daemon = beat > 0 and now - beat < 10_000
    up = bool(daemon and stats["redis_up"])
    wanted = bool(url) or bool(stats["replicates"])
    asked = stats["hits"] + stats["misses"] + stats["absent"] + stats["stale"]  # as `larder stat`
    oldest = stats["oldest_dirty_ms"]
    redis = "connected" if up else "disconnected" if wanted else "unused"
    hit, fill = (cache.latency(kind) for kind in (larder.LATENCY_HIT, larder.LATENCY_FETCH))
    return {
        "status": "healthy" if up or not wanted else "degraded",
        "cache": "available",
        "redis": redis,
        "daemon": "running" if daemon else "absent",
        "hits": stats["hits"],
        "misses": stats["misses"],
        "hit_ratio": stats["hits"] / asked if asked else None,
        "entries": stats["entries"],
        "map_bytes": stats["map_size"],
        "used_bytes": stats["used_bytes"],
        "evictions": stats["evictions"],
        "queue": stats["dirty"],
        "queue_oldest_seconds": max(now - oldest, 0) / 1000 if oldest else 0.0,
        "refused": stats["refused_busy"] + stats["refused_full"] + stats["refused_size"],
        "hit_p99_us": hit["p99_ns"] / 1000,
        "fetch_p99_us": fill["p99_ns"] / 1000,
        "process": dict(counts, pid=os.getpid()),  # of the worker that answers
    }


def _watch_the_end(app: FastAPI) -> None:
    """Put a FinalMiddleware around all others, also those that are added later."""
    build = app.build_middleware_stack

    def build_middleware_stack() -> Any:
        others = [one for one in app.user_middleware if one.cls is not FinalMiddleware]
        app.user_middleware[:] = [Middleware(FinalMiddleware), *others]
        return build()

    app.build_middleware_stack = build_middleware_stack  # type: ignore[method-assign]


class FinalMiddleware:
    """The last to see an answer; of applications in each other the outer one's."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or FINAL in scope:
            await self.app(scope, receive, send)
            return
        final = scope[FINAL] = Final(scope, send)
        try:
            await self.app(scope, receive, final)
        finally:
            final.end()
            scope.pop(FINAL, None)  # whose send() may know the scope: nothing is left to the collector


class CaptureMiddleware:
    """Catches the answers of routes that asked for that; all others pass untouched."""

    def __init__(self, app: Any, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        capture = Capture(send, self.limit)
        capture.final = scope.get(FINAL)
        outer = scope.get(_factories.SCOPE)  # of an application that this one is mounted in
        scope[_factories.SCOPE] = capture
        try:
            await self.app(scope, receive, capture)
        finally:
            capture.end()
            scope[_factories.SCOPE] = outer  # as with FINAL


async def _answered(request: Request, error: Any) -> Response:
    status, headers, body = error.answer
    response = Response(body if request.method != "HEAD" else b"", status)
    response.raw_headers = with_length(status, headers, body)
    return response


# ---- Annotated dependencies before FastAPI 0.95 ---------------------------------------------------


def expand_annotated(route_class: Any) -> Any:
    """A route class that reads `name: Annotated[Type, Depends(...)]` as `name: Type = Depends(...)`."""

    class AnnotatedRoute(route_class):  # type: ignore[misc]
        def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
            super().__init__(path, _expanded(endpoint), **options)

        __init__.expands_annotated = route_class.__init__ is APIRoute.__init__  # type: ignore[attr-defined]

    return AnnotatedRoute


def _expanded(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    try:
        hints = typing.get_type_hints(endpoint, include_extras=True)
        signature = inspect.signature(endpoint)
    except (TypeError, ValueError, NameError):
        return endpoint
    first: List[inspect.Parameter] = []
    changed: List[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        hint = hints.get(parameter.name)
        extras = getattr(hint, "__metadata__", ())
        depends = next((extra for extra in extras if isinstance(extra, fastapi.params.Depends)), None)
        if depends is not None and parameter.default is inspect.Parameter.empty:
            changed.append(
                parameter.replace(
                    annotation=hint.__origin__, default=depends, kind=inspect.Parameter.KEYWORD_ONLY
                )
            )
        else:
            first.append(parameter)
    if changed:
        endpoint.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[p for p in first if p.kind != inspect.Parameter.VAR_KEYWORD]
            + changed
            + [p for p in first if p.kind == inspect.Parameter.VAR_KEYWORD]
        )
    return endpoint


__all__ = ["CaptureMiddleware", "FastAPILarder", "expand_annotated", "figures"]
