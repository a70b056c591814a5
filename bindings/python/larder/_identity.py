"""Which function a key is of, the same in every process that runs the same program. A name does for what is
defined once; lambdas and what a function defines share theirs, and are told apart by their code and by the
plain values that they close over. What else they close over (a connection, an object that stands for a
tenant) has no form in a key: two that differ in nothing else are refused."""

import enum
import hashlib
import threading
import types
from typing import Any, Dict, Iterator, List, Tuple

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_DEPTH = 16

_lock = threading.Lock()
_first: Dict[str, str] = {}  # by prefix and name: the digest of the function that is called just so
_opaque: Dict[Tuple[str, str], List[Tuple[str, Any]]] = {}  # what the first of one name and code closes over


def _of_code(code: types.CodeType, depth: int = 0) -> Iterator[str]:
    """All that says what it does; neither where it stands nor what has a form that changes."""
    yield code.co_code.hex()
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_argcount))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            if depth < _DEPTH:
                yield from _of_code(constant, depth + 1)
        elif isinstance(constant, frozenset):
            yield repr(sorted(map(repr, constant)))
        else:
            yield repr(constant)


def _cells(function: Any) -> Iterator[Tuple[str, Any]]:
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        yield "self", owner
    code = getattr(function, "__code__", None)
    for name, cell in zip(getattr(code, "co_freevars", ()), getattr(function, "__closure__", None) or ()):
        try:
            yield name, cell.cell_contents
        except ValueError:
            pass  # not yet: itself, or what is defined after it


class _Closed:
    """What a function closes over: what has a form, and what has none."""

    def __init__(self, function: Any) -> None:
        self.forms: List[str] = []
        self.opaque: List[Tuple[str, Any]] = []
        self._seen = {id(function)}
        self._functions(function, 0)

    def _functions(self, function: Any, depth: int) -> None:
        for name, value in _cells(function):
            self._take(name, value, depth)

    def _take(self, name: str, value: Any, depth: int) -> None:
        if isinstance(value, enum.Enum):
            self.forms.append(f"{name}={type(value).__module__}.{type(value).__qualname__}.{value.name}")
        elif type(value) in _PLAIN:
            self.forms.append(f"{name}={value!r}")
        elif isinstance(value, tuple) and depth < _DEPTH:
            self.forms.append(f"{name}=({len(value)})")
            for item in value:
                self._take(name, item, depth + 1)
        elif isinstance(value, (type, types.ModuleType)) and "<locals>" not in getattr(
            value, "__qualname__", ""
        ):
            module = getattr(value, "__module__", "")
            self.forms.append(f"{name}={module}.{getattr(value, '__qualname__', value.__name__)}")
        elif isinstance(value, types.FunctionType) and depth < _DEPTH:
            self.forms.append(f"{name}={value.__module__}.{value.__qualname__}")
            self.forms.extend(_of_code(value.__code__))
            if id(value) not in self._seen:
                self._seen.add(id(value))
                self._functions(value, depth + 1)
        else:
            self.opaque.append((name, value))


def _digest(parts: List[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _name_of(function: Any) -> str:
    module = getattr(function, "__module__", None) or ""
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def identify(function: Any, prefix: str) -> str:
    """MODULE.NAME; for a lambda, for what a function defined, and for another function of a name that is
    taken, with #DIGEST of code and closure. A TypeError: nobody can tell it from one that was
    decorated before."""
    name = _name_of(function)
    code = list(_of_code(function.__code__)) if hasattr(function, "__code__") else []
    closed = _Closed(function)
    digest = _digest([*code, *closed.forms])
    with _lock:
        if closed.opaque:
            place = f"{prefix}:{name}", _digest(code)
            known = _opaque.setdefault(place, closed.opaque)
            _refuse_another(name, known, closed.opaque)
        if "<" in name:
            return f"{name}#{digest}"
        return name if _first.setdefault(f"{prefix}:{name}", digest) == digest else f"{name}#{digest}"


def _refuse_another(
    name: str, known: List[Tuple[str, Any]], opaque: List[Tuple[str, Any]]
) -> None:
    for (free, one), (_, other) in zip(known, opaque):
        if one is not other:
            raise TypeError(
                f"{name} is decorated a second time with another {free!r} ({type(other).__name__}), of "
                f"which no key can be made: the two would share what they keep. Pass name=, one for "
                f"each, or key_builder="
            )
    if len(known) != len(opaque):
        raise TypeError(f"{name} is decorated a second time with other variables: pass name= or key_builder=")
