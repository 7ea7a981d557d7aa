"""Run seeds of the simulated world: ``python -m tests.sim --seeds 200`` or ``--seed 17``."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import click

from .loop import START_S
from .scenario import Outcome, run_seed


def twice(seed: int) -> tuple[Outcome, bool]:
    """A seed's outcome, and whether a second run was the same; one that breaks off is an outcome too."""
    try:
        first = run_seed(seed)
        return first, run_seed(seed) == first
    except Exception:
        return Outcome(seed, (traceback.format_exc(),), "", 0, 0, START_S, ()), True


def main() -> int:
    """Entry point; exit code 1 if any seed failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    seeds = (
        [arguments.seed]
        if arguments.seed is not None
        else list(range(arguments.first, arguments.first + arguments.seeds))
    )
    began, bad, faults = time.perf_counter(), 0, Counter[str]()
    operations, simulated_s = 0, 0.0
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for outcome, is_same in pool.map(twice, seeds):
            faults.update(dict(outcome.faults))
            operations += outcome.operation_count
            simulated_s += outcome.simulated_s - START_S
            if outcome.problems or not is_same:
                bad += 1
                verdict = "" if is_same else "two histories; "
                click.echo("\n  ".join((f"seed {outcome.seed}: {verdict}", *outcome.problems)))
    took_s = time.perf_counter() - began
    click.echo(
        f"{len(seeds)} seeds, each twice, in {took_s:.1f} s ({len(seeds) / took_s:.2f} seeds/s): {bad} bad; "
        f"{operations} operations, {simulated_s:.0f} simulated s"
    )
    for kind, count in sorted(faults.items()):
        click.echo(f"{count:8} × {kind}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
