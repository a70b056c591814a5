"""larder.Map: the extension's Map with scans and the asyncio form."""

import asyncio
import logging
import weakref
from typing import Any, Coroutine, Iterator, Optional, Set, Tuple, Union

from . import _fetch, _larder  # _fetch: what fetch_async() awaits (src/fetch.c)
from ._aio import Watch

Bytes = Union[bytes, bytearray, memoryview, str]

_PAGE = 256  # keys a step of a scan

# How long a write from a loop waits for the gate: a busy one costs the value's place in the cache,
# not the loop's time.
_QUICK_WAIT = 0.004

_OPTIONS = ("dir", "read_only", "local", "verify")


class Map(_larder.Map):
    __doc__ = _larder.Map.__doc__

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.name = name
        self._options = {key: options[key] for key in _OPTIONS if key in options}
        self._quick: Optional[_larder.Map] = None
        self._watches: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Watch]" = (
            weakref.WeakKeyDictionary()
        )
        self._watch: Optional[Watch] = None  # the one of them that was used last (src/fetch.c)
        self._tasks: Set["asyncio.Task[Any]"] = set()

    def close(self) -> None:
        """Close the map. Calls of other threads that are inside end first; who waits in a loop is told."""
        if self._quick is not None:
            self._quick.close()
        super().close()
        self._watch = None
        for watch in list(self._watches.values()):
            watch.close()

    def __exit__(self, *ignored: Any) -> None:
        self.close()

    # ---- Scans

    def keys(self, prefix: Bytes = b"", *, match: Optional[Bytes] = None) -> Iterator[bytes]:
        """The live keys that begin with prefix, or match a glob, in the order of their bytes.

        Each step is a snapshot of its own; what is written meanwhile may or may not be met.
        """
        yield from self._scan(prefix, match, False)

    def items(
        self, prefix: Bytes = b"", *, match: Optional[Bytes] = None
    ) -> Iterator[Tuple[bytes, Optional[bytes]]]:
        """The same with their values; of a negative entry None."""
        yield from self._scan(prefix, match, True)

    def _scan(self, prefix: Bytes, match: Optional[Bytes], values: bool) -> Iterator[Any]:
        cursor = None
        while True:
            page, cursor = self._scan_page(
                prefix if match is None else match, match is not None, values, cursor, _PAGE
            )
            yield from page
            if cursor is None:
                return

    # ---- In a loop

    def quick(self) -> _larder.Map:
        """A handle of the same map for use in a loop: its writes wait for the gate 4 ms at most."""
        if self.closed:
            raise _larder.ClosedError("the map is closed")
        if self._quick is None:
            self._quick = _larder.Map(
                self.name, attach=True, write_wait=_QUICK_WAIT, **self._options
            )
        return self._quick

    def watch(self) -> Watch:
        """What waits in the running loop."""
        loop, watch = asyncio.get_running_loop(), self._watch
        if watch is None or not watch.is_of(loop):
            watch = self._watches.get(loop)
            if watch is None or not watch.is_of(loop):
                # Those who waited in a loop that was closed under them hold it, and are held here.
                for other in [other for other in self._watches if other.is_closed()]:
                    del self._watches[other]
                watch = self._watches[loop] = Watch(self.quick(), loop)
            self._watch = watch
        return watch

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run it beside; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logging.getLogger("larder").warning(
                "larder: a refresh failed, the old value stays: %r", task.exception()
            )

    async def get_async(
        self, key: Bytes, default: Any = None, *, read_through: float = 0.05
    ) -> Any:
        """get(), but on a miss have larderd ask Redis, and await that at most so many seconds."""
        entry = self.lookup(key)
        if entry is None and await self.ask_redis(key, read_through):
            entry = self.lookup(key)
        return default if entry is None or entry.value is None else entry.value

    async def ask_redis(self, key: Bytes, budget: float) -> bool:
        """Have larderd ask Redis for a key that the map does not have, and await that at most so many
        seconds: whether another look is worth it. What Redis had may be dead on this host. False at
        once where there is nobody to ask."""
        budget = _larder.seconds(budget, "read_through")
        if budget <= 0:
            return False
        watch = self.watch()  # the descriptor is there before the question
        asked = self.quick().ask(key, budget)
        return asked is not None and await watch.wait(asked.ended, budget) == _larder.OK
