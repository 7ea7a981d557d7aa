"""``make chaos``: faults on real processes under load, then a judgement of everything that clients saw.

    python -m tests.chaos [--faults 100] [--seed N] [--only TEXT] [--workers 4] [--directory DIR]

Each process has a network of its own and each storage node a disk of its own, if the user is root and the
machine has the tools; else those kinds of faults are left out, and that is said. Writes
``build/chaos/report.json``; exit code 1 if anything was lost, stale, corrupt, left behind, or an error to a
client. What failed is found again with the printed seed, as far as real processes repeat themselves; the
logs of workers and daemons, and ``faults.json``, stay in the directory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from fs3.deploy.dev.cluster import ClusterError
from fs3.errors import Fs3Error
from fs3.rng import system_rng

from .kinds import KINDS, possible
from .machine import MachineError, look_around, only_run
from .report import problems_of, report_of
from .run import Run

ROOT = Path(__file__).parents[2]
SHOWN_MAX = 20


def arguments_of(words: list[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=system_rng().randrange(1 << 31))
    parser.add_argument("--only", default="", help="kinds of faults whose names have this in them")
    parser.add_argument("--without", default="", help="leave out kinds whose names have this in them")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "chaos")
    return parser.parse_args(words)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Entry point."""
    arguments = arguments_of()
    signal.signal(signal.SIGTERM, _interrupt)
    machine = look_around()
    kinds = [kind for kind in possible(machine) if arguments.only in kind.name]
    if arguments.without:
        kinds = [kind for kind in kinds if arguments.without not in kind.name]
    if not kinds:
        click.echo(f"no kind that is possible here is called {arguments.only!r}; there are:")
        click.echo("\n".join(f"    {kind.name}" for kind in KINDS))
        return 2
    click.echo(f"seed {arguments.seed}, {len(kinds)} kinds of faults")
    for line in machine.off:
        click.echo(line)
    directory = arguments.directory.absolute()
    os.environ["FS3_CONFIG_DIR"] = str(directory / "config")  # a user's own "dev" cluster is left alone
    try:
        with only_run():
            run = Run(directory, machine, arguments.seed, arguments.workers)
            outcome = run.whole(kinds, arguments.faults, click.echo)
    except (MachineError, ClusterError, Fs3Error) as error:
        click.echo(f"chaos: {error}")
        return 1
    except KeyboardInterrupt:
        click.echo("broken off; everything was taken down")
        return 130
    report = report_of(outcome)
    rows = [one.as_row() for one in outcome.faults.struck]
    (directory / "faults.json").write_text(json.dumps(rows, indent=2) + "\n")
    (directory / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    click.echo(json.dumps(report, indent=2))
    wrong = problems_of(outcome)
    for text in wrong[:SHOWN_MAX]:
        click.echo(text)
    if not wrong:
        shutil.rmtree(directory / "volumes", ignore_errors=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
