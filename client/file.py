"""One open file: reads and writes at a position or at an offset.

A file that is opened with ``wb`` gets its name with its first flush, or at close: so a small file is created
with its content in one request. Errors of the name (no such directory, no permission) come then, at the
latest from ``close``. All other modes open or create at once.

What others see: everything, after ``fsync`` or ``close``; of a file in chunks, what is written shows earlier.
What a handle itself wrote, it reads. A length that others changed is seen within a second.

Every method raises ``OSError`` with errno and path (``failures``). One handle may be used by several tasks;
changes go one after the other.

Source: design 3.5, 3.9, 6.1.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from fs3.errors import Fs3Error, SessionLost, fs_error
from fs3.rpc.service import Buffer
from fs3.wire.meta import (
    CLOSE,
    STAT,
    SYNC,
    TRUNCATE,
    Attributes,
    CloseRequest,
    Mutation,
    OpenMode,
    Path,
    StatRequest,
    TruncateRequest,
)

from .content_store import Outcome, create, create_with_content, move_out, store
from .core import ClientCore, wire_path
from .failures import posix_errors
from .memory import BytesToFill
from .open_files import OpenFile, SharedEnd, closing
from .open_flags import OpenFlags
from .prefetch import Prefetch
from .small_content import SmallContent
from .stat import stat_of
from .write_behind import WriteBehind

ASK_CHAINS = -1
"""``written_end_bytes`` of a close: this client does not know where its writes ended."""
READ_ALL_STEP_BYTES = 64 << 20
"""``read()`` of a whole file grows its memory by at most this."""


class AsyncFile:
    """See the module's text. Made by ``AsyncFileSystem.open``."""

    def __init__(
        self,
        core: ClientCore,
        path: str,
        mode: str,
        flags: OpenFlags,
        file: OpenFile | None,
        *,
        inline_limit_bytes: int,
        permissions: int,
    ) -> None:
        self.name = path
        self.mode = mode
        self._core = core
        self._flags = flags
        self._file = file
        self._inline_limit_bytes = inline_limit_bytes
        self._permissions = permissions
        self._position = 0
        self._lock = asyncio.Lock()
        self._small: SmallContent | None = None
        self._behind: WriteBehind | None = None
        self._end: SharedEnd | None = None
        self._ahead: Prefetch | None = None
        self._is_changed = False
        """Something was written that no ``fsync`` has confirmed."""
        self.closed = False
        if file is None:
            self._small = SmallContent()
        else:
            self._adopt(file)

    def _adopt(self, file: OpenFile) -> None:
        """Work on an open file from now on."""
        self._file = file
        if not self._flags.writable:
            self._ahead = Prefetch(self._core, file)
        elif file.is_inline:
            self._small = self._small or SmallContent(file.content or b"")
        else:
            self._to_chunks(file)

    def _to_chunks(self, file: OpenFile) -> None:
        core = self._core
        settings = core.settings
        self._small = None
        self._end = core.files.share_end(file)
        self._behind = WriteBehind(
            file, core.writer, core.scope, settings.write_behind_bytes_max, settings.write_timeout_s
        )

    # --- what it is ---

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def readable(self) -> bool:
        return self._flags.readable

    def writable(self) -> bool:
        return self._flags.writable

    def seekable(self) -> bool:
        return True

    @property
    def size(self) -> int:
        """Length in bytes, as far as this handle knows."""
        if self._small is not None:
            return len(self._small)
        assert self._file is not None
        behind = self._behind.end_bytes if self._behind is not None else 0
        return max(self._file.length_bytes, behind)

    @property
    def open_file(self) -> OpenFile | None:
        """What batches read from; None: it has no inode yet, or unstored content."""
        return None if self._small is not None or self._flags.writable else self._file

    def _check(self, *, write: bool) -> None:
        if self.closed:
            raise ValueError(f"{self.name}: file is closed")
        if not (self._flags.writable if write else self._flags.readable):
            raise fs_error(
                errno.EBADF, f"not open for {'writing' if write else 'reading'} ({self.mode})", self.name
            )

    # --- position ---

    def tell(self) -> int:
        return self._position

    def move_to(self, position: int) -> None:
        """Set the position, without asking anybody."""
        self._position = position

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; returns it. EINVAL below zero."""
        self._check_open()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        if base is None:
            if whence != os.SEEK_END:
                raise fs_error(errno.EINVAL, f"whence {whence}", self.name)
            base = self.size
        if base + offset < 0:
            raise fs_error(errno.EINVAL, f"position {base + offset}", self.name)
        self._position = base + offset
        return self._position

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"{self.name}: file is closed")

    # --- reading ---

    async def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes from the position on (-1: all the rest); fewer only at the end."""
        self._check(write=False)
        if size >= 0:
            return await self._read_bytes(size)
        parts: list[bytes] = []
        while True:
            left_bytes = self.size - self._position
            part = await self._read_bytes(max(1, min(left_bytes, READ_ALL_STEP_BYTES)))
            if not part:
                return parts[0] if len(parts) == 1 else b"".join(parts)
            parts.append(part)
            if self._position >= self.size and self._is_length_fresh():
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def _is_length_fresh(self) -> bool:
        return self._file is None or not self._core.is_length_doubtful(self._file, self._position + 1)

    async def _look_for_end(self, end_bytes: int) -> None:
        """Learn a length that others may have given the file, before room for ``end_bytes`` is made."""
        file = self._file
        if file is not None and self._small is None and self._core.is_length_doubtful(file, end_bytes):
            with posix_errors(self.name):
                await self._core.files.look_again(file, self._core.settings.meta_timeout_s)

    async def _read_bytes(self, size: int) -> bytes:
        await self._look_for_end(self._position + size)
        room = BytesToFill(min(size, max(self.size - self._position, 1)))
        return room.taken(await self.readinto(room.view))

    async def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill ``buffer`` from the position on; how many bytes."""
        self._check(write=False)
        view = memoryview(buffer).cast("B")
        if self._ahead is not None:
            with posix_errors(self.name):
                got = await self._ahead.read(self._position, view)
        else:
            got = await self.preadinto(view, self._position)
        self._position += got
        return got

    async def pread(self, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes from ``offset`` on; the position stays."""
        self._check(write=False)
        await self._look_for_end(offset + size)
        room = BytesToFill(max(0, min(size, max(self.size - offset, 1))))
        return room.taken(await self.preadinto(room.view, offset))

    async def preadinto(self, buffer: bytearray | memoryview, offset: int) -> int:
        """Fill ``buffer`` from ``offset`` on; how many bytes. EINVAL: a negative offset."""
        self._check(write=False)
        if offset < 0:
            raise fs_error(errno.EINVAL, f"offset {offset}", self.name)
        view = memoryview(buffer).cast("B")
        with posix_errors(self.name):
            if self._behind is not None and not self._behind.is_idle:
                async with self._lock:
                    await self._behind.drain()
            if self._small is not None:
                part = memoryview(bytes(self._small.content[offset : offset + len(view)]))
                view[: len(part)] = part
                return len(part)
            assert self._file is not None
            return (await self._core.read([(self._file, offset, view)]))[0]

    async def preadv(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        """Fill the buffers one after the other from ``offset`` on; how many bytes in all."""
        self._check(write=False)
        if self.open_file is None:
            total = 0
            for buffer in buffers:
                total += await self.preadinto(buffer, offset + total)
            return total
        wanted, at = [], offset
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            wanted.append((self.open_file, at, view))
            at += len(view)
        with posix_errors(self.name):
            return sum(await self._core.read(wanted))

    # --- writing ---

    async def write(self, data: Buffer) -> int:
        """Write at the position (in append mode: at the end); returns ``len(data)``."""
        size = memoryview(data).nbytes
        if self._flags.append:
            self._position = await self.append(data)
        else:
            await self.pwrite(data, self._position)
            self._position += size
        return size

    async def append(self, data: Buffer) -> int:
        """Write at the end of the file, after all other appends of this client; the end afterwards."""
        self._check(write=True)
        with posix_errors(self.name):
            async with self._lock:
                return await self._write_at(None, data)

    async def pwrite(self, data: Buffer, offset: int) -> int:
        """Write at ``offset``; the position stays. Returns ``len(data)``."""
        self._check(write=True)
        if offset < 0:
            raise fs_error(errno.EINVAL, f"offset {offset}", self.name)
        with posix_errors(self.name):
            async with self._lock:
                await self._write_at(offset, data)
        return memoryview(data).nbytes

    async def _write_at(self, offset: int | None, data: Buffer) -> int:
        """The end of what was written."""
        size = memoryview(data).nbytes
        if self._file is not None and self._file.session.is_lost:
            raise SessionLost(f"client session {self._file.session.id:x} is over")
        self._is_changed = True
        small = self._small
        if small is not None:
            if small.end_after(offset, size) <= self._inline_limit_bytes:
                end = small.write(offset, data)
                if small.has_many_edits and self._file is not None:
                    await self._flush()
                return end
            await self._grow()
        assert self._behind is not None and self._end is not None and self._file is not None
        if offset is None:
            offset = max(self._end.end_bytes, self._file.length_bytes, self._behind.end_bytes)
        self._end.end_bytes = max(self._end.end_bytes, offset + size)
        await self._behind.write(offset, data)
        return offset + size

    async def _grow(self) -> None:
        """Get the content out of the metadata store, or past it."""
        small = self._small
        assert small is not None
        file = self._file if self._file is not None else await self._create()
        await self._now(file, small, await move_out(self._core, file, small))

    async def _now(self, file: OpenFile, small: SmallContent, outcome: Outcome) -> None:
        """Go on where the content is now."""
        if outcome is Outcome.MOVED:
            self._to_chunks(file)
        elif outcome is Outcome.OVERTAKEN:
            await self._edits_to_chunks(file, small)

    async def _create(self) -> OpenFile:
        """Give the name that ``wb`` promised, with an open record."""
        flags = self._flags
        mode = OpenMode.READ | OpenMode.WRITE if flags.readable else OpenMode.WRITE
        session, answer = await create(
            self._core,
            wire_path(self.name),
            mode,
            self._permissions,
            exclusive=flags.exclusive,
            truncate=flags.truncates,
        )
        self._file = await self._core.files.opened(self.name, session, mode, answer)
        return self._file

    async def _edits_to_chunks(self, file: OpenFile, small: SmallContent) -> None:
        """The file lies in chunks (somebody else moved it, or it did before): make the edits there."""
        self._to_chunks(file)
        for offset, data in small.take_edits():
            if data is None:
                assert offset is not None
                await self._cut(file, offset)
            else:
                await self._write_at(offset, data)

    # --- flushing ---

    async def flush(self) -> None:
        """Send what is buffered; the length that others see may follow with ``fsync`` or ``close``."""
        self._check_open()
        if self._flags.writable:
            with posix_errors(self.name):
                async with self._lock:
                    await self._flush()

    async def _flush(self) -> None:
        small = self._small
        if small is not None:
            file = self._file if self._file is not None else await self._create()
            if small.is_dirty or not file.is_inline:
                await self._now(file, small, await self._store(file, small))
        if self._behind is not None:
            await self._behind.drain()

    async def _store(self, file: OpenFile, small: SmallContent) -> Outcome:
        if file.content is not None or self._flags.truncates or self._flags.exclusive:
            return await store(self._core, file, small, self._inline_limit_bytes)
        return await move_out(self._core, file, small)  # opened without the right to read what is there

    async def fsync(self) -> None:
        """Everything written so far is durable, and its length visible to others."""
        self._check_open()
        if not self._flags.writable:
            return
        with posix_errors(self.name):
            async with self._lock:
                await self._flush()
                assert self._file is not None
                file = self._file
                answer = await self._core.mutate_file(file, SYNC, self._closing(file, keep_open=True))
                self._is_changed = False
                await self._core.files.follow(file, answer.attributes, self._core.settings.meta_timeout_s)

    def _closing(self, file: OpenFile, *, keep_open: bool) -> Callable[[Mutation], CloseRequest]:
        in_doubt = self._behind is not None and self._behind.error is not None
        return closing(file, ASK_CHAINS if in_doubt else file.written_end_bytes, keep_open=keep_open)

    async def truncate(self, size: int | None = None) -> int:
        """Set the length (default: the position); what is added reads as zeros. Returns it."""
        self._check(write=True)
        length = self._position if size is None else size
        if length < 0:
            raise fs_error(errno.EINVAL, f"length {length}", self.name)
        with posix_errors(self.name):
            async with self._lock:
                self._is_changed = True
                if self._small is not None:
                    if length <= self._inline_limit_bytes:
                        self._small.truncate(length)
                        return length
                    await self._grow()
                assert self._file is not None and self._behind is not None
                await self._behind.drain()
                await self._cut(self._file, length)
        return length

    async def _cut(self, file: OpenFile, length_bytes: int) -> None:
        def build(mutation: Mutation) -> TruncateRequest:
            return TruncateRequest(path=Path(base=file.inode), mutation=mutation, length_bytes=length_bytes)

        answer = await self._core.mutate_file(file, TRUNCATE, build)
        await self._core.files.follow(file, answer.attributes, self._core.settings.meta_timeout_s)
        if self._end is not None:
            self._end.end_bytes = length_bytes

    async def attributes(self) -> Attributes:
        """The inode as it is now, with everything that this handle wrote."""
        self._check_open()
        with posix_errors(self.name):
            if self._flags.writable:
                async with self._lock:
                    await self._flush()
            assert self._file is not None
            answer = await self._core.ask(STAT, StatRequest(path=Path(base=self._file.inode)))
            return answer.attributes

    async def stat(self) -> os.stat_result:
        """As ``os.fstat``."""
        return stat_of(await self.attributes(), self.size)

    # --- the end ---

    async def close(self) -> None:
        """Store what is buffered, set the exact length, end the open record. The handle is closed even if
        this raises; then something of what was written may be missing."""
        if self.closed:
            return
        self.closed = True
        with posix_errors(self.name):
            async with self._lock:
                try:
                    await self._finish()
                finally:
                    await self._release()

    async def _finish(self) -> None:
        if not self._flags.writable:
            return
        small, core = self._small, self._core
        if self._file is None and small is not None:
            content = bytes(small.content)
            if await create_with_content(core, wire_path(self.name), content, self._permissions):
                return
        failure: Fs3Error | None = None
        try:
            await self._flush()
        except Fs3Error as error:
            failure = error
        file = self._file
        if file is not None:
            try:
                await self._end_record(file)
            except Fs3Error as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def _end_record(self, file: OpenFile) -> None:
        """Close the open record. One that went with its session is an error if something may be missing."""
        try:
            if file.session.is_lost:
                raise SessionLost(f"client session {file.session.id:x} is over")
            await self._core.mutate_file(file, CLOSE, self._closing(file, keep_open=False))
        except SessionLost:
            if self._is_changed:
                raise

    async def _release(self) -> None:
        if self._ahead is not None:
            await self._ahead.close()
        if self._behind is not None:
            await self._behind.abandon()
        if self._end is not None and self._file is not None:
            self._core.files.unshare_end(self._file)
            self._end = None
        if self._file is not None:
            self._core.files.close(self._file)
