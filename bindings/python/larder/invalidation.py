"""CacheInvalidator: the ways to invalidate, in the shape that asyncio programs call them."""

import asyncio
from typing import Any, Iterable, Union

import larder
from larder._store import LarderStore, unkept


class CacheInvalidator:
    """By key, by pattern, by tag; over one map. What walks over the map's keys (a pattern, and the
    count of a tag's) does that in a thread: the loop goes on meanwhile."""

    def __init__(self, cache: "larder.Map") -> None:
        self.cache = cache
        self.store = LarderStore(cache)

    async def invalidate_single(self, key: str) -> bool:
        """Whether it was there."""
        return self.cache.quick().delete(key)

    async def invalidate_pattern(self, pattern: str) -> int:
        """All keys that match a glob ("user:123:*"); how many. A character of a glob in a name
        needs a backslash."""
        return await asyncio.to_thread(self.cache.quick().invalidate_match, pattern)

    async def invalidate_by_tags(self, tags: Union[str, Iterable[str]]) -> int:
        """All that carries one of the tags; how many lived."""
        names = [tags] if isinstance(tags, str) else list(tags)
        invalidate = self.cache.quick().invalidate_tag
        # In one go: who is cancelled meanwhile has invalidated by all of them.
        return await asyncio.to_thread(lambda: sum([invalidate(name, count=True) for name in names]))

    async def set_with_tags(self, key: str, value: Any, ttl: Any, tags: Iterable[str]) -> bool:
        """Store it; whether it was stored: the map may refuse it, which is logged. With more than 16 tags
        (larder.TAGS_MAX) it is not, since no one of them could be relied on to invalidate it: the key's
        old value is deleted, and the first time is logged. Give what depends on more than that a tag of
        all of them ("users")."""
        names = list(dict.fromkeys([tags] if isinstance(tags, str) else tags))
        if len(names) > larder.TAGS_MAX:
            unkept(repr(key), f"{len(names)} tags: the limit is {larder.TAGS_MAX}")
            self.cache.quick().delete(key)
            return False

        def store() -> bool:
            self.cache.quick().set(key, value, ttl=ttl, tags=names)
            return True

        return self.store.at_once("set", store, False)
