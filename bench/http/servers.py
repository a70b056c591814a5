"""servers.py: what the benchmark starts, in a directory of its own, on loopback addresses and sockets; all of it
is stopped by its own process id. Used by run.py and by tests/python/test_bench_http.py.
"""

import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, Optional

HERE = pathlib.Path(__file__).resolve().parent
KINDS = ("larder", "redis", "dict", "memcached", "none")


_claims: List[socket.socket] = []  # kept open: a claim ends with this process


def free_port() -> int:
    """A port that nobody gets by chance before its server binds it; how: tests/ports.c."""
    for port in random.sample(range(10240, 20000), 9760):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0larder-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return port
    raise RuntimeError("no port of 10240 to 19999 is free")


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Poll until it holds."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.02)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def redis_command(port: int, *words: str) -> bytes:
    """The beginning of Redis's reply."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall((" ".join(words) + "\r\n").encode())
        return connection.recv(4096)


class Variant:
    """gunicorn with the application under one kind of cache."""

    def __init__(
        self, kind: str, process: "subprocess.Popen[bytes]", port: int, log: pathlib.Path, origin: pathlib.Path
    ) -> None:
        self.kind, self.process, self.port, self.log, self._origin = kind, process, port, log, origin

    def origin_calls(self) -> int:
        """Of all workers since the start."""
        return self._origin.stat().st_size if self._origin.exists() else 0

    def workers(self) -> List[int]:
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def cpu_seconds(self) -> float:
        """Of the processor, by all workers."""
        ticks = 0
        for pid in self.workers():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


class Servers:
    """A context manager: whatever happens inside, nothing is left running, or lying about."""

    def __init__(self, parent: Optional[str] = None, workers: int = 4, ttl: int = 300, memory_mb: int = 1024) -> None:
        self._top = pathlib.Path(tempfile.mkdtemp(prefix="larder-http-", dir=parent or "/dev/shm"))
        self._workers, self._ttl, self._memory_mb = workers, ttl, memory_mb
        self._running: "List[subprocess.Popen[bytes]]" = []
        self.redis: "Optional[subprocess.Popen[bytes]]" = None
        self.larderd: "Optional[subprocess.Popen[bytes]]" = None
        self.redis_port = self.memcached_port = 0

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *ignored: Any) -> None:
        if self.redis is not None:
            self.hang(False)
        for process in reversed(self._running):
            self._stop(process)
        shutil.rmtree(self._top, ignore_errors=True)

    @property
    def top(self) -> pathlib.Path:
        return self._top

    def _start(self, name: str, command: List[str], **environment: str) -> "subprocess.Popen[bytes]":
        with open(self._top / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, cwd=self._top, env=dict(os.environ, **environment),
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self._running.append(process)
        return process

    def _stop(self, process: "subprocess.Popen[bytes]") -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def said(self, name: str) -> str:
        return (self._top / f"{name}.log").read_text(errors="replace")

    def _wait_for_port(self, name: str, process: "subprocess.Popen[bytes]", port: int) -> None:
        def ready() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended: {self.said(name)[-2000:]}")
            return listens(port)

        wait_for(name, ready)

    # ---- Redis, larderd, memcached

    def start_redis(self) -> None:
        """A cache without persistence, as large as the map."""
        self.redis_port = free_port()
        self.redis = self._start("redis", [
            "redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--maxmemory", f"{self._memory_mb}mb", "--maxmemory-policy", "allkeys-lru", "--dir", str(self._top)])
        self._wait_for_port("redis", self.redis, self.redis_port)

    def hang(self, hung: bool) -> None:
        """Redis accepts connections, by its kernel, and answers nothing."""
        assert self.redis is not None
        if self.redis.poll() is None:
            self.redis.send_signal(signal.SIGSTOP if hung else signal.SIGCONT)

    def start_larderd(self) -> None:
        """The daemon of the larder variant's map, connected to the Redis that was started before."""
        map_dir = self._top / "maps"
        map_dir.mkdir(mode=0o700, exist_ok=True)
        config = self._top / "larder.conf"
        config.write_text(f'map = {{ size = "{self._memory_mb}M"; }};\n')
        process = self.larderd = self._start("larderd", [
            os.environ["LARDERD"], "-c", str(config), "--map", "bench", "--dir", str(map_dir),
            "--redis", f"redis://127.0.0.1:{self.redis_port}/1"])

        def ready() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"larderd ended: {self.said('larderd')[-2000:]}")
            return (map_dir / "bench" / "control").exists()

        wait_for("larderd", ready)

    def start_memcached(self) -> None:
        self.memcached_port = free_port()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        process = self._start("memcached", ["memcached", "-l", "127.0.0.1", "-p", str(self.memcached_port), "-U", "0",
                                            "-m", str(self._memory_mb), "-c", "4096", *user])
        self._wait_for_port("memcached", process, self.memcached_port)

    # ---- The application

    def start(self, kind: str, name: Optional[str] = None, workers: Optional[int] = None) -> Variant:
        """One variant, when all its workers serve. Its directory is name's (kind's)."""
        name, workers = name or kind, workers or self._workers
        port, origin = free_port(), self._top / f"{name}.origin"
        environment: Dict[str, str] = {
            "BENCH_CACHE": kind, "BENCH_TTL": str(self._ttl), "BENCH_ORIGIN_LOG": str(origin),
            "BENCH_REDIS_PORT": str(self.redis_port), "BENCH_MEMCACHED_PORT": str(self.memcached_port),
            "LARDER_DIR": str(self._top / "maps"), "LARDER_MAP": "bench"}
        if not (self._top / "maps").exists():
            (self._top / "maps").mkdir(mode=0o700)
        process = self._start(f"gunicorn-{name}", [
            sys.executable, "-m", "gunicorn", "-w", str(workers), "-k", "uvicorn.workers.UvicornWorker",
            "-b", f"127.0.0.1:{port}", "--chdir", str(HERE), "--worker-tmp-dir", str(self._top), "--backlog", "2048",
            "--timeout", "300", "--log-level", "info", "app:app"], **environment)

        def ready() -> bool:
            said = self.said(f"gunicorn-{name}")
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended: {said[-2000:]}")
            return said.count("Application startup complete") >= workers

        wait_for(name, ready, 240)
        return Variant(kind, process, port, self._top / f"gunicorn-{name}.log", origin)

    def end(self, variant: Variant) -> None:
        self._stop(variant.process)
        self._running.remove(variant.process)
