"""The asynchronous face of the file system: names, attributes, open files, batches.

Paths are text from the root of the file system; ``/`` in front is optional. Every method raises ``OSError``
with errno and path (``failures``). Operations on names are applied once, whatever fails on the way, and wait
at most ``meta_timeout_s`` (by default: until they are done).

Source: design 3, 6.1.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from fs3.errors import AccessDenied, StaleFile, fs_error
from fs3.ids import InodeId
from fs3.layout import Layout
from fs3.wire.meta import (
    LIST,
    MKDIRS,
    OPEN,
    REMOVE,
    RENAME,
    SETATTR,
    STAT,
    STATFS,
    TRUNCATE,
    Attributes,
    Entry,
    InodeKind,
    ListRequest,
    MkdirsRequest,
    Mutation,
    OpenMode,
    OpenRequest,
    Path,
    RemoveKind,
    RemoveRequest,
    RenameFlags,
    RenameRequest,
    SetAttrRequest,
    StatFsRequest,
    StatFsResponse,
    StatRequest,
    TruncateRequest,
)

from .content_store import create
from .core import ClientCore, Wanted, wire_path
from .failures import posix_errors
from .file import AsyncFile
from .memory import fresh_memory
from .open_files import OpenFile
from .open_flags import OpenFlags, parse_mode
from .stat import stat_of

LIST_PAGE = 1000
COPY_STEP_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class DirEntry:
    """An entry of a directory, with its attributes."""

    name: str
    path: str
    attributes: Attributes

    def is_dir(self) -> bool:
        return self.attributes.kind is InodeKind.DIRECTORY

    def is_file(self) -> bool:
        return self.attributes.kind is InodeKind.FILE

    def is_symlink(self) -> bool:
        return self.attributes.kind is InodeKind.SYMLINK

    def inode(self) -> int:
        return self.attributes.inode

    def stat(self) -> os.stat_result:
        """Of the entry itself, as it was listed; asks nobody."""
        return stat_of(self.attributes)


ReadRange = tuple[AsyncFile, int, int]
"""File, offset, length."""


class AsyncFileSystem:
    """See the module's text. Belongs to one event loop; close it (or use ``async with``)."""

    def __init__(self, core: ClientCore) -> None:
        self._core = core

    @property
    def core(self) -> ClientCore:
        """What it is made of: for faces and tools built on it."""
        return self._core

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the client session. Files that are still open for writing are settled by the cluster."""
        await self._core.close()

    # --- files ---

    async def open(
        self, path: str, mode: str = "rb", *, permissions: int = 0o644, create_now: bool = False
    ) -> AsyncFile:
        """Open a file: ``rb r+b wb w+b xb x+b ab a+b``. ``permissions``: of a file that is created.

        ``wb`` gives the name with the first flush or at close (see ``file``), unless ``create_now``.
        """
        flags = parse_mode(mode)
        core = self._core
        with posix_errors(path), core.files.opening():
            session = await core.sessions.current()
            limit_bytes = session.inline_limit_bytes
            if flags.truncates and not create_now:
                wire_path(path)
                file = None
            elif flags.creates:
                file = await self._create(path, flags, permissions)
            else:
                file = await self._open(path, flags)
            return AsyncFile(
                core, path, mode, flags, file, inline_limit_bytes=limit_bytes, permissions=permissions
            )

    async def _open(self, path: str, flags: OpenFlags) -> OpenFile:
        core = self._core
        mode = OpenMode.READ | OpenMode.WRITE if flags.writable else OpenMode.READ

        def build(mutation: Mutation) -> OpenRequest:
            return OpenRequest(path=wire_path(path), mode=mode, mutation=mutation)

        if flags.writable:
            session, answer = await core.mutate_in(OPEN, build)
        else:
            session = await core.sessions.current()
            answer = await core.ask(OPEN, build(Mutation(session.id, 0, 0)))
        return await core.files.opened(path, session, mode, answer)

    async def open_inode(self, path: str, inode: InodeId) -> AsyncFile:
        """Open a file for reading by its inode; ``path`` is what errors show. ESTALE: it is gone."""
        core = self._core
        with posix_errors(path):
            session = await core.sessions.current()
            request = OpenRequest(
                path=Path(base=inode), mode=OpenMode.READ, mutation=Mutation(session.id, 0, 0)
            )
            answer = await core.ask(OPEN, request)
            file = await core.files.opened(path, session, OpenMode.READ, answer)
        limit_bytes = session.inline_limit_bytes
        return AsyncFile(
            core, path, "rb", parse_mode("rb"), file, inline_limit_bytes=limit_bytes, permissions=0
        )

    async def _create(self, path: str, flags: OpenFlags, permissions: int) -> OpenFile:
        modes = [OpenMode.READ | OpenMode.WRITE]
        if not flags.readable:
            modes.append(OpenMode.WRITE)  # an existing file that may be written and not read
        while True:
            mode = modes.pop(0)
            try:
                session, answer = await create(
                    self._core,
                    wire_path(path),
                    mode,
                    permissions,
                    exclusive=flags.exclusive,
                    truncate=flags.truncates,
                )
            except AccessDenied:
                if not modes:
                    raise
                continue
            return await self._core.files.opened(path, session, mode, answer)

    async def read_batch(
        self, ranges: Sequence[ReadRange], out: Sequence[bytearray | memoryview] | None = None
    ) -> list[memoryview]:
        """Read many ranges at once, striped over all servers that hold them.

        ``out``: one writable buffer for each range, at least as long as the range; else memory is made.
        Returns a view of what was read of each, in order; shorter than asked only at a file's end.
        ValueError: buffers that do not fit.
        """
        return await self.read_views(ranges, batch_views(ranges, out))

    async def read_views(self, ranges: Sequence[ReadRange], views: Sequence[memoryview]) -> list[memoryview]:
        """``read_batch`` into views that are as long as their ranges."""
        wanted: list[Wanted] = []
        numbers: list[int] = []
        counts = [0] * len(ranges)
        last: AsyncFile | None = None
        open_file: OpenFile | None = None
        for number, (file, offset, _) in enumerate(ranges):
            if file is not last:
                last, open_file = file, None if file.closed else file.open_file
            if open_file is None or offset < 0:
                counts[number] = await file.preadinto(views[number], offset)  # its content, or its own error
            else:
                wanted.append((open_file, offset, views[number]))
                numbers.append(number)
        if wanted:
            with posix_errors(ranges[numbers[0]][0].name if len(numbers) == 1 else None):
                for number, count in zip(numbers, await self._core.read(wanted), strict=True):
                    counts[number] = count
        return trimmed(views, counts)

    async def read_file(self, path: str) -> bytes:
        """The whole content."""
        async with await self.open(path) as file:
            return await file.read()

    async def write_file(self, path: str, data: bytes, *, permissions: int = 0o644) -> None:
        """Create or replace a file; a small one in a single request."""
        async with await self.open(path, "wb", permissions=permissions) as file:
            await file.write(data)

    async def copy(self, source: str, destination: str) -> int:
        """Copy a file's content and permission bits within the file system; its length."""
        async with await self.open(source) as reader:
            found = await reader.attributes()
            async with await self.open(destination, "wb", permissions=found.mode) as writer:
                length = 0
                while data := await reader.read(COPY_STEP_BYTES):
                    await writer.write(data)
                    length += len(data)
        return length

    # --- attributes ---

    async def attributes(self, path: str, *, follow_symlinks: bool = True) -> Attributes:
        """The inode, as the metadata service has it."""
        with posix_errors(path):
            request = StatRequest(path=wire_path(path), follow=follow_symlinks)
            return (await self._core.ask(STAT, request)).attributes

    async def stat(self, path: str, *, follow_symlinks: bool = True) -> os.stat_result:
        """As ``os.stat``."""
        return stat_of(await self.attributes(path, follow_symlinks=follow_symlinks))

    async def exists(self, path: str) -> bool:
        """Whether the path leads to something."""
        return await self._kind(path) is not None

    async def isfile(self, path: str) -> bool:
        return await self._kind(path) is InodeKind.FILE

    async def isdir(self, path: str) -> bool:
        return await self._kind(path) is InodeKind.DIRECTORY

    async def _kind(self, path: str) -> InodeKind | None:
        try:
            return (await self.attributes(path)).kind
        except (FileNotFoundError, NotADirectoryError):
            return None

    async def chmod(self, path: str, mode: int) -> None:
        """Set the permission bits."""
        await self._set(path, lambda m: SetAttrRequest(path=wire_path(path), mutation=m, mode=mode))

    async def chown(self, path: str, uid: int = -1, gid: int = -1) -> None:
        """Set owner and group; -1 leaves one as it is."""
        new_uid, new_gid = (uid if uid >= 0 else None), (gid if gid >= 0 else None)
        await self._set(
            path, lambda m: SetAttrRequest(path=wire_path(path), mutation=m, uid=new_uid, gid=new_gid)
        )

    async def utime(self, path: str, *, atime_ns: int | None = None, mtime_ns: int | None = None) -> None:
        """Set times, in nanoseconds since 1970; None leaves one as it is."""
        await self._set(
            path,
            lambda m: SetAttrRequest(path=wire_path(path), mutation=m, atime_ns=atime_ns, mtime_ns=mtime_ns),
        )

    async def set_layout(self, path: str, layout: Layout) -> None:
        """How files that are created in this directory from now on are spread."""
        await self._set(path, lambda m: SetAttrRequest(path=wire_path(path), mutation=m, layout=layout))

    async def _set(self, path: str, build: Callable[[Mutation], SetAttrRequest]) -> None:
        with posix_errors(path):
            await self._core.mutate(SETATTR, build)

    async def truncate(self, path: str, length: int) -> None:
        """Set a file's length."""
        if length < 0:
            raise fs_error(errno.EINVAL, f"length {length}", path)
        try:
            with posix_errors(path):
                await self._core.mutate(
                    TRUNCATE,
                    lambda m: TruncateRequest(path=wire_path(path), mutation=m, length_bytes=length),
                )
        except OSError as error:
            if not isinstance(error.__cause__, StaleFile):
                raise
            async with await self.open(path, "r+b") as file:  # a small file that has to move out first
                await file.truncate(length)

    async def statfs(self) -> StatFsResponse:
        """Space and number of files of the whole file system."""
        with posix_errors("/"):
            return await self._core.ask(STATFS, StatFsRequest())

    # --- the tree ---

    async def scandir(self, path: str = "/") -> AsyncIterator[DirEntry]:
        """The entries of a directory with their attributes, in byte order of their names, page by page."""
        prefix = path.rstrip("/")
        async for entry in self._entries(path, with_attributes=True):
            name = os.fsdecode(entry.name)
            if entry.attributes is not None:
                yield DirEntry(name, f"{prefix}/{name}", entry.attributes)

    async def listdir(self, path: str = "/") -> list[str]:
        """The names in a directory, in byte order."""
        return [os.fsdecode(entry.name) async for entry in self._entries(path, with_attributes=False)]

    async def _entries(self, path: str, *, with_attributes: bool) -> AsyncIterator[Entry]:
        after, more = b"", True
        while more:
            with posix_errors(path):
                request = ListRequest(
                    path=wire_path(path), after=after, limit=LIST_PAGE, with_attributes=with_attributes
                )
                page = await self._core.ask(LIST, request)
            for entry in page.entries:
                yield entry
            more = page.more and bool(page.entries)
            after = page.entries[-1].name if page.entries else after

    async def walk(self, path: str = "/") -> AsyncIterator[tuple[str, list[DirEntry], list[DirEntry]]]:
        """(directory, its directories, its other entries) of a tree, top down; symlinks are not followed."""
        waiting = [path]
        while waiting:
            directory = waiting.pop()
            entries = [entry async for entry in self.scandir(directory)]
            inner = [entry for entry in entries if entry.is_dir()]
            yield directory, inner, [entry for entry in entries if not entry.is_dir()]
            waiting.extend(entry.path for entry in reversed(inner))

    async def mkdir(self, path: str, mode: int = 0o755) -> None:
        """Make one directory."""
        await self._make(path, mode, parents=False, exist_ok=False)

    async def makedirs(self, path: str, mode: int = 0o755, *, exist_ok: bool = False) -> None:
        """Make a directory and those above it that are missing, in one request."""
        await self._make(path, mode, parents=True, exist_ok=exist_ok)

    async def _make(self, path: str, mode: int, *, parents: bool, exist_ok: bool) -> None:
        def build(mutation: Mutation) -> MkdirsRequest:
            return MkdirsRequest(
                path=wire_path(path), mutation=mutation, permissions=mode, parents=parents, exist_ok=exist_ok
            )

        with posix_errors(path):
            await self._core.mutate(MKDIRS, build)

    async def remove(self, path: str, *, missing_ok: bool = False) -> None:
        """Remove a file or symlink."""
        await self._remove(path, RemoveKind.FILE, missing_ok=missing_ok)

    async def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        await self._remove(path, RemoveKind.DIRECTORY)

    async def rmtree(self, path: str, *, missing_ok: bool = False) -> None:
        """Remove a file, or a directory with all that is below it, in one request; space is freed in the
        background."""
        await self._remove(path, RemoveKind.ANY, recursive=True, missing_ok=missing_ok)

    async def _remove(
        self, path: str, kind: RemoveKind, *, recursive: bool = False, missing_ok: bool = False
    ) -> None:
        def build(mutation: Mutation) -> RemoveRequest:
            return RemoveRequest(
                path=wire_path(path), mutation=mutation, kind=kind, recursive=recursive, missing_ok=missing_ok
            )

        with posix_errors(path):
            await self._core.mutate(REMOVE, build)

    async def rename(self, source: str, destination: str, *, replace: bool = True) -> None:
        """Move a name; ``replace``: over a file that is there (else EEXIST)."""
        flags = RenameFlags.NONE if replace else RenameFlags.NOREPLACE
        await self._rename(source, destination, flags)

    async def exchange(self, one: str, other: str) -> None:
        """Two names change places, in one step."""
        await self._rename(one, other, RenameFlags.EXCHANGE)

    async def _rename(self, source: str, destination: str, flags: RenameFlags) -> None:
        def build(mutation: Mutation) -> RenameRequest:
            return RenameRequest(
                source=wire_path(source), destination=wire_path(destination), mutation=mutation, flags=flags
            )

        with posix_errors(source):
            await self._core.mutate(RENAME, build)


def batch_views(
    ranges: Sequence[tuple[object, int, int]], out: Sequence[bytearray | memoryview] | None
) -> list[memoryview]:
    """A writable view of each range's length, of ``out`` or of new memory. ValueError."""
    if out is None:
        return [fresh_memory(length) for _, _, length in ranges]
    if len(out) != len(ranges):
        raise ValueError(f"{len(out)} buffers for {len(ranges)} ranges")
    views = []
    for (_, _, length), buffer in zip(ranges, out, strict=True):
        view = buffer if type(buffer) is memoryview and buffer.format == "B" else memoryview(buffer).cast("B")
        if len(view) != length:
            if len(view) < length or length < 0:
                raise ValueError(f"a buffer of {len(view)} bytes for {length}")
            view = view[:length]
        if view.readonly:
            raise ValueError("a buffer that cannot be written")
        views.append(view)
    return views


def trimmed(views: Sequence[memoryview], counts: Sequence[int]) -> list[memoryview]:
    """The views, as far as they were filled."""
    return [view if count == len(view) else view[:count] for view, count in zip(views, counts, strict=True)]
