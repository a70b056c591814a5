"""stampede.py [ROUNDS]: 1,000 coroutines of four uvicorn workers on one cold key: how often the origin
is asked, and how late the loops' timers are meanwhile. Needs gunicorn, uvicorn, FastAPI, httpx."""

import asyncio
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import httpx

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
WORKERS, CALLERS = 4, 250
EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "fastapi"


async def one_round(socket, key, callers):
    """Each worker answers once: ask until all four have."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket), limits=httpx.Limits(max_keepalive_connections=0))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop", timeout=120) as client:
        answers = await asyncio.gather(
            *[client.get(f"/stampede/{key}?callers={callers}") for _ in range(WORKERS)])
    return [answer.json() for answer in answers]


def main():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="larder-bench-", dir="/dev/shm"))
    socket, origin = directory / "http", directory / "origin"
    with open(directory / "said", "w") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-w", str(WORKERS), "-k", "uvicorn.workers.UvicornWorker",
             "-b", f"unix:{socket}", "--chdir", str(EXAMPLE), "--worker-tmp-dir", "/dev/shm", "shop:app"],
            env=dict(os.environ, LARDER_DIR=str(directory), LARDER_MAP="shop",
                     SHOP_ORIGIN_LOG=str(origin), SHOP_ORIGIN_DELAY="0.1"),
            stdout=said, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while (directory / "said").read_text().count("startup complete") < WORKERS:
            assert server.poll() is None and time.monotonic() < deadline, "the server does not start"
            time.sleep(0.05)
        answers = [a for i in range(ROUNDS) for a in asyncio.run(one_round(socket, f"all{i}", CALLERS))]
        assert all(answer["right"] == CALLERS for answer in answers)
        calls = [line for line in origin.read_text().splitlines() if line.startswith("stampede:all")]
        held = sorted(answer["held_ms"] for answer in answers)
        lags = sorted(answer["lag_ms"] for answer in answers)
        print(f"python_stampede_origin_calls {len(calls) / ROUNDS:.2f} calls/key")
        # Held: of the processor's time. Lag: of the clock's, with whatever else the machine does.
        print(f"python_stampede_held_median {held[len(held) // 2]:.2f} ms")
        print(f"python_stampede_held_worst {held[-1]:.2f} ms")
        print(f"python_stampede_lag_median {lags[len(lags) // 2]:.2f} ms")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
        shutil.rmtree(directory, ignore_errors=True)


main()
