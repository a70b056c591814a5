"""ResponseCacheMiddleware: whole responses of any ASGI application; @cache_response for one route.

The rules are those of the routes' dependencies (larder_http.h, route policy): GET and 2xx alone are kept
(HEAD is answered by what a GET left), bodies byte for byte, repeated headers kept; what sets a cookie,
says private or no-store, or varies by everything is not kept; pages made for Authorization or Cookie go to the same ones only.
"""

import functools
from typing import Any, Callable, Iterable, Optional, Tuple

import larder
from larder import _larder
from larder._pages import FINAL, Capture, Final, Pending, is_somebody, parse, send_answer, with_length

from ._store import LarderStore, bypassed


# Where in a scope the keys are that a ResponseCacheMiddleware makes the page of: one within it, of the
# same paths or of an application that is mounted, would wait for the lease of its own request.
_LED = "larder.led"


class ResponseCacheMiddleware:
    """app.add_middleware(ResponseCacheMiddleware, cache=larder.Map("pages"), ttl=300,
                          cacheable_paths=["/api/products"], excluded_paths=["/health"])

    cacheable_paths: begins of paths (none: all); excluded_paths: whole paths. user_header: a
    request header that is part of the key, as the application knows its users by it. Add it after all
    middleware that sets cookies: of what is around it, only a session (scope["session"]) is known here.
    """

    def __init__(
        self,
        app: Any,
        cache: "larder.Map",
        ttl: Any = 300,
        cacheable_paths: Optional[Iterable[str]] = None,
        excluded_paths: Iterable[str] = ("/health", "/metrics"),
        *,
        user_header: str = "X-User-ID",
        header: str = "X-Cache",
        prefix: str = "response",
        group: Optional[str] = None,
        max_body: int = 10 << 20,
        private: bool = False,
    ) -> None:
        self.app = app
        self.store = LarderStore(cache)
        self.policy = _larder.HttpPolicy(
            ttl=ttl, private=private, max_body=max_body, status_header=header.encode())
        self.cacheable = tuple(cacheable_paths or ())
        self.excluded = frozenset(excluded_paths)
        self.user_header = user_header.lower().encode()
        self.prefix = prefix.encode()
        self.group = group
        self.max_body = max_body

    def _is_cacheable(self, scope: Any) -> bool:
        path = scope["path"]
        return path not in self.excluded and (not self.cacheable or path.startswith(self.cacheable))

    def _key(self, scope: Any) -> Tuple[Any, Optional[bytes]]:
        """The request, and its key if it is one for the cache."""
        request = parse(scope)
        try:
            if request.classify(self.policy) != _larder.HTTP_LOOKUP:
                return request, None
            if is_somebody(scope) and not any(name == self.user_header for name, _ in scope["headers"]):
                return request, None
            user = b",".join(value for name, value in scope["headers"] if name == self.user_header)
            return request, request.key(
                form=_larder.HTTP_KEY_METHOD, prefix=self.prefix, user=user)
        except larder.Error as error:
            bypassed(error)
            return request, None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not self._is_cacheable(scope):
            await self.app(scope, receive, send)
            return
        request, key = self._key(scope)
        led = scope.setdefault(_LED, [])
        if key is None or key in led:
            await self.app(scope, receive, send)
            return
        final = Final(scope, send)
        capture = Capture(final, self.max_body)
        capture.final = scope.get(FINAL, final)
        pending = Pending(self.store, self.policy, request, key, self.group)
        pending.leads = scope["method"] != "HEAD"
        try:
            answer = await pending.find()
            if answer is not None:
                await send_answer(send, answer, scope["method"] == "HEAD")
                return
            if not pending.leads:  # it has no body that could be kept
                await self.app(scope, receive, send)
                return
            capture.pending = pending
            led.append(key)
            await self.app(scope, receive, capture)
        finally:
            pending.give_up()
            final.end()


def cache_response(
    ttl: Any = 300, *, cache: "Optional[larder.Map]" = None, prefix: str = "route", header: str = "X-Cache"
) -> Callable[[Any], Any]:
    """Keep what an endpoint returns as JSON; its first argument is the Request. Nothing is kept while a
    session (scope["session"]) has content; of other cookies that a middleware sets,
    FastAPILarder(app).caching() knows.

        @app.get("/products")
        @cache_response(ttl=600)
        async def get_products(request: Request): ...
    """
    policy = _larder.HttpPolicy(ttl=ttl, status_header=header.encode())

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(request: Any, *args: Any, **kwargs: Any) -> Any:
            from starlette.responses import JSONResponse, Response

            from .decorator import get_cache

            async def make() -> Any:
                result = await function(request, *args, **kwargs)
                return result if isinstance(result, Response) else JSONResponse(result)

            parsed = parse(request.scope)
            if (parsed.classify(policy) != _larder.HTTP_LOOKUP or request.method != "GET"
                    or is_somebody(request.scope)):
                return await make()
            try:
                store = LarderStore(get_cache() if cache is None else cache)
                key = parsed.key(prefix=prefix.encode())
            except (larder.Error, OSError) as error:
                bypassed(error)
                return await make()
            pending = Pending(store, policy, parsed, key, None)
            pending.final = request.scope.get(FINAL)
            background = None
            try:
                answer = await pending.find()
                if answer is None:
                    made = await make()
                    if not hasattr(made, "body"):
                        pending.give_up(skip=True)
                        return made  # a stream, a file
                    background = made.background
                    pending.refused = pending.final is None and bool(request.scope.get("session"))
                    answer = await pending.finish(made.status_code, list(made.raw_headers), made.body)
            finally:
                pending.give_up()
            status, headers, body = answer
            response = Response(body, status, background=background)
            response.raw_headers = with_length(status, headers, body)
            return response

        return wrapper

    return decorate
