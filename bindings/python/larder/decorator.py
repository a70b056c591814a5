"""@cache: what a function returns, kept for its arguments; for coroutine functions and plain ones.

    @cache(expire=30)
    async def get_data(user_id: int): ...

    @cache(every=300)                       # until the next 5-minute mark of the wall clock
    async def prices(): ...

    @cache(expire_at=lambda: end_of_trading())
    def report(): ...

Of all callers of the host that miss at once, one runs the function. Values are JSON; model= makes
them Pydantic models again. There is no pickle.
"""

import asyncio
import datetime
import decimal
import enum
import functools
import hashlib
import inspect
import json
import logging
import os
import uuid
from typing import Any, Callable, Iterable, Optional, Union

import larder

log = logging.getLogger("larder")

_default: Optional["larder.Map"] = None
_KEY_MAX = 400  # longer ones end in a digest
_LEFT_OUT = object()


def set_cache(cache: Optional["larder.Map"]) -> None:
    """The map of all functions that were decorated without one of their own."""
    global _default
    _default = cache


def get_cache() -> "larder.Map":
    """The default map: that of set_cache(), or else one of the name $LARDER_MAP ("cache")."""
    global _default
    if _default is None or _default.closed:
        _default = larder.Map(os.environ.get("LARDER_MAP") or "cache")
    return _default


# ---- Keys


def _plain(value: Any) -> Any:
    """As JSON, or _LEFT_OUT: a request, a session or a connection is no part of a key."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value if not isinstance(value, enum.Enum) else value.value
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID)):
        return {type(value).__name__: str(value)}
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return {"set": sorted((json.dumps(_plain(item), sort_keys=True) for item in value))}
    if isinstance(value, dict):
        return {"dict": [[_plain(key), _plain(item)] for key, item in
                         sorted(value.items(), key=lambda pair: repr(pair[0]))]}
    dump = getattr(value, "model_dump", None) or getattr(value, "dict", None)
    if dump is not None and hasattr(type(value), "__fields__"):
        return {"model": json.loads(json.dumps(dump(), default=str, sort_keys=True))}
    return _LEFT_OUT


def _without(value: Any) -> Any:
    if isinstance(value, list):
        return [_without(item) for item in value if item is not _LEFT_OUT]
    if isinstance(value, dict):
        return {key: _without(item) for key, item in value.items() if item is not _LEFT_OUT}
    return value


def function_key(function: Callable[..., Any], prefix: str, args: Any, kwargs: Any) -> str:
    """PREFIX:MODULE.FUNCTION:ARGUMENTS. f(1) and f(a=1) have one key; 1, "1" and True have three."""
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
    except (TypeError, ValueError):
        arguments = {"args": list(args), "kwargs": dict(kwargs)}
    plain = {name: _plain(value) for name, value in arguments.items()}
    text = json.dumps(_without(plain), sort_keys=True, separators=(",", ":"))
    if len(text) > _KEY_MAX:
        text = hashlib.sha256(text.encode()).hexdigest()
    return f"{prefix}:{function.__module__}.{function.__qualname__}:{text}"


# ---- Values


def _jsonable(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    if hasattr(type(value), "__fields__") and hasattr(value, "json"):
        return json.loads(value.json())
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (uuid.UUID, decimal.Decimal)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} cannot be kept as JSON")


def encode(value: Any) -> bytes:
    return json.dumps(value, default=_jsonable, separators=(",", ":")).encode()


class Undecodable(Exception):
    """What stands under the key is not what this function returns."""


def _decoder(model: Any) -> Callable[[bytes], Any]:
    if model is None:
        return json.loads
    return getattr(model, "model_validate_json", None) or model.parse_raw


# ---- The decorator


def cache(
    expire: Union[int, float, datetime.timedelta, None] = None,
    *,
    ttl: Union[int, float, datetime.timedelta, None] = None,
    every: Union[int, float, datetime.timedelta, None] = None,
    offset: Union[int, float, datetime.timedelta, None] = None,
    expire_at: Optional[Callable[[], Any]] = None,
    stale: Union[int, float, datetime.timedelta, None] = None,
    prefix: str = "cache",
    key_builder: Optional[Callable[..., str]] = None,
    group: Optional[str] = None,
    tags: Union[Iterable[str], Callable[..., Iterable[str]], None] = None,
    model: Any = None,
    cache_none: bool = True,
    skip_cache_on_error: bool = True,
    store: Optional["larder.Map"] = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Keep what the function returns.

    expire (or ttl): seconds; every (and offset): the next multiple of so many seconds on the wall
    clock; expire_at: called when a value was made, gives a datetime or a timestamp. stale: so many
    seconds longer while it is renewed. key_builder(*args, **kwargs) gives the key; by default the
    function and its plain arguments. tags: names, or a function of the arguments that gives them.
    skip_cache_on_error=False lets the cache's errors pass.
    """
    larder._larder.check_policy(
        ttl=expire if ttl is None else ttl, every=every, offset=offset, stale=stale, group=group)
    decode = _decoder(model)

    def policy(args: Any, kwargs: Any) -> Any:
        named: Any = {"ttl": expire if ttl is None else ttl, "every": every, "offset": offset,
                      "stale": stale, "group": group}
        if expire_at is not None:
            named["at"] = expire_at()
        if tags is not None:
            named["tags"] = tuple(tags(*args, **kwargs) if callable(tags) else tags)
        return {name: value for name, value in named.items() if value is not None}

    def filled(value: Any, args: Any, kwargs: Any) -> Any:
        data = encode(value)
        if value is None and not cache_none:
            return larder.Skip(data)
        return larder.Filled(data, **policy(args, kwargs))

    def decoded(data: Optional[bytes]) -> Any:
        try:
            return decode(data or b"null")
        except Exception as error:
            raise Undecodable(f"an entry cannot be decoded: {error!r}") from error

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def key_of(args: Any, kwargs: Any) -> str:
            if key_builder is not None:
                return key_builder(*args, **kwargs)
            return function_key(function, prefix, args, kwargs)

        def map_of() -> "larder.Map":
            return store if store is not None else get_cache()

        if asyncio.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                made: list[Any] = []

                async def fill() -> Any:
                    made.append(await function(*args, **kwargs))
                    return filled(made[0], args, kwargs)

                try:
                    data = await map_of().fetch_async(key_of(args, kwargs), fill)
                    if not made:
                        return decoded(data)
                except (larder.Error, Undecodable) as error:
                    _told(error, skip_cache_on_error)
                return made[0] if made else await function(*args, **kwargs)

        else:

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                made: list[Any] = []

                def fill() -> Any:
                    made.append(function(*args, **kwargs))
                    return filled(made[0], args, kwargs)

                try:
                    data = map_of().fetch(key_of(args, kwargs), fill)
                    if not made:
                        return decoded(data)
                except (larder.Error, Undecodable) as error:
                    _told(error, skip_cache_on_error)
                return made[0] if made else function(*args, **kwargs)

        wrapper.cache_key = lambda *args, **kwargs: key_of(args, kwargs)  # type: ignore[attr-defined]
        return wrapper

    return decorate


def _told(error: Exception, skip: bool) -> None:
    if not skip:
        raise error
    log.info("larder: going on without the cache: %r", error)
