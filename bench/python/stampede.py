"""stampede.py [ROUNDS]: 1,000 coroutines of four uvicorn workers on one cold key: how often the origin
is asked, and how late the loops' timers are meanwhile. In turn with it, what the machine and asyncio do by
themselves: as many coroutines that wait for an asyncio.Event, and loops that wait for nothing.
Needs gunicorn, uvicorn and FastAPI."""

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

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
WORKERS, CALLERS = 4, 250
KINDS = {"larder": CALLERS, "event": CALLERS, "idle": 0}
HERE = pathlib.Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "examples" / "fastapi"


class Worker:
    """A connection that one worker of the server has accepted."""

    async def connect(self, socket):
        self.reader, self.writer = await asyncio.open_unix_connection(str(socket))
        self.pid = (await self.ask("/worker"))["pid"]
        return self

    async def ask(self, path, more=""):
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: shop\r\n{more}\r\n".encode())
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
            # The server is to end it: it keeps whatever it knows of one that just ends until its
            # keep-alive is over, and the collector walks hundreds of those.
            await worker.ask("/worker", "Connection: close\r\n")
            worker.writer.close()
            await asyncio.sleep(0.01)
    return list(workers.values())


async def all_rounds(socket):
    workers = await one_of_each(socket)
    answers = {kind: [] for kind in KINDS}
    for i in range(ROUNDS):
        for kind in KINDS:
            at = time.monotonic() + 0.1
            answers[kind] += await asyncio.gather(
                *[worker.ask(f"/ticks/{kind}/{kind}{i}?callers={CALLERS}&at={at}") for worker in workers])
            assert len({answer["pid"] for answer in answers[kind][-WORKERS:]}) == WORKERS
    return answers


def worst_last(answers, what):
    return sorted(answer[what] for answer in answers)


def tell(answers):
    """Of each worker's latest tick in each round, ms: how late it was (lag); how much of that the loop's thread
    stood in line behind other threads of the machine (line), and was neither at work nor in line: no
    processor was there (gone); and of any tick, how long the thread worked (held), and was in the collector (gc)."""
    for kind, found in answers.items():
        name = "python_stampede" if kind == "larder" else f"python_stampede_{kind}"
        lags = worst_last(found, "lag")
        print(f"{name}_lag_median {lags[len(lags) // 2]:.2f} ms")
        print(f"{name}_lag_p95 {lags[len(lags) * 95 // 100]:.2f} ms")
        print(f"{name}_lag_worst {lags[-1]:.2f} ms")
        held = worst_last(found, "held")
        print(f"{name}_held_median {held[len(held) // 2]:.2f} ms")
        print(f"{name}_held_worst {held[-1]:.2f} ms")
        for part in ("line", "gone", "gc"):
            print(f"{name}_{part}_worst {worst_last(found, part)[-1]:.2f} ms")


def main():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="larder-bench-", dir="/dev/shm"))
    socket, origin = directory / "http", directory / "origin"
    with open(directory / "said", "w") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-w", str(WORKERS), "-k", "uvicorn.workers.UvicornWorker",
             "-b", f"unix:{socket}", "--chdir", str(EXAMPLE), "--pythonpath", str(HERE), "--worker-tmp-dir", "/dev/shm",
             "--keep-alive", "60", "stampede_app:app"],
            env=dict(os.environ, LARDER_DIR=str(directory), LARDER_MAP="shop",
                     SHOP_ORIGIN_LOG=str(origin), SHOP_ORIGIN_DELAY="0.1"),
            stdout=said, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while (directory / "said").read_text().count("startup complete") < WORKERS:
            assert server.poll() is None and time.monotonic() < deadline, "the server does not start"
            time.sleep(0.05)
        answers = asyncio.run(all_rounds(socket))
        assert all(answer["right"] == KINDS[kind] for kind in KINDS for answer in answers[kind])
        calls = [line for line in origin.read_text().splitlines() if line.startswith("stampede:larder")]
        worst = worst_last(answers["larder"], "lag")[-1]
        print(f"{'met   ' if worst <= 5 else 'missed'} the latest timer of a loop {worst:.2f} ms by the clock (5)")
        print(f"python_stampede_origin_calls {len(calls) / ROUNDS:.2f} calls/key")
        tell(answers)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
        shutil.rmtree(directory, ignore_errors=True)


main()
