"""miss.py [REQUESTS]: what one miss costs a worker: pages of bench/http/app.py, each asked for once, by an application
that is called without a server around it, under uvloop, 4 requests at a time; the origin answers at once. Microseconds a request, of
the worker's processor and of the others' (redis-server, larderd), for no cache (what the framework takes),
redis.asyncio (GET, SETEX), larder with larderd and Redis, and larder alone."""

import asyncio
import os
import pathlib
import resource
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "http"))

SIZE, TOGETHER, WARM, ROUNDS = 512, 4, 200, 5


class Client:
    """What a server does for one request, without its sockets."""

    def __init__(self, app):
        self.app, self.statuses = app, []

    async def receive(self):
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.statuses.append(message["status"])

    async def ask(self, number):
        path = f"/page/{SIZE}/{number}"
        await self.app({"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
                        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "server": ("127.0.0.1", 80),
                        "client": ("127.0.0.1", 1), "headers": [(b"host", b"127.0.0.1")]}, self.receive, self.send)


async def worker(requests):
    """In a process of its own: microseconds a request of the processor and by the clock."""
    from app import app

    client = Client(app)
    numbers = iter(range(WARM + requests))

    async def one(until):  # of each of those at once one number is the last
        for number in numbers:
            await client.ask(number)
            if number >= until:
                return

    async def burst(until):
        await asyncio.gather(*[one(until) for _ in range(TOGETHER)])

    async with app.router.lifespan_context(app):
        await burst(WARM - TOGETHER)
        cpu, clock = time.process_time(), time.perf_counter()
        await burst(WARM + requests)
        cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    assert client.statuses == [200] * (WARM + requests), "not every page came"
    print(cpu * 1e6 / requests, clock * 1e6 / requests)


def cpu_of(processes):
    ticks = 0
    for process in processes:
        fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(servers, kind, name, requests, others):
    maps = servers.top / ("maps" if others or kind != "larder" else "alone")
    maps.mkdir(mode=0o700, exist_ok=True)
    before = cpu_of(others)
    subprocess.run(["redis-cli", "-p", str(servers.redis_port), "flushdb"], check=True, stdout=subprocess.DEVNULL)
    said = subprocess.run(
        [sys.executable, __file__, "--worker", str(requests)], check=True, stdout=subprocess.PIPE,
        env=dict(os.environ, BENCH_CACHE=kind, BENCH_TTL="300", BENCH_ORIGIN_LOG=str(servers.top / "origin"),
                 BENCH_ORIGIN_DELAY="0", BENCH_REDIS_PORT=str(servers.redis_port), LARDER_DIR=str(maps), LARDER_MAP=name)).stdout
    worker, clock = (float(word) for word in said.split())
    time.sleep(0.2)  # what larderd sends behind belongs to it
    return worker, clock, (cpu_of(others) - before) * 1e6 / (WARM + requests)


def main():
    if sys.argv[1:2] == ["--worker"]:
        import uvloop

        uvloop.install()
        asyncio.run(worker(int(sys.argv[2])))
        return
    from servers import Servers

    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    figures = {}
    for number in range(ROUNDS):
        with Servers() as servers:
            servers.start_redis()
            servers.start_larderd()
            redis, larderd = servers.redis, servers.larderd
            for kind, name, label, others in (
                ("none", "-", "none", []), ("redis", "-", "redis", [redis]),
                ("larder", "bench", "larder", [redis, larderd]), ("larder", "alone", "larder_alone", [])):
                figures.setdefault(label, []).append(measure(servers, kind, name, requests, others))
    for label, rounds in figures.items():
        for at, what in enumerate(("worker", "clock", "others")):
            print(f"python_miss_{label}_{what} {sorted(found[at] for found in rounds)[ROUNDS // 2]:.0f} us/request")


main()
