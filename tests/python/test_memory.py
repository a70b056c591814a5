"""Without memory at any one place: who asked gets MemoryError or the value, and nobody else waits for it."""

import asyncio
import contextvars
import ctypes
import os
import pathlib
import shutil
import subprocess
import sys
import time

import larder
import pytest

OURS = pathlib.Path(__file__)
MOST = 500  # allocations of a step


class Led:
    """Driven by hand, and in a context of its own: what else begins here is not inside its fill."""

    def __init__(self, coroutine):
        self.coroutine, self.context = coroutine, contextvars.copy_context()

    def send(self, value):
        return self.context.run(self.coroutine.send, value)


class Steps:
    """Each is done with the first allocation failing, the second, and so on, until none does."""

    def __init__(self, cache):
        self.cache, self.failing = cache, ctypes.PyDLL(os.environ["LD_PRELOAD"])
        self.failing.no_memory_at.argtypes = [ctypes.c_long]

    def fails(self, number, step):
        """The step's result, or None; and whether there was memory for all of it."""
        result = None
        try:
            self.failing.no_memory_at(number)
            result = step()
            failed = self.failing.no_memory_end()
        except StopIteration:
            failed = self.failing.no_memory_end()
        except (MemoryError, SystemError):  # that one of Python's own frames
            failed = self.failing.no_memory_end()
        return result, not failed

    async def lease(self, number):
        key = f"lease{number}"
        got, whole = self.fails(number, lambda: self.cache.lease_acquire(key))
        if got is None:
            assert self.cache.lease_acquire(key)[0] == larder.FILL
        return whole

    async def lead(self, number):
        key, began = f"lead{number}", time.monotonic()
        fetch = self.cache.fetch_async(key, asyncio.Event().wait)
        _, whole = self.fails(number, lambda: fetch.send(None))
        fetch.close()
        assert await self.cache.fetch_async(key, lambda: b"v", wait=600) == b"v"
        assert time.monotonic() - began < 5  # a lease that nobody has would last for ten seconds
        return whole

    async def join(self, number):
        key = f"join{number}"
        led = Led(self.cache.fetch_async(key, pause))
        led.send(None)
        fetches = [self.cache.fetch_async(key, None, wait=600) for _ in range(9)]
        for fetch in fetches[:4]:
            fetch.send(None)  # the next one makes the lists grow
        _, whole = self.fails(number, lambda: fetches[4].send(None))
        for fetch in fetches[5:]:
            fetch.send(None)
        flight = self.cache.watch().flights[key.encode()]
        assert len(flight._followers) == len(flight._deadlines) >= 8
        for fetch in fetches:
            fetch.close()
        led.coroutine.close()
        return whole

    async def end(self, number):
        key = f"end{number}"
        led = Led(self.cache.fetch_async(key, pause))
        led.send(None)
        fetches = [self.cache.fetch_async(key, lambda: b"alone", wait=0.02) for _ in range(3)]
        futures = [fetch.send(None) for fetch in fetches]
        _, whole = self.fails(number, lambda: led.send(None))
        led.coroutine.close()
        _, waiting = await asyncio.wait(futures, timeout=5)
        assert not waiting
        for fetch in fetches:
            fetch.close()
        return whole


def pause():
    """A fill that waits one turn."""

    class Once:
        def __await__(self):
            yield
            return b"v"

    return Once()


async def all_of(step):
    await step.__self__.cache.fetch_async("warm", lambda: b"v")
    for number in range(1, MOST):
        if await step(number):
            return
    raise AssertionError(f"not {MOST} allocations")


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory):
    compiler = shutil.which(os.environ.get("CC", "cc").split()[0])
    if compiler is None or os.environ.get("SANITIZED") == "yes":
        pytest.skip("no compiler, or an allocator of its own")
    built = tmp_path_factory.mktemp("built") / "no_memory.so"
    made = subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", built, OURS.parent / "no_memory.c"], capture_output=True)
    if made.returncode != 0:
        pytest.skip("it cannot be built: not glibc, perhaps")
    return str(built)


@pytest.mark.parametrize("step", ["lease", "lead", "join", "end"])
def test_without_memory(preloaded, directory, step):
    environment = dict(os.environ, LD_PRELOAD=preloaded, PYTHONMALLOC="malloc")
    ended = subprocess.run([sys.executable, "-W", "ignore", OURS, directory, step], env=environment, timeout=120)
    assert ended.returncode == 0


if __name__ == "__main__":
    with larder.Map("test", dir=sys.argv[1], map_size=32 << 20) as opened:
        asyncio.run(all_of(getattr(Steps(opened), sys.argv[2])))
