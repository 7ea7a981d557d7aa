"""An open file of the blocking face: ``io.RawIOBase``, and reads and writes at an offset.

Thread-safe: operations at the position go one after the other, those at an offset side by side.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fs3.errors import fs_error
from fs3.rpc.service import Buffer
from fs3.wire.meta import Attributes

from .deadlines import locked
from .file import AsyncFile
from .loop_thread import keep_inherited
from .memory import BytesToFill
from .thread_reads import read_here

if TYPE_CHECKING:
    from .blocking import FileSystem

T = TypeVar("T")


class File(io.RawIOBase):
    """See the module's text. Made by ``FileSystem.open``."""

    def __init__(self, filesystem: FileSystem, inner: AsyncFile) -> None:
        super().__init__()
        self._filesystem = filesystem
        self._inner = inner
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self.name = inner.name
        self.mode = inner.mode

    def inner(self) -> AsyncFile:
        """The asynchronous file of this process. EBADF: it was open for writing before a fork."""
        if self._pid != os.getpid():
            self._reopen()
        return self._inner

    def _reopen(self) -> None:
        old = self._inner
        keep_inherited(old)
        if old.writable() or old.open_file is None:
            raise fs_error(errno.EBADF, "opened for writing before the fork: open it here again", self.name)
        self._inner = self._filesystem.open_inode(self.name, old.open_file.inode)
        self._inner.move_to(old.tell())
        self._lock = threading.RLock()
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        inner = self.inner()
        if inner.writable() or inner.open_file is None:
            raise TypeError(f"{self.name}: only files that are open for reading can be pickled")
        return _unpickled_file, (self._filesystem, self.name, inner.open_file.inode, inner.tell())

    # --- what it is ---

    def readable(self) -> bool:
        return self._inner.readable()

    def writable(self) -> bool:
        return self._inner.writable()

    def seekable(self) -> bool:
        return True

    @property
    def size(self) -> int:
        """Length in bytes, as far as this handle knows."""
        return self.inner().size

    def attributes(self) -> Attributes:
        """The inode as it is now, with everything that this handle wrote."""
        return self._filesystem.run(self.inner().attributes())

    def stat(self) -> os.stat_result:
        """As ``os.fstat``."""
        return self._filesystem.run(self.inner().stat())

    def as_text(self, encoding: str) -> io.TextIOWrapper:
        """This file as text; it closes with the text."""
        buffered: io.BufferedReader | io.BufferedWriter | io.BufferedRandom
        if self.readable() and self.writable():
            buffered = io.BufferedRandom(self)
        else:
            buffered = io.BufferedReader(self) if self.readable() else io.BufferedWriter(self)
        return io.TextIOWrapper(buffered, encoding=encoding)

    # --- reading ---

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes from the position on (-1: all the rest); fewer only at the end."""
        with locked(self._lock):
            return self._filesystem.run(self.inner().read(-1 if size is None else size))

    def readall(self) -> bytes:
        return self.read(-1)

    def readinto(self, buffer: Any, /) -> int:
        """Fill ``buffer`` from the position on; how many bytes."""
        with locked(self._lock):
            return self._filesystem.run(self.inner().readinto(memoryview(buffer).cast("B")))

    def pread(self, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes from ``offset`` on; the position stays."""
        inner = self.inner()
        room = BytesToFill(max(0, min(size, max(inner.size - offset, 1))))
        return room.taken(self.preadinto(room.view, offset))

    def preadinto(self, buffer: bytearray | memoryview, offset: int) -> int:
        """Fill ``buffer`` from ``offset`` on; how many bytes."""
        inner = self.inner()
        view = memoryview(buffer).cast("B")
        counts = read_here(self._filesystem.asynchronous.core, [(inner, offset, len(view))], [view])
        if counts is not None:
            return counts[0]
        return self._filesystem.run(inner.preadinto(view, offset))

    def preadv(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        """Fill the buffers one after the other from ``offset`` on; how many bytes in all."""
        return self._filesystem.run(self.inner().preadv(buffers, offset))

    # --- writing ---

    def write(self, data: Any, /) -> int:
        """Write all of ``data`` at the position (in append mode: at the end); returns its length."""
        with locked(self._lock):
            return self._filesystem.run(self.inner().write(data))

    def pwrite(self, data: Buffer, offset: int) -> int:
        """Write at ``offset``; the position stays. Returns ``len(data)``."""
        return self._filesystem.run(self.inner().pwrite(data, offset))

    def append(self, data: Buffer) -> int:
        """Write at the end of the file; the end afterwards."""
        return self._filesystem.run(self.inner().append(data))

    def flush(self) -> None:
        """Send what is buffered."""
        if not self.closed and not self._inner.closed and self._inner.writable() and self._pid == os.getpid():
            self._filesystem.run(self._inner.flush())

    def fsync(self) -> None:
        """Everything written so far is durable, and its length visible to others."""
        self._filesystem.run(self.inner().fsync())

    def truncate(self, size: int | None = None, /) -> int:
        """Set the length (default: the position); returns it."""
        with locked(self._lock):
            return self._filesystem.run(self.inner().truncate(size))

    # --- position and end ---

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        with locked(self._lock):
            return self._filesystem.run(self.inner().seek(offset, whence))

    def tell(self) -> int:
        return self.inner().tell()

    def close(self) -> None:
        """Store what is buffered and set the exact length; see ``AsyncFile.close``."""
        if self.closed:
            return
        inner = self._inner
        try:
            if self._pid == os.getpid() and not inner.closed:
                self._filesystem.finish(inner)
        finally:
            super().close()  # marks it closed; its flush finds nothing to do


def _unpickled_file(filesystem: FileSystem, name: str, inode: Any, position: int) -> File:
    inner = filesystem.open_inode(name, inode)
    inner.move_to(position)
    return File(filesystem, inner)
