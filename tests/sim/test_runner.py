"""The runner: processes that die, what is counted, and the story of a failure."""

from __future__ import annotations

import os
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path

from . import branches
from .__main__ import fresh_seeds
from .outcome import Judged, Outcome, broken_off
from .pool import Pool
from .report import JUDGED_SEEDS_MIN, Report, bad_lines
from .scenario import BRIEF, run_seed
from .seen import NO_BUG, Problem, Shares
from .story import Recorder, lines

DEADLY = 3
resource_tracker.ensure_running()  # Python's own, with a pipe, from the first process on to the end


def serve_or_die(pipe: Connection, _: str) -> None:
    """A worker that one seed kills."""
    while (wanted := pipe.recv()) is not None:
        if wanted[0] == DEADLY:
            os._exit(7)
        pipe.send(Judged(Outcome(wanted[0], trace=str(wanted[1]))))
    pipe.send(None)


def test_a_process_that_dies_costs_one_seed() -> None:
    found = {j.outcome.seed: j for j in Pool(2, serve=serve_or_die).run(range(8), twice_every=4)}
    assert sorted(found) == list(range(8))
    assert [seed for seed, judged in found.items() if judged.is_bad] == [DEADLY]
    assert "exit code 7" in found[DEADLY].outcome.problems[0].text
    assert [seed for seed, judged in found.items() if judged.outcome.trace == "True"] == [0, 4]


def serve_with_one_bad(pipe: Connection, _: str) -> None:
    """A worker that tells who it is; one seed is bad."""
    while (wanted := pipe.recv()) is not None:
        problems = (Problem(NO_BUG, "bad"),) if wanted[0] == DEADLY else ()
        pipe.send(Judged(Outcome(wanted[0], problems, trace=str(os.getpid()))))
    pipe.send(None)


def test_the_process_of_a_bad_seed_runs_no_other() -> None:
    found = {j.outcome.seed: j.outcome.trace for j in Pool(1, serve=serve_with_one_bad).run(range(6))}
    before, after = {found[s] for s in range(DEADLY + 1)}, {found[s] for s in range(DEADLY + 1, 6)}
    assert len(before) == len(after) == 1 and before != after


def test_no_seed_is_begun_when_the_time_is_over() -> None:
    assert list(Pool(1, serve=serve_or_die).run(range(8), until_s=0.0)) == []


def failed(report: Report) -> bool:
    return report.has_failed


def test_what_never_came_fails_a_long_run_only(tmp_path: Path) -> None:
    shares = Shares()
    shares.reads_at.update({"member 0": 50, "member 1": 50, "member 2": 100})
    shares.chunk_operations, shares.overlapping = 100, 40
    one = Judged(Outcome(1, shares=shares, faults=(("kill", 2),), branches=(("b", 1),)))
    report = Report(("kill", "pause"), ("a", "b"))
    report.add(one)
    assert report.never == ["fault: pause", "branch: a"] and not report.too_tame and not failed(report)
    report.seeds *= JUDGED_SEEDS_MIN
    assert failed(report)
    report.faults["pause"] = report.branches["a"] = 1
    assert not failed(report)
    report.shares.overlapping = 20
    assert failed(report) and "overlapped" in report.too_tame[0]
    report.write(tmp_path / "build" / "report.json")
    assert "pause" in "\n".join(report.lines())
    bad = broken_off(5, "it died")
    report.add(replace(bad, story=("what happened",)))
    assert failed(report) and "python -m tests.sim --seed 5" in bad_lines(bad)[0]


def test_fresh_seeds_follow_from_the_text() -> None:
    assert fresh_seeds("a", 3) == fresh_seeds("a", 3) != fresh_seeds("b", 3)


def test_what_another_world_did_does_not_count_for_a_seed() -> None:
    branches.begin()
    branches.HITS["read: refused, no lease"] = 3  # a world that broke off, or ran without the runner
    branches.begin()
    assert not branches.HITS


def test_a_story_tells_what_befell_a_chunk() -> None:
    recorder = Recorder()
    with recorder.listening():
        run_seed(1, recorder.look, BRIEF)
    assert recorder.seen is not None
    history = max(recorder.seen.histories.values(), key=lambda h: sum(op.kind == "write" for op in h.ops))
    told = [line for line in lines(Problem(NO_BUG, "planted", history.chunk), recorder) if line[0] != "("]
    assert told == sorted(told, key=lambda line: float(line.split()[0])), "in order of time"
    text = "\n".join(told)
    for word in ("client: ", " write ", " read ", ": staged ", ": committed Identity", ": chain changed "):
        assert word in text, (word, text[:2000])
    others = [h.chunk for h in recorder.seen.histories.values() if h.chunk != history.chunk]
    assert not any(f"chunk={other}" in text for other in others)
