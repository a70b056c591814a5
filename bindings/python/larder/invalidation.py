"""CacheInvalidator: the ways to invalidate, in the shape that asyncio programs call them."""

import asyncio
from typing import Any, Iterable, Union

import larder


class CacheInvalidator:
    """By key, by pattern, by tag; over one map. What walks over the map's keys (a pattern, and the
    count of a tag's) does that in a thread: the loop goes on meanwhile."""

    def __init__(self, cache: "larder.Map") -> None:
        self.cache = cache

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
        return sum([await asyncio.to_thread(invalidate, name, count=True) for name in names])

    async def set_with_tags(self, key: str, value: Any, ttl: Any, tags: Iterable[str]) -> None:
        """Store it; at most 16 tags."""
        self.cache.quick().set(key, value, ttl=ttl, tags=list(tags))
