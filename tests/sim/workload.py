"""What the simulated clients do: create, write, read, list, remove, and note all that they saw."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fs3.client.filesystem import AsyncFileSystem
from fs3.layout import Layout
from fs3.rng import Rng

from .checkers import Register, linearizable
from .cluster import World
from .private_files import PrivateFiles

CHUNK_BYTES = 64 * 1024
BLOCK_BYTES = 8 * 1024
BLOCKS = 24
"""Of one file: three chunks."""
STAMP = struct.Struct("<QQ")
DIRECTORY = "/work"
SHARED = f"{DIRECTORY}/shared"


def stamped(value: int, block: int) -> bytes:
    """The bytes of a block that holds ``value``."""
    return STAMP.pack(value, block) * (BLOCK_BYTES // STAMP.size)


def value_of(data: bytes, block: int) -> int | None:
    """The value that a block holds; 0 for zeros, None if it is torn or of another block."""
    if not any(data):
        return 0
    value, found = STAMP.unpack_from(data)
    return value if found == block and data == stamped(value, block) else None


@dataclass(slots=True)
class Seen:
    """What all clients saw."""

    registers: dict[tuple[str, int], Register] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    operation_count: int = 0
    next_value: int = 0

    def register(self, path: str, block: int) -> Register:
        """The history of one block of one file."""
        return self.registers.setdefault((path, block), Register(f"{path}[{block}]"))

    def value(self) -> int:
        """A value that nobody else writes."""
        self.next_value += 1
        return self.next_value

    def judge(self) -> list[str]:
        """Everything that must not be."""
        return self.problems + [text for r in self.registers.values() if (text := linearizable(r))]


class ClientActor:
    """One client at work."""

    def __init__(self, world: World, index: int, seen: Seen) -> None:
        self._loop = world.loop
        self._rng: Rng = world.rng(f"actor{index}")
        self._fs: AsyncFileSystem = world.clients[index]
        self._index = index
        self._seen = seen
        self._own: dict[str, int] = {}
        """Small files of this client: path -> value."""
        self._made = 0
        self._private = PrivateFiles(self._fs, DIRECTORY, f"b{index}-", world.rng(f"private{index}"))

    async def run(self, operation_count: int) -> None:
        """Do so many operations; what an application must never see is noted."""
        actions: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (6, self.write_block), (10, self.read_block), (3, self.create_small), (2, self.read_small),
            (2, self.list_own), (1, self.remove_small), (1, self.rename_small), (4, self.change_private),
        ]  # fmt: skip
        weights = [weight for weight, _ in actions]
        for _ in range(operation_count):
            ((_, action),) = self._rng.choices(actions, weights)
            try:
                await action()
            except OSError as error:
                self._seen.problems.append(f"client {self._index}, {action.__name__}: {error!r}")
            self._seen.operation_count += 1
            if self._rng.random() < 0.2:
                await asyncio.sleep(self._rng.uniform(0, 0.2))

    def _file(self) -> str:
        return self._rng.choice((SHARED, f"{DIRECTORY}/of{self._index}"))

    async def write_block(self) -> None:
        """Overwrite one block, durably."""
        path, block, value = self._file(), self._rng.randrange(BLOCKS), self._seen.value()
        register = self._seen.register(path, block)
        async with await self._fs.open(path, "r+b") as file:
            register.began(value, self._loop.time())
            await file.pwrite(stamped(value, block), block * BLOCK_BYTES)
            await file.fsync()
            register.ended(value, self._loop.time())

    async def read_block(self) -> None:
        """Read one block of any file."""
        other = self._rng.randrange(-1, 3)
        path = SHARED if other < 0 else f"{DIRECTORY}/of{other}"
        await self._read_block(path, self._rng.randrange(BLOCKS))

    async def read_everything(self) -> None:
        """Whatever was acknowledged is there: every block, every small file, the directory."""
        for path in (SHARED, f"{DIRECTORY}/of{self._index}"):
            for block in range(BLOCKS):
                await self._read_block(path, block)
        for path in self._own:
            await self._check_small(path)
        await self.list_own()
        await self._private.check_all()
        self._seen.problems += self._private.problems

    async def change_private(self) -> None:
        """Something with a file of several chunks that nobody else touches."""
        await self._private.change()

    async def _read_block(self, path: str, block: int) -> None:
        async with await self._fs.open(path, "rb") as file:
            start_s = self._loop.time()
            data = await file.pread(BLOCK_BYTES, block * BLOCK_BYTES)
            end_s = self._loop.time()
        value = value_of(data, block)
        register = self._seen.register(path, block)
        if len(data) != BLOCK_BYTES or value is None:
            self._seen.problems.append(f"{register.name}: torn or short: {data[:32]!r}… of {len(data)}")
        elif problem := register.read(value, start_s, end_s):
            self._seen.problems.append(problem)

    async def create_small(self) -> None:
        """Create a file with content; it must not be there yet."""
        self._made += 1
        path, value = f"{DIRECTORY}/s{self._index}-{self._made}", self._seen.value()
        async with await self._fs.open(path, "xb") as file:
            await file.write(STAMP.pack(value, self._index))
        self._own[path] = value

    async def read_small(self) -> None:
        """Read back a file of ours."""
        if self._own:
            await self._check_small(self._rng.choice(list(self._own)))

    async def _check_small(self, path: str) -> None:
        data = await self._fs.read_file(path)
        if data != STAMP.pack(self._own[path], self._index):
            self._seen.problems.append(f"{path}: {data!r} is not what was written")

    async def list_own(self) -> None:
        """All our files, and no others of ours, are in the directory."""
        prefix = f"s{self._index}-"
        names = await self._fs.listdir(DIRECTORY)
        ours = {f"{DIRECTORY}/{name}" for name in names if name.startswith(prefix)}
        if ours != set(self._own):
            self._seen.problems.append(f"client {self._index} lists {ours ^ set(self._own)} wrongly")

    async def remove_small(self) -> None:
        """Remove a file of ours; it must be there."""
        if self._own:
            path = self._rng.choice(list(self._own))
            await self._fs.remove(path)
            del self._own[path]

    async def rename_small(self) -> None:
        """Rename a file of ours."""
        if self._own:
            self._made += 1
            path, new = self._rng.choice(list(self._own)), f"{DIRECTORY}/s{self._index}-{self._made}"
            await self._fs.rename(path, new)
            self._own[new] = self._own.pop(path)


async def prepare(world: World) -> None:
    """Make the files that all write to, full of zeros in effect (holes)."""
    fs = world.clients[0]
    await fs.set_layout(DIRECTORY, Layout(chunk_size_bytes=CHUNK_BYTES))
    for path in (SHARED, *(f"{DIRECTORY}/of{i}" for i in range(len(world.clients)))):
        async with await fs.open(path, "wb") as file:
            await file.truncate(BLOCKS * BLOCK_BYTES)
