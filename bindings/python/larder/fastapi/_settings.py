"""What the environment says: the variables that seed applications have already, and larder's own.

REDIS_PREFIX             begin of all keys; the cache's is REDIS_PREFIX:cache ("redis:fastapi")
REDIS_DEFAULT_TTL        seconds, where a factory or call names none (0: no expiry)
REDIS_WARN_UNBOUNDED_CACHE
                         warn at start where pages are cached without a TTL (true)
REDIS_URL                the Redis that larderd is to keep the map in step with; workers never
                         talk to Redis, but health() says when the two do not fit together
LARDER_MAP               name of the map ("fastapi")
LARDER_DIR               directory of maps, see larder.h
LARDER_MAP_SIZE          bytes, where the application makes the map (0: the library's default)
LARDER_CACHE_HEADER      name of the status header ("X-Redis-Cache"; empty: none)
"""

import os
from typing import Mapping, Optional

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "").strip() or "0"
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{name}={text}: a whole number") from None
    if value < 0:
        raise ValueError(f"{name}={text} is negative")
    return value


def _flag(environment: Mapping[str, str], name: str, default: bool) -> bool:
    text = environment.get(name, "").strip().lower()
    if text == "":
        return default
    if text not in _TRUE | _FALSE:
        raise ValueError(f"{name}={text}: true or false")
    return text in _TRUE


class Settings:
    """The settings of an application; attributes may be set before it starts."""

    def __init__(self, environment: Optional[Mapping[str, str]] = None) -> None:
        environment = os.environ if environment is None else environment
        self.url = environment.get("REDIS_URL") or None
        self.prefix = environment.get("REDIS_PREFIX") or "redis:fastapi"
        self.default_ttl = _number(environment, "REDIS_DEFAULT_TTL")
        self.warn_unbounded_cache = _flag(environment, "REDIS_WARN_UNBOUNDED_CACHE", True)
        self.map = environment.get("LARDER_MAP") or "fastapi"
        self.map_size = _number(environment, "LARDER_MAP_SIZE")
        self.header = environment.get("LARDER_CACHE_HEADER", "X-Redis-Cache")

    def pattern_prefix(self, pattern: str) -> str:
        return f"{self.prefix}:{pattern}"


settings = Settings()


def get_settings() -> Settings:
    return settings
