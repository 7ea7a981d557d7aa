"""``fs3 demo``: from nothing to a verified, fault-tolerant read, in one command."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

import fs3.client
from fs3.errors import Fs3Error

from ..dev.cluster import Cluster, ClusterError
from ..dev.commands import say
from ..dev.plan import ClusterShape
from ..dev.table import fetch_status
from .reading import Reading, read_set
from .report import Report, percentile, show, write_json
from .writing import Written, write_set

SHAPE = ClusterShape()
WRITE_VICTIM = "storage-4"
"""Killed while shards are written."""
VICTIM = "storage-2"
"""Killed while they are read."""
HEAL_TIMEOUT_S = 60.0
STATUS_TIMEOUT_S = 5.0
ROOT = "/demo"
MIB = 1 << 20


@click.command()
@click.option("--mib", type=click.IntRange(16), default=1024, show_default=True, help="Size of the shards.")
@click.option("--files", type=click.IntRange(1), default=5000, show_default=True, help="Small files.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/demo"),
    show_default=True,
    help="Where the cluster and report.json go; a cluster of an earlier demo there is replaced.",
)
@click.option("--keep", is_flag=True, help="Leave the cluster running.")
def demo(mib: int, files: int, out: Path, keep: bool) -> None:
    """Run the main job on this machine.

    Starts a cluster of real processes, writes a training set with three replicas, reads it back in shuffled
    batches from four processes that verify every byte. A storage node is killed while it writes and started
    again, another one while it reads.
    Exit code 0 only if every byte was verified and no reader saw an error.
    """
    console = Console(stderr=True)
    try:
        failures = run(mib, files, out.absolute(), keep, console)
    except (ClusterError, Fs3Error, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error
    for failure in failures:
        console.print(f"[red]{failure}[/]")
    sys.exit(1 if failures else 0)


def run(mib: int, files: int, out: Path, keep: bool, console: Console) -> list[str]:
    """The whole demo; returns what went wrong, for people."""
    began = time.monotonic()
    cluster = Cluster(out / "cluster")
    if cluster.exists:
        cluster.down(say)
    shutil.rmtree(cluster.directory, ignore_errors=True)
    try:
        plan = cluster.up(SHAPE, say)
        set_up_s = time.monotonic() - began
        url = str(cluster.directory / "client.toml")
        with fs3.client.connect(url) as filesystem, progress(console) as bars:
            written = _write(cluster, filesystem, bars, mib, files)
        healed_s = _heal(cluster)
        manifest_file = out / "manifest.json"
        manifest_file.write_bytes(msgspec.json.encode(written.manifest))
        with progress(console) as bars:
            reading = _read(cluster, url, manifest_file, written, bars)
        report = _report(
            written, reading, (set_up_s, healed_s), len(plan.processes), time.monotonic() - began
        )
        write_json(report, out / "report.json")
        show(report, console)
        _what_next(cluster, out, keep)
        return _failures(report, reading, written)
    finally:
        if not keep and cluster.exists:
            cluster.down(say)


def _write(
    cluster: Cluster, filesystem: fs3.client.FileSystem, bars: Progress, mib: int, files: int
) -> Written:
    """Write it all; a node dies when a third of the shards is there."""
    total_bytes = mib * MIB
    shards = bars.add_task("write shards", total=total_bytes)
    small = bars.add_task("create small files", total=files)
    killing = threading.Lock()
    done_bytes = 0

    def advance(count: int) -> None:
        nonlocal done_bytes
        bars.advance(shards, count)
        with killing:
            before, done_bytes = done_bytes, done_bytes + count
            if before < total_bytes // 3 <= done_bytes:
                cluster.kill(WRITE_VICTIM)
                bars.console.print(f"killed {WRITE_VICTIM} with SIGKILL while shards are written")

    return write_set(filesystem, ROOT, total_bytes, files, advance, lambda count: bars.advance(small, count))


def _heal(cluster: Cluster) -> float:
    """Start the killed node again; seconds until every chain has all its members. ClusterError: it took too
    long."""
    cluster.restart(WRITE_VICTIM, say)
    began = time.monotonic()
    while time.monotonic() - began < HEAL_TIMEOUT_S:
        if fetch_status(cluster.key(), cluster.plan(), STATUS_TIMEOUT_S).is_whole:
            return time.monotonic() - began
        time.sleep(0.1)
    raise ClusterError(f"{WRITE_VICTIM} is no member of its chains {HEAL_TIMEOUT_S:.0f} s after its start")


def _read(cluster: Cluster, url: str, manifest_file: Path, written: Written, bars: Progress) -> Reading:
    total_bytes = written.manifest.total_bytes
    task = bars.add_task("read, verify", total=total_bytes)

    def kill() -> str:
        cluster.kill(VICTIM)
        bars.console.print(f"killed {VICTIM} with SIGKILL")
        return VICTIM

    return read_set(url, manifest_file, ROOT, total_bytes, kill, lambda count: bars.advance(task, count))


def _report(
    written: Written, reading: Reading, times_s: tuple[float, float], processes: int, total_s: float
) -> Report:
    """``times_s``: until the cluster served, and until it was whole again."""
    set_up_s, healed_s = times_s
    results = reading.results
    latencies = [latency for result in results for latency in result.latencies_s]
    shard_bytes = sum(written.manifest.shard_lengths.values())
    return Report(
        set_up_s=set_up_s,
        write_mib_s=written.shard_mib_s,
        read_mib_s=shard_bytes / MIB / max(result.elapsed_s for result in results),
        small_files_per_s=written.small_files_per_s,
        small_file_reads_per_s=len(written.manifest.small) / max(r.small_elapsed_s for r in results),
        bytes_written=written.manifest.total_bytes,
        bytes_verified=sum(result.bytes_verified for result in results),
        files_verified=sum(result.files_verified for result in results),
        read_errors=len(reading.errors),
        batch_p50_ms=percentile(latencies, 0.5) * 1000,
        batch_p99_ms=percentile(latencies, 0.99) * 1000,
        batch_p999_ms=percentile(latencies, 0.999) * 1000,
        longest_stall_s=max(result.longest_after_kill_s for result in results),
        killed=reading.killed,
        longest_write_stall_s=written.longest_write_s,
        healed_s=healed_s,
        processes=processes,
        total_s=total_s,
    )


def _failures(report: Report, reading: Reading, written: Written) -> list[str]:
    failures = list(reading.errors)
    if report.bytes_verified != written.manifest.total_bytes:
        failures.append(f"{report.bytes_verified} bytes verified of {written.manifest.total_bytes}")
    if not reading.killed:
        failures.append("no node was killed: the readers were too quick")
    return failures


def _what_next(cluster: Cluster, out: Path, keep: bool) -> None:
    say(f"report: {out / 'report.json'}")
    directory = f'--dir "{cluster.directory}"'
    if keep:
        say(f"the cluster runs on:  fs3 ls fs3://dev{ROOT}    fs3 dev status {directory}")
        say(f"heal it:              fs3 dev restart {VICTIM} {directory}")
    else:
        say(f"start it again with its data:  fs3 dev up {directory}    then: fs3 ls fs3://dev{ROOT}")
    say("a cluster to keep:             fs3 dev up    then: fs3 cp -r DIRECTORY fs3://dev/data")


@contextmanager
def progress(console: Console) -> Iterator[Progress]:
    """A progress bar on the screen; one line at the end when there is none."""
    columns = (TextColumn("{task.description:20}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        yield bars
