"""An example application under gunicorn with four uvicorn workers, as its users run it, and what goes
with it: larderd and a Redis that can be killed."""

import asyncio
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from conftest import wait_until

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples" / "fastapi"
WORKERS = 4


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 280))


async def ask(client, path, count=1, method="GET", **options):
    return await asyncio.gather(*[client.request(method, path, **options) for _ in range(count)])


class Served:
    """examples/fastapi/APPLICATION.py over a map of that name."""

    def __init__(self, directory, application, delay=0.2):
        self.directory = directory
        self.map = application
        self.socket = directory / "http"
        self.log = directory / "origin"
        self.said = open(directory / "said", "w+")
        environment = dict(os.environ, LARDER_DIR=str(directory), LARDER_MAP=application,
                           SHOP_ORIGIN_LOG=str(self.log), SHOP_ORIGIN_DELAY=str(delay))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-w", str(WORKERS), "-k",
             "uvicorn.workers.UvicornWorker", "-b", f"unix:{self.socket}", "--chdir", str(EXAMPLES),
             "--timeout", "300", "--worker-tmp-dir", "/dev/shm", f"{application}:app"],
            env=environment, stdout=self.said, stderr=subprocess.STDOUT)
        try:
            wait_until(self.workers_are_there, 240)
        except BaseException:
            self.stop()
            raise

    def workers_are_there(self):
        assert self.process.poll() is None, pathlib.Path(self.said.name).read_text()
        return pathlib.Path(self.said.name).read_text().count("Application startup complete") >= WORKERS

    def client(self, **options):
        """Each request on a connection of its own: any worker may take it."""
        return httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(self.socket),
                                               limits=httpx.Limits(max_keepalive_connections=0)),
            base_url="http://shop", timeout=240, **options)

    def origin(self, what):
        """How often the origin was asked for it, by all workers together."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return sum(line.rsplit(" ", 1)[0] == what for line in lines)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.said.close()


class Redis:
    """A Redis on a unix socket, and a larderd that keeps each of these maps in step with it."""

    def __init__(self, directory, *maps):
        server = shutil.which("redis-server", path=os.environ["PATH"] + ":/usr/sbin")
        larderd = os.environ.get("LARDERD")
        if server is None or not larderd or not os.path.exists(larderd):
            pytest.skip("redis-server or larderd is not there")
        self.directory = directory
        self.socket = directory / "redis"
        self.command = [server, "--port", "0", "--unixsocket", str(self.socket), "--save", "",
                        "--dir", str(directory)]
        self.process = None
        self.daemons = []
        settings = directory / "larderd.conf"
        settings.write_text('redis = { backoff_min = "20ms"; backoff_max = "200ms"; '
                            'breaker_open = "100ms"; ping = "300ms"; };\n')
        settings.chmod(0o600)
        self.start()
        for name in maps:
            self.daemons.append(subprocess.Popen(
                [larderd, "-c", str(settings), "--map", name, "--dir", str(directory),
                 "--redis", f"unix://{self.socket}"], stderr=subprocess.DEVNULL))

    def start(self):
        if self.process is None:
            self.socket.unlink(missing_ok=True)
            self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
            wait_until(self.socket.exists)

    def said(self, *command):
        """The reply to one command of plain arguments, as text."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket))
            client.sendall((" ".join(command) + "\r\n").encode())
            return client.makefile().readline().strip("+\r\n")

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self):
        for daemon in self.daemons:
            daemon.kill()
            daemon.wait()
        self.kill()


async def until_redis_is(client, state, seconds=120):
    """Wait until the application's health says so: "connected", or "disconnected"."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        health = (await client.get("/health")).json()
        if health["redis"] == state:
            return health
        assert asyncio.get_running_loop().time() < deadline, health
        await asyncio.sleep(0.02)
