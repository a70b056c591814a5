"""fetch_async(): one filler of a host, whoever waits and whatever happens to it; the loop never waits."""

import asyncio
import contextlib
import contextvars
import datetime
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref

import larder
import pytest
from larder.backends import LarderBackend
from larder.invalidation import CacheInvalidator

from conftest import Lag, end_of, insist, start_child, wait_until


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 120))


def counted(cache, value=b"filled", seconds=0.05):
    async def fill():
        insist(lambda: cache.incr("calls"))
        await asyncio.sleep(seconds)
        return value

    return fill


def test_a_thousand_coroutines_fill_once(cache):
    async def main():
        fill = counted(cache)
        got = await asyncio.gather(*[cache.fetch_async("k", fill, ttl=60) for _ in range(1000)])
        assert got == [b"filled"] * 1000
        assert await cache.fetch_async("k", fill) == b"filled"

    threads = threading.active_count()
    run(main())
    assert cache.get("calls") == b"1" and cache.lookup("k").ttl > 0
    assert threading.active_count() == threads


def test_a_thousand_coroutines_of_four_processes_fill_once(cache):
    """And no loop is held up meanwhile: 250 coroutines begin in one turn and go on in others."""

    def worker(ready):
        async def main():
            fill = counted(cache, seconds=0.3)
            async with Lag() as lag:
                got = await asyncio.gather(*[cache.fetch_async("k", fill) for _ in range(250)])
            assert got == [b"filled"] * 250
            # Measured: 1.5 ms (bench/python/stampede.py); this only says that nothing blocks.
            assert lag.held < 0.1

        os.read(ready, 1)
        run(main())

    read, write = os.pipe()
    children = [start_child(lambda: worker(read)) for _ in range(4)]
    os.write(write, b"1234")
    assert [end_of(pid) for pid in children] == [0] * 4
    assert cache.get("calls") == b"1"
    assert cache.stats()["lease_fills"] == 1


def test_the_death_of_the_filler_is_noticed(cache):
    read, write = os.pipe()

    def holder():
        async def main():
            async def fill():
                os.write(write, b"x")
                await asyncio.sleep(600)

            await cache.fetch_async("k", fill, hold=600)

        run(main())

    pid = start_child(holder)
    assert os.read(read, 1) == b"x"

    async def main():
        fill = counted(cache)
        waiting = [asyncio.ensure_future(cache.fetch_async("k", fill, wait=600)) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert cache.get("calls") is None
        os.kill(pid, signal.SIGKILL)
        assert await asyncio.gather(*waiting) == [b"filled"] * 20

    run(main())
    assert cache.get("calls") == b"1" and end_of(pid) == -signal.SIGKILL


def test_a_stopped_filler_costs_its_time_and_no_more(cache):
    read, write = os.pipe()

    def holder():
        async def main():
            async def fill():
                os.write(write, b"x")
                await asyncio.sleep(600)

            await cache.fetch_async("k", fill, hold=0.3)

        run(main())

    pid = start_child(holder)
    assert os.read(read, 1) == b"x"
    os.kill(pid, signal.SIGSTOP)
    try:
        assert run(cache.fetch_async("k", counted(cache), wait=600)) == b"filled"
    finally:
        os.kill(pid, signal.SIGKILL)
    assert end_of(pid) == -signal.SIGKILL


def test_who_waits_too_long_fills_for_himself(cache):
    lease = cache.lease_acquire("k", hold=600)[2]
    assert run(cache.fetch_async("k", counted(cache, b"own"), wait=0.05)) == b"own"
    assert cache.get("k") is None
    assert lease.fill(b"late") and cache.get("k") == b"late"


def test_each_who_joins_a_fill_has_a_deadline_of_its_own(cache):
    """The sooner one of a later comer, too; whoever has more time goes on waiting."""

    async def main():
        gate = asyncio.Event()

        async def fill():
            await gate.wait()
            return b"shared"

        def join(wait):
            return asyncio.ensure_future(cache.fetch_async("k", lambda: b"own", wait=wait))

        first = asyncio.ensure_future(cache.fetch_async("k", fill, wait=600))
        await asyncio.sleep(0.01)
        patient, gone = join(600), join(600)
        soon, sooner = join(0.1), join(0.02)
        await asyncio.sleep(0.01)
        gone.cancel()
        assert await sooner == b"own" and await soon == b"own"
        assert not patient.done() and not first.done()
        gate.set()
        assert await asyncio.gather(first, patient) == [b"shared"] * 2

    run(main())


def test_a_fill_of_another_process_wakes_all(cache):
    lease = cache.lease_acquire("k", hold=600)[2]

    async def main():
        waiting = [asyncio.ensure_future(cache.fetch_async("k", None, wait=600)) for _ in range(50)]
        await asyncio.sleep(0.05)
        pid = start_child(lambda: insist(lambda: cache.set("k", b"set")))
        assert end_of(pid) == 0
        lease.abandon()
        assert await asyncio.gather(*waiting) == [b"set"] * 50

    run(main())


def test_a_cancelled_filler_hands_over(cache):
    async def main():
        fill = counted(cache, seconds=0.2)
        first = asyncio.ensure_future(cache.fetch_async("k", fill))
        others = [asyncio.ensure_future(cache.fetch_async("k", fill)) for _ in range(10)]
        await asyncio.sleep(0.05)
        others[3].cancel()
        first.cancel()
        got = await asyncio.gather(first, *others, return_exceptions=True)
        assert isinstance(got[0], asyncio.CancelledError)
        assert isinstance(got[4], asyncio.CancelledError)
        assert [value for value in got if value == b"filled"] == [b"filled"] * 9

    run(main())
    assert cache.get("calls") == b"2"


def test_an_error_is_raised_to_all_who_wait(cache):
    calls = []

    async def fill():
        calls.append(1)
        await asyncio.sleep(0.05)
        raise ZeroDivisionError("origin")

    async def main():
        got = await asyncio.gather(
            *[cache.fetch_async("k", fill) for _ in range(100)], return_exceptions=True
        )
        assert all(isinstance(value, ZeroDivisionError) for value in got)
        assert len(traceback.extract_tb(got[-1].__traceback__)) < 20  # not one frame for each waiter
        assert await cache.fetch_async("k", counted(cache)) == b"filled"

    run(main())
    assert len(calls) == 1


@pytest.mark.parametrize("policy", [{"ttl": -1}, {"tags": [f"t{i}" for i in range(17)]}, {"nope": 1}])
def test_a_fill_with_a_wrong_policy_keeps_nobody_waiting(cache, policy):
    """The error names it, and the next one fills at once, also while the error is kept."""

    async def main():
        with pytest.raises((ValueError, TypeError)) as kept:
            await cache.fetch_async("k", lambda: larder.Filled(b"x", **policy))
        assert await asyncio.wait_for(cache.fetch_async("k", counted(cache, b"good")), 2) == b"good"
        assert cache.get("k") == b"good" and kept.value is not None

    run(main())


def test_an_error_is_not_kept_by_what_led(cache):
    """Its traceback has the fill's frames, and all that these hold: it goes without the collector."""

    class Held:
        pass

    held = []

    async def fails():
        page = Held()
        held.append(weakref.ref(page))
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    async def asks():
        try:
            await cache.fetch_async("k", fails)
        except ZeroDivisionError:
            return
        raise AssertionError("no error")

    async def main():
        await asyncio.gather(*[asks() for _ in range(20)])
        await asyncio.sleep(0)
        assert [reference() for reference in held] == [None]

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def test_who_led_is_closed_elsewhere(cache):
    """By the collector, in whichever context and thread that runs: it is no error of the origin's."""

    async def lost():
        await asyncio.get_running_loop().create_future()

    async def main(close):
        leader = cache.fetch_async("k", lost, hold=600)
        contextvars.copy_context().run(leader.send, None)
        waiting = [asyncio.ensure_future(cache.fetch_async("k", counted(cache), wait=600)) for _ in range(20)]
        await asyncio.sleep(0.01)
        await close(leader.close)
        assert await asyncio.gather(*waiting) == [b"filled"] * 20
        cache.delete("k")

    async def here(function):
        function()

    async def in_another_thread(function):
        await asyncio.get_running_loop().run_in_executor(None, function)

    run(main(here))
    run(main(in_another_thread))


def test_who_led_in_a_loop_that_is_closed(cache):
    async def lost():
        await asyncio.get_running_loop().create_future()

    loop = asyncio.new_event_loop()
    leader = loop.create_task(cache.fetch_async("k", lost, hold=0.2))
    follower = loop.create_task(cache.fetch_async("k", lost))
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    unraisable = []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        for task in (leader, follower):
            task._log_destroy_pending = False
        del leader, follower, task
        gc.collect()
    finally:
        sys.unraisablehook = hook
    assert not unraisable
    assert run(cache.fetch_async("k", counted(cache))) == b"filled"


@pytest.mark.parametrize("option", ["wait", "hold", "read_through"])
def test_its_times_are_those_of_all_calls(cache, option):
    async def fetch(value):
        cache.delete("k")
        return await cache.fetch_async("k", lambda: b"filled", **{option: value})

    assert run(fetch(datetime.timedelta(seconds=0.02))) == b"filled"
    for wrong in (-1, float("nan"), float("inf"), 10**400, "1"):
        with pytest.raises((ValueError, TypeError, OverflowError), match=option):
            run(fetch(wrong))


def test_an_origin_that_fails_others_keeps_nobody_waiting(cache):
    """Two fills of other processes came to nothing: the next waiter asks for itself, at once."""

    async def main():
        lease = cache.lease_acquire("k", hold=600)[2]
        waiting = asyncio.ensure_future(cache.fetch_async("k", lambda: b"own", wait=600))
        for _ in range(2):
            await asyncio.sleep(0.05)
            assert not waiting.done()
            lease.abandon()
            outcome, _, lease = cache.lease_acquire("k", hold=600)  # before the loop looks
            assert outcome == larder.FILL
        assert await waiting == b"own"

    run(main())


def test_who_waits_gets_no_error_but_the_origins(cache, monkeypatch):
    """The cache's own trouble, while one waits for another's fill or for Redis, is a fill of one's own."""

    async def main():
        lease = cache.lease_acquire("k", hold=600)[2]
        waiting = [asyncio.ensure_future(cache.fetch_async("k", lambda: b"own", wait=600))
                   for _ in range(3)]
        await asyncio.sleep(0.05)

        def fails(*ignored):
            raise larder.NamespaceError("the map belongs to another PID namespace")

        watch = cache.watch()
        for future, (_, until) in list(watch._waiting.items()):
            watch._waiting[future] = fails, until
        watch._look()  # as when the descriptor is readable
        assert await asyncio.gather(*waiting) == [b"own"] * 3
        monkeypatch.setattr(watch, "wait", fails)
        assert await cache.fetch_async("k", lambda: b"own") == b"own"
        monkeypatch.undo()
        lease.abandon()

        async def ask(self):
            raise larder.LimitError("all places are taken")

        monkeypatch.setattr(larder._fetch.Fetch, "ask", ask)
        assert await cache.fetch_async("asked", lambda: b"own", read_through=1) == b"own"
        assert cache.get("asked") == b"own"

    run(main())


def test_what_a_fill_may_return(cache):
    async def main():
        async def fetch(key, value, **named):
            async def fill():
                return value

            return await cache.fetch_async(key, fill, **named)

        assert await fetch("str", "é") == "é".encode()
        assert await cache.fetch_async("plain", lambda: b"not a coroutine") == b"not a coroutine"
        assert await fetch("none", None, ttl=60) is None
        assert cache.lookup("none").absent
        assert await fetch("none", b"now") is None
        assert await fetch("own", larder.Filled(b"v", ttl=500, group="g"), ttl=5) == b"v"
        assert cache.lookup("own").ttl > 400 and cache.lookup("own").marked
        assert await fetch("skip", larder.Skip(b"mine")) == b"mine" and "skip" not in cache
        with pytest.raises(TypeError, match="a fill returns bytes, str or None, not int"):
            await fetch("wrong", 7)
        with pytest.raises(ValueError, match="ttl: -1 is negative"):
            await fetch("wrong", b"v", ttl=-1)
        with pytest.raises(TypeError, match="no argument 'tll'"):
            await fetch("wrong", b"v", tll=1)
        with pytest.raises(larder.TooBigError):
            await fetch("k" * 70000, b"v")
        assert await fetch("big", bytes(9 << 20)) == bytes(9 << 20) and "big" not in cache

    run(main())


def test_what_is_not_for_others_is_got_by_each(cache):
    async def main():
        async def fill():
            insist(lambda: cache.incr("calls"))
            await asyncio.sleep(0.05)
            return larder.Skip(b"mine")

        got = await asyncio.gather(*[cache.fetch_async("k", fill) for _ in range(5)])
        assert got == [b"mine"] * 5

    run(main())
    assert cache.get("calls") == b"5"


@pytest.mark.parametrize("said", [True, False])
def test_what_is_not_for_others_is_got_by_each_behind_another_process(cache, said):
    """Where that one says so of its own, or comes to nothing again and again."""
    calls = []

    async def main():
        async def fill():
            calls.append(1)
            number = len(calls)
            await asyncio.sleep(0.05)
            return larder.Skip(b"%d" % number)

        cache.watch()
        lease = cache.lease_acquire("k")[2]
        tasks = [asyncio.ensure_future(cache.fetch_async("k", fill)) for _ in range(5)]
        for _ in range(1 if said else 3):
            await asyncio.sleep(0)
            lease.abandon(said)
            lease = None if said else cache.lease_acquire("k")[2]
            cache.watch()._look()
        assert sorted(await asyncio.gather(*tasks)) == [b"1", b"2", b"3", b"4", b"5"]

    run(main())


def test_a_stale_value_is_served_and_renewed_beside(cache):
    async def main():
        cache.set("k", b"old", ttl=0.01, stale=60)
        await asyncio.sleep(0.05)
        fill = counted(cache, b"new")
        assert await cache.fetch_async("k", fill, ttl=60) == b"old"
        assert await cache.fetch_async("k", fill, ttl=60) == b"old"
        deadline = time.monotonic() + 60
        while cache.get("k") != b"new":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        assert cache.get("calls") == b"1"
        cache.set("k", b"old", ttl=0.01, stale=60)
        await asyncio.sleep(0.05)
        assert await cache.fetch_async("k", lambda: 1 / 0, background=False) == b"old"
        assert await cache.fetch_async("k", counted(cache, b"newer"), background=False) == b"newer"

    run(main())


def test_a_renewal_that_is_cancelled_before_it_began_is_anothers(cache):
    async def main():
        cache.set("k", b"old", ttl=0.01, stale=60)
        await asyncio.sleep(0.05)
        fetch = cache.fetch_async("k", counted(cache, b"new"), hold=600)
        with pytest.raises(StopIteration, match="old"):
            fetch.send(None)
        (renewal,) = cache._tasks
        renewal.cancel()
        await asyncio.gather(renewal, return_exceptions=True)
        assert cache.get("calls") is None
        assert cache.lease_acquire("k")[0] == larder.REFRESH

    run(main())


def test_loops_that_have_ended_leave_nothing(cache):
    """A loop a call, as frameworks without one of their own have it."""
    loops, open_files = [], []

    async def main(i):
        loops.append(weakref.ref(asyncio.get_running_loop()))
        lease = cache.lease_acquire(f"k{i}", hold=600)[2]
        waiting = asyncio.ensure_future(cache.fetch_async(f"k{i}", lambda: b"own", wait=600))
        await asyncio.sleep(0.001)
        lease.fill(b"another's")
        assert await waiting == b"another's"

    for i in range(12):
        run(main(i))
        gc.collect()
        open_files.append(len(os.listdir("/proc/self/fd")))
    assert sum(loop() is not None for loop in loops) <= 1
    assert open_files[-1] <= open_files[1]


def test_a_loop_that_is_closed_under_those_who_wait_goes_with_the_next(cache):
    held = cache.lease_acquire("k", hold=600)[2]

    async def waits():
        asyncio.get_running_loop().create_task(cache.fetch_async("k", lambda: b"own", wait=600))
        await asyncio.sleep(0.001)

    def closed():
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)  # a task was destroyed while it waited
        loop.run_until_complete(waits())
        loop.close()
        return weakref.ref(loop)

    first = closed()
    assert len(cache._watches) == 1
    closed()
    gc.collect()
    assert first() is None


def test_without_a_file_left(cache, directory):
    """What the loop waits by takes files: without, each fills for itself."""
    held, limits = [], resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main():
        assert await cache.fetch_async("k", lambda: b"v") == b"v"  # the loop has its own
        for spare in range(6):
            with larder.Map("test", dir=directory) as other:
                most = max(map(int, os.listdir("/proc/self/fd"))) + 1
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
                try:
                    with pytest.raises(OSError):
                        while True:
                            held.append(os.open("/dev/null", os.O_RDONLY))
                    for _ in range(min(spare, len(held))):
                        os.close(held.pop())
                    assert await other.fetch_async(f"k{spare}", lambda: b"v") == b"v"
                    assert await other.fetch_async(f"e{spare}", lambda: b"v", early=1) == b"v"
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            while held:
                os.close(held.pop())

    run(main())


def test_from_inside_its_own_fill(cache):
    async def main():
        async def inner():
            return b"inner"

        async def outer():
            return await cache.fetch_async("k", inner) + b"+outer"

        assert await cache.fetch_async("k", outer) == b"inner+outer"
        assert cache.get("k") == b"inner+outer"

    run(main())


def test_a_fill_loses_to_an_invalidation(cache):
    async def main():
        async def fill():
            cache.invalidate_tag("t")
            return b"old"

        assert await cache.fetch_async("k", fill, tags=["t"]) == b"old"
        assert cache.get("k") is None

    run(main())


def test_who_came_after_an_invalidation_gets_a_newer_value(cache):
    async def main():
        source, gate = [b"old"], asyncio.Event()

        async def fill():
            value = source[0]
            if value == b"old":
                await gate.wait()
            return value

        before = asyncio.ensure_future(cache.fetch_async("k", fill, ttl=60))
        await asyncio.sleep(0.01)
        source[0] = b"new"
        cache.delete("k")
        after = [asyncio.ensure_future(cache.fetch_async("k", fill, ttl=60)) for _ in range(20)]
        await asyncio.sleep(0.01)
        gate.set()
        assert await before == b"old"
        assert await asyncio.gather(*after) == [b"new"] * 20 and cache.get("k") == b"new"

    run(main())


def test_two_loops_in_two_threads(cache):
    """One message, two loops: whichever takes it wakes the other."""
    lease = cache.lease_acquire("k", hold=600)[2]
    got, waiting = [], threading.Barrier(3)

    def loop():
        async def main():
            future = asyncio.ensure_future(cache.fetch_async("k", None, wait=600))
            await asyncio.sleep(0.05)
            await asyncio.get_running_loop().run_in_executor(None, waiting.wait, 60)
            got.append(await future)

        run(main())

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    waiting.wait(60)
    assert lease.fill(b"v")
    for thread in threads:
        thread.join(60)
    assert got == [b"v"] * 2


@contextlib.contextmanager
def held_gate(cache, directory):
    """A writer of the map that was stopped holding the gate."""
    holder = os.environ.get("BUILDDIR", "") + "/tests/tool/hold_gate"
    if not os.path.exists(holder):
        pytest.skip("tests/tool/hold_gate is not built")
    # It lets go when its input ends.
    with subprocess.Popen([holder, str(directory), "test"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(larder.BusyError):
            cache.quick().set("k", b"v")
        yield
    wait_until(lambda: insist(lambda: cache.set("k", b"v")) is None)


def test_a_gate_that_is_held_holds_no_loop_up(cache, directory):
    """Values come, uncached, and the loop goes on."""
    calls = []

    async def slow():
        calls.append(1)
        await asyncio.sleep(0.05)
        return b"joined"

    async def main():
        async with Lag() as lag:
            for i in range(20):
                fill = lambda: b"value"
                assert await cache.fetch_async(f"held:{i}", fill, ttl=60) == b"value"
                await asyncio.sleep(0)
        # Whoever joined a fill that could not be stored has its value all the same.
        assert await asyncio.gather(*[
            cache.fetch_async("joined", slow, ttl=60) for _ in range(20)]) == [b"joined"] * 20
        assert calls == [1]
        return lag

    with held_gate(cache, directory):
        lag = run(main())
    # Each of 20 fills waited its 4 ms at most; one that took the library's 50 would show.
    assert lag.median < 0.045


def test_a_gate_that_is_held_raises_nothing_to_who_sets_a_value(cache, directory):
    """The value is not kept, nor is the one before it; a mistake is raised as ever."""
    backend, invalidator = LarderBackend(cache), CacheInvalidator(cache)
    fixed = LarderBackend(cache, expire_at=lambda: time.time() + 60)

    async def main():
        for one in (backend, fixed):
            await one.set("b", b"new", 60)
            await one.set("b", b"new")
        assert await invalidator.set_with_tags("t", b"new", 60, ["x"]) is False
        assert await backend.get("b") is None and cache.get("t") is None

    async def whole():
        for one, expire in ((backend, None), (backend, 60), (fixed, None), (fixed, 60)):
            await one.set("b", b"old", expire)
            assert await one.get("b") == b"old"
            ttl, _ = await one.get_with_ttl("b")
            assert (ttl > 0) == (one is fixed or expire is not None)
            await one.clear(key="b")
        await backend.set("b", b"old")
        assert await invalidator.set_with_tags("t", b"old", 60, ["x"]) is True
        for mistake in (backend.set("b", 1), backend.set("b", b"v", "soon"), backend.set("b", b"v", -1),
                        invalidator.set_with_tags("t", object(), 60, ["x"]),
                        invalidator.set_with_tags("t", b"v", -1, ["x"])):
            with pytest.raises((TypeError, ValueError)):
                await mistake

    run(whole())
    with held_gate(cache, directory):
        run(main())


def test_a_child_waits_by_a_descriptor_of_its_own(cache):
    """Forked while the parent's loop runs: nobody in the child waits where the parent does."""

    async def child():
        assert await cache.fetch_async("child", counted(cache, b"child")) == b"child"
        assert cache.watch().pid == os.getpid()

    async def main():
        mine, loop = cache.watch(), asyncio.get_running_loop()
        assert mine.pid == os.getpid() and mine.is_of(loop)
        waiting = asyncio.ensure_future(cache.fetch_async("k", counted(cache, seconds=0.2)))
        await asyncio.sleep(0.01)

        def forked():
            assert not mine.is_of(loop)
            run(child())

        pid = start_child(forked)
        assert await waiting == b"filled" and cache.watch() is mine
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            await asyncio.sleep(0.01)
        assert end_of(pid) == 0

    run(main())


def test_a_closed_map(cache):
    async def main():
        lease = cache.lease_acquire("k", hold=600)[2]
        waiting = asyncio.ensure_future(cache.fetch_async("k", lambda: b"alone", wait=600))
        await asyncio.sleep(0.05)
        cache.close()
        with pytest.raises(ValueError, match="closed"):
            await cache.fetch_async("other", lambda: b"v")
        assert await waiting == b"alone"  # at once: nobody would tell it of the lease's end
        with pytest.raises(ValueError, match="closed"):
            lease.fill(b"v")

    run(main())


def test_a_map_that_is_closed_while_its_descriptor_rests(cache):
    async def main():
        held = cache.lease_acquire("k", hold=600)[2]
        waiting = asyncio.ensure_future(cache.fetch_async("k", lambda: b"alone", wait=600))
        await asyncio.sleep(0.05)
        cache.watch()._rest()
        cache.close()
        assert await waiting == b"alone"

    run(main())


def test_a_map_that_another_thread_closes(cache):
    async def main():
        held = cache.lease_acquire("k", hold=600)[2]
        waiting = asyncio.ensure_future(cache.fetch_async("k", lambda: b"alone", wait=600))
        await asyncio.sleep(0.05)
        await asyncio.get_running_loop().run_in_executor(None, cache.close)
        assert await waiting == b"alone"

    run(main())


def test_a_map_that_nobody_has_any_more_leaves_the_loop(cache, directory):
    """The loop reads a map's descriptor from the first wait on, and keeps nothing of the map alive."""

    async def main():
        other = larder.Map("watched", dir=directory)
        lease = other.lease_acquire("k", hold=600)[2]
        assert await other.fetch_async("k", lambda: b"alone", wait=0.01) == b"alone"
        watch, file = weakref.ref(other.watch()), other.watch()._file
        os.stat(file)
        del other, lease
        gc.collect()
        assert watch() is None
        with pytest.raises(OSError):
            os.fstat(file)

    run(main())


def test_waits_end_in_their_order_with_one_timer(cache):
    async def main():
        held = [cache.lease_acquire(key, hold=600)[2] for key in ("a", "b", "c")]
        ended = []

        async def wait(key, seconds):
            await cache.fetch_async(key, lambda: b"alone", wait=seconds)
            ended.append(key)

        await asyncio.gather(wait("a", 0.3), wait("b", 0.1), wait("c", 0.2))
        assert ended == ["b", "c", "a"]

    run(main())


class NearTimers(asyncio.SelectorEventLoop):
    """As uvloop: what is less than half a millisecond away is called in the next turn, by a handle that
    has no when()."""

    def call_at(self, when, callback, *args, context=None):
        if when - self.time() < 0.0005:
            return self.call_soon(callback, *args, context=context)
        return super().call_at(when, callback, *args, context=context)


def test_waits_in_a_loop_whose_near_timers_do_not_say_when(cache):
    async def main():
        held = [cache.lease_acquire(key, hold=600)[2] for key in ("a", "b")]
        for _ in range(20):  # the first wait is over before it begins where that takes half a millisecond
            assert await asyncio.gather(
                cache.fetch_async("a", lambda: b"alone", wait=0.0004),
                cache.fetch_async("b", lambda: b"alone", wait=0.02)) == [b"alone"] * 2

    loop = NearTimers()
    try:
        loop.run_until_complete(asyncio.wait_for(main(), 120))
    finally:
        loop.close()


def test_a_descriptor_that_cannot_be_cleared_holds_no_loop_up(cache, monkeypatch):
    """It stays readable: a loop that read it at once again would do nothing else."""

    async def main():
        lease = cache.lease_acquire("k", hold=600)[2]
        waiting = asyncio.ensure_future(cache.fetch_async("k", lambda: b"own", wait=600))
        watch, tries = cache.watch(), []
        await asyncio.sleep(0.05)

        class Troubled:
            def notify_clear(self):
                tries.append(1)
                raise larder.BusyError("not now")

        monkeypatch.setattr(watch, "_handle", Troubled())
        looks, look = [], watch._look
        monkeypatch.setattr(watch, "_look", lambda: looks.append(1))
        lease.abandon()  # which writes to the descriptor
        deadline = time.monotonic() + 60
        while not looks and time.monotonic() < deadline:
            await asyncio.sleep(0.001)
        monkeypatch.setattr(watch, "_look", look)
        began = time.monotonic()
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(tries) <= 2 + (time.monotonic() - began) / larder._aio._READ_AGAIN
        assert await waiting == b"own"  # looked for although it was not cleared

    run(main())


def test_many_keys_that_end_at_once_go_on_in_slices(cache):
    """A hundred coroutines wait for as many keys of another process: one message ends them all, and
    the loop turns while they go on."""

    async def main():
        leases = [cache.lease_acquire(f"k{i}", hold=600)[2] for i in range(100)]
        running, most = 0, 0

        async def wait(i):
            nonlocal running, most
            await cache.fetch_async(f"k{i}", lambda: b"own", wait=600)
            running += 1
            most = max(most, running)

        async def turn():
            nonlocal running
            while True:
                running = 0
                await asyncio.sleep(0)

        turning = asyncio.ensure_future(turn())
        waiting = [asyncio.ensure_future(wait(i)) for i in range(100)]
        await asyncio.sleep(0.05)
        for lease in leases:
            lease.abandon(True)
        await asyncio.gather(*waiting)
        turning.cancel()
        assert 0 < most <= 2 * 8

    run(main())


def test_get_async_without_anybody_to_ask(cache):
    async def main():
        assert await cache.get_async("none") is None
        assert await cache.get_async("none", b"d", read_through=0) == b"d"
        cache.set("k", b"v")
        assert await cache.get_async("k") == b"v"

    run(main())
