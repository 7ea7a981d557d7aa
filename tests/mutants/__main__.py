"""``make mutants``: the product with one mistake at a time; who notices, and after how long.

    python -m tests.mutants [--only TEXT] [--first 0] [--seeds N] [--jobs N] [--docs]

Prints a table, writes ``build/mutants/report.json``. Exit code 1: a mistake that nobody noticed, or that its
own test did not; a judge that has not seen the mistake, or one that finds fault with the product as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

import click

from .judging import ROOT, Job, Kind, Result, Verdict, control_jobs, jobs_of, run_job
from .mistake import Mistake
from .report import DOCS, Findings, report_of, table_of, with_table
from .table import MISTAKES

DIRECTORY = ROOT / "build" / "mutants"
ORDER = list(Kind)
Task = tuple[str | None, Job]
"""A mistake's name, or None for the product as it is."""


def chosen(only: Sequence[str]) -> list[Mistake]:
    """Those whose names contain one of these; all, if there are none."""
    found = [m for m in MISTAKES.values() if not only or any(text in m.name for text in only)]
    if not found:
        sys.exit(f"no mistake is called {' or '.join(only)}")
    return found


def tasks_of(mistakes: Sequence[Mistake], first: int, seeds: int | None) -> list[Task]:
    """Everything that is to be run, cheap things first."""
    tasks: list[Task] = [(None, job) for job in control_jobs(mistakes, first, seeds)]
    tasks += [(mistake.name, job) for mistake in mistakes for job in jobs_of(mistake, first, seeds)]
    return sorted(tasks, key=lambda task: ORDER.index(task[1].kind))


def run_all(tasks: Sequence[Task], jobs: int) -> list[tuple[str | None, Job, Result]]:
    """In as many processes as there are cores; tells of each as it ends. In the order of the tasks."""
    found: list[tuple[str | None, Job, Result]] = []
    with ThreadPoolExecutor(jobs) as pool:
        running: dict[Future[Result], Task] = {
            pool.submit(run_job, job, name): (name, job) for name, job in tasks
        }
        for done in as_completed(running):
            (name, job), result = running[done], done.result()
            found.append((name, job, result))
            who = name or "(no mistake)"
            what = "fine" if name is None and result.verdict is Verdict.MISSED else result.verdict
            click.echo(
                f"{len(found):4}/{len(tasks)} {what:6} {result.took_s:6.1f} s  {who}: {job.label[:80]}"
            )
    order = {task: number for number, task in enumerate(tasks)}
    return sorted(found, key=lambda one: order[one[0], one[1]])


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="part of a name; may be given again")
    parser.add_argument("--first", type=int, default=0, help="the first seed of the simulated world")
    parser.add_argument("--seeds", type=int, help="so many for each mistake, instead of its own number")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--docs", action="store_true", help="write the table into docs/mutants.md")
    arguments = parser.parse_args()
    if arguments.docs and arguments.only:
        parser.error("--docs writes the table of all mistakes")
    began_s = time.monotonic()
    mistakes = chosen(arguments.only)
    tasks = tasks_of(mistakes, arguments.first, arguments.seeds)
    findings = Findings(run_all(tasks, arguments.jobs), mistakes)
    took_s = time.monotonic() - began_s
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    report = report_of(findings, arguments.first, took_s)
    (DIRECTORY / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    table = table_of(findings)
    click.echo("\n" + table)
    if arguments.docs:
        DOCS.write_text(with_table(DOCS.read_text(), table))
    for line in (*findings.cost_lines(), *findings.problems):
        click.echo(line)
    click.echo(
        f"{len(mistakes)} mistakes, {len(findings.uncaught)} not noticed, in {took_s:.0f} s; "
        f"{DIRECTORY.relative_to(ROOT)}/report.json"
    )
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())
