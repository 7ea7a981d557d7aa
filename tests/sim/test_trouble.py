"""Each family of faults alone: it strikes, no acknowledged write is lost or read stale, all come up again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Iterator

import pytest

from fs3.client.file import AsyncFile
from fs3.kv.faults import FaultRates
from fs3.layout import Layout
from fs3.tasks import TaskScope

from .aftermath import settled
from .cluster import World, WorldShape
from .faults.family import Source
from .faults.servers import Everything, StorageNodes
from .loop import SimLoop, run_virtual
from .trouble import FAMILIES, KINDS, Trouble
from .wires import LinkFaults
from .workload import DIRECTORY

BLOCK_BYTES = 4096
SPAN_S = 40.0
QUICK: list[type[Source]] = [StorageNodes, Everything]
BLOCKS = 10
"""Of a file, a chunk each: so all chains have some."""
CHUNK_BYTES = 64 * 1024


class Counter:
    """A file in each block of which one writer counts up; whoever reads may be told nothing older than what
    had been acknowledged when the read began."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._begun, self._acknowledged = [0] * BLOCKS, [0] * BLOCKS
        self._is_over = False
        self.read_count = 0

    async def prepare(self) -> None:
        """Make the file."""
        fs = self._world.clients[0]
        await fs.set_layout(DIRECTORY, Layout(chunk_size_bytes=CHUNK_BYTES))
        async with await fs.open(f"{DIRECTORY}/counter", "wb") as file:
            await file.truncate(BLOCKS * CHUNK_BYTES)

    def end(self) -> None:
        """Let all come to an end."""
        self._is_over = True

    async def write(self, index: int) -> None:
        """A client's part of the counting: every third block."""
        rng, client = self._world.rng(f"writer{index}"), self._world.clients[index]
        with self._unless_full():
            async with await client.open(f"{DIRECTORY}/counter", "r+b") as file:
                while not self._is_over:
                    with self._unless_full():
                        await self._count(file, rng.randrange(index, BLOCKS, 3))
                    await asyncio.sleep(rng.uniform(0, 0.3))

    async def _count(self, file: AsyncFile, block: int) -> None:
        value = self._begun[block] = self._begun[block] + 1
        await file.pwrite(value.to_bytes(8, "little") * (BLOCK_BYTES // 8), block * CHUNK_BYTES)
        await file.fsync()
        self._acknowledged[block] = value

    @contextlib.contextmanager
    def _unless_full(self) -> Iterator[None]:
        began_s = self._world.loop.time()
        try:
            yield
        except OSError as error:
            if error.errno != errno.ENOSPC or not self._world.may_be_full(began_s):
                raise

    async def read(self, index: int) -> None:
        """Another one reads what it likes."""
        rng, client = self._world.rng(f"reader{index}"), self._world.clients[index]
        async with await client.open(f"{DIRECTORY}/counter", "rb") as file:
            while not self._is_over:
                await self._read(file, rng.randrange(BLOCKS))
                await asyncio.sleep(rng.uniform(0, 0.1))

    async def read_all(self) -> None:
        """What was acknowledged last is there."""
        async with await self._world.clients[0].open(f"{DIRECTORY}/counter", "rb") as file:
            for block in range(BLOCKS):
                await self._read(file, block)

    async def _read(self, file: AsyncFile, block: int) -> None:
        least = self._acknowledged[block]
        data = await file.pread(BLOCK_BYTES, block * CHUNK_BYTES)
        value = int.from_bytes(data[:8], "little")
        self.read_count += 1
        assert data == value.to_bytes(8, "little") * (BLOCK_BYTES // 8), f"block {block} is torn"
        assert least <= value <= self._begun[block], (block, least, value, self._begun[block])


async def befall(seed: int, family: type[Source]) -> dict[str, int]:
    """What struck while clients were at work."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    faults = LinkFaults()
    world = World(seed, WorldShape(), faults, FaultRates())
    await world.start()
    counter = Counter(world)
    await counter.prepare()
    trouble = Trouble(world, world.rng("trouble"), (family,))
    async with TaskScope("test", world.failed) as scope:
        befalling = scope.start("trouble", trouble.run())
        works = [
            scope.start(f"{w.__name__} {i}", w(i)) for w in (counter.write, counter.read) for i in range(3)
        ]
        done, _ = await asyncio.wait(works, timeout=SPAN_S, return_when=asyncio.FIRST_EXCEPTION)
        trouble.end()
        counter.end()
        await befalling
        for work in (*done, *works):
            await work
    world.calm()
    assert not await settled(world)
    await counter.read_all()
    await world.stop_clients()
    await world.stop_servers()
    assert not world.failures
    assert counter.read_count > 50
    return faults.counts


def test_every_kind_of_fault_has_a_name_of_its_own() -> None:
    assert len(set(KINDS)) == len(KINDS)
    assert all(family.kinds for family in FAMILIES)


def strikes(family: type[Source], seed: int) -> None:
    """It does, and nothing is wrong."""
    counts = run_virtual(befall(seed, family), SimLoop())
    assert any(kind in counts for kind in family.kinds), counts


@pytest.mark.parametrize("family", QUICK, ids=lambda family: family.__name__)
def test_a_family_of_faults_alone(family: type[Source]) -> None:
    strikes(family, 1)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_each_family_of_faults_alone(family: type[Source]) -> None:
    strikes(family, 2)
