"""``make bench``: every figure beside its limit, as a table and as ``build/bench/report.json``.

python -m tests.bench [--quick] [--only data,resync,kv,meta,rpc,engine] [--directory DIR]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from . import data, engine_write, kv_commits, meta_ops, peers, resync, rpc_bulk, rpc_small
from .harness import RUNS, Row, show, write_json

ROOT = Path(__file__).parents[2]

Group = Callable[[Path, int], Iterable[Row]]

GROUPS: dict[str, Group] = {
    "peers": peers.rows,
    "data": data.rows,
    "meta": lambda directory, runs: meta_ops.rows(3.0, 8, runs),
    "resync": resync.rows,
    "kv": lambda directory, runs: kv_commits.rows(directory, 3.0, runs),
    "rpc": lambda directory, runs: [*rpc_small.rows(1.0, runs), *rpc_bulk.rows(1024, runs)],
    "engine": lambda directory, runs: engine(directory),
}


def engine(directory: Path) -> list[Row]:
    """The chunk engine in a directory of its own."""
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        return list(engine_write.measure(folder, 256))


def main() -> None:
    """Run the groups asked for, print and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=ROOT / "build", help="on the disk to be measured")
    parser.add_argument("--quick", action="store_true", help="one run of each instead of the median of five")
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, by comma")
    arguments = parser.parse_args()
    directory = arguments.directory / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    console = Console(width=160)
    found: list[Row] = []
    for name in arguments.only.split(","):
        if name not in GROUPS:
            parser.error(f"no group {name!r}; there are {', '.join(GROUPS)}")
        rows = list(GROUPS[name](directory, 1 if arguments.quick else RUNS))
        show(rows, console)
        found += rows
    report = ROOT / "build" / "bench" / "report.json"
    write_json(found, report)
    console.print(f"report: {report}")


if __name__ == "__main__":
    main()
