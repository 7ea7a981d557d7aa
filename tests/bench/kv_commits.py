"""Durable commits a second through the embedded store's owner, beside what LMDB alone can do.

4 client processes with 16 transactions in flight each; a transaction reads 5 random keys of 100,000 with
conflict and writes 2 of them. The limit is ``limits/raw_group_commit.py``, measured in turn with it.

    python -m tests.bench.kv_commits [--directory DIR] [--seconds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from rich.console import Console

from fs3.clock import SystemClock
from fs3.errors import TransactionConflict
from fs3.kv.lmdb_client import LmdbKv, LmdbSettings
from fs3.rng import derived_rng
from fs3.tasks import TaskScope

from ..kv.owner_process import ROOT, OwnerProcess
from .harness import RUNS, Row, cpu_s, row, show

KEYS = 100_000
PROCESSES = 4
IN_FLIGHT = 16
TARGET_PER_S = 10_000
WARM_UP_S = 0.5


def key(number: int) -> bytes:
    return b"TEST%08d" % number


async def fill(directory: Path) -> None:
    kv = LmdbKv(LmdbSettings(directory), clock=SystemClock())
    for start in range(0, KEYS, 4000):
        txn = kv.transaction()
        for number in range(start, start + 4000):
            txn.set(key(number), bytes(108))
        await txn.commit()
    await kv.aclose()


async def client(directory: Path, name: str, seconds: float) -> tuple[int, int]:
    """Commits and conflicts of one process within ``seconds``."""
    kv = LmdbKv(LmdbSettings(directory), clock=SystemClock())
    rng = derived_rng(1, name)
    counts = [0, 0]

    async def worker() -> None:
        while time.perf_counter() < end:
            txn = kv.transaction()
            keys = [key(rng.randrange(KEYS)) for _ in range(5)]
            for one in keys:
                await txn.get(one)
            for one in keys[:2]:
                txn.set(one, rng.randbytes(108))
            try:
                await txn.commit()
                counts[0] += 1
            except TransactionConflict:
                counts[1] += 1

    end = time.perf_counter() + WARM_UP_S
    for span_s in (WARM_UP_S, seconds):
        end = time.perf_counter() + span_s
        counts[:] = 0, 0
        async with TaskScope("bench", lambda _name, error: print(error)) as scope:
            for task in [scope.start(str(number), worker()) for number in range(IN_FLIGHT)]:
                await task
    await kv.aclose()
    return counts[0], counts[1]


def clients_per_s(directory: Path, seconds: float) -> float:
    """Commits a second of all client processes together."""
    command = [
        sys.executable,
        "-m",
        "tests.bench.kv_commits",
        "--client",
        "--directory",
        os.fspath(directory),
    ]
    running = [
        subprocess.Popen(
            [*command, "--seconds", str(seconds), "--name", str(number)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    total = 0
    for process in running:
        output, _ = process.communicate(timeout=seconds + 30)
        assert process.returncode == 0, process.returncode
        total += int(output.split()[0])
    return total / seconds


def limit_per_s(directory: Path, seconds: float) -> float:
    command = [
        sys.executable,
        "-m",
        "tests.bench.limits.raw_group_commit",
        "--directory",
        os.fspath(directory),
    ]
    result = subprocess.run(
        [*command, "--seconds", str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(result.stdout)


def rows(directory: Path, seconds: float = 3.0, runs: int = RUNS) -> list[Row]:
    """The figures; ``directory`` lies on the disk to be measured."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="fs3-bench-kv-") as folder:
        owner = OwnerProcess(Path(folder) / "store")
        owner.start()
        try:
            asyncio.run(fill(Path(folder) / "store"))
            ours: list[float] = []
            limits: list[float] = []
            shares: list[float] = []
            for _ in range(runs):
                before, began = cpu_s(owner.pid), time.perf_counter()
                ours.append(clients_per_s(Path(folder) / "store", seconds))
                shares.append((cpu_s(owner.pid) - before) / (time.perf_counter() - began))
                limits.append(limit_per_s(Path(folder), seconds))
        finally:
            owner.stop()
    note = f"{PROCESSES} processes x {IN_FLIGHT} in flight; owner {statistics.median(shares):.2f} cores"
    result = row(
        "KV durable commits",
        statistics.median(ours),
        "commits/s",
        limit=statistics.median(limits),
        limit_name="raw LMDB group commit",
        note=note,
    )
    reached = row("KV durable commits, absolute", result.value, "commits/s", target=TARGET_PER_S)
    return [result, reached]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--client", action="store_true")
    parser.add_argument("--name", default="")
    options = parser.parse_args()
    if options.client:
        commits, conflicts = uvloop.run(client(options.directory, options.name, options.seconds))
        print(commits, conflicts)
    else:
        show(rows(options.directory, options.seconds, options.runs), Console())


if __name__ == "__main__":
    main()
