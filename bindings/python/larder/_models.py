"""Pydantic models of either major version, by what each documents. Nothing is imported for them: who
has models has Pydantic."""

import functools
import json
from typing import Any, Callable, Dict, Optional


def fields_of(value: Any) -> Optional[Dict[str, Any]]:
    """All fields of a model, also what a dump omits; None for anything else."""
    kind = type(value)
    names = getattr(kind, "model_fields", None)  # asked first: in Pydantic 2 __fields__ is deprecated
    if isinstance(names, dict) and hasattr(value, "model_dump"):
        extra = getattr(value, "__pydantic_extra__", None) or {}
        return {**{name: getattr(value, name, None) for name in names}, **extra}
    if hasattr(kind, "__fields__") and hasattr(value, "dict"):
        return dict(vars(value))
    return None


def jsonable(value: Any) -> Any:
    """A model as plain JSON values; NotImplemented for anything else."""
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    if hasattr(type(value), "__fields__") and hasattr(value, "json"):
        return json.loads(value.json())
    return NotImplemented


def decoder(model: Any) -> Callable[[bytes], Any]:
    """What makes JSON a model again, checked; model may be any type that Pydantic knows (List[Model])."""
    validate = getattr(model, "model_validate_json", None) or getattr(model, "parse_raw", None)
    if validate is not None:
        return validate  # type: ignore[no-any-return]
    import pydantic

    if hasattr(pydantic, "TypeAdapter"):
        return pydantic.TypeAdapter(model).validate_json  # type: ignore[no-any-return]
    return functools.partial(pydantic.parse_raw_as, model)
