"""app.py: one endpoint whose origin takes its time, cached in the way that BENCH_CACHE names.

    none       not at all, for orientation
    dict       bytes in a dict of each worker's own, under the route: nothing can be quicker in this framework
    larder     larder.fastapi's cache()
    redis      redis.asyncio through a pool, as articles for beginners have it: JSON, setex
    memcached  bytes under the same code as dict, through bench/http/memcached.py

Every call of the origin adds one byte to BENCH_ORIGIN_LOG, whose size is thus the count of all workers.
"""

import asyncio
import json
import os
import time
from functools import wraps
from typing import Any, Callable, Dict, List, Tuple

from fastapi import Depends, FastAPI, Request
from starlette.responses import JSONResponse, Response

KIND = os.environ["BENCH_CACHE"]
TTL = int(os.environ.get("BENCH_TTL", "300"))
DELAY = float(os.environ.get("BENCH_ORIGIN_DELAY", "0.005"))

app = FastAPI()
Page = Dict[str, Any]


class Origin:
    """A database that answers after a while, and counts who comes."""

    def __init__(self) -> None:
        self._log = os.open(os.environ["BENCH_ORIGIN_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    async def page(self, size: int, number: int) -> Page:
        os.write(self._log, b".")
        await asyncio.sleep(DELAY)
        head = f"page {number} "
        return {"number": number, "text": head + "x" * (size - len(head))}


origin = Origin()


def bytes_cached(get: Callable[..., Any], put: Callable[..., Any]) -> Callable[..., Any]:
    """Whole bodies, as bytes, in a store that is a function to get and one to put."""

    def decorator(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(endpoint)
        async def wrapper(request: Request, *args: Any, **kwargs: Any) -> Response:
            key = f"route:{request.url.path}:{request.url.query}"
            body = await get(key)
            if body is not None:
                return Response(body, media_type="application/json", headers={"X-Cache": "HIT"})
            response = JSONResponse(await endpoint(request, *args, **kwargs), headers={"X-Cache": "MISS"})
            await put(key, response.body)
            return response

        return wrapper

    return decorator


def uncached(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    return endpoint


decorator, dependencies = uncached, []  # type: Callable[..., Any], List[Any]

if KIND == "larder":
    from larder.fastapi import FastAPILarder, cache

    FastAPILarder(app).lifespan().caching()
    dependencies = [Depends(cache(ttl=TTL))]

elif KIND == "dict":
    held: Dict[str, Tuple[float, bytes]] = {}

    async def look_up(key: str) -> Any:
        expires, body = held.get(key, (0.0, None))
        return body if time.monotonic() < expires else None

    async def keep(key: str, body: bytes) -> None:
        held[key] = time.monotonic() + TTL, body

    decorator = bytes_cached(look_up, keep)

elif KIND == "redis":
    import redis.asyncio as redis

    redis_client: Any = None

    @app.on_event("startup")
    async def create_pool() -> None:
        global redis_client
        redis_client = redis.Redis(connection_pool=redis.ConnectionPool(
            host="127.0.0.1", port=int(os.environ["BENCH_REDIS_PORT"]), db=0, max_connections=50,
            decode_responses=True, socket_timeout=5.0, socket_connect_timeout=5.0, retry_on_timeout=True))
        await redis_client.ping()

    def cache_response(ttl: int) -> Callable[..., Any]:
        def decorator(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(endpoint)
            async def wrapper(request: Request, *args: Any, **kwargs: Any) -> Response:
                key = f"route:{request.url.path}:{request.url.query}"
                try:
                    cached = await redis_client.get(key)
                    if cached:
                        return JSONResponse(json.loads(cached), headers={"X-Cache": "HIT"})
                except (redis.ConnectionError, json.JSONDecodeError):
                    pass
                result = await endpoint(request, *args, **kwargs)
                try:
                    await redis_client.setex(key, ttl, json.dumps(result))
                except redis.ConnectionError:
                    pass
                return JSONResponse(result, headers={"X-Cache": "MISS"})

            return wrapper

        return decorator

    decorator = cache_response(TTL)

elif KIND == "memcached":
    from memcached import Client

    client = Client("127.0.0.1", int(os.environ["BENCH_MEMCACHED_PORT"]))

    async def put(key: str, body: bytes) -> None:
        await client.set(key.encode(), body, TTL)

    decorator = bytes_cached(lambda key: client.get(key.encode()), put)

elif KIND != "none":
    raise ValueError(f"BENCH_CACHE={KIND}")


@app.get("/page/{size}/{number}", dependencies=dependencies)
@decorator
async def page(request: Request, size: int, number: int) -> Any:
    return await origin.page(size, number)
