"""The judges, as jobs that a process of its own does (``child``), and what they say."""

from __future__ import annotations

import enum
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .mistake import Mistake, Walks

ROOT = Path(__file__).parents[2]
SHOWN_CHARACTERS = 300
LIMIT_CPU_S = 240
"""A job that takes more CPU has not found anything; its time says nothing on a machine with other work."""
LIMIT_S = 900.0
"""As one that waits for ever has not."""


class Kind(enum.StrEnum):
    """In the order of their cost."""

    AIMED = "aimed"
    WALKS = "walks"
    SEEDS = "seeds"


class Verdict(enum.StrEnum):
    """What a judge says of what it saw."""

    CAUGHT = "caught"
    MISSED = "missed"
    UNSEEN = "unseen"
    """It has not run the changed lines' module, or could not begin."""


@dataclass(frozen=True, slots=True)
class Job:
    """Something to run against the product, with or without a mistake."""

    kind: Kind
    tests: tuple[str, ...] = ()
    model: str = ""
    focus: str = ""
    first: int = 0
    count: int = 0

    @property
    def label(self) -> str:
        """For people."""
        if self.kind is Kind.AIMED:
            return ", ".join(self.tests)
        focus = f" {self.model} {self.focus or 'any'}" if self.model else ""
        return f"{self.kind}{focus} {self.first} to {self.first + self.count - 1}"


@dataclass(frozen=True, slots=True)
class Result:
    """What a job came to."""

    verdict: Verdict
    took: int = 0
    """Tests, walks or seeds that ran, the one that failed included."""
    detail: str = ""
    """The first thing that was wrong."""
    cpu_s: float = 0.0
    """Of its process, start included."""
    took_s: float = 0.0


def jobs_of(mistake: Mistake, first_seed: int = 0, seeds: int | None = None) -> list[Job]:
    """Cheap ones first. ``seeds``: instead of the mistake's own number."""
    found = [Job(Kind.AIMED, mistake.aimed)] if mistake.aimed else []
    found += [_walking(walks) for walks in mistake.walks]
    count = mistake.seeds if seeds is None else seeds
    if count:
        found.append(Job(Kind.SEEDS, first=first_seed, count=count))
    return found


def _walking(walks: Walks) -> Job:
    return Job(Kind.WALKS, model=walks.model, focus=walks.focus, count=walks.count)


def control_jobs(mistakes: Sequence[Mistake], first_seed: int, seeds: int | None = None) -> list[Job]:
    """Everything that judges these, to be run against the product as it is: nothing may be found."""
    jobs = [job for mistake in mistakes for job in jobs_of(mistake, first_seed, seeds)]
    tests = sorted({test for job in jobs for test in job.tests})
    files = sorted({test.split("::")[0] for test in tests})
    found = [Job(Kind.AIMED, tuple(test for test in tests if test.split("::")[0] == file)) for file in files]
    walks: dict[tuple[str, str], int] = {}
    for job in jobs:
        if job.kind is Kind.WALKS:
            walks[job.model, job.focus] = max(job.count, walks.get((job.model, job.focus), 0))
    found += [
        Job(Kind.WALKS, model=model, focus=focus, count=count)
        for (model, focus), count in sorted(walks.items())
    ]
    most = max((job.count for job in jobs if job.kind is Kind.SEEDS), default=0)
    found += [Job(Kind.SEEDS, first=first_seed + at, count=1) for at in range(most)]
    return found


def run_job(job: Job, mistake: str | None) -> Result:
    """Run a job in a process of its own and read what it says."""
    command = [sys.executable, "-m", "tests.mutants.child", json.dumps(asdict(job)), mistake or ""]
    # hashes are the same in each run: what is drawn must not depend on them, and if it did, be found again
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    began_s = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Result(Verdict.MISSED, 0, f"not finished after {LIMIT_S:.0f} s", took_s=LIMIT_S)
    took_s = round(time.monotonic() - began_s, 2)
    if done.returncode == -signal.SIGXCPU:
        detail = f"not finished after {LIMIT_CPU_S} s of CPU"
        return Result(Verdict.MISSED, 0, detail, LIMIT_CPU_S, took_s)
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode or not lines:
        text = done.stderr.decode(errors="replace").strip() or "\n".join(lines)
        return Result(Verdict.UNSEEN, 0, text[-SHOWN_CHARACTERS:], took_s=took_s)
    said = json.loads(lines[-1])
    return Result(Verdict(said["verdict"]), said["took"], said["detail"], said["cpu_s"], took_s)
