"""The demo's figures: percentiles (pure), the table on the screen, the JSON file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table


class ReaderResult(msgspec.Struct, kw_only=True):
    """What one reader process saw; its last line of output, as JSON."""

    bytes_verified: int = 0
    files_verified: int = 0
    errors: list[str] = []
    latencies_s: list[float] = []
    """Of each batch, in order."""
    longest_s: float = 0.0
    longest_after_kill_s: float = 0.0
    elapsed_s: float = 0.0
    small_elapsed_s: float = 0.0


class Report(msgspec.Struct, kw_only=True):
    """``build/demo/report.json``."""

    set_up_s: float
    write_mib_s: float
    read_mib_s: float
    small_files_per_s: float
    small_file_reads_per_s: float
    bytes_written: int
    bytes_verified: int
    files_verified: int
    read_errors: int
    batch_p50_ms: float
    batch_p99_ms: float
    batch_p999_ms: float
    longest_stall_s: float
    """The longest single read from the kill on."""
    killed: str
    longest_write_stall_s: float
    """The longest wait of a writer; a node is killed while they write."""
    healed_s: float
    """From the restart of that node until every chain has all its members again."""
    processes: int
    total_s: float


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 … 1) of ``values`` lie (nearest rank); 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def write_json(report: Report, path: Path) -> None:
    """Write the report, indented, replacing what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def show(report: Report, console: Console) -> None:
    """Print the table."""
    table = Table(title="fs3 demo", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    mib = 1 << 20
    rows = [
        ("cluster up", f"{report.set_up_s:.1f} s, {report.processes} processes"),
        (
            "written, three replicas",
            f"{report.bytes_written / mib:,.0f} MiB at {report.write_mib_s:,.0f} MiB/s",
        ),
        ("small files created", f"{report.small_files_per_s:,.0f} files/s"),
        ("read and verified", f"{report.bytes_verified / mib:,.0f} MiB at {report.read_mib_s:,.0f} MiB/s"),
        ("small files read", f"{report.small_file_reads_per_s:,.0f} files/s"),
        (
            "batch of 8 MiB, p50 / p99 / p99.9",
            f"{report.batch_p50_ms:.0f} / {report.batch_p99_ms:.0f} / {report.batch_p999_ms:.0f} ms",
        ),
        ("longest write, a node killed meanwhile", f"{report.longest_write_stall_s:.2f} s"),
        ("all replicas again after its restart", f"{report.healed_s:.1f} s"),
        (f"longest read after SIGKILL of {report.killed}", f"{report.longest_stall_s:.2f} s"),
        ("read errors", str(report.read_errors)),
    ]
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
