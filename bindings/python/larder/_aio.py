"""Waiting in an asyncio loop for what other processes do: no thread, and the loop never blocks.

The library tells a process by one descriptor a map. Each loop that waits has a duplicate of it, which
it reads from its first wait until the map is closed. Whoever takes the descriptor's message has all
loops of the process look again: a message is for the process.
"""

import asyncio
import math
import os
import threading
import weakref
from collections import deque
from types import TracebackType
from typing import Any, Awaitable, Callable, Deque, Dict, Optional, Tuple

from . import _larder

# So many of those who wait go on in one turn of the loop: what they do then (answer a request,
# perhaps) must not add up to a long turn.
_A_TURN = 8

_READ_AGAIN = 0.05  # seconds after which a descriptor that could not be cleared is read again

_watches: "weakref.WeakSet[Watch]" = weakref.WeakSet()
_watches_lock = threading.Lock()


def _begin_in_child() -> None:
    global _watches_lock
    _watches_lock = threading.Lock()
    _watches.clear()


os.register_at_fork(after_in_child=_begin_in_child)


class Watch(_larder.Watch):
    """One map's descriptor in one loop, and who waits there. Its base (src/flight.c) has the loop, the
    descriptor and the flights: what all of a thousand callers of one turn ask for."""

    def __init__(self, handle: _larder.Map, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = handle
        self._loop = weakref.ref(loop)
        self._reads = False  # whether the loop reads the descriptor
        # Who waits, for what, and until when: one timer for all, at the first end or before.
        self._waiting: "Dict[asyncio.Future[Any], Tuple[Callable[[], Any], float]]" = {}
        self._timer: Optional[asyncio.TimerHandle] = None
        self._wakes_at = math.inf  # not to be had of the timer: uvloop's has no when() where that is near
        self._ended: "Deque[Tuple[asyncio.Future[Any], Any, Optional[Exception]]]" = deque()
        self._file = os.dup(handle.notify_fd())
        os.set_inheritable(self._file, False)
        with _watches_lock:
            _watches.add(self)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Have the loop read it no more, and those who wait look a last time. From any thread."""
        file, self._file = self._file, -1
        if file < 0 or self.pid != os.getpid():
            return
        loop = self._loop()
        if loop is None or not (self._reads or self._waiting) or loop.is_closed():
            os.close(file)
        elif asyncio._get_running_loop() is loop:
            _stop_reading(loop, file)
            self._look()
        else:
            try:
                # Who waits holds the watch: where it is collected, nobody does.
                look = weakref.WeakMethod(self._look)
                loop.call_soon_threadsafe(_stop_reading, loop, file, look)
            except RuntimeError:
                os.close(file)  # the loop was closed in this moment

    async def wait(self, probe: Callable[[], Any], timeout: float) -> Any:
        """What probe() gives, as soon as that is not None; None after so many seconds."""
        result = probe()
        if result is not None or timeout <= 0:
            return result
        loop = asyncio.get_running_loop()
        self._read(loop)
        future = loop.create_future()
        until = loop.time() + timeout
        self._waiting[future] = probe, until
        if until < self._wakes_at:
            self._wake_at(loop, until)
        try:
            return await future
        finally:
            self._waiting.pop(future, None)
            if not self._waiting and self._timer is not None and asyncio._get_running_loop() is loop:
                # It holds the loop, and the map holds this: a loop that ends would never go.
                self._timer.cancel()
                self._timer, self._wakes_at = None, math.inf

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once and for all: taking it out and in again costs a wait more than the wait itself."""
        if self._file < 0:
            raise _larder.ClosedError("the map is closed")
        if not self._reads:
            loop.add_reader(self._file, _readable, weakref.ref(self))
            self._reads = True

    def _readable(self) -> None:
        try:
            self._handle.notify_clear()
        except (ValueError, _larder.Error):
            self._rest()  # or the loop would do nothing else
        if len(_watches) > 1:
            with _watches_lock:
                watches = list(_watches)
            for watch in watches:
                loop = watch._loop()
                if watch is not self and loop is not None and watch._waiting:
                    try:
                        loop.call_soon_threadsafe(watch._look)
                    except RuntimeError:
                        pass  # that loop was closed
        self._look()

    def _rest(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._file)
        self._reads = False
        loop.call_later(_READ_AGAIN, _read_again, weakref.ref(self), loop)

    def _look(self) -> None:
        for future, (probe, _) in list(self._waiting.items()):
            try:
                result = probe()
            except Exception as error:
                self._end(future, None, error)
            else:
                if result is not None:
                    self._end(future, result)
        self._release()

    # ---- The end of a wait

    def _wake_at(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        timer = loop.call_at(when, _expire, weakref.ref(self))
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._wakes_at = timer, when

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now, self._timer, self._wakes_at = loop.time(), None, math.inf
        for future, (_, until) in list(self._waiting.items()):
            if until <= now:
                self._end(future, None)
        if self._waiting:
            self._wake_at(loop, min(until for _, until in self._waiting.values()))
        self._release()

    def _end(
        self, future: "asyncio.Future[Any]", result: Any, error: Optional[Exception] = None
    ) -> None:
        del self._waiting[future]
        self._ended.append((future, result, error))

    def _release(self) -> None:
        """Eight in a turn, whatever has ended for how many."""
        for _ in range(min(_A_TURN, len(self._ended))):
            future, result, error = self._ended.popleft()
            if error is None:
                _settle(future, result)
            elif not future.done():
                future.set_exception(error)
        if self._ended:
            asyncio.get_running_loop().call_soon(self._release)


# What a loop holds of a watch: it lives as long as its map, not as long as the loop.


def _readable(reference: "weakref.ref[Watch]") -> None:
    watch = reference()
    if watch is not None and watch._file >= 0:
        watch._readable()


def _expire(reference: "weakref.ref[Watch]") -> None:
    watch = reference()
    if watch is not None:
        watch._expire()


def _read_again(reference: "weakref.ref[Watch]", loop: asyncio.AbstractEventLoop) -> None:
    watch = reference()
    if watch is not None and watch._file >= 0 and watch._waiting:
        watch._read(loop)
        watch._look()


def _stop_reading(
    loop: asyncio.AbstractEventLoop, file: int, look: "Optional[weakref.WeakMethod[Any]]" = None
) -> None:
    loop.remove_reader(file)
    os.close(file)
    method = None if look is None else look()
    if method is not None:
        method()


def _settle(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


class Flight(_larder.Flight):
    """A key that a coroutine of this loop is at; the others of the loop wait for that one.

    They are told ("value", bytes or None), ("error", exception), ("again", None): the one was
    cancelled, or ("alone", None): it got a value that is not for others. They join in src/flight.c.
    """

    def __init__(self) -> None:
        self._timer: Optional[asyncio.TimerHandle] = None  # one for all: most wait as long
        self.trace: Optional[TracebackType] = None  # of the error

    def error(self, raised: Exception) -> Exception:
        """From where it was raised: not on top of all the others' raises."""
        return raised.with_traceback(self.trace)

    def _expire_at(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        timer = loop.call_at(when, self._expire)
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._expires_at = timer, when

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now, self._timer, self._expires_at = loop.time(), None, math.inf
        followers = list(zip(self._followers, self._deadlines))
        self._followers.clear()
        self._deadlines.clear()
        for future, deadline in followers:
            if deadline <= now:
                _settle(future, ("alone", None))
            elif not future.done():
                self._followers.append(future)
                self._deadlines.append(deadline)
        if self._deadlines:
            self._expire_at(loop, min(self._deadlines))

    def end(self, kind: str, what: Any) -> None:
        loop = self._followers[0].get_loop() if self._followers else None
        if loop is None or loop.is_closed():
            return
        if asyncio._get_running_loop() is loop:
            self._release((kind, what))
        else:  # whoever led was closed elsewhere, by the collector perhaps
            loop.call_soon_threadsafe(self._release, (kind, what))

    def _release(self, result: Any) -> None:
        """The timer stays until all were told: should that fail (no memory), they go on at their
        deadlines."""
        for future in self._followers[:_A_TURN]:
            if not future.done():
                future.set_result(result)
        del self._followers[:_A_TURN], self._deadlines[:_A_TURN]
        if self._followers:
            asyncio.get_running_loop().call_soon(self._release, result)
        elif self._timer is not None:
            self._timer.cancel()


async def call(function: Callable[[], Any]) -> Any:
    """What a function or coroutine function gives."""
    result = function()
    if isinstance(result, Awaitable):
        return await result
    return result
