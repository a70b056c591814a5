"""CacheEventBus: named events among the processes of a host, in an asyncio loop.

    bus = CacheEventBus(cache)
    await bus.subscribe("user:updated", handler)
    await bus.publish("user:updated", "123")
    await bus.listen()                      # or asyncio.create_task(bus.listen())

Events are told, not kept: a listener hears what is published from its first subscription on. One
that is so slow that the ring of 8,192 events went over it has its on_missed called with how many
it did not see: whoever keeps copies forgets them then.
"""

import asyncio
import inspect
import logging
from typing import Any, Callable, Dict, List, Optional

import larder
from larder import _larder

log = logging.getLogger("larder")

_A_TURN = 64  # events handled before the loop gets its turn


class CacheEventBus:
    def __init__(
        self, cache: "larder.Map", on_missed: Optional[Callable[[int], Any]] = None
    ) -> None:
        self.cache = cache
        self.on_missed = on_missed
        self.handlers: Dict[str, List[Callable[[str], Any]]] = {}
        self._follower: Any = None
        self._held: Any = None  # an event that was taken and is not told yet: who listens may be cancelled

    async def subscribe(self, event: str, handler: Callable[[str], Any]) -> None:
        """Have handler(data) called, or awaited, for each event of the name; any number of them."""
        self.handlers.setdefault(event, []).append(handler)
        if self._follower is None:
            self.cache.watch()  # the descriptor first: then nothing is missed between
            self._follower = self.cache.quick().follow(kinds=_larder.EVENT_NAMED)

    async def publish(self, event: str, data: str = "") -> None:
        """Tell all processes of the host."""
        self.cache.quick().publish(event, data)

    async def listen(self) -> None:
        """Call the handlers, until cancelled, close()d, or the map is closed. What a handler raises is logged."""
        if self._follower is None:
            raise RuntimeError("listen() before subscribe()")
        watch = self.cache.watch()
        while self._follower is not None:
            await watch.wait(self._next, 3600.0)
            for _ in range(_A_TURN):
                event, self._held = self._next(), None
                if event is _CLOSED:
                    return
                if event is None:
                    break
                await self._tell(event)
            else:
                await asyncio.sleep(0)

    def _next(self) -> Any:
        if self._held is None:
            try:
                self._held = _CLOSED if self._follower is None else self._follower.next()
            except _larder.ClosedError:
                self._held = _CLOSED
        return self._held

    async def _tell(self, event: Any) -> None:
        if event.kind == 0:
            if self.on_missed is not None:
                await _call(self.on_missed, event.missed)
            return
        name = event.name.decode("utf-8", "surrogateescape")
        for handler in list(self.handlers.get(name, ())):
            await _call(handler, event.data.decode("utf-8", "surrogateescape"))

    def close(self) -> None:
        """Stop; listen() returns at the next event, or when it is cancelled or the map closed."""
        follower, self._follower, self._held = self._follower, None, None
        if follower is not None:
            follower.close()


_CLOSED = object()


async def _call(handler: Callable[..., Any], argument: Any) -> None:
    try:
        result = handler(argument)
        if inspect.isawaitable(result):
            await result
    except Exception:
        log.exception("larder: a handler of an event failed")
