"""stampede_app.py: what stampede.py asks: examples/fastapi/shop.py with a route that says how late a timer of a
worker's loop is while many coroutines of the loop wait for one thing, and why."""

import asyncio
import gc
import os
import time

from shop import app, db, larder_app


class Ticks:
    """A timer of 1 ms of the running loop: rows of how late a tick was and, since the last tick, how long the
    loop's thread worked, stood in line for a processor, and was in Python's collector; ms."""

    def __init__(self):
        self.rows = []
        self._collecting = 0.0
        self._schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY)  # of the loop's thread

    async def __aenter__(self):
        gc.callbacks.append(self._collector)
        self._task = asyncio.ensure_future(self._watch())
        return self

    async def __aexit__(self, *ignored):
        await asyncio.sleep(0.002)  # the tick that comes after the last of what was done
        self._task.cancel()
        gc.callbacks.remove(self._collector)
        os.close(self._schedstat)

    def _collector(self, phase, info):
        now = time.thread_time()
        self._collecting += now if phase == "stop" else -now

    def _in_line(self):
        return int(os.pread(self._schedstat, 64, 0).split()[1]) / 1e9

    async def _watch(self):
        while True:
            began, worked, stood, self._collecting = time.monotonic(), time.thread_time(), self._in_line(), 0.0
            await asyncio.sleep(0.001)
            late = time.monotonic() - began - 0.001
            self.rows.append([seconds * 1000 for seconds in (
                late, time.thread_time() - worked, self._in_line() - stood, self._collecting)])


@app.get("/ticks/{kind}/{key}")
async def ticks(kind: str, key: str, callers: int, at: float):
    """At that instant of the monotonic clock so many coroutines begin to wait for the origin. larder: by a cold
    key; event: by an asyncio.Event, each worker's origin its own; idle: nobody waits, as long."""
    cache = larder_app.store().cache
    event = asyncio.Event()

    async def fill():
        await db.ask(f"stampede:{key}")
        return b"filled"

    async def wait():
        await event.wait()
        return b"filled"

    async def answered():
        event.set() if await fill() else None

    await asyncio.sleep(max(at - time.monotonic() - 0.005, 0.01))
    async with Ticks() as measured:
        await asyncio.sleep(max(at - time.monotonic(), 0))
        if kind == "larder":
            values = await asyncio.gather(
                *[cache.fetch_async(f"stampede:{key}", fill, ttl=60) for _ in range(callers)])
        else:
            answering = asyncio.ensure_future(answered())
            values = await asyncio.gather(*[wait() for _ in range(callers if kind == "event" else 0)])
            await answering
    late, held, line, _ = max(measured.rows)
    return {"pid": os.getpid(), "right": sum(value == b"filled" for value in values), "lag": late, "line": line,
            "gone": max(late - held - line, 0), "held": max(row[1] for row in measured.rows),
            "gc": max(row[3] for row in measured.rows)}
