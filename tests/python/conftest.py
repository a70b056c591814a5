"""What the tests of the Python binding share: maps in directories of their own, children, patience,
and one `ok N - name` line a case, which is what the tree's harness counts."""

import asyncio
import itertools
import os
import pathlib
import shutil
import sys
import tempfile
import time
import traceback

import larder
import pytest
from larder.decorator import set_cache

_numbers = itertools.count(1)


def pytest_runtest_logreport(report):
    if report.when == "call" and report.passed:
        line = f"ok {next(_numbers)} - {report.nodeid}"
    elif report.failed:
        line = f"not ok {next(_numbers)} - {report.nodeid} ({report.when})"
    else:
        return
    sys.__stdout__.write(f"\n{line}\n")
    sys.__stdout__.flush()


@pytest.fixture
def directory():
    """A directory of this test's on a tmpfs, 0700 as larder wants it."""
    parent = os.environ.get("LARDER_TEST_DIR") or "/dev/shm"
    path = pathlib.Path(tempfile.mkdtemp(prefix="python-", dir=parent))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def cache(directory):
    with larder.Map("test", dir=directory, map_size=32 << 20, write_wait=30) as opened:
        yield opened


@pytest.fixture
def default_map(cache):
    """The cache of larder.decorator."""
    set_cache(cache)
    yield
    set_cache(None)


def wait_until(condition, seconds=60):
    """Poll until the condition holds; the deadline is for machines that are busy."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(0.005)


def insist(function, seconds=60):
    """Call it until it is not refused: a child's first call opens the map anew, and is refused where
    a machine is so busy that others are at that too."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return function()
        except larder.BusyError:
            assert time.monotonic() < deadline, f"refused for {seconds} s"
            time.sleep(0.005)


def start_child(function):
    """Run it in a child of fork(), which ends with 0 if nothing was raised. Returns its pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid


def end_of(pid):
    """The exit status of a child, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Lag:
    """How late a loop's timers are while a block runs, and how long its own work kept it between two
    of them (of the processor's time: a busy machine does not show in it), in seconds."""

    async def __aenter__(self):
        self._late = []
        self.held = 0.0
        self._task = asyncio.ensure_future(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *ignored):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _tick(self):
        while True:
            began, worked = time.monotonic(), time.thread_time()
            await asyncio.sleep(0.001)
            self._late.append(time.monotonic() - began - 0.001)
            self.held = max(self.held, time.thread_time() - worked)

    @property
    def median(self):
        return sorted(self._late)[len(self._late) // 2] if self._late else 0.0


def in_child(function):
    assert end_of(start_child(function)) == 0
