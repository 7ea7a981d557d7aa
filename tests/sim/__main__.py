"""Run seeds of the simulated world on all cores: ``python -m tests.sim --seeds 2000``, or ``--seed 17``.

Prints what was done and how often each fault struck and each rare branch of the product was taken, and puts
it into ``build/sim/report.json``. A bad seed is told with its story. Exit code 1 if a seed was bad; with
2,000 seeds and more also if a fault or a branch never came.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from .pool import Pool
from .report import Report, bad_lines

TREE = Path(__file__).resolve().parents[2]
PLACE = TREE / "build" / "sim"
COVERED_OF, COVERED_MIN, COVERED_MAX = 20, 4, 100
"""One of so many seeds is run for line coverage as well; several times slower."""
FRESH_MAX = 1 << 31


def fresh_seeds(text: str, count: int) -> list[int]:
    """Seeds that nobody has tried, the same for the same text."""
    start = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % FRESH_MAX
    return list(range(start, start + count))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    options = _parser().parse_args(arguments)
    if options.seed is not None:
        seeds = [options.seed]
    elif options.fresh:
        seeds = fresh_seeds(options.fresh, options.seeds)
    else:
        seeds = list(range(options.first, options.first + options.seeds))
    report = _run(seeds, options)
    covered = seeds[: options.coverage(len(seeds))]
    if covered:
        report.coverage = _covered(covered, options.jobs)
    for line in report.lines():
        click.echo(line)
    report.write(PLACE / "report.json")
    return 1 if report.has_failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument(
        "--fresh", metavar="TEXT", default="", help="seeds that follow from a text (a commit)"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    parser.add_argument("--twice-every", type=int, default=20, metavar="N",
                        help="run every Nth seed twice and compare (0: none)")  # fmt: skip
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="begin no seed after this long")
    parser.add_argument("--coverage", type=_coverage, default=lambda count: 0, metavar="N",
                        help="run N seeds once more for line coverage (auto: a twentieth)")  # fmt: skip
    return parser


def _coverage(text: str) -> Callable[[int], int]:
    """How many of so many seeds are run for line coverage."""
    if text == "auto":
        return lambda count: min(COVERED_MAX, max(COVERED_MIN, count // COVERED_OF))
    number = int(text)
    return lambda count: number


def _run(seeds: list[int], options: argparse.Namespace) -> Report:
    from .branches import NAMES
    from .scenario import WEATHER
    from .trouble import KINDS

    report = Report((*KINDS, *WEATHER), NAMES)
    began_s = time.monotonic()
    twice_every = 1 if options.seed is not None else options.twice_every
    until_s = began_s + options.budget_s
    for judged in Pool(options.jobs).run(seeds, twice_every=twice_every, until_s=until_s):
        report.add(judged)
        if judged.is_bad:
            click.echo("\n".join(bad_lines(judged)))
    report.took_s = time.monotonic() - began_s
    if options.fresh:
        click.echo(f"fresh seeds: {min(report.seeds, default=0)} to {max(report.seeds, default=0)}")
    return report


def _covered(seeds: list[int], jobs: int) -> dict[str, float]:
    from .line_coverage import shares

    shutil.rmtree(PLACE / "coverage", ignore_errors=True)
    (PLACE / "coverage").mkdir(parents=True)
    for judged in Pool(jobs, PLACE / "coverage").run(seeds):
        if judged.is_bad:
            click.echo("\n".join(bad_lines(judged)))
    return shares(PLACE / "coverage", TREE)


if __name__ == "__main__":
    sys.exit(main())
