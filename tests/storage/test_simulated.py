"""A chain of real storage nodes under virtual time: power cuts, lost connections, a checked history."""

from __future__ import annotations

import asyncio

import pytest

from fs3.ids import ChunkId
from fs3.wire.chunk import UpdateKind
from tests.sim.disk import PowerCut

from .simulated import FIRST, INODE, SimUser, StorageWorld, run_storage

CHUNKS = [ChunkId(INODE, i) for i in range(3)]


async def _writer(world: StorageWorld, user: SimUser, count: int) -> None:
    for number in range(count):
        kind = user.rng.choice((UpdateKind.WRITE, UpdateKind.WRITE, UpdateKind.REPLACE))
        offset = user.rng.choice((0, 7, 4096)) if kind is UpdateKind.WRITE else 0
        data = f"<{user.session}.{number}>".encode() * user.rng.randrange(1, 400)
        await user.write(user.rng.choice(CHUNKS), kind, offset, data)
        await asyncio.sleep(user.rng.random() * 0.2)


async def _reader(user: SimUser) -> None:
    while True:
        await user.read(user.rng.choice(CHUNKS))
        await asyncio.sleep(user.rng.random() * 0.05)


async def _faults(world: StorageWorld, end_s: float) -> None:
    while world.loop.time() < end_s:
        await asyncio.sleep(world.rng.random() * 3)
        if world.servers:
            number = world.rng.choice(sorted(world.servers))
            await world.power_cut(number)
            await asyncio.sleep(world.rng.random() * 2)
            await world.start_storage(number)


async def _scenario(world: StorageWorld) -> None:
    await world.storage_cluster()
    users = [world.user(100 + i) for i in range(4)]
    readers = [world.scope.spawn(f"reader {i}", _reader(users[i])) for i in (2, 3)]
    writers = [world.scope.start(f"writer {i}", _writer(world, users[i], 12)) for i in (0, 1)]
    faults = world.scope.start("faults", _faults(world, world.loop.time() + 8))
    await faults
    async with asyncio.timeout(60):
        for writer in writers:
            await writer
    await world.until(world.chain_serves, 20.0, "the chain serves again")
    runners = [world.runner(number) for number in sorted(world.servers)]
    await world.until(lambda: not any(r.replica.pending_count for r in runners), 5.0, "all is resolved")
    for reader in readers:
        reader.cancel()
    stores = [runner.store for runner in runners]
    for chunk in CHUNKS:
        versions = [store.versions(chunk).committed for store in stores]
        assert versions[0] is not None
        assert versions == [versions[0]] * len(stores)
        assert not any(store.verify_chunk(chunk) for store in stores)
    world.history.check({})
    assert sum(s.is_write for s in world.history.seen) == 24
    assert sum(not s.is_write for s in world.history.seen) > 20
    for user in users:
        await user.close()


@pytest.mark.parametrize("seed", range(5))
def test_power_cuts(seed: int) -> None:
    world = run_storage(_scenario, seed)
    wrong = [e for e in world.events if e["event"] in ("target offline", "bug")]
    # the last words of a process whose machine lost its power are none
    assert not [e for e in wrong if PowerCut.__name__ not in str(e.get("reason"))]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_more_power_cuts(seed: int) -> None:
    test_power_cuts(seed)


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = (run_storage(_scenario, 3) for _ in range(2))
    assert first.history == second.history
    assert first.events == second.events


def test_everybody_loses_power_at_once() -> None:
    async def scenario(world: StorageWorld) -> None:
        await world.storage_cluster()
        user = world.user(100)
        await user.write(CHUNKS[0], UpdateKind.WRITE, 0, b"kept" * 1000)
        for number in sorted(world.servers):
            await world.power_cut(number)
        for number in range(FIRST, FIRST + 3):
            await world.start_storage(number)
        took_s = await world.until(world.chain_serves, 15.0, "serving again")
        assert took_s < 15
        for _ in range(3):
            await user.read(CHUNKS[0])
        assert world.history.seen[-1].content == b"kept" * 1000
        await user.close()

    run_storage(scenario, 1)
