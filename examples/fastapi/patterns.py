"""patterns.py: every way of caching that larder's Python package has, a route or two each.

    LARDER_DIR=/dev/shm/patterns gunicorn -w 4 -k uvicorn.workers.UvicornWorker patterns:app

Nothing here asks whether there is a Redis: with larderd beside it other hosts have all of it, too, and
without, or when Redis dies, the same lines go on for this host. shop.py is the shorter one to read first.
"""

import asyncio
import contextlib
import os
from datetime import datetime, timedelta, timezone
from typing import Any, AsyncIterator, Dict, List, Optional

import larder
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from larder.backends import LarderBackend
from larder.decorator import cache as cached
from larder.decorator import set_cache
from larder.events import CacheEventBus
from larder.fastapi import (
    CacheBackendDep,
    FastAPILarder,
    cache,
    cache_evict,
    cache_put,
    default_key_builder,
)
from larder.invalidation import CacheInvalidator
from larder.middleware import ResponseCacheMiddleware, cache_response
from larder.sessions import Session, SessionStore
from origin import Origin
from pydantic import BaseModel

NAME = os.environ.get("LARDER_MAP", "patterns")
pages = larder.Map(NAME, map_size=64 << 20)
app = FastAPI()
set_cache(pages)
db = Origin()
bus = CacheEventBus(pages)


@contextlib.asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[None]:
    """Every worker hears the events of all."""
    await bus.subscribe("user:updated", handle_user_update)
    task = asyncio.ensure_future(bus.listen())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    bus.close()


FastAPILarder(app, pages).lifespan(listening).caching().health("/health")


class Worker:
    """Says which process answered, whoever made the page."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def named(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-worker", b"%d" % os.getpid())]
            await send(message)

        await self.app(scope, receive, named)


# ---- What functions return


@cached(expire=30)
async def get_data(what: str) -> Dict[str, str]:
    await db.ask(f"data:{what}")
    return {"data": what}


@app.get("/data/{what}")
async def data(what: str) -> Any:
    return await get_data(what)


@cached(every=300)  # until the next 5-minute mark
async def marked_prices() -> Dict[str, float]:
    await db.ask("prices:marked")
    return {"EURUSD": 1.1}


def next_five_minutes() -> datetime:
    now = datetime.now(timezone.utc)
    hour = now.replace(minute=0, second=0, microsecond=0)
    return hour + timedelta(minutes=(now.minute // 5 + 1) * 5)


@cached(expire_at=next_five_minutes)
async def computed_prices() -> Dict[str, float]:
    await db.ask("prices:computed")
    return {"EURUSD": 1.1}


@app.get("/prices/{kind}")
async def prices(kind: str) -> Any:
    function = marked_prices if kind == "marked" else computed_prices
    result = await function()
    entry = pages.lookup(function.cache_key())  # type: ignore[attr-defined]
    return {**result, "expires": entry.expires if entry is not None else None}


@cached(ttl=600, prefix="users")
async def get_user_by_id(user_id: int) -> Dict[str, Any]:
    await db.ask(f"user-by-id:{user_id}")
    return {"id": user_id, "name": f"User {user_id}"}


def user_key(user_id: int, include_details: bool = False) -> str:
    return f"user:{user_id}:details={include_details}"


@cached(ttl=3600, key_builder=user_key)
async def get_user_with_details(user_id: int, include_details: bool = False) -> Dict[str, Any]:
    await db.ask(f"user-details:{user_id}:{include_details}")
    return {"id": user_id, **({"email": f"user{user_id}@example.com"} if include_details else {})}


@app.get("/functions/{user_id}")
async def functions(user_id: int, details: bool = False) -> Any:
    return [await get_user_by_id(user_id), await get_user_with_details(user_id, include_details=details)]


@cached(expire=60)
async def nobody(name: str) -> Optional[str]:
    await db.ask(f"nobody:{name}")
    return None


@cached(expire=60, cache_none=False)
async def nobody_yet(name: str) -> Optional[str]:
    await db.ask(f"nobody-yet:{name}")
    return None


@app.get("/none/{name}")
async def none(name: str) -> Any:
    return [await nobody(name), await nobody_yet(name)]


backend = LarderBackend(pages, expire_at=next_five_minutes)  # FastAPICache.init(backend, prefix=...)


@app.get("/backend/{key}")
async def by_backend(key: str) -> Any:
    """What a decorator of fastapi-cache2 does with its backend."""
    ttl, value = await backend.get_with_ttl(f"backend:{key}")
    if value is None:
        await db.ask(f"backend:{key}")
        value = key.encode()
        await backend.set(f"backend:{key}", value)
        ttl, _ = await backend.get_with_ttl(f"backend:{key}")
    return {"value": value.decode(), "ttl": ttl}


# ---- Pages: read, write through, invalidate


class Product(BaseModel):
    name: str
    price: float


class User(BaseModel):
    id: str


def get_current_user(authorization: str = Header(None)) -> User:
    if not authorization:
        raise HTTPException(401)
    return User(id=authorization)


@app.get("/products/{product_id}", dependencies=[Depends(cache(ttl=300, eviction_group="products"))])
async def get_product(product_id: int) -> Any:
    await db.ask(f"product:{product_id}")
    return {"id": product_id, "name": f"Product {product_id}"}


@app.delete(
    "/products/{product_id}",
    dependencies=[Depends(cache_evict(eviction_group="products", key_builder=default_key_builder))],
)
async def delete_product(product_id: int) -> Any:
    if product_id >= 1000:
        raise HTTPException(404)
    return {"deleted": product_id}


@app.put("/products/{product_id}", dependencies=[Depends(cache_put(eviction_group="products", ttl=300))])
async def replace_product(product_id: int, body: Product) -> Any:
    return {"id": product_id, "name": body.name}


@app.post("/admin/clear-products", dependencies=[Depends(cache_evict(eviction_group="products"))])
async def clear_products() -> Any:
    return {"ok": True}


async def by_tenant(request: Request, group: str, prefix: str) -> str:
    return f"{prefix}:{request.headers.get('x-tenant', 'none')}:{request.url.path}"


OWN: Dict[str, Any] = {"eviction_group": "v2", "prefix": "own:prefix", "key_builder": by_tenant}


@app.get("/tenant", dependencies=[Depends(cache(ttl=timedelta(minutes=2), private=True, **OWN))])
async def tenant(x_tenant: str = Header("none")) -> Any:
    await db.ask(f"tenant:{x_tenant}")
    return {"tenant": x_tenant}


@app.delete("/tenant", dependencies=[Depends(cache_evict(**OWN))])
async def forget_tenant() -> Any:
    return {}


@app.put("/tenant", dependencies=[Depends(cache_put(ttl=300, private=True, **OWN))])
async def put_tenant(x_tenant: str = Header("none")) -> Any:
    return {"tenant": x_tenant, "put": True}


@app.get("/me/profile", dependencies=[Depends(cache(ttl=60, private=True))])
async def my_profile(user: User = Depends(get_current_user)) -> Any:
    await db.ask(f"profile:{user.id}")
    return {"user": user.id, "name": "as it was"}


@app.put("/me/profile", dependencies=[Depends(cache_put(ttl=60, private=True))])
async def update_profile(name: str, user: User = Depends(get_current_user)) -> Any:
    return {"user": user.id, "name": name}


@app.get("/config", dependencies=[Depends(cache(eviction_group="config"))])  # until it is evicted
async def config() -> Any:
    await db.ask("config")
    return {"theme": "dark"}


# ---- Values: conditions, parts of an answer, read-modify-write


@app.get("/items/{item_id}")
async def get_item(item_id: int, cache: CacheBackendDep) -> Any:
    item = await cache.get(f"item:{item_id}", eviction_group="items")
    if item is None:
        await db.ask(f"item:{item_id}")
        item = {"id": item_id, "status": "published" if item_id % 2 else "draft"}
        if item["status"] == "published":
            await cache.set(f"item:{item_id}", item, ttl=300, eviction_group="items")
    return item


@app.get("/dashboard/{user_id}")
async def dashboard(user_id: int, cache: CacheBackendDep) -> Any:
    parts: Dict[str, Any] = {}
    for part, ttl in (("orders", 60), ("reco", 120)):
        parts[part] = await cache.get(f"{part}:{user_id}", eviction_group="dashboard")
        if parts[part] is None:
            await db.ask(f"{part}:{user_id}")
            parts[part] = [part, user_id]
            await cache.set(f"{part}:{user_id}", parts[part], ttl=ttl, eviction_group="dashboard")
    return parts


@app.put("/profile/{user_id}")
async def cascade(user_id: int, cache: CacheBackendDep) -> Any:
    return [
        await cache.delete(f"profile:{user_id}", eviction_group="profiles"),
        await cache.delete(f"orders:{user_id}", eviction_group="dashboard"),
        await cache.delete("all", eviction_group="users"),
    ]


@app.get("/content/{content_id}")
async def get_content(content_id: int, cache: CacheBackendDep) -> Any:
    content = await cache.get(f"content:{content_id}", eviction_group="content")
    if content is None:
        await db.ask(f"content:{content_id}")
        content = {"id": content_id, "premium": content_id % 2 == 1}
        ttl = timedelta(hours=1) if content["premium"] else 300
        await cache.set(f"content:{content_id}", content, ttl=ttl, eviction_group="content")
    entry = pages.lookup(cache._key(f"content:{content_id}", "content"))
    return {**content, "ttl": entry.ttl if entry is not None else None}


@app.post("/products/{product_id}/view")
async def record_view(product_id: int, cache: CacheBackendDep) -> Any:
    return {"views": await cache.update(
        f"views:{product_id}", lambda views: views + 1, default=0, ttl=3600, eviction_group="analytics")}


@app.get("/warm-check/{product_id}")
async def check_warm(product_id: int, cache: CacheBackendDep) -> Any:
    if await cache.has(f"product:{product_id}", eviction_group="warm"):
        return {"warm": True}
    await db.ask(f"warm:{product_id}")
    await cache.set(f"product:{product_id}", None, ttl=300, eviction_group="warm")
    return {"warm": False}


@app.get("/settings/{key}")
async def get_setting(key: str, cache: CacheBackendDep) -> Any:
    return {"value": await cache.get(f"setting:{key}", default="default-value", eviction_group="settings")}


@app.put("/settings/{key}")
async def put_setting(key: str, value: str, cache: CacheBackendDep) -> Any:
    await cache.set(f"setting:{key}", value, ttl=timedelta(minutes=30), eviction_group="settings")
    return {}


@app.delete("/settings")
async def clear_settings(cache: CacheBackendDep) -> Any:
    return {"deleted": await cache.delete_group("settings")}


# ---- How long a value lives


@app.put("/ttl/{name}")
async def put_times(name: str) -> Any:
    write = pages.quick().set
    write(f"ttl:{name}:absolute", b"v", at=datetime.now(timezone.utc) + timedelta(hours=1))
    write(f"ttl:{name}:sliding", b"v", sliding=600)
    write(f"ttl:{name}:extended", b"v", ttl=5)
    write(f"ttl:{name}:stale", b"old", ttl=0.05, stale=600)  # fresh, and then stale
    return {}


@app.get("/ttl/{name}")
async def get_times(name: str) -> Any:
    absolute, sliding = (pages.lookup(f"ttl:{name}:{kind}") for kind in ("absolute", "sliding"))
    extended = pages.lookup(f"ttl:{name}:extended", extend=900)
    stale = pages.lookup(f"ttl:{name}:stale", stale=True)
    return {
        "absolute": absolute and absolute.ttl,
        "sliding": sliding and sliding.sliding,
        "extended": extended and pages.lookup(f"ttl:{name}:extended", peek=True).ttl,
        "stale": stale and [stale.value.decode(), not stale.stale],
    }


async def renewed(name: str) -> bytes:
    await db.ask(f"renewed:{name}")
    return b"new"


@app.get("/renewed/{name}")
async def stale_while_revalidate(name: str) -> Any:
    """The stale value at once, and one caller of the host renews it beside."""
    value = await pages.fetch_async(f"ttl:{name}:stale", lambda: renewed(name), ttl=60, stale=600)
    return {"value": value.decode()}


# ---- Invalidation by pattern and tag, and by events

invalidator = CacheInvalidator(pages)


@app.get("/users-list")
async def list_users() -> Any:
    users = await pages.fetch_async(
        "users:list", all_users, ttl=300, tags=["user:1", "user:2"])
    return Response(users, media_type="application/json")


async def all_users() -> str:
    await db.ask("users:list")
    return '[{"id": 1}, {"id": 2}]'


@app.put("/user/{user_id}")
async def update_user(user_id: int) -> Any:
    pages.quick().set(f"user:{user_id}:name", b"name", ttl=60)
    pages.quick().set(f"user:{user_id}:mail", b"mail", ttl=60)
    return {"pattern": await invalidator.invalidate_pattern(f"user:{user_id}:*"),
            "tags": await invalidator.invalidate_by_tags([f"user:{user_id}"])}


heard: List[str] = []


async def handle_user_update(user_id: str) -> None:
    heard.append(user_id)
    await invalidator.invalidate_single(f"user:{user_id}")


@app.post("/events/{user_id}")
async def user_updated(user_id: str) -> Any:
    pages.quick().set(f"user:{user_id}", b"v", ttl=60)
    await bus.publish("user:updated", user_id)
    return {}


@app.get("/heard/{user_id}")
async def get_heard(user_id: str) -> Any:
    return {"heard": heard.count(user_id), "there": f"user:{user_id}" in pages}


# ---- Whole responses, without a word at the routes

app.add_middleware(
    ResponseCacheMiddleware,
    cache=pages,
    ttl=300,
    cacheable_paths=["/api/products", "/api/categories"],
    excluded_paths=["/health", "/api/products/user"],
)
app.add_middleware(Worker)


@app.get("/api/{path:path}")
async def api(path: str) -> Any:
    await db.ask(f"api:{path}")
    return Response(bytes(range(256)), 404 if "missing" in path else 200, media_type="image/x")


@app.get("/cached-response")
@cache_response(ttl=600)
async def cached_response(request: Request) -> Any:
    await db.ask(f"cached-response:{request.url.query}")
    return {"products": [1, 2]}


# ---- Sessions, in a map of their own

sessions = SessionStore(larder.Map(f"{NAME}-sessions", map_size=16 << 20))


@app.post("/login")
async def login(response: Response, username: str, password: str) -> Any:
    if password != "right":
        raise HTTPException(401)
    session_id, session = await sessions.create_session(username, {"username": username})
    sessions.set_cookie(response, session_id)
    return {"user_id": session.user_id}


@app.get("/profile")
async def get_profile(session: Session = Depends(sessions.required)) -> Any:
    return {"user_id": session.user_id, "data": session.data}


@app.patch("/profile")
async def change_profile(
    request: Request, key: str, value: str, session: Session = Depends(sessions.required)
) -> Any:
    changed = await sessions.update_session(sessions.id_of(request) or "", {key: value})
    return changed and changed.data


@app.post("/logout")
async def logout(
    request: Request, response: Response, everywhere: bool = False,
    session: Session = Depends(sessions.required),
) -> Any:
    sessions.delete_cookie(response)
    if everywhere:
        return {"ended": await sessions.delete_user_sessions(session.user_id)}
    return {"ended": int(await sessions.delete_session(sessions.id_of(request) or ""))}
