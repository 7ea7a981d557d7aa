"""Where ``fs3 cp`` copies from and to: the local file system and fs3, with the same few operations."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiofiles
import aiofiles.os

from fs3.errors import fs_error

from ..file import AsyncFile
from ..filesystem import AsyncFileSystem
from .running import join_url

BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """A file or directory below a place."""

    relative: str
    """Its path from there; empty: the place itself."""
    is_directory: bool
    length_bytes: int
    mode: int


class Place(Protocol):
    """A path somewhere."""

    @property
    def shown(self) -> str:
        """For people."""
        ...

    @property
    def name(self) -> str:
        """The last name of the path."""
        ...

    def below(self, relative: str) -> Place:
        """The place at a path from here."""
        ...

    async def look(self) -> Found | None:
        """What is here; None: nothing."""
        ...

    def tree(self) -> AsyncIterator[Found]:
        """Everything below this directory, directories before what they hold."""
        ...

    async def make_directory(self) -> None: ...

    def blocks(self) -> AsyncIterator[bytes]:
        """The content, block after block."""
        ...

    def storing(self, mode: int) -> Storing:
        """Begin to write the content."""
        ...


class Storing(Protocol):
    """A file that is being written. ``commit`` ends it; ``discard`` leaves nothing half-done behind."""

    async def write(self, block: bytes) -> None: ...

    async def commit(self) -> None: ...

    async def discard(self) -> None: ...


class RemotePlace:
    """A path in fs3."""

    def __init__(self, filesystem: AsyncFileSystem, cluster: str, path: str) -> None:
        self._filesystem = filesystem
        self._cluster = cluster
        self._path = path

    @property
    def shown(self) -> str:
        return join_url(self._cluster, self._path)

    @property
    def name(self) -> str:
        return self._path.rstrip("/").rpartition("/")[2]

    def below(self, relative: str) -> RemotePlace:
        path = f"{self._path.rstrip('/')}/{relative}" if relative else self._path
        return RemotePlace(self._filesystem, self._cluster, path)

    async def look(self) -> Found | None:
        try:
            status = await self._filesystem.stat(self._path)
        except FileNotFoundError:
            return None
        return Found("", stat.S_ISDIR(status.st_mode), status.st_size, stat.S_IMODE(status.st_mode))

    async def tree(self) -> AsyncIterator[Found]:
        base = self._path.rstrip("/")
        async for directory, inner, others in self._filesystem.walk(base or "/"):
            for entry in (*inner, *others):
                status = entry.stat()
                relative = f"{directory.rstrip('/')}/{entry.name}"[len(base) + 1 :]
                if entry.is_dir() or entry.is_file():
                    yield Found(relative, entry.is_dir(), status.st_size, stat.S_IMODE(status.st_mode))

    async def make_directory(self) -> None:
        await self._filesystem.makedirs(self._path, exist_ok=True)

    async def blocks(self) -> AsyncIterator[bytes]:
        async with await self._filesystem.open(self._path) as file:
            while block := await file.read(BLOCK_BYTES):
                yield block

    def storing(self, mode: int) -> Storing:
        return _RemoteStoring(self._filesystem, self._path, mode)


class _RemoteStoring:
    """Small files appear whole, in one request; large ones under their name, growing."""

    def __init__(self, filesystem: AsyncFileSystem, path: str, mode: int) -> None:
        self._filesystem = filesystem
        self._path = path
        self._mode = mode
        self._file: AsyncFile | None = None

    async def _opened(self) -> AsyncFile:
        if self._file is None:
            self._file = await self._filesystem.open(self._path, "wb", permissions=self._mode)
        return self._file

    async def write(self, block: bytes) -> None:
        await (await self._opened()).write(block)

    async def commit(self) -> None:
        await (await self._opened()).close()

    async def discard(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what broke the copy is reported, not its aftermath
                await self._file.close()


class LocalPlace:
    """A path of this machine."""

    def __init__(self, path: str) -> None:
        self._path = path

    @property
    def shown(self) -> str:
        return self._path

    @property
    def name(self) -> str:
        return Path(os.path.abspath(self._path)).name

    def below(self, relative: str) -> LocalPlace:
        return LocalPlace(os.path.join(self._path, relative) if relative else self._path)

    async def look(self) -> Found | None:
        try:
            status = await aiofiles.os.stat(self._path)
        except FileNotFoundError:
            return None
        return Found("", stat.S_ISDIR(status.st_mode), status.st_size, stat.S_IMODE(status.st_mode))

    async def tree(self) -> AsyncIterator[Found]:
        for directory, inner, files in os.walk(self._path):
            inner.sort()
            for name in (*inner, *sorted(files)):
                path = os.path.join(directory, name)
                status = await aiofiles.os.stat(path)
                relative = path[len(self._path.rstrip(os.sep)) + 1 :]
                yield Found(relative, name in inner, status.st_size, stat.S_IMODE(status.st_mode))

    async def make_directory(self) -> None:
        await aiofiles.os.makedirs(self._path, exist_ok=True)

    async def blocks(self) -> AsyncIterator[bytes]:
        async with aiofiles.open(self._path, "rb") as file:
            while block := await file.read(BLOCK_BYTES):
                yield block

    def storing(self, mode: int) -> Storing:
        return _LocalStoring(self._path, mode)


class _LocalStoring:
    """Written beside, then renamed: a copy that was interrupted leaves no half file under the name."""

    def __init__(self, path: str, mode: int) -> None:
        self._path = path
        self._partial = f"{path}.fs3-partial"
        self._mode = mode
        self._descriptor = -1

    async def write(self, block: bytes) -> None:
        if self._descriptor < 0:
            self._open()
        async with aiofiles.open(self._descriptor, "wb", closefd=False) as file:
            await file.write(block)

    def _open(self) -> None:
        if os.path.isdir(self._path):
            raise fs_error(errno.EISDIR, "a directory is in the way", self._path)
        self._descriptor = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, self._mode | 0o200)

    async def commit(self) -> None:
        if self._descriptor < 0:
            self._open()
        os.fchmod(self._descriptor, self._mode)
        os.close(self._descriptor)
        self._descriptor = -1
        os.replace(self._partial, self._path)

    async def discard(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            os.unlink(self._partial)
