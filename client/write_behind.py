"""Write-behind: takes small sequential writes together, and lets the writer run on while chains are busy.

Bytes are gathered until a chunk's end (or a write elsewhere) and then sent in the background; at most
``write_behind_bytes_max`` of a file are under way or waiting. An error of a background write is raised by the
next call, and again by every one until the file is closed: bytes were lost. ``drain`` waits for all of it.
"""

from __future__ import annotations

import asyncio
from collections import deque

from fs3.errors import Fs3Error
from fs3.rpc.service import Buffer
from fs3.tasks import TaskScope, end_tasks, outcome_of

from .open_files import OpenFile
from .writer import Writer

COPY_BELOW_BYTES = 64 * 1024
"""Shorter writes are copied together; longer ``bytes`` are kept as they are, for nobody can change them."""


class WriteBehind:
    """Of one open file. Used by one task at a time (the file's lock)."""

    def __init__(
        self, file: OpenFile, writer: Writer, scope: TaskScope, bytes_max: int, timeout_s: float
    ) -> None:
        self._file = file
        self._writer = writer
        self._scope = scope
        self._bytes_max = bytes_max
        self._timeout_s = timeout_s
        self._parts: list[bytes | bytearray] = []
        self._start_bytes = 0
        self._gathered_bytes = 0
        self._under_way: deque[tuple[int, asyncio.Task[None]]] = deque()
        self._under_way_bytes = 0
        self.error: Fs3Error | None = None

    @property
    def is_idle(self) -> bool:
        """Everything taken is on its chains."""
        return not self._gathered_bytes and not self._under_way

    @property
    def end_bytes(self) -> int:
        """End of the gathered bytes; 0: none."""
        return self._start_bytes + self._gathered_bytes if self._gathered_bytes else 0

    async def write(self, offset_bytes: int, data: Buffer) -> None:
        """Take ``data``. Raises what an earlier write came to."""
        self._raise_earlier()
        view = memoryview(data).cast("B")
        whole = data if isinstance(data, bytes) else None
        if self._gathered_bytes and offset_bytes != self._start_bytes + self._gathered_bytes:
            self._send()
        at = 0
        chunk_bytes = self._file.chunk_size_bytes
        while at < len(view):
            if not self._gathered_bytes:
                self._start_bytes = offset_bytes + at
            room_bytes = chunk_bytes - (self._start_bytes + self._gathered_bytes) % chunk_bytes
            part = view[at : at + room_bytes]
            self._gather(part, whole if whole is not None and len(part) == len(whole) else None)
            at += len(part)
            if len(part) == room_bytes:
                self._send()
                await self._keep_bound()
        if not self._bytes_max:
            await self.drain()

    def _gather(self, part: memoryview, whole: bytes | None) -> None:
        if whole is not None and len(whole) >= COPY_BELOW_BYTES:
            self._parts.append(whole)
        elif len(part) < COPY_BELOW_BYTES and self._parts and isinstance(self._parts[-1], bytearray):
            self._parts[-1].extend(part)
        else:
            self._parts.append(bytearray(part))
        self._gathered_bytes += len(part)

    def _send(self) -> None:
        """Write what is gathered (all of one chunk) in the background."""
        if not self._gathered_bytes:
            return
        parts, size_bytes = self._parts, self._gathered_bytes
        self._parts, self._gathered_bytes = [], 0
        work = self._writer.write(self._file, self._start_bytes, parts, self._timeout_s)
        self._under_way.append((size_bytes, self._scope.start("write behind", work)))
        self._under_way_bytes += size_bytes

    async def _keep_bound(self) -> None:
        while self._under_way and self._under_way_bytes > self._bytes_max:
            await self._wait_first()
        while self._under_way and self._under_way[0][1].done():
            await self._wait_first()
        self._raise_earlier()

    async def _wait_first(self) -> None:
        size_bytes, task = self._under_way[0]
        if not task.done():
            await asyncio.wait((task,))
        self._under_way.popleft()
        self._under_way_bytes -= size_bytes
        try:
            await outcome_of(task)
        except Fs3Error as error:  # the client is being closed, too: what was taken is not on its chains
            self.error = self.error or error

    def _raise_earlier(self) -> None:
        if self.error is not None:
            raise self.error

    async def drain(self) -> None:
        """Send what is gathered and wait for everything. Raises what any write came to."""
        self._send()
        while self._under_way:
            await self._wait_first()
        self._raise_earlier()

    async def abandon(self) -> None:
        """Forget what is gathered, end what is under way."""
        self._parts, self._gathered_bytes = [], 0
        tasks = [task for _, task in self._under_way]
        self._under_way.clear()
        self._under_way_bytes = 0
        await end_tasks(tasks)
