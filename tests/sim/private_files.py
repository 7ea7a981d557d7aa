"""Files of several chunks that one client alone changes: whatever befalls the servers, it knows every byte.

Each is written from its start in pieces, cut and grown, written at random places, given another name and
removed; all of it by one client after the other operation has ended, so its content has one right value.
"""

from __future__ import annotations

from fs3.client.filesystem import AsyncFileSystem
from fs3.rng import Rng

from .seen import SURVIVE, Problem

MOST_BYTES = 140 * 1024
FILES_MAX = 3


class PrivateFiles:
    """Those of one client, in ``directory``; their names begin with ``prefix``."""

    def __init__(
        self,
        fs: AsyncFileSystem,
        directory: str,
        prefix: str,
        rng: Rng,
        problems: list[Problem] | None = None,
    ) -> None:
        """``problems``: where what is wrong is noted."""
        self._fs = fs
        self._start = f"{directory}/{prefix}"
        self._rng = rng
        self._contents: dict[str, bytearray] = {}
        self._made_count = 0
        self._problems = problems if problems is not None else []
        self._is_busy = False

    def _new_path(self) -> str:
        self._made_count += 1
        return f"{self._start}{self._made_count}"

    def _bytes(self, most_bytes: int) -> bytes:
        """Something that is nowhere else."""
        length = self._rng.randint(1, most_bytes)
        return (self._rng.randbytes(16) * (length // 16 + 1))[:length]

    async def change(self) -> None:
        """One change of one file, or a new file; nothing while another one is under way."""
        if self._is_busy:
            return
        self._is_busy = True
        try:
            await self._change()
        finally:
            self._is_busy = False

    async def _change(self) -> None:
        if (len(self._contents) < FILES_MAX and self._rng.random() < 0.4) or not self._contents:
            await self._create()
            return
        path = self._rng.choice(list(self._contents))
        act = self._rng.choice((self._write, self._write, self._append, self._cut, self._check, self._drop))
        try:
            await act(path)
        except OSError:
            self._contents.pop(path, None)  # nobody knows what it holds
            raise

    async def check_all(self) -> None:
        """Every file has its content."""
        for path in self._contents:
            await self._check(path)

    async def _create(self) -> None:
        path, data = self._new_path(), self._bytes(MOST_BYTES)
        async with await self._fs.open(path, "xb") as file:
            await file.write(data)
        self._contents[path] = bytearray(data)

    async def _write(self, path: str) -> None:
        content, data = self._contents[path], self._bytes(70 * 1024)
        offset = self._rng.randint(0, len(content))
        async with await self._fs.open(path, "r+b") as file:
            await file.pwrite(data, offset)
        content[offset : offset + len(data)] = data

    async def _append(self, path: str) -> None:
        data = self._bytes(20 * 1024)
        async with await self._fs.open(path, "ab") as file:
            await file.write(data)
        self._contents[path] += data

    async def _cut(self, path: str) -> None:
        """Mostly shorter, sometimes longer: what was beyond must read as zeros then."""
        content = self._contents[path]
        length = self._rng.randint(0, len(content) * 5 // 4)
        await self._fs.truncate(path, length)
        del content[length:]
        content.extend(bytes(length - len(content)))

    async def _check(self, path: str) -> None:
        data, content = await self._fs.read_file(path), self._contents[path]
        if data != content:
            places = [at for at in range(min(len(data), len(content))) if data[at] != content[at]]
            wrong = f"{len(places)} wrong, first at {places[:1]}"
            text = f"{path}: {len(data)} bytes instead of {len(content)}, {wrong}"
            inode = (await self._fs.attributes(path)).inode
            self._problems.append(Problem(SURVIVE, text, inode=inode))

    async def _drop(self, path: str) -> None:
        """Remove it, or give it another name."""
        if self._rng.random() < 0.5:
            await self._fs.remove(path)
            del self._contents[path]
        else:
            new = self._new_path()
            await self._fs.rename(path, new)
            self._contents[new] = self._contents.pop(path)
