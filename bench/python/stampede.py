"""stampede.py [ROUNDS]: 1,000 coroutines of four uvicorn workers on one cold key: how often the origin
is asked, and how late the loops' timers are meanwhile. Needs gunicorn, uvicorn and FastAPI."""

import asyncio
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
WORKERS, CALLERS = 4, 250
EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "fastapi"


class Worker:
    """A connection that one worker of the server has accepted."""

    async def connect(self, socket):
        self.reader, self.writer = await asyncio.open_unix_connection(str(socket))
        self.pid = (await self.ask("/worker"))["pid"]
        return self

    async def ask(self, path):
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert " 200 " in head, head
        return json.loads(await self.reader.readexactly(int(head.split("content-length:")[1].split()[0])))


async def one_of_each(socket):
    """A connection to each worker: whoever is free accepts, so connect until all have."""
    workers = {}
    deadline = time.monotonic() + 120
    while len(workers) < WORKERS:
        assert time.monotonic() < deadline, "some workers accept no connection"
        worker = await Worker().connect(socket)
        if workers.setdefault(worker.pid, worker) is not worker:
            worker.writer.close()
            await asyncio.sleep(0.01)
    return list(workers.values())


async def all_rounds(socket):
    workers = await one_of_each(socket)
    answers = []
    for i in range(ROUNDS):
        at = time.monotonic() + 0.1
        answers += await asyncio.gather(
            *[worker.ask(f"/stampede/all{i}?callers={CALLERS}&at={at}") for worker in workers])
        assert len({answer["pid"] for answer in answers[-WORKERS:]}) == WORKERS
    return answers


def main():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="larder-bench-", dir="/dev/shm"))
    socket, origin = directory / "http", directory / "origin"
    with open(directory / "said", "w") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-w", str(WORKERS), "-k", "uvicorn.workers.UvicornWorker",
             "-b", f"unix:{socket}", "--chdir", str(EXAMPLE), "--worker-tmp-dir", "/dev/shm", "--keep-alive", "60", "shop:app"],
            env=dict(os.environ, LARDER_DIR=str(directory), LARDER_MAP="shop",
                     SHOP_ORIGIN_LOG=str(origin), SHOP_ORIGIN_DELAY="0.1"),
            stdout=said, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while (directory / "said").read_text().count("startup complete") < WORKERS:
            assert server.poll() is None and time.monotonic() < deadline, "the server does not start"
            time.sleep(0.05)
        answers = asyncio.run(all_rounds(socket))
        assert all(answer["right"] == CALLERS for answer in answers)
        calls = [line for line in origin.read_text().splitlines() if line.startswith("stampede:all")]
        held = sorted(answer["held_ms"] for answer in answers)
        lags = sorted(answer["lag_ms"] for answer in answers)
        # Both of a loop's turn: held is of the processor's time, lag of the clock's, with whatever else
        # the machine does; four workers begin at one instant, so two cores are two each at best.
        print(f"{'met   ' if held[-1] <= 5 else 'missed'} the longest turn of a loop {held[-1]:.2f} ms of its processor (5)")
        print(f"python_stampede_origin_calls {len(calls) / ROUNDS:.2f} calls/key")
        print(f"python_stampede_held_median {held[len(held) // 2]:.2f} ms")
        print(f"python_stampede_held_worst {held[-1]:.2f} ms")
        print(f"python_stampede_lag_median {lags[len(lags) // 2]:.2f} ms")
        print(f"python_stampede_lag_p95 {lags[len(lags) * 95 // 100]:.2f} ms")
        print(f"python_stampede_lag_worst {lags[-1]:.2f} ms")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
        shutil.rmtree(directory, ignore_errors=True)


main()
