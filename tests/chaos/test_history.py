"""The judge of chaos runs finds what it is there for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .history import read_logs
from .registers import content_of, registers, value_of


def log_of(path: Path, *entries: dict[str, object]) -> Path:
    path.write_text("\n".join(json.dumps(entry) for entry in entries) + '\n{"at_s": 9, "beg')
    return path


def write(count: int, at_s: float, value: int) -> dict[str, object]:
    return {"at_s": at_s, "begin": count, "kind": "write", "register": "r", "value": value}


def read(count: int, at_s: float) -> dict[str, object]:
    return {"at_s": at_s, "begin": count, "kind": "read", "register": "r"}


def end(count: int, at_s: float, **more: object) -> dict[str, object]:
    return {"at_s": at_s, "end": count, **more}


def test_a_slots_bytes_say_its_value_and_whether_they_are_torn() -> None:
    for slot in registers("/x"):
        content = content_of(7 << 32 | 5, slot.size_bytes)
        assert value_of(content) == 7 << 32 | 5
        assert value_of(content[:-8] + bytes(8)) is None
    assert value_of(b"") == 0


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([write(1, 1, 10), end(1, 2), read(2, 3), end(2, 4, value=10)], ""),
        ([write(1, 1, 10), end(1, 2), read(2, 3), end(2, 4, value=0)], "0 was seen before and after 10"),
        ([write(1, 1, 10), read(2, 3), end(2, 4, value=0), read(3, 5), end(3, 6, value=10)], ""),
        ([read(1, 1), end(1, 2, value=99)], "99, which was never written"),
        ([read(1, 1), end(1, 2, value="torn: 00")], "torn"),
    ],
)
def test_what_is_lost_stale_or_torn_is_found(
    tmp_path: Path, entries: list[dict[str, object]], problem: str
) -> None:
    history = read_logs([log_of(tmp_path / "log", *entries)])
    history.judge()
    assert bool(history.problems) == bool(problem)
    assert all(problem in text or "before and after" in text for text in history.problems)


def test_errors_and_stalls_are_told(tmp_path: Path) -> None:
    entries = [write(1, 1, 10), end(1, 2, error="OSError: away"), read(2, 3), end(2, 4.5, value=0)]
    history = read_logs([log_of(tmp_path / "log", *entries)])
    history.judge()
    assert [o.error for o in history.errors] == ["OSError: away"]
    assert history.longest_s(("read", "write")) == 1.5 and not history.acknowledged()
    assert history.longest_s(("read",), 3.5) == 1.0 and history.longest_s(("read",), 0.0, 9.0, 3.5) == 0.5
    assert history.longest_s(("read",), 5.0) == history.longest_s(("read",), 0.0, 2.0) == 0.0
    assert not history.problems  # what failed may have happened, or not
