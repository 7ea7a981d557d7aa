"""A stall has a story: faults, what the daemons told, calls that took long. Each fault has its own times."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path

from fs3.rng import Rng

from .faults import Faults, Struck
from .history import History, Operation
from .kinds import EVERYTHING, KINDS
from .report import Outcome, report_of
from .stalls import longest, read_told, stories
from .test_faults import faults_of

BY_NAME = {kind.name: kind for kind in KINDS}
NOW_S = 1000.0


def write(start_s: float, end_s: float, kind: str = "write", worker: str = "worker-1") -> Operation:
    return Operation(kind, "/x+0", start_s, end_s, worker=worker)


def line(at_s: float, **fields: object) -> str:
    """A line of a log that was written at a time of the history."""
    wall = datetime.datetime.fromtimestamp(time.time() - time.monotonic() + at_s, datetime.UTC)
    return json.dumps({"time": wall.isoformat(), "level": "info", **fields})


def test_the_longest_stalls_are_told_one_of_those_at_the_same_time() -> None:
    operations = [write(0, 9), write(1, 9.5), write(20, 23), write(30, 31, "names"), write(40, 40.5)]
    assert [o.start_s for o in longest(History(operations))] == [0, 20, 40]
    assert [o.start_s for o in longest(History(operations), 1)] == [0]


def test_a_story_says_what_happened_meanwhile(tmp_path: Path) -> None:
    refused = {"event": "call", "method": "write", "server": "a:1", "chain": 3, "error": "Unavailable: away"}
    calls = [
        line(NOW_S + 0.1, **refused, took_ms=1.0),
        line(NOW_S + 0.2, **refused, took_ms=1.0),
        line(NOW_S + 2.5, event="call", method="write", server="b:1", chain=3, took_ms=2000.0),
        line(NOW_S + 2.6, event="call", method="sync", server="m:1", took_ms=1.0),
        line(NOW_S + 60, event="call", method="write", server="b:1", chain=3, took_ms=2000.0),
        "{ a line that was not fin",
    ]
    told = [
        line(NOW_S + 0.4, event="chain changed", chain=3, version=2),
        line(NOW_S + 0.4, event="chain changed", chain=4, version=2),
    ]
    (tmp_path / "worker-1.calls").write_text("\n".join(calls))
    (tmp_path / "worker-2.calls").write_text("\n".join(calls))
    (tmp_path / "mgmtd-1.log").write_text("\n".join(told))
    struck = [
        Struck(BY_NAME["storage killed"], "storage-1", 4.0, NOW_S - 0.5, NOW_S + 3, NOW_S + 4),
        Struck(BY_NAME["storage killed"], "storage-2", 4.0, NOW_S + 30, NOW_S + 33, NOW_S + 34),
    ]
    history = History([write(NOW_S, NOW_S + 2.5)])
    (story,) = stories(history, struck, read_told(sorted(tmp_path.iterdir())))
    assert story["took_s"] == 2.5 and story["quick_calls"] == 1
    assert [text.split(" ", 1)[1][:40] for text in story["story"]] == [
        "storage killed storage-1 begins, 4 s",
        "worker-1: write 0.00 s server=a:1 chain=3"[:40],
        "mgmtd-1: chain changed chain=3 version=2",
        "worker-1: write 2.00 s server=b:1 chain=3"[:40],
        "storage killed storage-1 is over",
    ]
    assert "(and 1 more until +0.20)" in story["story"][1]


def test_times_while_everything_was_away_are_told_apart(tmp_path: Path) -> None:
    faults = Faults(faults_of(tmp_path, [], 1).ground, (), Rng(1))
    faults.struck = [
        Struck(BY_NAME[EVERYTHING], "", 1.0, 10.0, 14.0, 16.0),
        Struck(BY_NAME["storage killed"], "storage-1", 4.0, 30.0, 34.0, 35.0),
    ]
    operations = [
        write(9.5, 15, "quiet read"),
        write(30, 30.5, "quiet read"),
        write(31, 33),
        write(33, 33.2, "sync"),
    ]
    report = report_of(Outcome(1, faults, History(operations)))
    assert report["longest_read_stall_s"] == 0.5 and report["longest_write_stall_s"] == 2.0
    assert report["while_everything_was_killed_s"] == {"quiet read": 5.5, "read": 0, "write": 0, "sync": 0}
    assert report["stalls_by_kind_s"] == {
        EVERYTHING: {"read": 5.0, "write": 0.0}, "storage killed": {"read": 0.5, "write": 2.0}
    }  # fmt: skip
    assert report["too_long"] == []
