"""@cache: what a function returns, kept for its arguments; for coroutine functions and plain ones.

    @cache(expire=30)
    async def get_data(user_id: int): ...

    @cache(every=300)                       # until the next 5-minute mark of the wall clock
    async def prices(): ...

    @cache(expire_at=lambda: end_of_trading())
    def report(): ...

Of all callers of the host that miss at once, one runs the function. Values are JSON, kept where JSON
gives them back as they were; model= makes them Pydantic models, dates or sets again. There is no pickle.
"""

import asyncio
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import inspect
import ipaddress
import json
import logging
import os
import pathlib
import uuid
from typing import Any, Callable, Dict, Iterable, Optional, Union

import larder
from larder import _models
from larder._identity import identify
from larder._store import counts, unkept

log = logging.getLogger("larder")

_default: Optional["larder.Map"] = None
_KEY_MAX = 400  # longer ones end in a digest


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


# What a framework injects: it says how a call came about, not what it asks for. By name, so that
# nothing is imported for it.
_INJECTED = {
    ("starlette.requests", "HTTPConnection"),
    ("starlette.requests", "Request"),
    ("starlette.responses", "Response"),
    ("starlette.background", "BackgroundTask"),
    ("starlette.background", "BackgroundTasks"),
    ("starlette.websockets", "WebSocket"),
}
_TEXTS = (
    datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID, fractions.Fraction,
    complex, pathlib.PurePath, ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)


class _Unknown(TypeError):
    """A value that has no form in a key."""


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _is_injected(value: Any) -> bool:
    return any((kind.__module__, kind.__name__) in _INJECTED for kind in type(value).__mro__)


def _credentials(value: Any) -> Optional[str]:
    """A digest of those that an injected request carries: what is made for them is nobody else's, as
    with pages. None where there are none."""
    headers = getattr(value, "scope", {}).get("headers", ()) if hasattr(value, "headers") else ()
    found = [[name.decode("latin-1"), field.decode("latin-1")] for name, field in headers
             if name in (b"authorization", b"cookie")]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest() if found else None


def _fields(value: Any) -> Optional[Dict[str, Any]]:
    """Of a dataclass or a Pydantic model (of either major version): all, also what a dump omits."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return _models.fields_of(value)


def _plain(value: Any) -> Any:
    """As JSON; what cannot be told from another of its kind is an _Unknown."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value if not isinstance(value, enum.Enum) else value.value
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, _TEXTS):
        return {type(value).__name__: str(value)}
    if isinstance(value, enum.Enum):
        return {"enum": [_type_name(value), value.name]}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return {"set": sorted((json.dumps(_plain(item), sort_keys=True) for item in value))}
    if isinstance(value, dict):
        return {"dict": [[_plain(key), _plain(item)] for key, item in
                         sorted(value.items(), key=lambda pair: repr(pair[0]))]}
    fields = _fields(value)
    if fields is not None:
        return {"fields": [_type_name(value), {name: _plain(item) for name, item in fields.items()}]}
    raise _Unknown(_type_name(value))


def _arguments(function: Callable[..., Any], args: Any, kwargs: Any) -> Dict[str, Any]:
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)
    except (TypeError, ValueError):
        return {"args": list(args), "kwargs": dict(kwargs)}


def function_key(
    function: Callable[..., Any],
    prefix: str,
    name: str,
    args: Any,
    kwargs: Any,
    ignore: Iterable[str] = (),
) -> str:
    """PREFIX:NAME:ARGUMENTS. f(1) and f(a=1) have one key; 1, "1" and True have three.

    A TypeError names the argument of which nobody knows whether it is part of the question.
    """
    plain = {}
    for argument, value in _arguments(function, args, kwargs).items():
        if argument in ignore:
            continue
        if _is_injected(value):
            credentials = _credentials(value)
            if credentials is not None:
                plain[argument] = {"credentials": credentials}
            continue
        try:
            plain[argument] = _plain(value)
        except _Unknown as unknown:
            raise TypeError(
                f"{name}(): no key can be made of the argument {argument!r}, "
                f"a {unknown}: pass key_builder=, or ignore=[{argument!r}] if the result does not "
                f"depend on it"
            ) from None
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    if len(text) > _KEY_MAX:
        text = hashlib.sha256(text.encode()).hexdigest()
    return f"{prefix}:{name}:{text}"


# ---- Values


def _jsonable(value: Any) -> Any:
    dumped = _models.jsonable(value)
    if dumped is not NotImplemented:
        return dumped
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (uuid.UUID, decimal.Decimal)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} cannot be kept as JSON")


def _check_plain(value: Any) -> None:
    """A TypeError or ValueError for what json.loads() would make something else of, in silence: 1 as a
    name becomes "1" (and may be one with another "1"), a tuple a list, a date text. By exact type:
    subclasses (an IntEnum, a named tuple, an OrderedDict) come back as what they are made of. NaN and
    the infinities do come back."""
    kind = type(value)
    if kind is str:
        if not value.isascii():
            value.encode()  # two halves of a surrogate pair would come back as one character
    elif kind is dict:
        for name, item in value.items():
            if type(name) is not str:
                raise TypeError(f"{name!r:.40}, a {type(name).__name__}, as a name in a dict is not "
                                f"that any more once it was JSON: pass model=")
            _check_plain(name)
            _check_plain(item)
    elif kind is list:
        for item in value:
            _check_plain(item)
    elif not (value is None or kind is int or kind is float or kind is bool):
        raise TypeError(f"a {kind.__name__} is not that any more once it was JSON: pass model=")


def encode(value: Any, model: Any = None) -> bytes:
    """As JSON. Without a model only what comes back as it was: a hit gives what the miss gave."""
    if model is not None:
        return json.dumps(value, default=_jsonable, separators=(",", ":")).encode()
    try:
        _check_plain(value)
    except RecursionError:
        raise ValueError("nested in itself, or too deep for JSON") from None
    return json.dumps(value, separators=(",", ":")).encode()


class Undecodable(Exception):
    """What stands under the key is not what this function returns."""


def _decoder(model: Any) -> Callable[[bytes], Any]:
    if model is None:
        return json.loads
    return _models.decoder(model)


# ---- The decorator


_OWN = "larder_own"  # set in an error that is the function's


def cache(
    expire: Union[int, float, datetime.timedelta, None] = None,
    *,
    ttl: Union[int, float, datetime.timedelta, None] = None,
    every: Union[int, float, datetime.timedelta, None] = None,
    offset: Union[int, float, datetime.timedelta, None] = None,
    expire_at: Optional[Callable[[], Any]] = None,
    stale: Union[int, float, datetime.timedelta, None] = None,
    prefix: str = "cache",
    name: Optional[str] = None,
    key_builder: Optional[Callable[..., str]] = None,
    ignore: Iterable[str] = (),
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
    function and its arguments: plain values, collections of them, dataclasses and models by field;
    a request, response, WebSocket or background tasks of Starlette, and the arguments that ignore
    names, are no part of it, but for the credentials of a request (Authorization, Cookie): what was made
    for one user is not another's. Anything else is a TypeError. tags: names, or a function of the
    arguments that gives them.

    name: what the function is called in its keys; by default its module and name, and for lambdas
    and what a function defines also a digest of its code and of the plain values that it closes over.
    Where two would differ in nothing but another object that they close over (a connection, self),
    decorating the second is a TypeError: give each a name, or both the same one if to the cache they
    are the same, as with an application that is made twice.

    model: a Pydantic model, or any type that Pydantic knows (List[Model], Dict[int, date]): what a hit
    gives. Without one a hit gives what JSON does, so kept is only what that gives back as it was: None,
    bool, int, float, str, and lists and dicts (with str as names) of these.

    What cannot be kept (not such JSON, more than 16 tags, too large) is returned, and counted.
    skip_cache_on_error=False raises for the first two, and lets the cache's errors pass.
    """
    larder._larder.check_policy(
        ttl=expire if ttl is None else ttl, every=every, offset=offset, stale=stale, group=group)
    decode = _decoder(model)
    if isinstance(ignore, str):
        raise TypeError("ignore: a list of names of arguments, not one name")
    ignored = frozenset(ignore)

    def policy(args: Any, kwargs: Any) -> Any:
        named: Any = {"ttl": expire if ttl is None else ttl, "every": every, "offset": offset,
                      "stale": stale, "group": group}
        if expire_at is not None:
            named["at"] = expire_at()
        if tags is not None:
            named["tags"] = tuple(tags(*args, **kwargs) if callable(tags) else tags)
        return {field: value for field, value in named.items() if value is not None}

    def filled(function: Any, value: Any, args: Any, kwargs: Any) -> Any:
        if value is None and not cache_none:
            return larder.Skip(b"")
        named = policy(args, kwargs)
        try:
            if len(named.get("tags", ())) > larder.TAGS_MAX:
                raise ValueError(f"{len(named['tags'])} tags: the limit is {larder.TAGS_MAX}")
            return larder.Filled(encode(value, model), **named)
        except (TypeError, ValueError, RecursionError) as error:
            if not skip_cache_on_error:
                raise
            unkept(getattr(function, "__qualname__", repr(function)), error)
            return larder.Skip(b"")

    def decoded(data: Optional[bytes]) -> Any:
        try:
            return decode(data or b"null")
        except Exception as error:
            counts["undecodable"] += 1
            raise Undecodable(f"an entry cannot be decoded: {error!r}") from error

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        called = name or ("" if key_builder is not None else identify(function, prefix))

        def key_of(args: Any, kwargs: Any) -> str:
            if key_builder is not None:
                return key_builder(*args, **kwargs)
            return function_key(function, prefix, called, args, kwargs, ignored)

        def map_of() -> "larder.Map":
            return store if store is not None else get_cache()

        if asyncio.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                made: list[Any] = []

                async def fill() -> Any:
                    try:
                        made.append(await function(*args, **kwargs))
                    except larder.Error as error:
                        raise _own(error)
                    return filled(function, made[0], args, kwargs)

                try:
                    key, found = key_of(args, kwargs), map_of()
                    for attempt in range(2):
                        data = await found.fetch_async(key, fill)
                        if made:
                            break
                        try:
                            return decoded(data)
                        except Undecodable:
                            if attempt > 0:
                                raise
                            found.quick().delete(key)  # or it would stand there until it expires
                except (larder.Error, Undecodable) as error:
                    _told(error, skip_cache_on_error)
                return made[0] if made else await function(*args, **kwargs)

        else:

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                made: list[Any] = []

                def fill() -> Any:
                    try:
                        made.append(function(*args, **kwargs))
                    except larder.Error as error:
                        raise _own(error)
                    return filled(function, made[0], args, kwargs)

                try:
                    key, found = key_of(args, kwargs), map_of()
                    for attempt in range(2):
                        data = found.fetch(key, fill)
                        if made:
                            break
                        try:
                            return decoded(data)
                        except Undecodable:
                            if attempt > 0:
                                raise
                            found.delete(key)
                except (larder.Error, Undecodable) as error:
                    _told(error, skip_cache_on_error)
                return made[0] if made else function(*args, **kwargs)

        wrapper.cache_key = lambda *args, **kwargs: key_of(args, kwargs)  # type: ignore[attr-defined]
        return wrapper

    return decorate


def _own(error: "larder.Error") -> "larder.Error":
    """One of larder's that the function raised: not the cache's trouble, for which the function would be
    called once more, by each who waited for it."""
    setattr(error, _OWN, True)
    return error


def _told(error: Exception, skip: bool) -> None:
    if not skip or getattr(error, _OWN, False):
        raise error
    log.info("larder: going on without the cache: %r", error)
