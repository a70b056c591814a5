"""larder.fastapi: HTTP response caching for FastAPI, one cache for all workers of a host.

    app = FastAPI()
    FastAPILarder(app).lifespan().caching()

    @app.get("/products/{id}", dependencies=[Depends(cache(ttl=300, eviction_group="products"))])
    async def get_product(id: int): ...

The HTTP rules are liblarder's (larder_http.h), the same for every front end. Works with FastAPI 0.92
(Pydantic 1.10) and later. An application that imports redis_fastapi runs with the import changed:
FastAPIRedis, get_async_redis and the rest have their names here. Redis is the type of what get_async_redis
gives, for annotations.
"""

from typing import Annotated

from fastapi import Depends

from ._app import CaptureMiddleware, FastAPILarder, expand_annotated, figures
from ._backend import CacheBackend, get_async_redis, get_cache_backend
from ._coder import BytesCoder, Coder, JsonCoder, ModelCoder, pydantic_model_coder
from ._factories import cache, cache_evict, cache_put, default_key_builder
from ._settings import Settings, get_settings, settings
from larder._store import LarderStore, RedisStore, Store

FastAPIRedis = FastAPILarder
Redis = Store  # async get, set, delete, has, delete_group
RedisSettings = Settings
CacheBackendDep = Annotated[CacheBackend, Depends(get_cache_backend)]

__all__ = [
    "BytesCoder",
    "CacheBackend",
    "CacheBackendDep",
    "CaptureMiddleware",
    "Coder",
    "FastAPILarder",
    "FastAPIRedis",
    "JsonCoder",
    "LarderStore",
    "ModelCoder",
    "Redis",
    "RedisSettings",
    "RedisStore",
    "Settings",
    "cache",
    "cache_evict",
    "cache_put",
    "default_key_builder",
    "expand_annotated",
    "figures",
    "get_async_redis",
    "get_cache_backend",
    "get_settings",
    "pydantic_model_coder",
    "settings",
]
