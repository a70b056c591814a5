"""shop.py: a shop whose pages come out of one cache for all workers.

    LARDER_DIR=/dev/shm/shop gunicorn -w 4 -k uvicorn.workers.UvicornWorker shop:app

One worker's page is every worker's hit. With `larderd --map shop --redis ...` beside it, other hosts
have it, too, and nothing changes here when Redis goes away.
"""

import asyncio
import contextlib
import gc
import os
from datetime import timedelta
from typing import Any, AsyncIterator, Dict

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from larder.decorator import cache as cached
from larder.decorator import set_cache
from larder.fastapi import (
    CacheBackendDep,
    FastAPILarder,
    cache,
    cache_evict,
    cache_put,
    default_key_builder,
)
from origin import Origin
from pydantic import BaseModel

app = FastAPI()
larder_app = FastAPILarder(app, os.environ.get("LARDER_MAP", "shop"), map_size=64 << 20)


@contextlib.asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[None]:
    set_cache(larder_app.store().cache)  # that of the routes is the functions', too
    # What an application has when it starts it keeps: without this the collector walks all of it again
    # and again, 20 ms at a time, in which no request of the worker is answered.
    gc.collect()
    gc.freeze()
    yield


larder_app.lifespan(started).caching().health("/health")


class Product(BaseModel):
    name: str
    price: float


class Shop(Origin):
    products: Dict[int, Dict[str, Any]] = {}

    async def product(self, number: int) -> Dict[str, Any]:
        await self.ask(f"product:{number}")
        return self.products.get(number, {"id": number, "name": f"Product {number}"})


db = Shop()


# ---- Pages: read, invalidate, write through


@app.get("/products/{product_id}", dependencies=[Depends(cache(ttl=300, eviction_group="products"))])
async def get_product(product_id: int) -> Any:
    return {**await db.product(product_id), "made_by": os.getpid()}


@app.delete(
    "/products/{product_id}",
    dependencies=[Depends(cache_evict(eviction_group="products", key_builder=default_key_builder))],
)
async def delete_product(product_id: int) -> Any:
    return {"deleted": product_id}


@app.put(
    "/products/{product_id}",
    dependencies=[
        Depends(cache_put(eviction_group="products", key_builder=default_key_builder, ttl=300))
    ],
)
async def replace_product(product_id: int, body: Product) -> Any:
    return {"id": product_id, "name": body.name, "price": body.price}


@app.post("/admin/clear-products", dependencies=[Depends(cache_evict(eviction_group="products"))])
async def clear_products() -> Any:
    return {"ok": True}


# ---- A page of one's own: `private`, and never another's


@app.get("/me", dependencies=[Depends(cache(ttl=60, private=True))])
async def me(request: Request, authorization: str = Header(None)) -> Any:
    if not authorization:
        raise HTTPException(401)
    await db.ask("me")
    return {"user": authorization, "cookie": request.headers.get("cookie")}


# ---- Values: conditions, fallbacks, read-modify-write


@app.get("/dashboard/{user_id}")
async def dashboard(user_id: int, cache: CacheBackendDep) -> Any:
    orders = await cache.get(f"orders:{user_id}", eviction_group="dashboard")
    if orders is None:
        await db.ask(f"orders:{user_id}")
        orders = [user_id, user_id + 1]
        await cache.set(f"orders:{user_id}", orders, ttl=timedelta(minutes=1), eviction_group="dashboard")
    return {"orders": orders}


@app.post("/products/{product_id}/view")
async def record_view(product_id: int, cache: CacheBackendDep) -> Any:
    views = await cache.update(
        f"views:{product_id}", lambda n: n + 1, default=0, ttl=3600, eviction_group="analytics")
    return {"product_id": product_id, "views": views}


@app.get("/settings/{key}")
async def get_setting(key: str, cache: CacheBackendDep) -> Any:
    return {"value": await cache.get(f"setting:{key}", default="default-value", eviction_group="settings")}


# ---- Prices change every five minutes: kept until the next mark of the wall clock


@cached(every=300)
async def prices() -> Dict[str, float]:
    await db.ask("prices")
    return {"EURUSD": 1.1}


@app.get("/prices")
async def get_prices() -> Any:
    return await prices()


# ---- A thousand callers of one cold key


@app.get("/worker")
async def worker() -> Any:
    return {"pid": os.getpid()}


@app.get("/stampede/{key}")
async def stampede(key: str, callers: int = 250) -> Any:
    """So many coroutines of a worker ask at once; how many got the value."""

    async def fill() -> bytes:
        await db.ask(f"stampede:{key}")
        return b"filled"

    values = await asyncio.gather(
        *[larder_app.store().cache.fetch_async(f"stampede:{key}", fill, ttl=60) for _ in range(callers)]
    )
    return {"pid": os.getpid(), "right": sum(value == b"filled" for value in values)}
