"""Files of one client that show whether what was asked once was done once: small files and a log."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from fs3.client.filesystem import AsyncFileSystem

from .cluster import World
from .seen import ONCE, SURVIVE, Seen

STAMP = struct.Struct("<QQ")
RECORD = struct.Struct("<QQ")
"""Of a log: a value, and its complement."""
HEAD_BYTES = 17 * 1024
"""Zeros in front of a log's records: more than lies beside an inode."""


class SmallFiles:
    """Files beside their inodes, changed by one client; two lanes of it never use the same one at once."""

    def __init__(self, world: World, fs: AsyncFileSystem, directory: str, index: int, seen: Seen) -> None:
        self._fs = fs
        self._directory = directory
        self._index = index
        self._seen = seen
        self._rng = world.rng(f"small{index}")
        self._own: dict[str, int] = {}
        """Those at rest: path -> value."""
        self._busy: dict[str, None] = {}
        self._touched: list[str] = []
        """All that were ever busy."""
        self._made = 0

    def _new_path(self) -> str:
        self._made += 1
        return f"{self._directory}/s{self._index}-{self._made}"

    def _take(self) -> str:
        """One of ours, for this lane alone."""
        path = self._rng.choice(list(self._own))
        self._touch(path)
        return path

    def _touch(self, path: str) -> None:
        self._busy[path] = None
        self._touched.append(path)

    def _give_back(self, path: str, value: int | None) -> None:
        """It is there with this value, or gone."""
        self._busy.pop(path, None)
        if value is not None:
            self._own[path] = value

    async def change(self) -> None:
        """Do something with one or two of them."""
        acts = [self._create, self._create, self._read, self._list]
        if len(self._own) > 2:
            acts += [self._remove, self._rename, self._exchange, self._exchange]
        await self._rng.choice(acts)()

    async def check_all(self) -> None:
        """Every file has its content, and the directory has all of them and no others."""
        for path, value in self._own.items():
            await self._check(path, value)
        await self._list()

    async def _create(self) -> None:
        """A file with content; it must not be there yet."""
        path, value = self._new_path(), self._seen.value()
        self._touch(path)
        async with await self._fs.open(path, "xb") as file:
            await file.write(STAMP.pack(value, self._index))
        self._give_back(path, value)

    async def _read(self) -> None:
        if self._own:
            path = self._take()
            value = self._own.pop(path)
            await self._check(path, value)
            self._give_back(path, value)

    async def _check(self, path: str, value: int) -> None:
        data = await self._fs.read_file(path)
        if data != STAMP.pack(value, self._index):
            self._seen.wrong(SURVIVE, f"{path}: {data!r} is not {value}")

    async def _list(self) -> None:
        """All files that nobody is just changing are there, and none that was removed."""
        resting, known, began = set(self._own), set(self._own) | set(self._busy), len(self._touched)
        prefix = f"s{self._index}-"
        names = await self._fs.listdir(self._directory)
        ours = {f"{self._directory}/{name}" for name in names if name.startswith(prefix)}
        touched = set(self._touched[began:])
        lost, alien = resting - touched - ours, ours - known - touched
        if lost or alien:
            self._seen.wrong(ONCE, f"client {self._index} lists {sorted(lost)} not, {sorted(alien)} wrongly")

    async def _remove(self) -> None:
        """One of ours; it must be there."""
        path = self._take()
        del self._own[path]
        await self._fs.remove(path)
        self._give_back(path, None)

    async def _rename(self) -> None:
        path, new = self._take(), self._new_path()
        value = self._own.pop(path)
        self._touch(new)
        await self._fs.rename(path, new)
        self._give_back(path, None)
        self._give_back(new, value)

    async def _exchange(self) -> None:
        """Twice would be not at all."""
        one = self._take()
        value = self._own.pop(one)
        other = self._take()
        other_value = self._own.pop(other)
        await self._fs.exchange(one, other)
        self._give_back(one, other_value)
        self._give_back(other, value)


class AppendedFile:
    """A log of one client; several of its lanes append at the same time."""

    def __init__(self, world: World, fs: AsyncFileSystem, path: str, seen: Seen) -> None:
        self._loop = world.loop
        self._fs = fs
        self._path = path
        self._seen = seen
        self._rng = world.rng(path)
        self._appended: list[tuple[int, float, float]] = []
        """(value, start, end) of those that were acknowledged."""
        self._doubtful: set[int] = set()
        """Begun, and perhaps there."""

    async def make(self) -> None:
        """It is there, without records."""
        async with await self._fs.open(self._path, "wb") as file:
            await file.truncate(HEAD_BYTES)

    async def append(self) -> None:
        """One record."""
        value = self._seen.value()
        start_s = self._loop.time()
        self._doubtful.add(value)
        async with await self._fs.open(self._path, "ab") as file:
            await file.write(RECORD.pack(value, ~value & (1 << 64) - 1))
        self._doubtful.discard(value)
        self._appended.append((value, start_s, self._loop.time()))

    async def check_all(self) -> None:
        """Every record is there once, in an order that their times allow."""
        data = (await self._fs.read_file(self._path))[HEAD_BYTES:]
        if text := appended_once(data, self._appended, self._doubtful):
            self._seen.wrong(ONCE, f"{self._path}: {text}")


def appended_once(
    data: bytes, appended: Sequence[tuple[int, float, float]], doubtful: AbstractSet[int] = frozenset()
) -> str:
    """What is wrong with a log: each of ``appended`` (value, start, end) stands in it exactly once, and none
    before one that had ended when it began. ``doubtful``: may stand in it; or zeros in its place."""
    if len(data) % RECORD.size:
        return f"{len(data)} bytes are no whole records"
    found: list[int] = []
    hole_count = 0
    for value, check in RECORD.iter_unpack(data):
        if not value and not check:
            hole_count += 1
            continue
        if value != ~check & (1 << 64) - 1:
            return f"record {len(found)} is torn: {value:x}, {check:x}"
        found.append(value)
    wanted = {value for value, _, _ in appended}
    if len(found) != len(set(found)):
        return f"appended twice: {sorted({value for value in found if found.count(value) > 1})}"
    missing, alien = wanted - set(found), set(found) - wanted - doubtful
    if missing or alien or hole_count > len(doubtful):
        return f"missing: {sorted(missing)}, never appended: {sorted(alien)}, {hole_count} holes"
    at = {value: number for number, value in enumerate(found)}
    for earlier, _, end_s in appended:
        for later, start_s, _ in appended:
            if end_s < start_s and at[earlier] > at[later]:
                return f"{later} stands before {earlier}, which was there first"
    return ""
