"""A handle over fork(): parents, children, threads, deaths."""

import os
import signal
import threading

import larder
import pytest

from conftest import end_of, in_child, insist, start_child, wait_until


def test_a_child_reads_and_writes_on_its_parents_handle(cache):
    cache.set("parent", b"1")

    def child():
        wait_until(lambda: cache.get("parent") == b"1")
        insist(lambda: cache.set("child", b"2"))

    in_child(child)
    assert cache.get("child") == b"2"


def test_many_children_of_a_threaded_parent(cache):
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            cache.set("busy", b"x" * 100)
            cache.get("busy")

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for i in range(20):
            in_child(lambda: [insist(lambda: cache.incr("count")) for _ in range(10)])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert cache.get("count") == b"200"


def test_a_close_in_the_child_leaves_the_parent_alone(cache):
    cache.notify_fd()
    in_child(cache.close)
    cache.set("k", b"v")
    assert cache.get("k") == b"v"


def test_a_child_has_not_inherited_leases_and_followers(cache):
    leases = [cache.lease_acquire("k")[2]]
    follower = cache.follow()

    def child():
        with pytest.raises(larder.InvalidError):
            leases[0].fill(b"v")
        leases.clear()  # nor does it end it by letting go of it
        with pytest.raises(larder.InvalidError):
            follower.next()
        assert cache.lease_acquire("k")[0] == larder.WAIT
        with cache.follow() as own:
            insist(lambda: cache.set("other", b"v"))
            assert own.next(10).name == b"other"

    in_child(child)
    assert leases[0].fill(b"v") and cache.get("k") == b"v"
    follower.close()


def test_a_child_has_its_own_descriptor(cache):
    mine = cache.notify_fd()
    assert cache.notify_fd() == mine

    def child():
        assert cache.notify_fd() >= 0
        cache.notify_clear()

    in_child(child)


def test_the_death_of_a_filler_lets_another_fill(cache):
    read, write = os.pipe()

    def holder():
        outcome, _, held = cache.lease_acquire("k", hold=600)
        assert outcome == larder.FILL and held is not None
        os.write(write, b"x")
        signal.pause()

    pid = start_child(holder)
    assert os.read(read, 1) == b"x"
    outcome, _, lease = cache.lease_acquire("k")
    assert outcome == larder.WAIT and lease.wait() == larder.WAIT
    os.kill(pid, signal.SIGKILL)
    assert lease.wait(60) == larder.OK
    assert cache.lease_acquire("k")[0] == larder.FILL
    assert end_of(pid) == -signal.SIGKILL


def test_a_fork_inside_a_fill_fills_once(cache):
    def fill():
        pid = os.fork()
        if pid == 0:
            ok = False
            try:
                ok = wait_until(lambda: cache.get("other") == b"there")
            finally:
                os._exit(0 if ok else 1)
        assert end_of(pid) == 0
        return b"filled"

    cache.set("other", b"there")
    assert cache.fetch("k", fill) == b"filled" and cache.get("k") == b"filled"


def test_processes_count_together(cache):
    children = [
        start_child(lambda: [insist(lambda: cache.incr("n")) for _ in range(500)])
        for _ in range(4)
    ]
    assert [end_of(pid) for pid in children] == [0] * 4
    assert cache.get("n") == b"2000"
