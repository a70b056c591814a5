"""Map.fetch_async(): get or fill, among all coroutines of all processes of the host. What a caller does
first, and all that one does who waits for another of its loop, is in src/fetch.c."""

import asyncio
import contextvars
import itertools
import logging
from typing import TYPE_CHECKING, Any, Callable, FrozenSet, Iterator, Optional

from . import _larder
from ._aio import Flight, Watch, call
from ._fill import Filled, Skip

if TYPE_CHECKING:
    from ._map import Map

log = logging.getLogger("larder")

# The keys whose fill this context is inside of: waiting for one's own fill would end at its deadline.
_inside: "contextvars.ContextVar[FrozenSet[bytes]]" = contextvars.ContextVar(
    "larder_inside", default=frozenset()
)

_FAILURES = 2  # fills of other processes that came to nothing, after which a waiter fills for itself

# What the caller got wrong; all other errors mean that the cache cannot help.
MISTAKES = (_larder.InvalidError, _larder.TooBigError, _larder.RangeError, _larder.UnsupportedError)


def nothing() -> Iterator[None]:
    """What a fetch that was not begun is to all that is thrown into it (src/coroutine.c)."""
    yield


class Fetch:
    """One call of fetch_async() that found neither the value nor another of its loop that is at it."""

    def __init__(
        self,
        cache: "Map",
        key: bytes,
        fill: Callable[[], Any],
        deadline: float,
        *,
        hold: float = 10,
        early: int = 0,
        read_through: float = 0,
        background: bool = True,
        **policy: Any,
    ) -> None:
        if cache.closed:
            raise _larder.ClosedError("the map is closed")
        self.cache = cache
        self.key = key
        self.fill = fill
        self.hold = hold
        self.early = early
        self.read_through = _larder.seconds(read_through, "read_through")
        self.background = background
        self.policy = policy
        self.loop = asyncio.get_running_loop()
        self.deadline = deadline  # of the loop's clock
        self.refused = False  # the value was older than a write or an invalidation

    def left(self) -> float:
        return self.deadline - self.loop.time()

    async def lead(self, watch: Watch) -> Optional[bytes]:
        """For all of the loop who want the key."""
        flight: Any = Flight()
        watch.flights[self.key] = flight
        kind: str = "again"
        what: Any = None
        try:
            what = await self.acquire(watch)
            if isinstance(what, Skip):
                kind, what = "alone", what.value
            elif not self.refused:
                kind = "value"  # else those who came after the invalidation get a newer one
            return what
        except Exception as error:
            kind, what, flight.trace = "error", error, error.__traceback__
            raise
        finally:
            # First out of the table: whoever is told to try again leads the next one.
            del watch.flights[self.key]
            flight.end(kind, what)
            # An error's trace leads here: it would keep itself, and all that its fill had, until the
            # collector comes.
            what = flight = None

    async def acquire(self, watch: Watch) -> Any:
        for failures in itertools.count():
            try:
                outcome, entry, lease = self.cache.quick().lease_acquire(
                    self.key, hold=self.hold, early=self.early
                )
            except MISTAKES:
                raise
            except _larder.Error:
                return await self.without_lease()
            if outcome in (_larder.OK, _larder.ABSENT, _larder.STALE):
                return entry.value
            if outcome in (_larder.REFRESH, _larder.FILL):
                try:
                    if outcome == _larder.REFRESH:
                        return await self.refresh(entry, lease)
                    return await self.fill_first(lease)
                except BaseException:
                    _abandon(lease)  # wherever it came from: others are not to wait for it
                    raise
            if failures == _FAILURES:
                return await self.without_lease()  # one after another they would add up to the deadline
            if await self.other(watch, lease) != _larder.OK:
                return await self.without_lease()  # too long, or it is not for the cache

    async def other(self, watch: Watch, lease: Any) -> Any:
        """How another's fill ended; None: not in time, or nobody knows."""
        try:
            return await watch.wait(lease.ended, self.left())
        except (_larder.Error, OSError):
            return None

    async def refresh(self, entry: Any, lease: Any) -> Any:
        if self.background:
            task = self.cache.spawn(self.fill_leased(lease))
            # Who is cancelled before its first turn has not even begun to see to the lease.
            task.add_done_callback(lambda task: _abandon(lease) if task.cancelled() else None)
            return entry.value
        try:
            return await self.fill_leased(lease)
        except Exception as error:
            _abandon(lease)
            log.warning("larder: a refresh failed, the old value is served: %r", error)
            return entry.value

    async def fill_first(self, lease: Any) -> Any:
        """Another host may have put it into Redis."""
        if self.read_through > 0:
            try:
                found = await self.ask()
            except (_larder.Error, OSError) as error:
                log.debug("larder: Redis could not be asked: %s", error)
                found = None
            if found is not None:
                _abandon(lease)
                return found.value
        return await self.fill_leased(lease)

    async def ask(self) -> Any:
        if await self.cache.ask_redis(self.key, self.read_through):
            return self.cache.quick().lookup(self.key)
        return None

    async def fill_leased(self, lease: Any) -> Any:
        try:
            result = await self.call_fill()
        except BaseException:
            _abandon(lease)
            raise
        if isinstance(result, Skip):
            _abandon(lease, True)
            return result
        value, policy = self.split(result)
        try:
            self.refused = not lease.fill(value, **policy)
        except _larder.TooBigError as error:
            log.info("larder: a value is not kept: %s", error)
            _abandon(lease, True)
        except BaseException as error:
            _abandon(lease)  # what is wrong with the policy may be found before the lease has ended
            if not isinstance(error, _larder.Error) or isinstance(error, MISTAKES):
                raise
            log.debug("larder: a fill was not stored: %s", error)
        return value

    async def call_fill(self) -> Any:
        token = _inside.set(_inside.get() | {self.key})
        try:
            result = await call(self.fill)
        finally:
            try:
                _inside.reset(token)
            except ValueError:
                pass  # closed from another context (by the collector, say): ours is not gone on with
        value = result.value if isinstance(result, (Filled, Skip)) else result
        if isinstance(value, str):
            value = value.encode()
        elif value is not None and not isinstance(value, bytes):
            try:
                value = bytes(memoryview(value))
            except TypeError:
                raise TypeError(f"a fill returns bytes, str or None, not {type(value).__name__}")
        if isinstance(result, Skip):
            return Skip(value)
        return Filled(value, **result.policy) if isinstance(result, Filled) else value

    def split(self, result: Any) -> Any:
        if isinstance(result, Filled):
            return result.value, result.policy
        return result, self.policy

    async def without_lease(self) -> Any:
        """The cache cannot help, or helped too late: the value is not stored. A Skip stays one: it is
        not for those who wait for this caller either."""
        result = await self.call_fill()
        return result.value if isinstance(result, Filled) else result

    async def alone(self) -> Optional[bytes]:
        """For this caller alone."""
        result = await self.without_lease()
        return result.value if isinstance(result, Skip) else result


def _abandon(lease: Any, skip: bool = False) -> None:
    try:
        lease.abandon(skip)
    except (ValueError, _larder.Error):
        pass  # closed meanwhile: it ends at its deadline
