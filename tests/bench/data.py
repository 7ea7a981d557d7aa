"""Bulk and small reads, writes, small files, CPU and memory: a development cluster, clients in processes.

python -m tests.bench.data [--quick]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

import fs3.client
from fs3.deploy.dev.cluster import Cluster
from fs3.deploy.dev.plan import ClusterShape
from fs3.deploy.dev.process import running_pid

from .harness import RUNS, Row, anonymous_mib, cpu_s, row, show
from .limits.raw_chain import measure as raw_chain

MIB = 1 << 20
FILE_MIB = 64
"""As large as what the raw loop reads: with three replicas, 192 MiB of page cache to warm."""
DEPTH = 8


@dataclass(slots=True)
class Bench:
    """A running cluster and what is measured on it."""

    cluster: Cluster
    directory: Path
    runs: int

    @property
    def client_file(self) -> str:
        return str(self.cluster.directory / "client.toml")

    def pids(self, role: str = "") -> dict[str, int]:
        """Pids of the cluster's processes, by name."""
        found = {p.name: running_pid(self.cluster.files(p.name)) for p in self.cluster.plan().processes}
        return {name: pid for name, pid in found.items() if pid is not None and name.startswith(role)}

    def clients(self, jobs: Sequence[Sequence[str]]) -> tuple[float, float]:
        """Run client processes at the same time: (sum of rates, CPU seconds of all of them)."""
        command = [sys.executable, "-m", "tests.bench.client_program", self.client_file]
        running = [
            subprocess.Popen(
                [*command, *job], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
            )
            for job in jobs
        ]
        try:
            for process in running:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n", "a client did not get ready"
            for process in running:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            results: list[dict[str, Any]] = []
            for process in running:
                assert process.stdout is not None
                results.append(json.loads(process.stdout.readline()))
        finally:
            for process in running:
                process.kill()
                process.communicate()
        return sum(r["per_s"] for r in results), sum(r["cpu_s"] for r in results)

    def rate(self, *job: str, count: int = 1) -> float:
        """Sum of the rates of ``count`` processes with the same job."""
        return self.clients([job] * count)[0]

    def against(self, limit: Any, *job: str, count: int = 1) -> tuple[float, float]:
        """Medians of ours and of ``limit()``, measured in turn."""
        ours, limits = [], []
        for _ in range(self.runs):
            ours.append(self.rate(*job, count=count))
            limits.append(limit())
        return statistics.median(ours), statistics.median(limits)

    def median(self, *job: str, count: int = 1) -> float:
        """Median of ours alone."""
        return statistics.median(self.rate(*job, count=count) for _ in range(self.runs))


ROOT = Path(__file__).parents[2]


class RawRead:
    """The frozen read limit, with its server."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "raw"
        self._file.write_bytes(bytes(64 * MIB))
        self._command = [sys.executable, "-m", "tests.bench.limits.raw_read"]
        self._server = subprocess.Popen(
            [*self._command, "serve", str(self._file)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self._server.stdout is not None
        self._port = self._server.stdout.readline().split()[-1]

    def mib_s(self, *extra: str) -> float:
        """MiB/s of a run; ``extra``: ``--bare``, ``--threads``."""
        done = subprocess.run(
            [*self._command, "read", self._port, "--mib", "1024", *extra],
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        return float(done.stdout) * 1024

    def close(self) -> None:
        """Stop the server."""
        self._server.kill()
        self._server.communicate()
        self._file.unlink()


@contextmanager
def running_cluster(directory: Path, replication: int = 3) -> Iterator[Cluster]:
    """A cluster of the demo's shape in a new directory."""
    cluster = Cluster(directory)
    cluster.up(ClusterShape(replication=replication), lambda _: None)
    try:
        yield cluster
    finally:
        cluster.down(lambda _: None)
        shutil.rmtree(directory)


def fill(client_file: str, path: str = "/read", mib: int = FILE_MIB) -> None:
    """The file that is read, or another one."""
    block = bytes(range(256)) * 4096
    with fs3.client.connect(client_file) as filesystem, filesystem.open(path, "wb") as file:
        for _ in range(mib):
            file.write(block)


def read_rows(bench: Bench) -> Iterator[Row]:
    """Bulk and small reads."""
    raw = RawRead(bench.directory)
    try:
        name, mib = "raw sendfile → recv_into + CRC32C", "1024"
        job = ("read", "/read", "--count", mib, "--size", str(MIB), "--depth", "16")
        ours, limit = bench.against(raw.mib_s, *job)
        yield row("read 1 MiB, 1 client", ours, "MiB/s", limit=limit, limit_name=name, target=0.8)
        yield row("  the same without sums (bare)", raw.mib_s("--bare"), "MiB/s", note="limit without CRC32C")
        job = ("read", "/read", "--count", "512", "--size", str(MIB), "--depth", "16")
        ours, limit = bench.against(lambda: raw.mib_s("--threads", "4"), *job, count=4)
        yield row("read 1 MiB, 4 clients", ours, "MiB/s", limit=limit, limit_name=name)
    finally:
        raw.close()
    job = ("read", "/read", "--count", "4096", "--size", str(128 * 1024), "--depth", "32")
    yield row("read 128 KiB, 1 client", bench.median(*job), "MiB/s")
    yield row("random 4 KiB, depth 1", bench.median("random_single", "/read", "--count", "2000"), "reads/s")
    for threads, target in (("1", None), ("3", 60_000)):
        rate = bench.median("random_batch", "/read", "--count", "131072", "--depth", threads)
        name = f"random 4 KiB, batches of 64, {threads} in flight"
        yield row(name, rate, "reads/s", target=target)


def write_rows(bench: Bench, replicas: int) -> Iterator[Row]:
    """Durable writes of 1 MiB."""
    job = ("write", "/written", "--count", "256", "--depth", str(DEPTH))
    ours, limit = bench.against(lambda: raw_chain(str(bench.directory), replicas, DEPTH, 256), *job)
    name = "raw durable chain"
    yield row(f"write 1 MiB, {replicas} replicas", ours, "MiB/s", limit=limit, limit_name=name, target=0.7)


def cost_rows(bench: Bench) -> Iterator[Row]:
    """CPU seconds a GiB, memory at rest and under load."""
    for name, job in (
        ("read", ("read", "/read", "--count", "1024", "--size", str(MIB), "--depth", "16")),
        ("write", ("write", "/written", "--count", "512", "--depth", str(DEPTH))),
    ):
        before = {name: cpu_s(pid) for name, pid in bench.pids().items()}
        _, client_s = bench.clients([job])
        spent = sum(cpu_s(pid) - before[name] for name, pid in bench.pids().items())
        gib = (
            2048 if name == "read" else 512 + DEPTH * 4
        ) / 1024  # a read job warms up with a run of its own
        yield row(f"CPU of servers, {name}", spent / gib, "s/GiB")
        yield row(f"CPU of the client, {name}", client_s / (1 if name == "read" else 0.5), "s/GiB")


def memory_rows(bench: Bench, when: str) -> Iterator[Row]:
    """Anonymous memory of each kind of daemon."""
    for role in ("kv", "mgmtd", "meta", "storage"):
        most = max(anonymous_mib(pid) for pid in bench.pids(role).values())
        target = 100.0 if (role, when) == ("storage", "at rest") else None
        yield row(f"memory of {role} {when}", most, "MiB anonymous", target=target)


def small_file_rows(bench: Bench) -> Iterator[Row]:
    """Small files, whole, through the client library."""
    created: list[float] = []
    reads: list[float] = []
    for i in range(bench.runs):
        path = f"/small{i}"
        job = ("--count", "2000", "--depth", "32")
        created.append(bench.rate("small_create", path, *job))
        reads.append(bench.rate("small_read", path, *job))
    yield row("small-file create (3 kB), 1 client", statistics.median(created), "files/s")
    yield row("small-file read (3 kB), 1 client", statistics.median(reads), "files/s")


def rows(directory: Path, runs: int = RUNS) -> Iterator[Row]:
    """Every figure, in order; ``directory`` lies on the disk to be measured."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="fs3-bench-") as folder:
        base = Path(folder)
        with running_cluster(base / "three") as cluster:
            bench = Bench(cluster, base, runs)
            yield from memory_rows(bench, "at rest")
            fill(bench.client_file)
            yield from read_rows(bench)
            yield from write_rows(bench, 3)
            yield from cost_rows(bench)
            yield from small_file_rows(bench)
            yield from memory_rows(bench, "after load")
        for replicas in (2, 1):
            with running_cluster(base / f"of{replicas}", replicas) as cluster:
                yield from write_rows(Bench(cluster, base, runs), replicas)


def main() -> None:
    """Run these rows alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=ROOT / "build")
    parser.add_argument("--quick", action="store_true", help="one run of each instead of the median of five")
    arguments = parser.parse_args()
    arguments.directory.mkdir(exist_ok=True)
    show(rows(arguments.directory, 1 if arguments.quick else RUNS), Console(width=150))


if __name__ == "__main__":
    main()
