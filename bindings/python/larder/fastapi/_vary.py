"""Which header fields of a request a route's answer depends on, as far as the route says so: the header
parameters and API keys that it and its dependencies declare. Its pages say Vary for them, so that a
page made for one key is nobody else's, here and in every cache on the way.

Credentials proper (Authorization, Cookie) are not named here: the rules look at them in any case. What
a dependency reads out of the request by itself nobody can know.

What a test has put in the place of a dependency (app.dependency_overrides) declares its own.
"""

from typing import Any, Dict, Iterator, Tuple

from fastapi.dependencies.utils import get_dependant
from fastapi.security import APIKeyHeader

# What speaks of the message, the connection or the cache, and not of the page.
_OTHERS = {
    "authorization", "cache-control", "connection", "content-length", "content-type", "cookie", "host",
    "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "pragma", "range",
}
_KEPT = "_larder_vary"


def _parameter_names(field: Any) -> Iterator[str]:
    """Of one header parameter; later versions of FastAPI take a model of several."""
    annotation = getattr(getattr(field, "field_info", None), "annotation", None)
    fields = getattr(annotation, "model_fields", None) if isinstance(annotation, type) else None
    if fields:
        for name, info in fields.items():
            yield getattr(info, "alias", None) or name.replace("_", "-")
    else:
        yield field.alias


_DEPTH = 64  # dependencies of dependencies; overrides can be made to run in a circle


def _declared(dependant: Any, overrides: Dict[Any, Any], depth: int = 0) -> Iterator[str]:
    for field in dependant.header_params:
        yield from _parameter_names(field)
    if isinstance(dependant.call, APIKeyHeader):
        yield dependant.call.model.name
    if depth < _DEPTH:
        for inner in dependant.dependencies:
            call = overrides.get(inner.call, inner.call)
            if call is not inner.call:
                inner = get_dependant(path=inner.path or "", call=call)
            yield from _declared(inner, overrides, depth + 1)


def _headers(route: Any, overrides: Dict[Any, Any]) -> Tuple[bytes, ...]:
    dependant = getattr(route, "dependant", None)
    names = set() if dependant is None else {name.lower() for name in _declared(dependant, overrides)}
    return tuple(sorted(name.encode() for name in names - _OTHERS))


def declared_headers(route: Any) -> Tuple[bytes, ...]:
    """Their names in lower case, sorted; worked out once for a route of FastAPI, () for any other.
    While dependencies are overridden, at each request: as FastAPI does."""
    overrides = getattr(
        getattr(route, "dependency_overrides_provider", None), "dependency_overrides", None)
    if overrides:
        return _headers(route, overrides)
    known: Any = getattr(route, _KEPT, None)
    if known is None:
        known = _headers(route, {})
        if route is not None:
            setattr(route, _KEPT, known)
    return known  # type: ignore[no-any-return]
