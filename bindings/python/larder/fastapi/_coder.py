"""Values to bytes and back. JSON, because whoever can write to a cache must not be able to run code
in those who read it: there is no pickle here."""

import json
from typing import Any, Generic, Type, TypeVar

from fastapi.encoders import jsonable_encoder

from larder._models import decoder

_T = TypeVar("_T")


class Coder:
    """encode() raises TypeError or ValueError for what it cannot take; decode() for what is not its."""

    def encode(self, value: Any) -> bytes:
        raise NotImplementedError

    def decode(self, data: bytes) -> Any:
        raise NotImplementedError


class JsonCoder(Coder):
    """Whatever FastAPI can return: models, dataclasses, dates; comes back as plain JSON."""

    def encode(self, value: Any) -> bytes:
        return json.dumps(jsonable_encoder(value), separators=(",", ":"), ensure_ascii=False).encode()

    def decode(self, data: bytes) -> Any:
        return json.loads(data)


class BytesCoder(Coder):
    """Bytes as they are."""

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"bytes, not {type(value).__name__}")
        return bytes(value)

    def decode(self, data: bytes) -> bytes:
        return data


class ModelCoder(JsonCoder, Generic[_T]):
    """Pydantic models, and what is made of them (List[Model]): what comes back is checked and is a
    model again."""

    def __init__(self, model: Type[_T]) -> None:
        self.model = model
        self._decode = decoder(model)

    def decode(self, data: bytes) -> _T:
        return self._decode(data)  # type: ignore[no-any-return]


def pydantic_model_coder(model: Type[_T]) -> ModelCoder[_T]:
    return ModelCoder(model)
