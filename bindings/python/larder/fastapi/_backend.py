"""CacheBackend: values of any key, for what a dependency at the route cannot say."""

import datetime
import logging
from typing import Any, Callable, Dict, Optional, Union

from fastapi import Depends
from starlette.requests import HTTPConnection

from ._coder import Coder, JsonCoder
from ._settings import get_settings
from larder._store import as_store, counts, group_mark, key_of

log = logging.getLogger("larder")

Seconds = Union[int, float, datetime.timedelta, None]

_SWAPS = 64  # how often update() tries before it gives up


class CacheBackend:
    """get, set, delete, has, delete_group, update over one store, values through a Coder.

    An outage, a miss and an entry that cannot be decoded are the same to the caller. A value of
    None is cached, too: has() tells it from a miss, and so does a default of one's own.
    """

    def __init__(self, redis: Any, coder: Optional[Coder] = None, prefix: Optional[str] = None):
        self.store = as_store(redis)
        self.coder = coder or JsonCoder()
        self.prefix = get_settings().pattern_prefix("cache") if prefix is None else prefix

    def _key(self, key: str, group: Optional[str]) -> str:
        return key_of(self.prefix, group, key)

    def _mark(self, group: Optional[str]) -> Optional[str]:
        return group_mark(self.prefix, group) if group else None

    def _policy(self, ttl: Seconds) -> Dict[str, Any]:
        ttl = get_settings().default_ttl if ttl is None else ttl
        seconds = ttl.total_seconds() if isinstance(ttl, datetime.timedelta) else ttl
        if seconds < 0:
            raise ValueError(f"ttl: {ttl!r} is negative")
        return {"ttl": ttl}

    def _decode(self, data: Optional[bytes], key: str, default: Any) -> Any:
        if data is None:
            return default
        try:
            return self.coder.decode(data)
        except Exception as error:
            counts["undecodable"] += 1
            log.info("larder: the entry of %r cannot be decoded: %r", key, error)
            return default

    async def get(self, key: str, *, default: Any = None, eviction_group: Optional[str] = None) -> Any:
        """The value, or the default."""
        name = self._key(key, eviction_group)
        data = await self.store.safely("get", lambda: self.store.get(name), None)
        return self._decode(data, key, default)

    async def set(
        self, key: str, value: Any, *, ttl: Seconds = None, eviction_group: Optional[str] = None
    ) -> None:
        """Store it for ttl seconds (int, float or timedelta; None: the default; 0: no expiry)."""
        name, policy = self._key(key, eviction_group), self._policy(ttl)
        data = self.coder.encode(value)
        await self.store.safely(
            "set", lambda: self.store.set(name, data, policy, self._mark(eviction_group)), None
        )

    async def delete(self, key: str, *, eviction_group: Optional[str] = None) -> bool:
        """Whether it was there."""
        name = self._key(key, eviction_group)
        return await self.store.safely("delete", lambda: self.store.delete(name), False)

    async def has(self, key: str, *, eviction_group: Optional[str] = None) -> bool:
        """Whether there is a value, undecoded."""
        name = self._key(key, eviction_group)
        return await self.store.safely("has", lambda: self.store.has(name), False)

    async def delete_group(self, eviction_group: Optional[str] = None) -> int:
        """Delete all of a group; how many there were."""
        if not eviction_group:
            raise ValueError("delete_group() without a group")
        return await self.store.safely(
            "delete_group", lambda: self.store.delete_group(self.prefix, eviction_group), 0
        )

    async def update(
        self,
        key: str,
        change: Callable[[Any], Any],
        *,
        default: Any = None,
        ttl: Seconds = None,
        eviction_group: Optional[str] = None,
    ) -> Any:
        """Read, change, write back, and again if somebody wrote in between: atomic on a host.

        change() is called with the value or the default, perhaps several times. Returns the new value,
        also where the cache could not keep it.
        """
        name, policy = self._key(key, eviction_group), self._policy(ttl)
        mark = self._mark(eviction_group)
        if mark is not None:
            policy["group"] = mark
        changed, asked = default, False
        for _ in range(_SWAPS):
            data, version = await self.store.safely(
                "update", lambda: self.store.version(name), (None, None)
            )
            if version is None and not asked:
                asked = True  # another host may have it, as for get()
                if await self.store.safely("update", lambda: self.store.get(name), None) is not None:
                    continue
            changed = change(self._decode(data, key, default))
            encoded = self.coder.encode(changed)
            done = await self.store.safely(
                "update", lambda: self.store.swap(name, encoded, version, policy), None
            )
            if done is not False:
                break
        return changed


async def get_async_redis(connection: HTTPConnection) -> Any:
    """The store of the application: its larder map. A test may override this dependency by one that
    returns a (fake) client of redis.asyncio."""
    builder = getattr(connection.app.state, "larder", None)
    if builder is None:
        raise RuntimeError("FastAPILarder(app) is missing: the application has no cache")
    return builder.store_or_none()


def get_cache_backend(redis: Any = Depends(get_async_redis)) -> CacheBackend:
    return CacheBackend(redis)
