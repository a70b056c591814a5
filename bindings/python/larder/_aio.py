"""Waiting in an asyncio loop for what other processes do: no thread, and the loop never blocks.

The library tells a process by one descriptor a map. Each loop that waits has a duplicate of it, in
the loop only while somebody waits. Whoever takes the descriptor's message has all loops of the
process look again: a message is for the process.
"""

import asyncio
import os
import threading
import weakref
from types import TracebackType
from typing import Any, Awaitable, Callable, Dict, List, Optional, Tuple

from . import _larder

# So many waiters of one fill go on in one turn of the loop: what they do then (answer a request,
# perhaps) must not add up to a long turn.
_A_TURN = 8

_watches: "weakref.WeakSet[Watch]" = weakref.WeakSet()
_watches_lock = threading.Lock()


def _renew_lock() -> None:
    global _watches_lock
    _watches_lock = threading.Lock()
    _watches.clear()


os.register_at_fork(after_in_child=_renew_lock)


class Watch:
    """One map's descriptor in one loop, and who waits there."""

    def __init__(self, handle: _larder.Map, loop: asyncio.AbstractEventLoop) -> None:
        self._file = -1
        self._handle = handle
        self._loop = weakref.ref(loop)
        self._waiting: Dict["asyncio.Future[Any]", Callable[[], Any]] = {}
        self.pid = os.getpid()
        self.flights: Dict[bytes, "Flight"] = {}
        self._file = os.dup(handle.notify_fd())
        os.set_inheritable(self._file, False)
        with _watches_lock:
            _watches.add(self)

    def __del__(self) -> None:
        if self._file >= 0 and self.pid == os.getpid():
            os.close(self._file)

    async def wait(self, probe: Callable[[], Any], timeout: Optional[float]) -> Any:
        """What probe() gives, as soon as that is not None; None after the timeout."""
        loop = asyncio.get_running_loop()
        result = probe()
        if result is not None or (timeout is not None and timeout <= 0):
            return result
        future = loop.create_future()
        timer = None if timeout is None else loop.call_later(timeout, _settle, future, None)
        if not self._waiting:
            loop.add_reader(self._file, self._readable)
        self._waiting[future] = probe
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            del self._waiting[future]
            if not self._waiting:
                loop.remove_reader(self._file)

    def _readable(self) -> None:
        try:
            self._handle.notify_clear()
        except (ValueError, _larder.Error):
            pass  # closed meanwhile: the probes say so to those who wait
        with _watches_lock:
            watches = list(_watches)
        for watch in watches:
            loop = watch._loop()
            if watch is self:
                watch._look()
            elif loop is not None and watch._waiting:
                try:
                    loop.call_soon_threadsafe(watch._look)
                except RuntimeError:
                    pass  # that loop was closed

    def _look(self) -> None:
        for future, probe in list(self._waiting.items()):
            if future.done():
                continue
            try:
                result = probe()
            except Exception as error:
                future.set_exception(error)
            else:
                if result is not None:
                    future.set_result(result)


def _settle(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


class Flight:
    """A key that a coroutine of this loop is at; the others of the loop wait for that one.

    They are told ("value", bytes or None), ("error", exception), ("again", None): the one was
    cancelled, or ("alone", None): it got a value that is not for others.
    """

    def __init__(self) -> None:
        self._followers: "List[Tuple[float, asyncio.Future[Any]]]" = []
        self._timer: Optional[asyncio.TimerHandle] = None  # one for all: most wait as long
        self.trace: Optional[TracebackType] = None  # of the error

    def follow(self, deadline: float) -> "asyncio.Future[Any]":
        """What one of a thousand does first, in the same turn of the loop as all others."""
        future = asyncio.get_running_loop().create_future()
        self._followers.append((deadline, future))
        if self._timer is None or deadline < self._timer.when():
            self._wake_at(deadline)
        return future

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._expire)

    def _expire(self) -> None:
        now = asyncio.get_running_loop().time()
        self._timer = None
        for deadline, future in self._followers:
            if deadline <= now:
                _settle(future, ("alone", None))
        self._followers = [pair for pair in self._followers if not pair[1].done()]
        if self._followers:
            self._wake_at(min(deadline for deadline, _ in self._followers))

    def end(self, kind: str, what: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._release((kind, what))

    def _release(self, result: Any) -> None:
        for _, future in self._followers[:_A_TURN]:
            _settle(future, result)
        del self._followers[:_A_TURN]
        if self._followers:
            asyncio.get_running_loop().call_soon(self._release, result)


async def call(function: Callable[[], Any]) -> Any:
    """What a function or coroutine function gives."""
    result = function()
    if isinstance(result, Awaitable):
        return await result
    return result
