"""What the benchmarks share: rows with a limit of the same run, medians, the table and the JSON file.

A figure alone says nothing on a machine whose speed drifts: each row is measured in the same minutes as its
limit (a frozen program of ``tests/bench/limits``, or a peer), and what is quoted is the ratio.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

RUNS = 5
"""A figure is the median of at least this many runs."""


class Row(msgspec.Struct, kw_only=True):
    """One line of the table, and of ``build/bench/report.json``."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    """The figure it is held against, same unit, same run."""
    limit_name: str = ""
    ratio: float | None = None
    """value / limit."""
    target: float | None = None
    """The ratio (with a limit) or the value (without) that the project wants."""
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        if self.unit.endswith(("MiB resident", "MiB anonymous", "s/GiB")):
            return self.value <= self.target
        return (self.ratio if self.ratio is not None else self.value) >= self.target


def row(name: str, value: float, unit: str, *, limit: float | None = None, **more: object) -> Row:
    """A row; the ratio follows from the limit."""
    ratio = value / limit if limit else None
    return Row(name=name, value=value, unit=unit, limit=limit, ratio=ratio, **more)  # type: ignore[arg-type]


def median_of(run: Callable[[], float], runs: int = RUNS) -> float:
    """Median of several runs of ``run`` (a rate)."""
    return statistics.median(run() for _ in range(runs))


def paired(ours: Callable[[], float], limit: Callable[[], float], runs: int = RUNS) -> tuple[float, float]:
    """Medians of two rates measured in turn, so that a drift of the machine strikes both alike."""
    first: list[float] = []
    second: list[float] = []
    for _ in range(runs):
        first.append(ours())
        second.append(limit())
    return statistics.median(first), statistics.median(second)


def rate(count: float, work: Callable[[], object]) -> float:
    """``count`` per second of doing ``work``."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100.0


def anonymous_mib(pid: int) -> float:
    """Anonymous resident memory of a process, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


def show(rows: Iterable[Row], console: Console) -> None:
    """Print the table."""
    table = Table(title="fs3 benchmarks (medians)")
    for column in ("figure", "value", "unit", "limit", "ratio", "target", "note"):
        table.add_column(column, justify="left" if column in ("figure", "unit", "note") else "right")
    for r in rows:
        mark = {None: "", True: "[green]reached[/]", False: "[red]missed[/]"}[r.reached]
        table.add_row(
            r.name,
            f"{r.value:,.1f}",
            r.unit,
            f"{r.limit:,.1f}" if r.limit is not None else "",
            f"{r.ratio:.2f}" if r.ratio is not None else "",
            f"{r.target:g} {mark}" if r.target is not None else "",
            r.note,
        )
    console.print(table)


def write_json(rows: list[Row], path: Path) -> None:
    """Write the report, replacing what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n")
