"""The whole system in the simulated world: what the metadata service does to the chunks of real nodes."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable

import pytest

from fs3.client.file import AsyncFile
from fs3.client.filesystem import AsyncFileSystem
from fs3.kv.faults import FaultRates
from fs3.layout import Layout
from tests.sim.cluster import World, WorldShape
from tests.sim.loop import SimLoop, run_virtual
from tests.sim.wires import LinkFaults

CHUNK = 64 * 1024
SHAPE = WorldShape(meta_count=2, storage_count=3, targets_per_node_count=2, replication=3, client_count=2)


def run(body: Callable[[World, AsyncFileSystem, AsyncFileSystem], Awaitable[None]]) -> None:
    """Run ``body`` with two clients in a world without faults."""

    async def work() -> None:
        world = World(1, SHAPE, LinkFaults(), FaultRates())
        await world.start()
        await world.clients[0].set_layout("/work", Layout(chunk_size_bytes=CHUNK))
        await body(world, world.clients[0], world.clients[1])
        await world.stop_clients()
        await world.stop_servers()
        assert world.failures == []

    run_virtual(work(), SimLoop())


def chunks(world: World) -> list[int]:
    """Lengths of all chunks that are not removed, replicas included."""
    return [
        state.committed.length_bytes
        for server in world.storages.values()
        if server.targets
        for runner in server.targets.by_chain.values()
        for _, state in runner.store.list_chunks(limit=100_000)
        if state.committed is not None and not state.committed.removed
    ]


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait for it."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.5)


async def _write_now(file: AsyncFile, data: bytes) -> None:
    await file.pwrite(data, 0)
    await file.flush()


def test_truncate_cuts_every_replica_and_the_file_goes_on() -> None:
    async def body(world: World, one: AsyncFileSystem, two: AsyncFileSystem) -> None:
        data = bytes(range(256)) * (5 * CHUNK // 256)
        await one.write_file("/work/f", data)
        assert await two.read_file("/work/f") == data
        assert sorted(chunks(world)) == [CHUNK] * 15
        await two.truncate("/work/f", CHUNK + 100)
        assert sorted(chunks(world)) == [100] * 3 + [CHUNK] * 3
        assert await one.read_file("/work/f") == data[: CHUNK + 100]
        async with await one.open("/work/f", "r+b") as file:
            await file.pwrite(b"new", 3 * CHUNK)
        expected = data[: CHUNK + 100] + bytes(2 * CHUNK - 100) + b"new"
        assert await two.read_file("/work/f") == expected
        await one.truncate("/work/f", 0)
        assert chunks(world) == []
        await one.write_file("/work/f", b"small again")
        assert await two.read_file("/work/f") == b"small again"

    run(body)


def test_a_removed_tree_leaves_no_chunk() -> None:
    async def body(world: World, one: AsyncFileSystem, two: AsyncFileSystem) -> None:
        for number in range(4):
            await one.makedirs(f"/work/t/{number}", exist_ok=True)
            await one.write_file(f"/work/t/{number}/big", bytes(2 * CHUNK + number))
            await one.write_file(f"/work/t/{number}/small", b"x")
        assert len(chunks(world)) == 33
        await two.rmtree("/work/t")
        assert await one.listdir("/work") == []
        await until(lambda: not chunks(world))

    run(body)


def test_a_reader_of_a_removed_file_gets_an_error_and_never_zeros() -> None:
    async def body(world: World, one: AsyncFileSystem, two: AsyncFileSystem) -> None:
        data = b"d" * (3 * CHUNK)
        await one.write_file("/work/f", data)
        async with await two.open("/work/f", "rb") as file:
            assert await file.pread(10, 0) == b"d" * 10
            await one.remove("/work/f")
            await until(lambda: not chunks(world))
            with pytest.raises(OSError, match=r".") as caught:
                await file.pread(10, 2 * CHUNK)
            assert caught.value.errno == errno.ESTALE

    run(body)


def test_a_writer_that_is_gone_is_settled_on_the_chains() -> None:
    async def body(world: World, one: AsyncFileSystem, two: AsyncFileSystem) -> None:
        file = await one.open("/work/f", "wb")
        await file.pwrite(b"w" * (2 * CHUNK + 5), 0)
        await file.flush()
        await file.pwrite(b"w" * CHUNK, 2 * CHUNK + 5)
        await asyncio.sleep(2)
        world.net.cut("client0", "meta0")
        world.net.cut("client0", "meta1")
        await asyncio.sleep(120)
        found = await two.attributes("/work/f")
        assert not found.settling
        assert 2 * CHUNK + 5 <= found.length_bytes <= 3 * CHUNK + 5
        content = await two.read_file("/work/f")
        assert content == b"w" * found.length_bytes
        async with await two.open("/work/f", "r+b") as mine:
            await mine.pwrite(b"mine", 0)
        world.net.heal()
        with pytest.raises(OSError, match=r"."):
            await _write_now(file, b"late")
        assert (await two.read_file("/work/f"))[:6] == b"minew" + b"w"
        with pytest.raises(OSError, match=r"."):
            await file.close()

    run(body)
