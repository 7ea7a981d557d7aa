"""One process of the runner: takes seeds from a pipe, runs them, sends back what they came to.

The product is imported only here, after line coverage has begun (if it is wanted). A seed that takes more CPU
than allowed is broken off by a signal; if not even that helps, the runner ends the process.
"""

from __future__ import annotations

import resource
import signal
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from typing import NoReturn

from .outcome import Judged, broken_off
from .seen import ONE_HISTORY, Problem

CPU_LIMIT_S = 120
"""Of one seed. A hundred times what is usual."""
STORIES_MAX = 3
"""Bad seeds of a process whose stories are told: each is run again for it."""


class TookTooLong(BaseException):
    """The limit was reached; nothing below may swallow it."""


def _too_long(_signal: int, _frame: object) -> NoReturn:
    raise TookTooLong(f"more than {CPU_LIMIT_S} s of CPU")


def serve(pipe: Connection, coverage_file: str) -> None:
    """Until the pipe sends None. ``coverage_file``: where to put which lines ran; "": nowhere."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGXCPU, _too_long)
    measured = None
    if coverage_file:
        import coverage

        warnings.simplefilter("ignore")  # names of fs3 are loaded already: none of the lines that count
        measured = coverage.Coverage(data_file=coverage_file, config_file=False, source_pkgs=["fs3"])
        measured.start()
    told = 0
    while (wanted := pipe.recv()) is not None:
        seed, is_twice = wanted
        judged = _run(seed, is_twice=is_twice, tells=told < STORIES_MAX and measured is None)
        told += bool(judged.story)
        pipe.send(judged)
    if measured is not None:
        measured.stop()
        measured.save()
    pipe.send(None)


def _run(seed: int, *, is_twice: bool, tells: bool) -> Judged:
    began_s = time.process_time()
    _limit(began_s + CPU_LIMIT_S)
    try:
        judged = _judged(seed, is_twice=is_twice)
        if judged.is_bad and tells:
            _limit(time.process_time() + CPU_LIMIT_S)
            return Judged(judged.outcome, judged.cpu_s, _story(judged))
        return judged
    except (Exception, TookTooLong):
        return broken_off(seed, traceback.format_exc())
    finally:
        _limit(None)


def _judged(seed: int, *, is_twice: bool) -> Judged:
    from dataclasses import replace

    from .scenario import run_seed

    began_s = time.process_time()
    outcome = run_seed(seed)
    cpu_s = time.process_time() - began_s
    if is_twice and run_seed(seed) != outcome:
        more = Problem(ONE_HISTORY, "a second run went another way")
        outcome = replace(outcome, problems=(*outcome.problems, more))
    return Judged(outcome, cpu_s)


def _story(judged: Judged) -> tuple[str, ...]:
    from .story import tell

    return tell(judged.outcome)


def _limit(cpu_s: float | None) -> None:
    """Let the process be told when it has used so much CPU in all."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = hard if cpu_s is None else int(cpu_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
