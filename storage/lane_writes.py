"""A batch of writes to files, made by several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Protocol

_LANE_MIN_BYTES = 256 * 1024
"""Handing a write to another thread costs as much as writing some of it."""


class Writable(Protocol):
    """What is written to (a ``DiskFile``)."""

    def pwrite(self, data: memoryview, offset_bytes: int) -> None: ...


class LaneWrites:
    """Writes by whoever has time: the helpers while the batch is made, the caller once it waits."""

    def __init__(self, lanes: int, start: Callable[[Callable[[], None]], Future[None]]) -> None:
        """``lanes``: writes on their way at once, the caller's included; ``start``: in another thread."""
        self._lanes = lanes
        self._start = start
        self._todo: deque[tuple[Writable, memoryview, int]] = deque()
        self._helpers: list[Future[None]] = []

    def add(self, file: Writable, data: memoryview, offset_bytes: int) -> None:
        self._todo.append((file, data, offset_bytes))
        if len(data) < _LANE_MIN_BYTES or len(self._todo) < 2:
            return  # not worth another thread: the caller does it
        if sum(not helper.done() for helper in self._helpers) < self._lanes - 1:
            self._helpers.append(self._start(self._work))

    def _work(self) -> None:
        while True:
            try:
                file, data, offset_bytes = self._todo.popleft()
            except IndexError:
                return
            file.pwrite(data, offset_bytes)

    def wait(self) -> None:
        try:
            self._work()
        finally:
            if self._helpers:
                wait(self._helpers)
        for helper in self._helpers:
            helper.result()
