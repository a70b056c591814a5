"""Which header fields of a request a route's answer depends on, as far as the route says so: the header
parameters and API keys that it and its dependencies declare. Its pages say Vary for them, so that a
page made for one key is nobody else's, here and in every cache on the way.

Credentials proper (Authorization, Cookie) are not named here: the rules look at them in any case. What
a dependency reads out of the request by itself nobody can know.
"""

from typing import Any, Iterator, Tuple

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


def _declared(dependant: Any, depth: int = 0) -> Iterator[str]:
    for field in dependant.header_params:
        yield from _parameter_names(field)
    if isinstance(dependant.call, APIKeyHeader):
        yield dependant.call.model.name
    if depth < 64:
        for inner in dependant.dependencies:
            yield from _declared(inner, depth + 1)


def declared_headers(route: Any) -> Tuple[bytes, ...]:
    """Their names in lower case, sorted; worked out once for a route of FastAPI, () for any other."""
    known = getattr(route, _KEPT, None)
    if known is None:
        dependant = getattr(route, "dependant", None)
        names = set() if dependant is None else {name.lower() for name in _declared(dependant)}
        known = tuple(sorted(name.encode() for name in names - _OTHERS))
        if route is not None:
            setattr(route, _KEPT, known)
    return known
