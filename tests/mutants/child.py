"""Runs one job of a judge in this process, which has imported the product with one mistake, or with none.

    python -m tests.mutants.child JOB NAME

JOB: a ``judging.Job`` as JSON; NAME: of the mistake, empty for none. The last line of the output is the
``Result`` as JSON. Nothing of the product is imported before the mistake is in its place.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from .judging import LIMIT_CPU_S, SHOWN_CHARACTERS, Job, Kind, Result, Verdict
from .loading import Changes
from .table import MISTAKES

BROKEN = ("NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError", "SyntaxError")
"""What code ends with that cannot run at all: a mistake of the mistake, and nobody's finding."""


class _Watch:
    """What pytest tells: the first failure, and whether the tests could be collected at all."""

    def __init__(self) -> None:
        self.ran = 0
        self.failure = ""
        self.unusable = ""

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """An import that fails is no judgement."""
        if report.failed:
            self.unusable = self.unusable or _end_of(str(report.longrepr))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Set-up, call and tear-down of each test."""
        self.ran += report.when == "call"
        if report.failed and not self.failure:
            name = report.nodeid.split("::")[-1]
            self.failure = f"{name}: {_end_of(str(report.longrepr))}"


def _end_of(text: str) -> str:
    """The lines in which pytest says what was wrong, or the last one."""
    said = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    last = text.strip().splitlines()[-1:] or [""]
    return " ".join(said or last)[:SHOWN_CHARACTERS]


def _tests(job: Job) -> Result:
    watch = _Watch()
    options = ["-q", "-x", "--tier=all", "-p", "no:cacheprovider", "--no-header", "--tb=short"]
    code = pytest.main([*options, *job.tests], plugins=[watch])
    if watch.unusable or (code and not watch.failure):
        return Result(Verdict.UNSEEN, watch.ran, watch.unusable or f"pytest ends with {code}")
    return Result(Verdict.CAUGHT if watch.failure else Verdict.MISSED, watch.ran, watch.failure)


def _walks(job: Job) -> Result:
    from tests.model.chain_walk import ChainWalk
    from tests.model.lease_walk import Walk

    def walk(seed: int) -> str:
        kind: Any = {"chain": ChainWalk, "lease": Walk}[job.model]
        kind(seed, focus=job.focus).run()
        return ""

    return _one_by_one(job, walk)


def _seeds(job: Job) -> Result:
    from tests.sim.scenario import run_seed

    return _one_by_one(job, lambda seed: " | ".join(map(str, run_seed(seed).problems)))


def _one_by_one(job: Job, run: Callable[[int], str]) -> Result:
    """Until one finds something; an exception is something."""
    for took, seed in enumerate(range(job.first, job.first + job.count), 1):
        try:
            problem = run(seed)
        except Exception:  # border: a machine with a mistake may raise anything, that is what is wanted
            lines = traceback.format_exc().strip().splitlines()
            problem = lines[-1] or "it broke off"
        if problem:
            return Result(Verdict.CAUGHT, took, f"{seed}: {problem}"[:SHOWN_CHARACTERS])
    return Result(Verdict.MISSED, job.count)


def is_broken(detail: str) -> bool:
    """Whether that says that the code cannot run, rather than that it does something wrong."""
    return any(f"{name}:" in detail for name in BROKEN)


def main() -> int:
    """Entry point."""
    job = Job(**json.loads(sys.argv[1]))
    job = replace(job, kind=Kind(job.kind), tests=tuple(job.tests))
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_CPU_S, resource.RLIM_INFINITY))
    edits = MISTAKES[sys.argv[2]].edits if sys.argv[2] else ()
    changes = Changes(edits)
    changes.install()
    said = os.dup(1)
    os.dup2(2, 1)  # what tests print is not the result
    result = {Kind.AIMED: _tests, Kind.WALKS: _walks, Kind.SEEDS: _seeds}[job.kind](job)
    if changes.missing:
        result = Result(Verdict.UNSEEN, result.took, f"never imported: {', '.join(changes.missing)}")
    if result.verdict is Verdict.CAUGHT and is_broken(result.detail):
        result = Result(Verdict.UNSEEN, result.took, f"it cannot run at all: {result.detail}")
    result = replace(result, cpu_s=round(time.process_time(), 2))
    with os.fdopen(said, "w") as output:
        output.write("\n" + json.dumps(asdict(result)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
