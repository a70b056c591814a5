"""LarderBackend: a larder map behind fastapi-cache2.

    FastAPICache.init(LarderBackend(larder.Map("pages")), prefix="fastapi-cache")
"""

import asyncio
import math
from typing import Any, Optional, Tuple

import larder
from larder._store import LarderStore

try:
    from fastapi_cache.types import Backend  # type: ignore[import-not-found]
except ImportError:
    try:
        from fastapi_cache.backends import Backend  # type: ignore[import-not-found]
    except ImportError:
        Backend = object


class LarderBackend(Backend):  # type: ignore[misc,valid-type]
    """Get, set and clear; TTLs are whole seconds there. expire_at: called at each set without an
    expire of its own, gives the instant at which the value expires. A set that the map refuses is
    logged, and the value is not kept."""

    def __init__(self, cache: "larder.Map", expire_at: Any = None) -> None:
        self.cache = cache
        self.store = LarderStore(cache)
        self.expire_at = expire_at

    async def get_with_ttl(self, key: str) -> Tuple[int, Optional[bytes]]:
        """(seconds left, value): -1 without an expiry, (0, None) where there is none."""
        entry = self.cache.lookup(key)
        if entry is None or entry.value is None:
            return 0, None
        return -1 if entry.ttl is None else math.ceil(entry.ttl), entry.value

    async def get(self, key: str) -> Optional[bytes]:
        return self.cache.get(key)

    async def set(self, key: str, value: bytes, expire: Optional[int] = None) -> None:
        at = self.expire_at() if expire is None and self.expire_at is not None else None
        self.store.at_once(
            "set", lambda: self.cache.quick().set(key, value, ttl=expire, at=at), None)

    async def clear(self, namespace: Optional[str] = None, key: Optional[str] = None) -> int:
        """One key, or all of a namespace: what begins with NAMESPACE and a colon. That walks over
        the keys, in a thread: the loop goes on meanwhile."""
        if key is not None:
            return int(self.cache.quick().delete(key))
        if namespace is not None:
            return await asyncio.to_thread(self.cache.invalidate_prefix, namespace + ":")
        return 0
