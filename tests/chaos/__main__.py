"""``make chaos``: faults on real processes under load, then a judgement of everything that clients saw.

    python -m tests.chaos [--faults 100] [--seed N] [--workers 4] [--directory DIR]

Writes ``build/chaos/report.json``; exit code 1 if anything was lost, stale, corrupt or an error to a client.
What failed is found again with the printed seed, as far as real processes repeat themselves; the logs of
workers and daemons stay in the directory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

import fs3.client
from fs3.deploy.dev.cluster import Cluster
from fs3.deploy.dev.plan import ClusterShape
from fs3.rng import derived_rng, system_rng
from fs3.routing import RoutingInfo

from .aftermath import judge_stores
from .faults import Faults
from .history import History, read_logs
from .registers import content_of, registers, value_of

ROOT = Path(__file__).parents[2]
AREA = "/chaos"
WORKER_END_S = 120.0
SHOWN_MAX = 20


def prepare(client_file: Path) -> None:
    """The shared files, every slot zero."""
    with fs3.client.connect(str(client_file)) as filesystem:
        filesystem.makedirs(f"{AREA}/own", exist_ok=True)
        for slot in registers(AREA):
            mode = "r+b" if filesystem.exists(slot.path) else "w+b"
            with filesystem.open(slot.path, mode) as file:
                file.pwrite(content_of(0, slot.size_bytes), slot.offset_bytes)


@contextmanager
def workers(client_file: Path, count: int, seed: int, logs: Path) -> Iterator[None]:
    """``count`` processes at work; told to end at the end, and waited for."""
    command = [sys.executable, "-m", "tests.chaos.worker", str(client_file), AREA]
    running = [
        subprocess.Popen(
            [*command, str(number), str(seed), str(logs / f"worker-{number}.jsonl")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        for number in range(1, count + 1)
    ]
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n", "a worker did not begin"
        yield
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
        for process in running:
            assert process.wait(WORKER_END_S) == 0, "a worker broke off"
    finally:
        for process in running:
            process.kill()
            process.wait()


def read_everything(client_file: Path, history: History) -> RoutingInfo:
    """A last read of each slot belongs to the history; returns the chains as they are now."""
    with fs3.client.connect(str(client_file)) as filesystem:
        for slot in registers(AREA):
            began_s = time.monotonic()
            with filesystem.open(slot.path, "rb") as file:
                value = value_of(file.pread(slot.size_bytes, slot.offset_bytes))
            history.add_read(slot.name, value, began_s, time.monotonic())
        return filesystem.asynchronous.core.components.routing.routing


def report_of(history: History, faults: Faults, stores: list[str]) -> dict[str, object]:
    """The keys that others read."""
    stalls = [_longest_after(history, at_s) for at_s in faults.struck_s]
    reads = history.stalls_s(("read",))
    everything = history.stalls_s(("read", "write", "names"))
    return {
        "faults": faults.counts.total(),
        "by_kind": dict(sorted(faults.counts.items())),
        "operations": len(history.operations),
        "acknowledged_writes": history.acknowledged(),
        "lost": len(stores),
        "stale_reads": len(history.problems) - history.corrupt,
        "client_errors": len(history.errors),
        "corrupt": history.corrupt,
        "longest_stall_s": round(max(everything, default=0.0), 2),
        "longest_read_stall_s": round(max(reads, default=0.0), 2),
        "median_stall_s": round(statistics.median(stalls), 2) if stalls else 0.0,
        "recovery_s": {
            "median": round(statistics.median(faults.recovery_s), 2) if faults.recovery_s else 0.0,
            "max": round(max(faults.recovery_s, default=0.0), 2),
        },
    }


def _longest_after(history: History, at_s: float) -> float:
    """The longest operation that was under way within the second after a fault."""
    return max(
        (o.end_s - o.start_s for o in history.operations
         if o.start_s <= at_s + 1.0 and at_s <= o.end_s < float("inf")),
        default=0.0,
    )  # fmt: skip


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=system_rng().randrange(1 << 31))
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "chaos")
    arguments = parser.parse_args()
    click.echo(f"seed {arguments.seed}")
    shutil.rmtree(arguments.directory, ignore_errors=True)
    logs = arguments.directory / "logs"
    logs.mkdir(parents=True)
    cluster = Cluster(arguments.directory / "cluster")
    cluster.up(ClusterShape(), click.echo)
    client_file = cluster.directory / "client.toml"
    faults = Faults(cluster, derived_rng(arguments.seed, "faults"))
    try:
        prepare(client_file)
        with workers(client_file, arguments.workers, arguments.seed, logs):
            faults.run(arguments.faults, click.echo)
        history = read_logs(sorted(logs.glob("worker-*.jsonl")))
        routing = read_everything(client_file, history)
    finally:
        cluster.down(click.echo)
    history.judge()
    stores = judge_stores(cluster.directory, routing)
    report = report_of(history, faults, stores)
    (arguments.directory / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    click.echo(json.dumps(report, indent=2))
    wrong = [*history.problems, *history.errors, *stores]
    for text in wrong[:SHOWN_MAX]:
        click.echo(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
