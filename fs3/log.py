"""Structured logs: one JSON object a line on stderr, or coloured columns when that is a terminal.

A logger is a component: each server is handed one and passes it on; there is no global one. What belongs
together is bound once (``log.bind(request_id=…)``) and handed down explicitly: no context variables, which
cost on the fast path and mix up under pipelined requests. An event is a short constant phrase; everything
that varies is a field, with its unit in its name::

    log.warning("disk failed", target=17, errno=5, path="/data/1")

Every line has ``time`` (wall clock, UTC, only for people), ``level``, ``event``, ``daemon`` and what was
bound (``node``, ``request_id`` …). Fast paths do not log: they count (``fs3.metrics``), and slow requests are
reported by ``SlowLog``. A line that cannot be written is counted and dropped: a full disk under the logs
must not stop a server.

Source: design 9.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any, Literal, Protocol, Self, cast

import structlog

from fs3.clock import Clock

Level = Literal["debug", "info", "warning", "error"]
LEVELS: dict[Level, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}

LINE_BYTES_MAX = 16 << 10
"""A longer line is cut: whatever a peer sends must not fill the disk through the log."""


class Logger(Protocol):
    """What servers are handed. ``error(…, exc_info=error)`` adds the traceback of an exception."""

    def bind(self, **fields: object) -> Self:
        """A logger that adds ``fields`` to every line."""
        ...

    def debug(self, event: str, **fields: object) -> None:
        """What a developer follows; off by default."""
        ...

    def info(self, event: str, **fields: object) -> None:
        """A change of state that an operator may want to see later."""
        ...

    def warning(self, event: str, **fields: object) -> None:
        """Something is wrong, and fs3 copes with it."""
        ...

    def error(self, event: str, **fields: object) -> None:
        """Something is wrong, and somebody has to act."""
        ...


class LineWriter:
    """Writes lines to a binary stream's ``write``; keeps count of those that it could not write."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self.lost_count = 0

    def __call__(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace")
        if len(data) > LINE_BYTES_MAX:
            data = data[:LINE_BYTES_MAX] + b"...cut"
        try:
            self._write(data + b"\n")
        except (OSError, ValueError):  # ValueError: the stream is closed
            self.lost_count += 1


class _Sink:
    """The innermost logger: takes what the renderer returns."""

    def __init__(self, emit: Callable[[Any], object]) -> None:
        self._emit = emit

    def _take(self, rendered: Any) -> None:
        self._emit(rendered)

    msg = debug = info = warning = error = _take


def make_logger(
    emit: Callable[[str], object],
    clock: Clock,
    *,
    level: Level = "info",
    human: bool = False,
    **fields: object,
) -> Logger:
    """A logger that hands finished lines (without newline) to ``emit``; ``fields`` are on every line."""
    render: Any = _human() if human else _as_json
    return _wrap(
        _Sink(emit), level, [_stamp(clock), structlog.processors.add_log_level, _traceback, render], fields
    )


def silent_logger() -> Logger:
    """A logger that drops everything: for tests, and for embedding the client library."""
    return _wrap(_Sink(lambda _: None), "error", [_as_json], {})


def capturing_logger(events: list[dict[str, object]]) -> Logger:
    """A logger that appends each event's fields (``event`` and ``level`` among them) to ``events``."""

    def keep(_logger: object, _method: str, fields: Any) -> Any:
        return ((dict(fields),), {})

    return _wrap(_Sink(events.append), "debug", [structlog.processors.add_log_level, keep], {})


def _wrap(sink: _Sink, level: Level, processors: list[Any], fields: dict[str, object]) -> Logger:
    bound = structlog.wrap_logger(
        sink,
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        context_class=dict,
        cache_logger_on_first_use=False,
    )
    return cast("Logger", bound.bind(**fields))


def _stamp(clock: Clock) -> Any:
    def add_time(_logger: object, _method: str, fields: Any) -> Any:
        moment = datetime.datetime.fromtimestamp(clock.wall_ns() / 1e9, datetime.UTC)
        return {"time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"), **fields}

    return add_time


def _traceback(logger: object, method: str, fields: Any) -> Any:
    return structlog.processors.format_exc_info(cast("Any", logger), method, fields)


def _as_json(_logger: object, _method: str, fields: Any) -> str:
    return json.dumps(_ordered(fields), default=_plain, ensure_ascii=False)


def _ordered(fields: dict[str, object]) -> dict[str, object]:
    """The same fields, those that every line has first: people read from the left."""
    front = {key: fields[key] for key in ("time", "level", "daemon", "node", "event") if key in fields}
    return front | {key: value for key, value in fields.items() if key not in front}


def _plain(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value[:64]).hex()
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return str(value)


def _human() -> Any:
    return structlog.dev.ConsoleRenderer(colors=True, timestamp_key="time", exception_formatter=_print_trace)


def _print_trace(stream: Any, info: Any) -> None:
    structlog.dev.plain_traceback(stream, info)


class SlowLog:
    """Reports operations that took longer than a threshold; at most so many a second, the rest counted.

    The test for slowness is one comparison and belongs to the caller:
    ``if took_s > slow.threshold_s: slow.note(…)``.
    """

    def __init__(self, log: Logger, clock: Clock, threshold_s: float, lines_per_s_max: int = 10) -> None:
        self._log = log
        self._clock = clock
        self.threshold_s = threshold_s
        self._lines_per_s_max = lines_per_s_max
        self._second = -1
        self._in_second_count = 0
        self.slow_count = 0
        """All slow operations since the start, reported or not."""
        self._unreported_count = 0

    def note(self, operation: str, took_s: float, **fields: object) -> None:
        """Report one slow operation; ``fields`` say of what (``request_id``, ``chain``, stages)."""
        self.slow_count += 1
        second = int(self._clock.boot_s())
        if second != self._second:
            self._second, self._in_second_count = second, 0
        if self._in_second_count >= self._lines_per_s_max:
            self._unreported_count += 1
            return
        self._in_second_count += 1
        if self._unreported_count:
            fields["unreported_count"] = self._unreported_count
            self._unreported_count = 0
        self._log.warning("slow operation", operation=operation, took_ms=round(took_s * 1000, 1), **fields)
