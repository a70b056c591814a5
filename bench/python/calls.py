"""calls.py [CALLS]: the median of single calls, in nanoseconds, less what the clock itself takes."""

import shutil
import sys
import tempfile
import time

import larder

CALLS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000


def median(call, count):
    """Each call is timed by itself: a machine that is busy spoils the tail, not the median."""
    clock = time.perf_counter_ns
    times = [0] * count
    for i in range(count):
        began = clock()
        call()
        times[i] = clock() - began
    times.sort()
    return times[count // 2]


def main():
    directory = tempfile.mkdtemp(prefix="larder-bench-", dir="/dev/shm")
    try:
        with larder.Map("calls", dir=directory, map_size=64 << 20) as cache:
            cache.set_many({f"key:{i}": b"x" * 100 for i in range(4000)})
            for size in (100, 1024, 16384):
                cache.set(f"of:{size}", b"x" * size, ttl=3600)
            empty = median(lambda: None, CALLS)
            get, lookup, key = cache.get, cache.lookup, b"of:100"
            rows = [
                ("python_get_100", lambda: get(key), CALLS),
                ("python_get_1024", lambda: get(b"of:1024"), CALLS // 4),
                ("python_get_16384", lambda: get(b"of:16384"), CALLS // 4),
                ("python_get_miss", lambda: get(b"none"), CALLS // 4),
                ("python_lookup_100", lambda: lookup(key), CALLS // 4),
                ("python_set_100", lambda: cache.set(key, b"x" * 100, ttl=3600), CALLS // 10),
            ]
            for name, call, count in rows:
                print(f"{name} {max(median(call, count) - empty, 1)} ns", flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


main()
