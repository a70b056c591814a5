"""Where pages and values are kept: a larder map, or a Redis client that a test put in its place.

Nothing raises here but for a caller's mistake: a cache that cannot help is a miss, logged once for
each spell of trouble, and counted by the library.
"""

import asyncio
import logging
import re
import time
from typing import Any, Awaitable, Callable, Dict, Optional, Tuple, TypeVar, Union

import larder
from larder import _larder

log = logging.getLogger("larder")
_T = TypeVar("_T")

# What a caller did wrong; everything else is the cache's trouble.
MISTAKES = (TypeError, ValueError, OverflowError)


Key = Union[str, bytes]


def group_mark(prefix: str, group: str) -> str:
    """The mark that all keys of a group carry, and what they begin with; a group under another
    prefix is another one. Braces in a name are encoded as the pages' keys have them."""
    name = group.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return f"{prefix}:{{{name}}}"


def key_of(prefix: str, group: Optional[str], key: str) -> str:
    """A key without a group is in none, whatever it begins with: an opening brace there, and the percent
    sign that says so, are encoded."""
    if group:
        return f"{group_mark(prefix, group)}:{key}"
    if key[:1] in ("{", "%"):
        key = f"%{ord(key[0]):02X}{key[1:]}"
    return f"{prefix}:{key}"


# Of this process: what is a miss to the caller, and no miss in the statistics. failed: calls of the
# store; undecodable: entries that the coder cannot read; bypassed: requests without a key; unkept:
# values that cannot be stored.
counts = {"failed": 0, "undecodable": 0, "bypassed": 0, "unkept": 0}


def bypassed(error: Exception) -> None:
    """A request that the rules have no place for (too many parameters, a key that is too long): it
    goes past the cache. Told once in a process, then to who debugs."""
    counts["bypassed"] += 1
    level = logging.WARNING if counts["bypassed"] == 1 else logging.DEBUG
    log.log(level, "larder: a request goes past the cache (%d so far): %s", counts["bypassed"], error)


def unkept(what: str, why: object) -> None:
    """A value that cannot be stored (no JSON, too many tags): the caller has it, the cache has not.
    Told once in a process, then to who debugs."""
    counts["unkept"] += 1
    level = logging.WARNING if counts["unkept"] == 1 else logging.DEBUG
    log.log(level, "larder: %s: a value is not kept (%d so far): %s", what, counts["unkept"], why)


class Store:
    """Common to both kinds: trouble is told once, when it begins, and once when it is over."""

    def __init__(self) -> None:
        self._trouble = False

    async def safely(self, what: str, call: Callable[[], Awaitable[_T]], instead: _T) -> _T:
        try:
            result = await call()
        except Exception as error:
            self.failed(what, error)
            return instead
        self.worked()
        return result

    def at_once(self, what: str, call: Callable[[], _T], instead: _T) -> _T:
        """The same of what does not wait."""
        try:
            result = call()
        except Exception as error:
            self.failed(what, error)
            return instead
        self.worked()
        return result

    def failed(self, what: str, error: Exception) -> None:
        """A mistake is raised on."""
        if isinstance(error, larder.TooBigError):
            log.info("larder: %s: %s", what, error)
            return
        if isinstance(error, larder.InvalidError):
            raise error
        if isinstance(error, MISTAKES) and not isinstance(error, larder.Error):
            raise error
        counts["failed"] += 1
        if not self._trouble:
            log.warning("larder: %s failed, going on without the cache: %r", what, error)
        self._trouble = True

    def worked(self) -> None:
        if self._trouble:
            log.info("larder: the cache is back")
            self._trouble = False


class LarderStore(Store):
    """A map. Calls from a loop wait for the map's gate 4 ms at most."""

    def __init__(self, cache: "larder.Map", read_through: float = 0.02) -> None:
        super().__init__()
        self.cache = cache
        self.read_through = read_through

    async def get(self, key: Key) -> Optional[bytes]:
        entry = self.cache.lookup(key)
        if entry is None and await self.cache.ask_redis(key, self.read_through):
            entry = self.cache.lookup(key)
        return None if entry is None else entry.value

    def peek(self, key: Key) -> Optional[bytes]:
        """What the map has, without asking anybody; trouble is told."""
        try:
            value = self.cache.get(key)
        except Exception as error:
            self.failed("get", error)
            return None
        self.worked()
        return value

    async def version(self, key: Key) -> Tuple[Optional[bytes], Any]:
        entry = self.cache.lookup(key)
        return (None, None) if entry is None else (entry.value, entry.version)

    async def swap(
        self, key: Key, value: Optional[bytes], version: Any, policy: Dict[str, Any]
    ) -> bool:
        handle = self.cache.quick()
        if version is None:
            return handle.add(key, value, **policy)
        return handle.cas(key, value, version, **policy)

    async def set(self, key: Key, value: bytes, policy: Dict[str, Any], mark: Optional[str]) -> None:
        self.cache.quick().set(key, value, group=mark, **policy)

    async def delete(self, key: Key) -> bool:
        return self.cache.quick().delete(key)

    async def has(self, key: Key) -> bool:
        return await self.get(key) is not None

    async def delete_group(self, prefix: str, group: str) -> int:
        mark, count = group_mark(prefix, group), 0
        try:
            count = int(self.cache.has(mark))  # the page of "/"
            for _ in self.cache.keys(mark + ":"):
                count += 1
                if count % 256 == 0:
                    await asyncio.sleep(0)
        finally:  # counted or not: an invalidation is not refused, nor does it go with who is cancelled
            self.cache.quick().invalidate_group(mark)
        return count


class NoStore(Store):
    """In the place of a map that cannot be opened: everything is a miss, and nothing is kept."""

    async def get(self, key: Key) -> Optional[bytes]:
        return None

    async def version(self, key: Key) -> Tuple[Optional[bytes], Any]:
        return None, None

    async def swap(self, key: Key, value: bytes, version: Any, policy: Dict[str, Any]) -> bool:
        return True

    async def set(self, key: Key, value: bytes, policy: Dict[str, Any], mark: Optional[str]) -> None:
        pass

    async def delete(self, key: Key) -> bool:
        return False

    async def has(self, key: Key) -> bool:
        return False

    async def delete_group(self, prefix: str, group: str) -> int:
        return 0


_SPECIAL = re.compile(r"([*?\[\]\\])")


def _as_bytes(value: Any) -> Any:
    """A client may decode what it reads."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


class RedisStore(Store):
    """A client of redis.asyncio (or a fake one): plain keys, PX and PXAT, SCAN for groups."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self.client = client

    async def get(self, key: Key) -> Optional[bytes]:
        return _as_bytes(await self.client.get(key))

    async def version(self, key: Key) -> Tuple[Optional[bytes], Any]:
        value = await self.get(key)
        return value, value

    async def swap(self, key: Key, value: bytes, version: Any, policy: Dict[str, Any]) -> bool:
        async with self.client.pipeline(transaction=True) as pipe:
            await pipe.watch(key)
            if _as_bytes(await pipe.get(key)) != version:
                return False
            pipe.multi()
            pipe.set(key, value, **_expiry(policy))
            try:
                await pipe.execute()
            except Exception as error:
                if type(error).__name__ == "WatchError":
                    return False
                raise
        return True

    async def set(self, key: Key, value: bytes, policy: Dict[str, Any], mark: Optional[str]) -> None:
        expiry = _expiry(policy)
        if expiry.get("px", 1) <= 0:
            await self.client.delete(key)
            return
        await self.client.set(key, value, **expiry)

    async def delete(self, key: Key) -> bool:
        return bool(await self.client.delete(key))

    async def has(self, key: Key) -> bool:
        return bool(await self.client.exists(key))

    async def delete_group(self, prefix: str, group: str) -> int:
        count = 0
        pattern = _SPECIAL.sub(r"\\\1", group_mark(prefix, group)) + ":*"
        keys = [key async for key in self.client.scan_iter(match=pattern, count=500)]
        keys.append(group_mark(prefix, group))  # the page of "/"
        for begin in range(0, len(keys), 500):
            count += int(await self.client.delete(*keys[begin : begin + 500]))
        return count


def _expiry(policy: Dict[str, Any]) -> Dict[str, Any]:
    """PX of what a policy says; Redis knows no staleness, so an entry lives while it is fresh."""
    if "at" in policy:
        return {"px": int((policy["at"] - time.time()) * 1000)}
    ttl = policy.get("ttl")
    ms = round((ttl.total_seconds() if hasattr(ttl, "total_seconds") else ttl or 0) * 1000)
    if ms < 0:
        raise ValueError(f"ttl: {ttl!r} is negative")
    return {"px": ms} if ms else {}


_stores: Dict[int, RedisStore] = {}


def as_store(client: Any) -> Union[LarderStore, RedisStore]:
    """The store around what get_async_redis() gave."""
    if isinstance(client, Store):
        return client  # type: ignore[return-value]
    if isinstance(client, _larder.Map):
        return LarderStore(client)  # type: ignore[arg-type]
    known = _stores.get(id(client))
    if known is None or known.client is not client:
        if len(_stores) >= 64:
            _stores.clear()
        known = _stores[id(client)] = RedisStore(client)
    return known
