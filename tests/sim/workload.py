"""What the simulated clients do, all of it noted in ``Seen``.

Clients work in bursts: at the same moment all of them turn to the same chunk of a shared file, and write
parts of it, cut the file there, and read it, alone and in batches. Between that they append to logs, and
make, read, exchange and remove files of their own. Each client has several lanes, each with its own handles,
as processes of one machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fs3.client.file import AsyncFile
from fs3.client.filesystem import AsyncFileSystem
from fs3.layout import Layout
from fs3.rng import Rng
from fs3.tasks import TaskScope

from .blocks import BLOCK_BYTES, BLOCKS, CHUNK_BYTES, CHUNKS, FULL_BYTES, place, stamped, values_of
from .cluster import World
from .history import ChunkHistory, ChunkOp
from .private_files import PrivateFiles
from .seen import LINEARIZABLE, NO_ERROR, ONCE, SURVIVE, Seen
from .small_files import AppendedFile, SmallFiles

DIRECTORY = "/work"
SHARED = tuple(f"{DIRECTORY}/shared{i}" for i in range(2))
LANES = 2
"""Of each client."""
TOLD_LATE_S = 30.0
"""What was written behind may be refused so much later."""
REOPEN_SHARE = 0.05
"""Of uses of a handle that open it anew."""
Target = tuple[str, int]
"""A shared file and the number of one of its chunks."""


@dataclass(frozen=True, slots=True)
class Burst:
    """A moment at which all turn to one chunk."""

    at_s: float
    """After the beginning."""
    target: Target
    race: str
    """A name that all may try to make: one succeeds."""


def bursts(rng: Rng, count: int, span_s: float) -> list[Burst]:
    """So many, spread over a time; the last one ends it, so that work lasts as long."""
    times = [*sorted(rng.uniform(0, span_s) for _ in range(count - 1)), span_s]
    return [
        Burst(at_s, (rng.choice(SHARED), rng.randrange(CHUNKS)), f"{DIRECTORY}/race{number}")
        for number, at_s in enumerate(times)
    ]


class Races:
    """Names that several clients try to make at the same time."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._winners: dict[str, int] = {}

    async def run(self, fs: AsyncFileSystem, path: str) -> None:
        """Try to be the one who makes it."""
        self._winners.setdefault(path, 0)
        try:
            file = await fs.open(path, "xb")
        except FileExistsError:
            return
        self._winners[path] += 1
        await file.close()

    def judge(self) -> None:
        """Each name was made by exactly one."""
        for path, count in self._winners.items():
            if count != 1:
                self._seen.wrong(ONCE, f"{path} was made by {count} clients at once")


class ClientActor:
    """One client at work, in several lanes."""

    def __init__(self, world: World, index: int, seen: Seen, races: Races) -> None:
        self._world = world
        self._fs: AsyncFileSystem = world.clients[index]
        self._seen = seen
        self._races = races
        self._name = f"client{index}"
        self.appended = AppendedFile(world, self._fs, f"{DIRECTORY}/log{index}", seen)
        self.small = SmallFiles(world, self._fs, DIRECTORY, index, seen)
        rng = world.rng(f"private{index}")
        self.private = PrivateFiles(self._fs, DIRECTORY, f"b{index}-", rng, seen.problems)
        self._lanes = [Lane(self, world, seen, number) for number in range(LANES)]
        reader = self._fs.core.reader
        self._note_read, reader.note = reader.note, self._noted  # type: ignore[method-assign]  # to count

    def _noted(self, batch: object, took_s: float) -> None:
        """A request for pieces was answered: by which member of each chain?"""
        routing = self._fs.core.components.routing.routing
        for piece in batch.pieces:  # type: ignore[attr-defined]
            info = routing.chains.get(piece.chain)
            serving = [routing.address_of(m.target) for m in info.serving] if info is not None else []
            if len(serving) == self._world.shape.replication and batch.address in serving:  # type: ignore[attr-defined]
                self._seen.shares.reads_at[f"member {serving.index(batch.address)}"] += 1  # type: ignore[attr-defined]
        self._note_read(batch, took_s)  # type: ignore[arg-type]

    @property
    def fs(self) -> AsyncFileSystem:
        return self._fs

    @property
    def name(self) -> str:
        return self._name

    async def race(self, path: str) -> None:
        """See ``Races``."""
        await self._races.run(self._fs, path)

    async def run(self, schedule: list[Burst], operation_count: int) -> None:
        """Do ``operation_count`` operations a lane in each burst."""
        await self.appended.make()
        async with TaskScope(self._name, self._world.failed) as scope:
            lanes = [
                scope.start(f"{self._name} lane {n}", lane.run(schedule, operation_count))
                for n, lane in enumerate(self._lanes)
            ]
            for lane in lanes:
                await lane

    async def read_everything(self) -> None:
        """Whatever was acknowledged is there: every block, log, small and private file."""
        for lane in self._lanes:
            await lane.close()  # a handle may believe an old length for a second
        for path in SHARED:
            await self._fs.truncate(path, FULL_BYTES)
            for chunk in range(CHUNKS):
                await self._lanes[0].read(self._seen.histories[path, chunk], chunk, 0, BLOCKS, is_final=True)
        await self.appended.check_all()
        await self.small.check_all()
        await self.private.check_all()
        for lane in self._lanes:
            await lane.close()


class Lane:
    """One thread of work of a client."""

    def __init__(self, actor: ClientActor, world: World, seen: Seen, number: int) -> None:
        self._actor = actor
        self._world = world
        self._seen = seen
        self._loop = world.loop
        self._rng = world.rng(f"{actor.name}/{number}")
        self._name = f"{actor.name}.{number}"
        self._handles: dict[tuple[str, str], AsyncFile] = {}
        self._burst: Burst
        self._begun: list[ChunkOp] = []
        """By the present action."""
        self._began_s = 0.0
        self._actions: list[tuple[str, int, Callable[[], Awaitable[None]]]] = [
            ("write", 26, self._write), ("read", 26, self._read), ("batch", 12, self._batch),
            ("cut", 2, self._cut), ("append", 6, actor.appended.append), ("small", 16, actor.small.change),
            ("race", 2, self._race), ("private", 4, actor.private.change),
        ]  # fmt: skip
        self._weights = [weight for _, weight, _ in self._actions]

    async def run(self, schedule: list[Burst], operation_count: int) -> None:
        """Do so many operations in each burst; what an application must never see is noted."""
        start_s = self._loop.time()
        for burst in schedule:
            self._burst = burst
            await asyncio.sleep(
                max(0.0, start_s + burst.at_s + self._rng.random() * 0.001 - self._loop.time())
            )
            for _ in range(operation_count):
                ((kind, _, action),) = self._rng.choices(self._actions, self._weights)
                self._begun, self._began_s = [], self._loop.time()
                try:
                    await action()
                except OSError as error:
                    await self._failed(kind, error)
                self._seen.did(kind)

    async def _failed(self, kind: str, error: OSError) -> None:
        """A full disk refuses new chunks; spoiled bytes may be all there is. Nothing else is to be seen."""
        now_s = self._loop.time()
        for op in self._begun:
            op.lapses_s = min(op.lapses_s, now_s)
        world, since_s = self._world, self._began_s - TOLD_LATE_S
        if error.errno == errno.EIO and world.may_lack_right_bytes(since_s):
            self._seen.did("refused: no right bytes")
            return
        if error.errno == errno.ENOSPC and world.may_be_full(since_s):
            self._seen.did("refused: no space")
            with contextlib.suppress(OSError):
                await self.close()
            return
        history = self._seen.histories[self._burst.target] if kind in ("write", "read", "cut") else None
        self._seen.wrong(NO_ERROR, f"{self._name}, {kind} {self._burst.target}: {error!r}", history)

    async def close(self) -> None:
        """All handles."""
        while self._handles:
            _, handle = self._handles.popitem()
            await handle.close()

    async def _handle(self, path: str, mode: str) -> AsyncFile:
        handle = self._handles.get((path, mode))
        if handle is not None and self._rng.random() < REOPEN_SHARE:
            del self._handles[path, mode]
            await handle.close()
            handle = None
        if handle is None:
            handle = self._handles[path, mode] = await self._actor.fs.open(path, mode)
        return handle

    def _blocks(self) -> tuple[int, int]:
        """Some neighbouring blocks: first, how many."""
        first = self._rng.randrange(BLOCKS)
        return first, self._rng.randint(1, min(3, BLOCKS - first))

    def _begin(self, kind: str, history: ChunkHistory, first: int, values: tuple[int, ...] = ()) -> ChunkOp:
        op = history.begin(kind, self._name, self._loop.time(), first, values)
        self._begun.append(op)
        return op

    async def _write(self) -> None:
        """Some blocks; to the disks, and sometimes also for all to see how long the file is."""
        (path, chunk), (first, count) = self._burst.target, self._blocks()
        value = self._seen.value()
        file = await self._handle(path, "r+b")
        op = self._begin("write", self._seen.histories[path, chunk], first, (value,) * count)
        data = b"".join(stamped(value, chunk, block) for block in range(first, first + count))
        await file.pwrite(data, place(chunk, first))
        await (file.fsync() if self._rng.random() < 0.2 else file.flush())
        op.ended(self._loop.time())

    async def _cut(self) -> None:
        """The file ends in this chunk; sometimes it is given its old length at once."""
        path, chunk = self._burst.target
        first = self._rng.randrange(BLOCKS)
        by_handle = self._rng.random() < 0.5
        file = await self._handle(path, "r+b") if by_handle else None
        ops = [
            self._begin("cut", self._seen.histories[path, number], first if number == chunk else 0)
            for number in range(chunk, CHUNKS)
        ]
        length = place(chunk, first)
        await (file.truncate(length) if file is not None else self._actor.fs.truncate(path, length))
        for op in ops:
            op.ended(self._loop.time())
        if self._rng.random() < 0.7:
            await self._actor.fs.truncate(path, FULL_BYTES)

    async def _read(self) -> None:
        path, chunk = self._burst.target
        first = self._rng.choice((0, self._rng.randrange(BLOCKS)))
        await self.read(self._seen.histories[path, chunk], chunk, first, BLOCKS - first)

    async def read(
        self, history: ChunkHistory, chunk: int, first: int, count: int, *, is_final: bool = False
    ) -> None:
        """Read some blocks of one chunk."""
        path = history.name.partition("#")[0]
        file = await self._handle(path, "rb")
        op = self._begin("read", history, first)
        op.is_final = is_final
        data = await file.pread(count * BLOCK_BYTES, place(chunk, first))
        self._saw(op, history, data, chunk, count)

    def _saw(
        self, op: ChunkOp, history: ChunkHistory, data: bytes | memoryview, chunk: int, count: int
    ) -> None:
        op.ended(self._loop.time())
        values = values_of(data, chunk, op.first, count)
        if isinstance(values, str) or (op.is_final and len(data) < count * BLOCK_BYTES):
            checker = SURVIVE if op.is_final else LINEARIZABLE
            self._seen.wrong(checker, f"{history.name}, {op}: {values}, {len(data)} bytes", history)
        else:
            op.values = values

    async def _batch(self) -> None:
        """Ranges of several chunks and files at once, the burst's own among them."""
        others = [(path, chunk) for path in SHARED for chunk in range(CHUNKS)]
        targets = {self._burst.target: None, **dict.fromkeys(self._rng.sample(others, 3))}
        files = {path: await self._handle(path, "rb") for path in {path: None for path, _ in targets}}
        parts = [(target, *self._blocks()) for target in targets]
        ops = [self._begin("read", self._seen.histories[target], first) for target, first, _ in parts]
        found = await self._actor.fs.read_batch(
            [(files[path], place(chunk, first), count * BLOCK_BYTES) for (path, chunk), first, count in parts]
        )
        for op, data, ((path, chunk), _, count) in zip(ops, found, parts, strict=True):
            self._saw(op, self._seen.histories[path, chunk], data, chunk, count)

    async def _race(self) -> None:
        await self._actor.race(self._burst.race)


async def prepare(world: World, seen: Seen) -> None:
    """Make the files that all write to, full of zeros in effect (holes)."""
    fs = world.clients[0]
    await fs.set_layout(DIRECTORY, Layout(chunk_size_bytes=CHUNK_BYTES))
    for path in SHARED:
        async with await fs.open(path, "wb") as file:
            await file.truncate(FULL_BYTES)
        inode = (await fs.attributes(path)).inode
        for chunk in range(CHUNKS):
            seen.add_history(path, inode, chunk, BLOCKS)
