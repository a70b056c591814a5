"""larder: one cache for all worker processes of a host, in shared memory, kept in step with Redis.

    import larder

    pages = larder.Map("pages")
    pages.set("user:7", b"...", every=300)          # until the next 5-minute mark
    pages.get("user:7")                             # bytes, or None
    page = await pages.fetch_async("user:7", make_page, ttl=60, tags=["user:7"])

Keys and values are bytes; a str is its UTF-8. Times are seconds (int, float or timedelta), and
instants are datetimes or seconds since the epoch. What goes wrong is a subclass of larder.Error.
"""

from ._fill import Filled, Skip
from ._larder import (
    ABSENT,
    CAUSE_CLEAR,
    CAUSE_DEAD,
    CAUSE_GROUP,
    CAUSE_KEY,
    CAUSE_MAIN,
    CAUSE_MATCH,
    CAUSE_NONE,
    CAUSE_PREFIX,
    CAUSE_REPLICA,
    CAUSE_SMALL,
    CAUSE_TAG,
    CONFLICT,
    EBUSY,
    EVENT_DELETE,
    EVENT_EVICT,
    EVENT_EXPIRE,
    EVENT_INVALIDATE,
    EVENT_NAMED,
    EVENT_SET,
    EXISTS,
    FILL,
    KEY_MAX,
    LATENCY_DELETE,
    LATENCY_FETCH,
    LATENCY_HIT,
    LATENCY_MISS,
    LATENCY_SET,
    MANY_MAX,
    MISS,
    NAME_MAX,
    OK,
    REFRESH,
    SKIP,
    STALE,
    TAGS_MAX,
    WAIT,
    AccessError,
    Asked,
    BusyError,
    ClosedError,
    CorruptError,
    DuplicateError,
    Entry,
    Error,
    Event,
    Follower,
    FormatError,
    FullError,
    InvalidError,
    Lease,
    LimitError,
    NamespaceError,
    NoMemoryError,
    NoSpaceError,
    NotFoundError,
    NumberError,
    RangeError,
    ReadOnlyError,
    SizeError,
    SystemCallError,
    TooBigError,
    UnsupportedError,
    View,
    version_text,
)
from ._map import Map

__all__ = [name for name in dir() if not name.startswith("_")]
__version__ = version_text()
