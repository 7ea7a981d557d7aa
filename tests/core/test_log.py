"""Logs: what a line holds, that levels and bounds work, and that logging never fails."""

from __future__ import annotations

import json

from fs3.log import LINE_BYTES_MAX, LineWriter, SlowLog, capturing_logger, make_logger, silent_logger


class FixedClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def boot_s(self) -> float:
        return self.now_s

    def wall_ns(self) -> int:
        return 1_700_000_000_123_000_000


def test_a_line_is_one_json_object_with_what_was_bound() -> None:
    lines: list[str] = []
    log = make_logger(lines.append, FixedClock(), daemon="meta", node=3)
    log.bind(request_id="r1").warning("disk failed", path="/ä\n", key=b"\x00\xff", target=7)
    assert json.loads(lines[0]) == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "warning",
        "event": "disk failed",
        "daemon": "meta",
        "node": 3,
        "request_id": "r1",
        "path": "/ä\n",
        "key": "00ff",
        "target": 7,
    }
    assert list(json.loads(lines[0]))[:5] == ["time", "level", "daemon", "node", "event"]
    assert "\n" not in lines[0]


def test_levels_below_the_threshold_are_not_written() -> None:
    lines: list[str] = []
    log = make_logger(lines.append, FixedClock(), level="warning")
    log.debug("a")
    log.info("b")
    log.bind(x=1).info("c")
    log.error("d")
    assert [json.loads(line)["event"] for line in lines] == ["d"]


def test_an_exception_is_logged_with_its_traceback() -> None:
    lines: list[str] = []
    log = make_logger(lines.append, FixedClock())
    try:
        raise ValueError("bad")
    except ValueError as error:
        log.error("task failed", exc_info=error, cause=error)
    fields = json.loads(lines[0])
    assert "ValueError: bad" in fields["exception"]
    assert "test_log.py" in fields["exception"]
    assert fields["cause"] == "ValueError: bad"


def test_human_form_is_one_readable_line() -> None:
    lines: list[str] = []
    make_logger(lines.append, FixedClock(), human=True).info("started", port=5)
    assert "started" in lines[0]
    assert "port" in lines[0]


def test_a_line_that_cannot_be_written_is_counted_and_long_ones_are_cut() -> None:
    written: list[bytes] = []

    def write(data: bytes) -> None:
        if len(written) == 1:
            raise OSError(28, "No space left on device")
        written.append(data)

    writer = LineWriter(write)
    writer("x" * (2 * LINE_BYTES_MAX))
    writer("lost")
    assert writer.lost_count == 1
    assert len(written[0]) <= LINE_BYTES_MAX + 10
    writer("\ud800")  # an undecodable file name


def test_capturing_and_silent_loggers() -> None:
    events: list[dict[str, object]] = []
    capturing_logger(events).bind(a=1).debug("seen", b=2)
    assert events == [{"event": "seen", "level": "debug", "a": 1, "b": 2}]
    silent_logger().error("nothing")


def test_slow_log_reports_so_many_a_second_and_counts_the_rest() -> None:
    events: list[dict[str, object]] = []
    clock = FixedClock()
    slow = SlowLog(capturing_logger(events), clock, threshold_s=0.5, lines_per_s_max=2)
    for _ in range(5):
        slow.note("read", 0.75, request_id="r")
    assert len(events) == 2
    assert events[0] == {
        "event": "slow operation",
        "level": "warning",
        "operation": "read",
        "took_ms": 750.0,
        "request_id": "r",
    }
    clock.now_s += 1
    slow.note("read", 0.75)
    assert events[2]["unreported_count"] == 3
    assert slow.slow_count == 6
