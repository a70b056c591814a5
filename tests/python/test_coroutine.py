"""What fetch_async() returns is made in C, and to whoever awaits, drives or drops it a coroutine like Python's own."""

import asyncio
import collections.abc
import contextlib
import functools
import gc
import inspect
import sys
import traceback
import tracemalloc
import warnings

import larder
import pytest


def run(coroutine, **named):
    return asyncio.run(asyncio.wait_for(coroutine, 120), **named)


async def turns(count=3):
    for _ in range(count):
        await asyncio.sleep(0)


class Origin:
    """A fill that ends when it is told, and how often it was called."""

    def __init__(self, value=b"filled"):
        self.calls, self.value, self.gate = 0, value, asyncio.Event()

    async def __call__(self):
        self.calls += 1
        await self.gate.wait()
        return self.value


@contextlib.asynccontextmanager
async def leading(cache, key="k", **named):
    """Another coroutine of the loop is at the key."""
    origin = Origin()
    task = asyncio.ensure_future(cache.fetch_async(key, origin, **named))
    await turns()
    yield origin
    origin.gate.set()
    assert await task == b"filled"


ROLES = ["hit", "leads", "follows"]


@contextlib.asynccontextmanager
async def fetches(cache, role):
    """A function that makes a fetch of that role: each waits once but for a hit."""
    if role == "hit":
        cache.set("k", b"filled")
        yield lambda: cache.fetch_async("k", None)
    elif role == "follows":
        async with leading(cache) as origin:
            asyncio.get_running_loop().call_later(0.02, origin.gate.set)
            yield lambda: cache.fetch_async("k", None, ttl=60)
    else:
        async def fill():
            await asyncio.sleep(0.001)
            return b"filled"

        numbers = iter(range(1000))
        yield lambda: cache.fetch_async(f"k{next(numbers)}", fill)


async def in_coroutine(fetch):
    return await fetch()


async def by_iterator(fetch):
    class Awaitable:
        def __await__(self):
            return (yield from fetch().__await__())

    return await Awaitable()


async def in_tasks(fetch):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(fetch()) for _ in range(3)]
    values = {task.result() for task in tasks}
    assert len(values) == 1
    return values.pop()


async def in_anyio(fetch):
    anyio = pytest.importorskip("anyio")
    got = []

    async def keep():
        got.append(await fetch())

    async with anyio.create_task_group() as group:
        group.start_soon(fetch)
        group.start_soon(keep)
    return got[0]


async def all_done(fetch):
    done, _ = await asyncio.wait([asyncio.ensure_future(fetch()) for _ in range(3)])
    return {task.result() for task in done}.pop()


WAYS = [
    in_coroutine, by_iterator, in_tasks, in_anyio, all_done,
    lambda fetch: asyncio.wait_for(fetch(), 60),
    lambda fetch: asyncio.shield(fetch()),
    lambda fetch: asyncio.create_task(fetch(), name="named"),
    lambda fetch: asyncio.ensure_future(fetch()),
]


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("role", ROLES)
def test_all_ways_of_awaiting(cache, role, debug):
    async def main():
        for way in WAYS:
            async with fetches(cache, role) as fetch:
                assert await way(fetch) == b"filled"
            cache.delete("k")
        async with fetches(cache, role) as fetch:
            assert await asyncio.gather(fetch(), fetch(), fetch()) == [b"filled"] * 3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main(), debug=debug)


def test_run_by_a_loop_itself(cache):
    async def fill():
        return b"filled"

    assert asyncio.run(cache.fetch_async("a", fill)) == b"filled"
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(cache.fetch_async("b", fill)) == b"filled"
    assert loop.run_until_complete(asyncio.wait_for(cache.fetch_async("b", fill), 60)) == b"filled"
    loop.close()


def test_it_is_a_coroutine(cache):
    fetch = cache.fetch_async("k", None)
    assert asyncio.iscoroutine(fetch) and isinstance(fetch, collections.abc.Coroutine)
    assert inspect.isawaitable(fetch)
    assert fetch.__name__ == "fetch_async" and fetch.__qualname__ == "Map.fetch_async"
    assert repr(fetch).startswith("<coroutine object Map.fetch_async at 0x")
    assert fetch.cr_await is None and not fetch.cr_running and not fetch.cr_suspended
    fetch.close()


def test_the_task_of_one_says_what_it_is(cache):
    async def main():
        async with leading(cache):
            task = asyncio.ensure_future(cache.fetch_async("k", None))
            assert "Map.fetch_async" in repr(task) and "pending" in repr(task)
            await turns()
            fetch = task.get_coro()
            assert fetch.cr_suspended and fetch.cr_await is not None
            assert inspect.getcoroutinestate(fetch) == inspect.CORO_SUSPENDED
            assert "Map.fetch_async" in repr(task) and task.get_stack() == []
            task.print_stack()
        await task
        assert "finished" in repr(task) and inspect.getcoroutinestate(fetch) == inspect.CORO_CLOSED

    run(main(), debug=True)


# ---- Misuse: compared with a coroutine of Python's that waits, or does not, likewise


async def python_waits():
    return await asyncio.get_running_loop().create_future()


def outcome(function, *arguments):
    try:
        return "value", function(*arguments)
    except BaseException as error:
        return type(error), str(error), getattr(error, "value", None)


MISUSES = {
    "sent something first": lambda c: [outcome(c.send, 1), outcome(c.close)],
    "thrown into first": lambda c: [
        outcome(c.throw, ZeroDivisionError("x")), outcome(c.send, None), outcome(c.throw, KeyError)],
    "thrown into first by class": lambda c: [
        outcome(c.throw, ZeroDivisionError, "x"), outcome(c.close)],
    "thrown a StopIteration first": lambda c: [outcome(c.throw, StopIteration(1))[0]],
    "thrown nothing first": lambda c: [outcome(c.throw), outcome(c.close)],
    "thrown no exception first": lambda c: [outcome(c.throw, 1), outcome(c.close)],
    "cancelled first": lambda c: [
        outcome(c.throw, asyncio.CancelledError()), outcome(c.send, None)],
    "closed first": lambda c: [
        outcome(c.close), outcome(c.send, None), outcome(c.close), outcome(c.throw, KeyError(1))],
    "sent before the time": lambda c: [
        c.send(None) and None, outcome(c.send, None), outcome(c.send, None)],
    "sent something later": lambda c: [c.send(None) and None, outcome(c.send, 1)],
    "thrown into while it waits": lambda c: [
        c.send(None) and None, outcome(c.throw, ZeroDivisionError("x")), outcome(c.send, None),
        outcome(c.throw, KeyError(1))],
    "closed while it waits": lambda c: [
        c.send(None) and None, outcome(c.close), outcome(c.close), outcome(c.send, None)],
}


@pytest.mark.parametrize("misuse", MISUSES)
@pytest.mark.parametrize("role", ["leads", "follows"])
def test_misuse_ends_as_with_a_coroutine_of_pythons(cache, role, misuse):
    async def main():
        expected = MISUSES[misuse](python_waits())
        async with contextlib.nullcontext() if role == "leads" else leading(cache):
            assert MISUSES[misuse](cache.fetch_async("k", python_waits)) == expected

    run(main())


@pytest.mark.parametrize("thrown", [StopIteration, StopIteration(3), StopIteration((1, 2))])
def test_a_stop_iteration_that_is_thrown_at_who_follows(cache, thrown):
    async def main():
        async with leading(cache):
            fetch = cache.fetch_async("k", None)
            fetch.send(None)
            assert outcome(fetch.throw, thrown)[:2] == (RuntimeError, "coroutine raised StopIteration")

    run(main())


def test_awaited_twice(cache):
    async def main():
        async with leading(cache):
            fetch = cache.fetch_async("k", None)
            task = asyncio.ensure_future(in_coroutine(lambda: fetch))
            await turns()
            with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
                await fetch
        assert await task == b"filled"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await fetch
        hit = cache.fetch_async("k", None)
        assert await hit == b"filled"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await hit

    run(main())


def test_driven_from_inside_itself(cache):
    async def main():
        async def fill():
            for drive in (lambda: fetch.send(None), lambda: fetch.throw(KeyError()), fetch.close):
                with pytest.raises(ValueError, match="coroutine already executing"):
                    drive()
            assert fetch.cr_running
            return b"v"

        fetch = cache.fetch_async("k", fill)
        assert await fetch == b"v"

    run(main())


def test_without_a_loop(cache):
    cache.set("hit", b"v")
    with pytest.raises(StopIteration) as stopped:
        cache.fetch_async("hit", None).send(None)
    assert stopped.value.value == b"v"
    with pytest.raises(RuntimeError, match="no running event loop"):
        cache.fetch_async("miss", None).send(None)


def test_never_awaited(cache):
    said = "coroutine 'Map.fetch_async' was never awaited"

    def fill():
        raise AssertionError

    with pytest.warns(RuntimeWarning, match=said):
        cache.fetch_async("k", fill)
    around = []
    around.append(cache.fetch_async("k", lambda: around))
    with pytest.warns(RuntimeWarning, match=said):
        del around
        gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hooked, sys.unraisablehook = sys.unraisablehook, lambda told: raised.append(told.exc_value)
        raised = []
        try:
            cache.fetch_async("k", fill)
            assert [str(error) for error in raised] == [said]
            raised.clear()
            cache.fetch_async("k", fill).close()
            with pytest.raises(TypeError):
                cache.fetch_async("k")
            assert raised == []
        finally:
            sys.unraisablehook = hooked


def test_one_that_is_dropped_while_it_waits_ends(cache):
    ended = []

    async def fill():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(1)

    async def main():
        fetch = cache.fetch_async("k", fill)
        fetch.send(None)
        del fetch
        assert ended == [1]
        outcome, _, lease = cache.lease_acquire("k")
        assert outcome == larder.FILL  # the lease was given back
        lease.abandon()
        async with leading(cache):
            for _ in range(3):
                cache.fetch_async("k", None).send(None)  # and nobody is kept by it

    run(main())


# ---- Cancellation


def test_the_cancellation_of_one_who_waits_is_nobody_elses(cache):
    async def main():
        async with leading(cache) as origin:
            tasks = [asyncio.ensure_future(cache.fetch_async("k", None)) for _ in range(20)]
            tasks[0].cancel()  # before it began
            await turns()
            for task in tasks[1:10]:
                task.cancel()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(cache.fetch_async("k", None), 0.01)
            shielded = asyncio.ensure_future(cache.fetch_async("k", None))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(shielded), 0.01)
            assert all(task.cancelled() for task in tasks[:10])
            assert not any(task.done() for task in tasks[10:])
            assert origin.calls == 1
        assert await asyncio.gather(*tasks[10:], shielded) == [b"filled"] * 11

    run(main())


def test_the_cancellation_comes_when_the_value_has_come(cache):
    async def main():
        async with leading(cache) as origin:
            task = asyncio.ensure_future(cache.fetch_async("k", None))
            await turns()
            origin.gate.set()
            while not cache.has("k"):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())


def test_scopes_of_anyio_cancel(cache):
    anyio = pytest.importorskip("anyio")

    async def main():
        async with leading(cache):
            with anyio.move_on_after(0.01) as scope:
                await cache.fetch_async("k", None)
            assert scope.cancel_called
            async with anyio.create_task_group() as group:
                group.start_soon(functools.partial(cache.fetch_async, "k", None, wait=600))
                await turns()
                group.cancel_scope.cancel()

    run(main())


def test_one_who_leads_may_resist_its_cancellation(cache):
    async def main():
        async def fill():
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                await asyncio.sleep(0.001)
                return b"all the same"

        task = asyncio.ensure_future(cache.fetch_async("k", fill))
        await turns()
        follower = asyncio.ensure_future(cache.fetch_async("k", None))
        await turns()
        task.cancel()
        assert await task == await follower == b"all the same"

    run(main())


# ---- Errors


def test_an_error_has_the_trace_of_the_fill(cache):
    async def main():
        async def fill():
            await asyncio.sleep(0.001)
            raise ZeroDivisionError("origin")

        got = await asyncio.gather(
            *[cache.fetch_async("k", fill) for _ in range(3)], return_exceptions=True)
        for error in got:
            assert error is got[0]
            assert traceback.extract_tb(error.__traceback__)[-1].name == "fill"

    run(main())


def test_arguments(cache):
    async def main():
        async def fill():
            return b"v"

        for arguments, named, said in (
            ((), {}, "no key"), (("k",), {}, "no fill"), ((), {"fill": fill}, "no key"),
            (("k", fill, 1), {}, "0 to 2 arguments by position, not 3"),
            (("k", fill), {"fill": fill}, "two values for 'fill'"),
            (("k", fill), {"key": "k"}, "two values for 'key'"),
        ):
            with pytest.raises(TypeError, match=said):
                cache.fetch_async(*arguments, **named)
        assert await cache.fetch_async(fill=fill, key="named") == b"v"
        spelled = {"".join(["wa", "it"]): 5, "".join(["tt", "l"]): 60, "".join(["hol", "d"]): 5}
        assert await cache.fetch_async("spelled", fill, **spelled) == b"v"
        assert 50 < cache.lookup("spelled").ttl <= 60
        assert await cache.fetch_async(bytearray(b"array"), fill) == b"v" and "array" in cache
        assert await cache.fetch_async(memoryview(b"view"), fill, early=100) == b"v"
        # All else is told of when it is awaited, to one who waits for another's fill, too.
        async with leading(cache):
            for key, named, error, said in (
                ("k", {"ttl": -1}, ValueError, "ttl: -1 is negative"),
                ("k", {"tll": 1}, TypeError, "no argument 'tll'"),
                ("k", {"ttl": 1, "at": 1}, ValueError, "exclude each other"),
                ("k", {"tags": ["a"] * 17}, ValueError, "the limit is 16"),
                ("k", {"tags": ["a", 7]}, TypeError, "tags"),
                ("k", {"wait": "long"}, TypeError, "wait: seconds as int or float, or a timedelta"),
                (7, {}, TypeError, "key: bytes or str, not int"),
                (7, {"early": 1}, TypeError, "key: bytes or str, not int"),
                ("\ud800", {}, UnicodeEncodeError, "surrogates"),
                ("k" * 70000, {}, larder.TooBigError, "key"),
            ):
                fetch = cache.fetch_async(key, fill, **named)
                with pytest.raises(error, match=said):
                    await fetch

    run(main())


def test_a_second_loop_of_the_thread_waits_by_itself(cache):
    """What the first one's coroutines were at when it ended is no flight of the second."""

    async def first():
        task = asyncio.ensure_future(cache.fetch_async("k", Origin(), hold=600))
        await turns()
        asyncio.get_running_loop().call_later(0.01, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await cache.fetch_async("k", Origin())
            await task
            raise AssertionError

    async def second():
        async with leading(cache):
            task = asyncio.ensure_future(cache.fetch_async("k", None))
            await turns()
        assert await task == b"filled"

    with contextlib.suppress(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(first(), 0.2))
    run(second())


# ---- Nothing is left behind


def used():
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_nothing_is_left_behind(cache):
    """A hundred thousand of all kinds: no memory, and no reference to what they were given."""

    async def fails():
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def fill():
        await asyncio.sleep(0)
        return b"filled"

    key, tags = "".join(["k"] * 40), ["a tag"]

    async def some(count):
        for i in range(count):
            cache.delete(key)
            await asyncio.gather(*[cache.fetch_async(key, fill, tags=tags) for _ in range(50)])
            await asyncio.gather(*[cache.fetch_async(key, fill, tags=tags) for _ in range(50)])
            cache.delete(key)
            await asyncio.gather(
                *[cache.fetch_async(key, fails, tags=tags) for _ in range(50)], return_exceptions=True)
            await asyncio.gather(
                *[cache.fetch_async(key, fill, tags=tags, no=1) for _ in range(10)], return_exceptions=True)
            async with leading(cache, key):
                tasks = [asyncio.ensure_future(cache.fetch_async(key, fill)) for _ in range(40)]
                tasks[0].cancel()
                await turns(1)
                for task in tasks[:20]:
                    task.cancel()
                for thrown in range(20):
                    fetch = cache.fetch_async(key, fill, wait=60)
                    if thrown % 2:
                        fetch.send(None)
                    (fetch.close if thrown % 3 else lambda: outcome(fetch.throw, KeyError()))()
                    del fetch
            await asyncio.gather(*tasks, return_exceptions=True)
            del tasks

    async def main():
        tracemalloc.start()
        try:
            await some(20)  # what is kept for good: caches, free lists
            before = used()
            counts = [sys.getrefcount(thing) for thing in (key, tags, fill, fails, cache, asyncio.get_running_loop())]
            await some(450)
            after = used()
            assert counts == [
                sys.getrefcount(thing) for thing in (key, tags, fill, fails, cache, asyncio.get_running_loop())]
            assert after - before < 50_000  # free lists of Python's: as much after twice as many
        finally:
            tracemalloc.stop()

    run(main())
