"""run.py: the comparison that bench/http.sh starts; its options are below, its output is described there."""

import argparse
import bisect
import itertools
import math
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time
from typing import Dict, List, NamedTuple

from servers import HERE, KINDS, Servers, Variant, redis_command, wait_for

URLS, EXPONENT, SEED = 10_000, 0.9, 20_24
SIZES = (512, 51_200)


class Figures(NamedTuple):
    """What one phase gave."""

    rate: float  # answers a second
    p50: float  # ms
    p99: float
    requests: int
    origin: int  # calls
    cpu: float  # us of the workers' processor time a request
    errors: int


def write_table(path: pathlib.Path, count: int) -> None:
    """Numbers of pages by Zipf's law, the same ones each time."""
    source, total, sums = random.Random(SEED), 0.0, []
    for rank in range(1, URLS + 1):
        total += rank**-EXPONENT
        sums.append(total)
    names = list(range(URLS))
    source.shuffle(names)
    path.write_text("".join(f"{names[bisect.bisect_left(sums, source.random() * total)]}\n" for _ in range(count)))


def drive(variant: Variant, table: pathlib.Path, size: int, seconds: float, connections: int, run: int) -> Figures:
    """wrk for so long; what is not an answer of 200 or has too short a body is an error."""
    origin, cpu = variant.origin_calls(), variant.cpu_seconds()
    said = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "60s", "-s", str(HERE / "zipf.lua"),
         f"http://127.0.0.1:{variant.port}", "--", str(table), str(size), str(run)],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL).stdout.decode()
    line = [text.split() for text in said.splitlines() if text.startswith("zipf ")]
    if not line:
        raise RuntimeError(f"wrk: {said}")
    requests, spent, p50, p99, errors, size_of_all = (float(word) for word in line[0][1:])
    if size_of_all < (requests - errors) * size:
        errors = max(errors, 1)
    return Figures(requests / spent, p50 / 1000, p99 / 1000, int(requests), variant.origin_calls() - origin,
                   (variant.cpu_seconds() - cpu) * 1e6 / max(requests, 1), int(errors))


def median(values: List[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


# One-sided 95 % points of Student's t, by degrees of freedom.
_T95 = (math.inf, 6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753)


def bound_of_ratio(pairs: "List[tuple[float, float]]") -> "tuple[float, float]":
    """The geometric mean of the ratios of pairs, and what it stays below with 95 % confidence."""
    logs = [math.log(above / below) for above, below in pairs]
    mean = sum(logs) / len(logs)
    if len(logs) < 2:
        return math.exp(mean), math.inf
    deviation = math.sqrt(sum((value - mean) ** 2 for value in logs) / (len(logs) - 1))
    t = _T95[len(logs) - 1] if len(logs) <= len(_T95) else 1.70
    return math.exp(mean), math.exp(mean + t * deviation / math.sqrt(len(logs)))


class Results:
    """What is told at the end."""

    def __init__(self) -> None:
        self.figures: List[str] = []
        self.bars: List[str] = []
        self.void = False

    def tell(self, name: str, value: str, unit: str) -> None:
        self.figures.append(f"http_{name} {value} {unit}")

    def bar(self, what: str, met: bool) -> None:
        self.bars.append(f"{'met   ' if met else 'missed'} {what}")


class Bench:
    """The servers of one part, and what is measured there."""

    def __init__(self, options: argparse.Namespace, servers: Servers, results: Results) -> None:
        self.options, self.servers, self.results = options, servers, results
        self.tell, self.bar = results.tell, results.bar
        self.table = servers.top / "zipf"
        write_table(self.table, 200_000)
        self._run = itertools.count()
        self.variants: Dict[str, Variant] = {}

    def drive(self, kind: str, size: int, seconds: float) -> Figures:
        return drive(self.variants[kind], self.table, size, seconds, self.options.connections, next(self._run))

    def start(self, kinds: List[str]) -> None:
        self.servers.start_redis()
        self.servers.start_larderd()
        if "memcached" in kinds:
            self.servers.start_memcached()
        for kind in kinds:
            self.variants[kind] = self.servers.start(kind)

    # ---- Rounds

    def warm(self, kind: str, size: int) -> List[Figures]:
        """Until nine in ten requests are hits, as they are in the rounds that count, or for so many seconds."""
        phases: List[Figures] = []
        while sum(phase.requests / phase.rate for phase in phases) < self.options.warm - 0.5:
            phases.append(self.drive(kind, size, 2))
            if kind == "none" or phases[-1].origin <= 0.1 * phases[-1].requests:
                break
        return phases

    def compare(self, size: int) -> None:
        """Of the rounds from an empty cache only the origin's calls are told."""
        name = f"{size / 1024:g}k".replace(".", "_")
        rounds: Dict[str, List[Figures]] = {kind: [] for kind in self.variants}
        first = {kind: self.warm(kind, size) for kind in self.variants}
        for number in range(self.options.rounds):
            kinds = list(self.variants)
            for kind in kinds[number % len(kinds):] + kinds[:number % len(kinds)]:
                rounds[kind].append(self.drive(kind, size, self.options.seconds))
        print(f"\n{size / 1024:g} KiB, medians of {self.options.rounds} interleaved rounds of {self.options.seconds:g} s,"
              f" {self.options.connections} connections; load {os.getloadavg()[0]:.1f}")
        print(f"{'':10} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>8} {'hits %':>7} {'origin calls of requests, with warming':>39} {'errors':>7}")
        for kind, measured in rounds.items():
            everything = [*first[kind], *measured]
            errors = sum(figures.errors for figures in everything)
            origin, requests = (sum(getattr(f, what) for f in everything) for what in ("origin", "requests"))
            rate, p50, p99, cpu = (median([getattr(f, what) for f in measured]) for what in ("rate", "p50", "p99", "cpu"))
            hits = 100 * (1 - sum(f.origin for f in measured) / max(sum(f.requests for f in measured), 1))
            print(f"{kind:10} {rate:8.0f} {p50:8.2f} {p99:8.2f} {cpu:8.0f} {max(hits, 0):7.1f} {f'{origin} of {requests}':>39} {errors:7}"
                  f"{'  VOID' if errors else ''}", flush=True)
            if errors:
                self.results.void = True
                continue
            self.tell(f"{kind}_{name}_rate", f"{rate:.0f}", "requests/s")
            self.tell(f"{kind}_{name}_p50", f"{p50:.2f}", "ms")
            self.tell(f"{kind}_{name}_p99", f"{p99:.2f}", "ms")
            self.tell(f"{kind}_{name}_cpu", f"{cpu:.0f}", "us/request")
            self.tell(f"{kind}_{name}_origin", f"{origin / requests * 1000:.1f}", "calls/1000_requests")
        if "redis" in rounds and "larder" in rounds:
            # Neighbours in time are compared: what else the machine does strikes both.
            ratio = median([a.rate / b.rate for a, b in zip(rounds["larder"], rounds["redis"])])
            self.tell(f"larder_to_redis_{name}", f"{ratio:.2f}", "ratio")
            self.bar(f"{size / 1024:g} KiB: larder {ratio:.2f} x the requests/s of redis.asyncio (1.3)", ratio >= 1.3)

    def cold(self, size: int) -> None:
        """Rounds that each begin with pages nobody has asked for: a byte longer every time."""
        rounds: Dict[str, List[Figures]] = {kind: [] for kind in ("larder", "redis")}
        for number in range(self.options.cold):
            for kind in list(rounds)[:: -1 if number % 2 else 1]:
                rounds[kind].append(self.drive(kind, size + 1 + number, self.options.seconds))
        name = f"{size / 1024:g}k".replace(".", "_")
        print(f"\n{size / 1024:g} KiB from an empty cache, medians of {self.options.cold} interleaved rounds of"
              f" {self.options.seconds:g} s; load {os.getloadavg()[0]:.1f}")
        for kind, measured in rounds.items():
            rate, p50, p99, cpu = (median([getattr(f, what) for f in measured]) for what in ("rate", "p50", "p99", "cpu"))
            hits = 100 * (1 - sum(f.origin for f in measured) / max(sum(f.requests for f in measured), 1))
            errors = sum(figures.errors for figures in measured)
            self.results.void = self.results.void or errors > 0
            print(f"{kind:10} {rate:8.0f} requests/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms, {cpu:.0f} us of the workers' CPU,"
                  f" {hits:.1f} % hits, {errors} errors", flush=True)
            self.tell(f"{kind}_{name}_cold_rate", f"{rate:.0f}", "requests/s")
        ratio = median([a.rate / b.rate for a, b in zip(rounds["larder"], rounds["redis"])])
        self.tell(f"larder_to_redis_{name}_cold", f"{ratio:.2f}", "ratio")
        self.bar(f"{size / 1024:g} KiB, cold: larder {ratio:.2f} x the requests/s of redis.asyncio (1.3)", ratio >= 1.3)

    # ---- Redis hung

    def hang(self, size: int) -> None:
        pairs, counted = [], {True: [], False: []}  # type: ignore[var-annotated]
        self.warm("larder", size)
        for number in range(self.options.pairs):
            pair = {}
            for hung in ((True, False) if number % 2 else (False, True)):
                if hung:
                    self.servers.hang(True)
                pair[hung] = self.drive("larder", size, self.options.hang)
                counted[hung].append(pair[hung])
                if hung:
                    self.servers.hang(False)
                    wait_for("Redis", lambda: redis_command(self.servers.redis_port, "PING").startswith(b"+PONG"))
                    time.sleep(1)  # larderd connects again
            pairs.append((pair[True].p99, pair[False].p99))
        ratio, bound = bound_of_ratio(pairs)
        errors = sum(figures.errors for phases in counted.values() for figures in phases)
        self.results.void = self.results.void or errors > 0
        print(f"\nlarder, Redis stopped for {self.options.hang:g} s at a time, {self.options.pairs} pairs of phases,"
              f" {size / 1024:g} KiB, pages kept for {self.options.hang_ttl} s; load {os.getloadavg()[0]:.1f}")
        for hung, phases in sorted(counted.items()):
            rate, p50, p99 = (median([getattr(f, what) for f in phases]) for what in ("rate", "p50", "p99"))
            label = "hung" if hung else "up"
            print(f"{'Redis ' + label:10} {rate:8.0f} requests/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms "
                  f"({' '.join(f'{f.p99:.2f}' for f in phases)}), {sum(f.origin for f in phases)} origin calls of"
                  f" {sum(f.requests for f in phases)} requests, {sum(f.errors for f in phases)} errors", flush=True)
            self.tell(f"larder_{label}_rate", f"{rate:.0f}", "requests/s")
            self.tell(f"larder_{label}_p99", f"{p99:.2f}", "ms")
        self.tell("larder_hung_p99_ratio", f"{ratio:.3f}", "ratio")
        self.tell("larder_hung_p99_ratio_bound", f"{bound:.3f}", "ratio")
        narrow = "; more --pairs narrow it" if ratio <= 1.10 < bound else ""
        self.bar(f"p99 with Redis hung {ratio:.3f} x that with Redis up, below {bound:.3f} with 95 % confidence (1.10{narrow})",
                 errors == 0 and bound <= 1.10)

    def hang_redis(self, size: int) -> None:
        """For comparison: the same under redis.asyncio, once. Errors are part of the answer here."""
        self.servers.hang(True)
        try:
            figures = self.drive("redis", size, self.options.hang)
        finally:
            self.servers.hang(False)
        print(f"redis      {figures.requests} answers in the same {self.options.hang:g} s, and {figures.errors} that are not 200,"
              " failed or came never", flush=True)
        self.tell("redis_hung_rate", f"{max(figures.requests - figures.errors, 0) / self.options.hang:.1f}", "requests/s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="http.sh", description="Pages of FastAPI out of several caches.")
    parser.add_argument("--seconds", type=float, default=2, help="of a round (2)")
    parser.add_argument("--rounds", type=int, default=3, help="of each variant and size (3)")
    parser.add_argument("--cold", type=int, default=3, help="rounds of larder and redis from an empty cache, before (3; 0: none)")
    parser.add_argument("--warm", type=float, default=12, help="seconds at most until nine in ten requests are hits (12)")
    parser.add_argument("--connections", type=int, default=16, help="of wrk (16)")
    parser.add_argument("--workers", type=int, default=4, help="of gunicorn (4)")
    parser.add_argument("--ttl", type=int, default=300, help="seconds that a page is kept (300)")
    parser.add_argument("--variants", default=",".join(KINDS), help=",".join(KINDS))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="bytes of a page, with commas; empty: no rounds")
    parser.add_argument("--pairs", type=int, default=4, help="of phases with Redis hung and not (4; 0: none)")
    parser.add_argument("--hang", type=float, default=10, help="seconds that Redis hangs at a time (10)")
    parser.add_argument("--hang-ttl", type=int, default=10, help="as --ttl, in those (10): there are misses all the time")
    options = parser.parse_args()
    unknown = set(options.variants.split(",")) - set(KINDS)
    if unknown:
        parser.error(f"no variant {', '.join(sorted(unknown))}")
    kinds = [kind for kind in KINDS if kind in options.variants.split(",")]
    if "memcached" in kinds and not shutil.which("memcached"):
        print("without memcached: it is not installed")
        kinds.remove("memcached")
    began, results = time.monotonic(), Results()
    sizes = [int(word) for word in options.sizes.split(",") if word]
    if sizes:
        with Servers(workers=options.workers, ttl=options.ttl) as servers:
            bench = Bench(options, servers, results)
            bench.start(kinds)
            for size in sizes:
                if options.cold and {"larder", "redis"} <= set(kinds):
                    bench.cold(size)
                bench.compare(size)
    if options.pairs and "larder" in kinds:
        with Servers(workers=options.workers, ttl=options.hang_ttl) as servers:
            bench = Bench(options, servers, results)
            bench.start([kind for kind in kinds if kind in ("larder", "redis")])
            bench.hang(SIZES[0])
            if "redis" in kinds:
                bench.hang_redis(SIZES[0])
    print(f"\n{time.monotonic() - began:.0f} s; {os.cpu_count()} processors for wrk, workers and servers together; memcached's "
          "client is bench/http/memcached.py, for Debian has none for asyncio")
    print("\n".join([*results.bars, *results.figures]))
    return 1 if results.void else 0


if __name__ == "__main__":
    sys.exit(main())
