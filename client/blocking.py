"""The blocking face: the same file system for code without an event loop, from any thread.

All file systems of a process share one event loop in a thread of its own, so it works with and without a
running loop in the calling thread. Large reads of one server skip it: the calling thread does them itself.

Forks: a child connects anew at its first use; files that were open for reading are opened again by their
inode, files that were open for writing are the parent's alone (EBADF). Pickles: a file system carries where
it is connected to (and a token only if one was given to ``connect``), a file also its inode and position;
equal ones of a process share one connection.

Source: design 6.1.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Coroutine, Iterator, Sequence
from io import TextIOWrapper
from types import TracebackType
from typing import Any, Self, TypeVar

from fs3.ids import InodeId
from fs3.layout import Layout
from fs3.wire.meta import Attributes, StatFsResponse

from .blocking_file import File
from .connecting import DEFAULT, connect_async
from .file import AsyncFile
from .filesystem import AsyncFileSystem, DirEntry, batch_views, trimmed
from .loop_thread import LoopThread, acquire_loop, keep_inherited, release_loop
from .settings import ClientSettings
from .thread_reads import read_here

T = TypeVar("T")


class _Link:
    """A connection, and the process and thread that it belongs to."""

    def __init__(self, thread: LoopThread, filesystem: AsyncFileSystem) -> None:
        self.thread = thread
        self.filesystem = filesystem


class FileSystem:
    """See the module's text. ``connect`` makes it; connects at first use."""

    def __init__(
        self, where: str | None = None, *, token: str | None = None, settings: ClientSettings = DEFAULT
    ) -> None:
        self._target = (where, token, settings)
        self._lock = threading.Lock()
        self._link: _Link | None = None
        self._is_closed = False
        _open_filesystems.add(self)

    # --- the connection ---

    def link(self) -> _Link:
        """The connection of this process, made if there is none. ValueError: closed."""
        link = self._link
        if link is not None and link.thread.pid == os.getpid():
            return link
        if link is not None:
            keep_inherited(link)
            self._lock, self._link = threading.Lock(), None  # the parent may have held it at the fork
        with self._lock:
            if self._is_closed:
                raise ValueError("the file system is closed")
            if self._link is None:
                where, token, settings = self._target
                thread = acquire_loop()
                try:
                    filesystem = thread.run(connect_async(where, token=token, settings=settings))
                except BaseException:
                    release_loop(thread)
                    raise
                self._link = _Link(thread, filesystem)
            return self._link

    def finish(self, file: AsyncFile) -> None:
        """Close a file; without waiting where waiting is impossible (a destructor in the loop's thread)."""
        link = self._link
        if link is None or link.thread.pid != os.getpid():
            return  # the session is over, and with it what the file had open
        if link.thread.is_here:
            link.thread.run_later(file.close())
        else:
            link.thread.run(file.close())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the asynchronous face and wait for it."""
        try:
            thread = self.link().thread
        except BaseException:
            work.close()  # it will never run: that is no second thing to complain of
            raise
        return thread.run(work)

    @property
    def asynchronous(self) -> AsyncFileSystem:
        """The asynchronous face that this one calls, in the loop of ``run``."""
        return self.link().filesystem

    def close(self) -> None:
        """End the session. Files that are still open for writing are settled by the cluster."""
        self._is_closed = True
        _open_filesystems.discard(self)
        link, self._link = self._link, None
        if link is None:
            return
        if link.thread.pid != os.getpid():
            keep_inherited(link)
            return
        try:
            link.thread.run(link.filesystem.close())
        finally:
            release_loop(link.thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_filesystem, self._target

    # --- files ---

    def open(
        self, path: str, mode: str = "rb", *, permissions: int = 0o644, create_now: bool = False
    ) -> File:
        """Open a file for bytes: ``rb r+b wb w+b xb x+b ab a+b``. With ``wb`` a file
        gets its name at flush or close, a small one in one request; ``create_now`` gives it at once."""
        work = self.asynchronous.open(path, mode, permissions=permissions, create_now=create_now)
        return File(self, self.run(work))

    def open_inode(self, path: str, inode: InodeId) -> AsyncFile:
        """Open a file for reading by its inode; ``path`` is what errors show."""
        return self.run(self.asynchronous.open_inode(path, inode))

    def open_text(self, path: str, mode: str = "r", *, encoding: str = "utf-8") -> TextIOWrapper:
        """Open a file for text."""
        return self.open(path, mode + "b").as_text(encoding)

    def read_batch(
        self,
        ranges: Sequence[tuple[File, int, int]],
        out: Sequence[bytearray | memoryview] | None = None,
    ) -> list[memoryview]:
        """Read many (file, offset, length) at once, striped over all servers that hold them.

        ``out``: one writable buffer for each range. Returns a view of what was read of each, in order;
        shorter than asked only at a file's end.
        """
        views = batch_views(ranges, out)
        mine = {file: file.inner() for file in dict.fromkeys([file for file, _, _ in ranges])}
        inner = [(mine[file], offset, length) for file, offset, length in ranges]
        counts = read_here(self.asynchronous.core, inner, views)
        if counts is not None:
            return trimmed(views, counts)
        return self.run(self.asynchronous.read_views(inner, views))

    def read_file(self, path: str) -> bytes:
        """The whole content."""
        return self.run(self.asynchronous.read_file(path))

    def write_file(self, path: str, data: bytes, *, permissions: int = 0o644) -> None:
        """Create or replace a file; a small one in a single request."""
        self.run(self.asynchronous.write_file(path, data, permissions=permissions))

    def copy(self, source: str, destination: str) -> int:
        """Copy a file's content and permission bits within the file system; its length."""
        return self.run(self.asynchronous.copy(source, destination))

    # --- attributes ---

    def attributes(self, path: str, *, follow_symlinks: bool = True) -> Attributes:
        """The inode, as the metadata service has it."""
        return self.run(self.asynchronous.attributes(path, follow_symlinks=follow_symlinks))

    def stat(self, path: str, *, follow_symlinks: bool = True) -> os.stat_result:
        """As ``os.stat``."""
        return self.run(self.asynchronous.stat(path, follow_symlinks=follow_symlinks))

    def exists(self, path: str) -> bool:
        return self.run(self.asynchronous.exists(path))

    def isfile(self, path: str) -> bool:
        return self.run(self.asynchronous.isfile(path))

    def isdir(self, path: str) -> bool:
        return self.run(self.asynchronous.isdir(path))

    def chmod(self, path: str, mode: int) -> None:
        self.run(self.asynchronous.chmod(path, mode))

    def chown(self, path: str, uid: int = -1, gid: int = -1) -> None:
        self.run(self.asynchronous.chown(path, uid, gid))

    def utime(self, path: str, *, atime_ns: int | None = None, mtime_ns: int | None = None) -> None:
        self.run(self.asynchronous.utime(path, atime_ns=atime_ns, mtime_ns=mtime_ns))

    def set_layout(self, path: str, layout: Layout) -> None:
        """How files that are created in this directory from now on are spread."""
        self.run(self.asynchronous.set_layout(path, layout))

    def truncate(self, path: str, length: int) -> None:
        self.run(self.asynchronous.truncate(path, length))

    def statfs(self) -> StatFsResponse:
        """Space and number of files of the whole file system."""
        return self.run(self.asynchronous.statfs())

    # --- the tree ---

    def scandir(self, path: str = "/") -> Iterator[DirEntry]:
        """The entries of a directory with their attributes, in byte order of their names."""
        return iter(self.run(_collect(self.asynchronous, path)))

    def listdir(self, path: str = "/") -> list[str]:
        return self.run(self.asynchronous.listdir(path))

    def walk(self, path: str = "/") -> Iterator[tuple[str, list[DirEntry], list[DirEntry]]]:
        """(directory, its directories, its other entries) of a tree, top down."""
        waiting = [path]
        while waiting:
            directory = waiting.pop()
            entries = list(self.scandir(directory))
            inner = [entry for entry in entries if entry.is_dir()]
            yield directory, inner, [entry for entry in entries if not entry.is_dir()]
            waiting.extend(entry.path for entry in reversed(inner))

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        self.run(self.asynchronous.mkdir(path, mode))

    def makedirs(self, path: str, mode: int = 0o755, *, exist_ok: bool = False) -> None:
        self.run(self.asynchronous.makedirs(path, mode, exist_ok=exist_ok))

    def remove(self, path: str, *, missing_ok: bool = False) -> None:
        self.run(self.asynchronous.remove(path, missing_ok=missing_ok))

    def rmdir(self, path: str) -> None:
        self.run(self.asynchronous.rmdir(path))

    def rmtree(self, path: str, *, missing_ok: bool = False) -> None:
        """Remove a file, or a directory with all that is below it, in one request."""
        self.run(self.asynchronous.rmtree(path, missing_ok=missing_ok))

    def rename(self, source: str, destination: str, *, replace: bool = True) -> None:
        self.run(self.asynchronous.rename(source, destination, replace=replace))

    def exchange(self, one: str, other: str) -> None:
        """Two names change places, in one step."""
        self.run(self.asynchronous.exchange(one, other))


async def _collect(filesystem: AsyncFileSystem, path: str) -> list[DirEntry]:
    return [entry async for entry in filesystem.scandir(path)]


_open_filesystems: weakref.WeakSet[FileSystem] = weakref.WeakSet()
_unpickled: dict[tuple[str | None, str | None, ClientSettings], FileSystem] = {}
_unpickling = threading.Lock()


def shared_filesystem(where: str | None, token: str | None, settings: ClientSettings) -> FileSystem:
    """The process's file system for a pickle; it stays until the process ends (or somebody closes it)."""
    target = (where, token, settings)
    with _unpickling:
        found = _unpickled.get(target)
        if found is None or found._is_closed:
            found = _unpickled[target] = FileSystem(where, token=token, settings=settings)
        return found


def _close_all() -> None:
    """At the end of the process: end the sessions, so that the cluster need not wait for them."""
    for filesystem in sorted(_open_filesystems, key=id):
        filesystem.close()


atexit.register(_close_all)


def connect(
    where: str | None = None, *, token: str | None = None, settings: ClientSettings = DEFAULT
) -> FileSystem:
    """Connect to a cluster.

    ``where``: ``fs3://host:port,…/``, a configured cluster's name, or its file; default: ``$FS3_CLUSTER``,
    else the cluster ``dev`` of this machine. ``token``: default from the environment or the cluster's file.

    OSError: no such cluster, no token, refused (EACCES), not reached within 10 s (TimeoutError).
    """
    filesystem = FileSystem(where, token=token, settings=settings)
    try:
        filesystem.link()
    except BaseException:
        filesystem.close()
        raise
    return filesystem
