"""Reads leave servers that say nothing within a second, whatever else goes on."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from fs3.client.file import AsyncFile
from fs3.client.filesystem import AsyncFileSystem
from fs3.errors import Busy
from tests.client.test_faults import DATA, MIB, timed, with_file
from tests.client.world import STORAGE_NODES, ClientWorld

NODES = range(1, STORAGE_NODES + 1)


@pytest.mark.parametrize(("dead", "silent"), list(itertools.permutations(NODES, 2)))
def test_one_replica_that_answers_is_enough(dead: int, silent: int) -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        world.node(dead).is_dead = True
        world.node(silent).is_silent = True
        assert await timed(world, file) < 1.0

    with_file(body)


@pytest.mark.parametrize("silent", list(itertools.combinations(NODES, 2)))
def test_two_silent_nodes_stall_a_read_less_than_a_second(silent: tuple[int, int]) -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for number in silent:
            world.node(number).is_silent = True
        for start in range(0, len(DATA), MIB):
            await asyncio.sleep(100)  # nobody is suspected any more
            assert await timed(world, file, start, 4096) < 1.0

    with_file(body)


@pytest.mark.parametrize("number", NODES)
def test_a_silent_node_is_left_also_when_no_hedge_is_left(number: int) -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        fs.core.reader.hedges._tokens = -100.0
        world.node(number).is_silent = True
        reads = [
            fs.core.scope.start("read", timed(world, file, start, 4096))
            for start in range(0, 8 * MIB, MIB // 8)
        ]
        assert max([await read for read in reads]) < 1.0

    with_file(body)


def test_a_server_that_is_only_slow_is_not_asked_twice_when_no_hedge_is_left() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for number in NODES:
            world.node(number).delay_s = 0.4
        fs.core.reader.hedges._tokens = -100.0
        reads = [fs.core.scope.start("first", timed(world, file, 0, 4096))]
        for _ in range(8):  # always one that has just been answered
            await asyncio.sleep(0.1)
            reads += [fs.core.scope.start("next", timed(world, file, 0, 4096))]
        for read in reads:
            await read
        assert fs.core.reader.counters.hedges == 0

    with_file(body)


def test_a_chunk_whose_write_is_not_settled_is_waited_for() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for number in NODES:
            world.node(number).refuse_reads = [Busy("a version is pending")] * 20
        assert await timed(world, file, 0, 4096) < 8.0

    with_file(body)
