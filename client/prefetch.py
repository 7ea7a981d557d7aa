"""Read-ahead of one open file: fetches windows in the background and serves sequential reads from them.

Only ``read`` and ``readinto`` at the file position are served so; ``pread`` and batches ask the chains.
What was fetched is believed for ``WINDOW_AGE_S``; a reader that is slower than that needs no read-ahead, and
gets none any more.

Source: design 6.2.
"""

from __future__ import annotations

import asyncio
from collections import deque

from fs3.errors import Fs3Error
from fs3.tasks import end_tasks, outcome_of

from .core import ClientCore
from .memory import fresh_memory
from .open_files import OpenFile
from .readahead import Fetch, ReadAhead

WINDOW_AGE_S = 5.0


class _Window:
    __slots__ = ("end_bytes", "memory", "since_s", "start_bytes", "task")

    def __init__(
        self, start_bytes: int, memory: memoryview, task: asyncio.Task[list[int]], since_s: float
    ) -> None:
        self.start_bytes = start_bytes
        self.end_bytes = start_bytes + len(memory)
        self.memory = memory
        self.task = task
        self.since_s = since_s


class Prefetch:
    """Of one file that is open for reading only. Used by one task at a time."""

    def __init__(self, core: ClientCore, file: OpenFile) -> None:
        self._core = core
        self._file = file
        self._pattern = ReadAhead(core.settings.readahead_bytes_max)
        self._windows: deque[_Window] = deque()
        self._is_on = core.settings.readahead_bytes_max > 0

    async def read(self, offset_bytes: int, view: memoryview) -> int:
        """Fill ``view`` from ``offset_bytes`` on, as far as the file reaches; how many bytes."""
        core, file = self._core, self._file
        if not self._is_on or file.is_inline:
            return (await core.read([(file, offset_bytes, view)]))[0]
        size_bytes = max(0, min(len(view), file.length_bytes - offset_bytes))
        fetch = self._pattern.on_read(offset_bytes, size_bytes, file.length_bytes) if size_bytes else None
        if fetch is not None:
            self._start(fetch)
        got_bytes = await self._from_windows(offset_bytes, view[:size_bytes])
        if got_bytes < len(view):
            rest = [(file, offset_bytes + got_bytes, view[got_bytes:])]
            got_bytes += (await core.read(rest))[0]
        return got_bytes

    def _start(self, fetch: Fetch) -> None:
        memory = fresh_memory(fetch.length_bytes)
        work = self._core.read([(self._file, fetch.offset_bytes, memory)])
        task = self._core.scope.start("read ahead", work)
        self._windows.append(_Window(fetch.offset_bytes, memory, task, self._core.clock.boot_s()))

    async def _from_windows(self, offset_bytes: int, view: memoryview) -> int:
        """Copy what was fetched of the range, from its start on."""
        got_bytes = 0
        while got_bytes < len(view) and self._windows:
            window = self._windows[0]
            at = offset_bytes + got_bytes
            if not window.start_bytes <= at < window.end_bytes:
                if at < window.start_bytes:
                    break
                await self._drop_first()
                continue
            if self._core.clock.boot_s() - window.since_s > WINDOW_AGE_S:
                self._is_on = False
                await self.close()
                break
            if not await _arrived(window):
                await self._drop_first()
                break
            part = window.memory[at - window.start_bytes :][: len(view) - got_bytes]
            view[got_bytes : got_bytes + len(part)] = part
            got_bytes += len(part)
            if at + len(part) == window.end_bytes:
                self._windows.popleft()
        if not self._pattern.is_sequential and self._windows:
            await self._drop_all()
        return got_bytes

    async def _drop_first(self) -> None:
        await end_tasks([self._windows.popleft().task])

    async def close(self) -> None:
        """End what is under way; forget what was fetched."""
        self._pattern.reset()
        await self._drop_all()

    async def _drop_all(self) -> None:
        tasks = [window.task for window in self._windows]
        self._windows.clear()
        await end_tasks(tasks)


async def _arrived(window: _Window) -> bool:
    """Whether all of the window was read; an error shows again when the range is read directly."""
    try:
        return (await outcome_of(window.task))[0] == len(window.memory)
    except Fs3Error:
        return False
