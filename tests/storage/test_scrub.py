"""Bytes that go bad where nobody reads: found by the scrub, mended by the chain; when, and how fast."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fs3.ids import ChunkId
from fs3.rpc.buffers import aligned_payload
from fs3.storage.engine.scrubbing import PIECE_BYTES, Scrubbed
from fs3.storage.engine.store import ChunkStore
from fs3.storage.engine.versions import ScrubMark
from fs3.storage.scrub_round import LOAD_BYTES_S, Bucket, Load, ScrubSettings, is_behind, is_due
from fs3.storage.server import StorageServer
from fs3.wire.chunk import SUM_BLOCK_BYTES, UpdateKind

from .engine.shop import MIB, SimShop, apply, chunk, content, identity, pattern, write
from .simulated import FIRST, INODE, StorageWorld, run_storage

DAY_S = 86400.0


# -- when and how fast


def test_a_round_is_due_once_in_its_time() -> None:
    every_s = 100.0
    assert is_due(ScrubMark(), 1, every_s)
    assert is_due(ScrubMark(began_ms=5), 6, every_s)
    assert not is_due(ScrubMark(ended_ms=1000), 100_999, every_s)
    assert is_due(ScrubMark(ended_ms=1000), 101_000, every_s)
    assert is_due(ScrubMark(ended_ms=1000), 999, every_s)  # cluster time began anew


def test_a_round_is_behind_when_less_was_read_than_time_has_passed() -> None:
    mark = ScrubMark(began_ms=1000, chunk_count=500)
    assert not is_behind(mark, 1000, 1000 + 50_000, 100.0)
    assert is_behind(mark, 1000, 1000 + 50_001, 100.0)
    assert not is_behind(mark, 0, 1 << 40, 100.0)


def test_the_load_is_measured_over_a_while() -> None:
    load, one = Load(), LOAD_BYTES_S
    notes = [(0, 10.0), (one, 10.4), (one, 10.5), (2 * one, 11.5)]
    seen = []
    for total_bytes, now_s in notes:
        load.note(1e12 + total_bytes, now_s)
        seen.append(load.is_high)
    assert seen == [False, False, True, False]  # exactly as much is no load yet


def test_the_rate_is_kept() -> None:
    bucket = Bucket(1000.0)
    waits = [bucket.take(250, 10.0) for _ in range(4)]
    assert waits == [0.0, 0.0, 0.25, 0.5]  # the first comes out of what was not used
    assert bucket.take(1, 100.0) == 0.0


# -- one chunk of one store


def scrubbed(store: ChunkStore, number: int) -> Scrubbed:
    return store.scrub_chunk(chunk(number), aligned_payload(PIECE_BYTES))


def region_of(store: ChunkStore, number: int) -> tuple[str, int]:
    handle = store.read(chunk(number), None, 0, 1)
    handle.release()
    return handle.regions[0].file.path, handle.regions[0].offset_bytes


@pytest.mark.parametrize("length", [1, 4096, 70_000, MIB, 3 * MIB + 17])
def test_every_block_is_looked_at(length: int) -> None:
    shop = SimShop()
    store = shop.create()
    apply(store, write(chunk(0), identity(1), pattern(length)))
    assert scrubbed(store, 0) == ((), length)
    path, at = region_of(store, 0)
    count = -(-length // SUM_BLOCK_BYTES)
    for number in {0, count // 2, count - 1}:
        where = at + min(length - 1, (number + 1) * SUM_BLOCK_BYTES - 1)
        shop.disk.flip(path, where)
        assert scrubbed(store, 0).bad == (number,)
        shop.disk.flip(path, where)
    if length % SUM_BLOCK_BYTES:
        shop.disk.flip(path, at + length)  # behind the content: nobody's business
    assert scrubbed(store, 0).bad == ()
    store.close()


def test_what_cannot_be_read_is_bad_and_the_rest_is_not() -> None:
    shop = SimShop()
    store = shop.create()
    apply(store, write(chunk(0), identity(1), pattern(MIB)))
    path, at = region_of(store, 0)
    shop.disk.make_unreadable(path, at + 3 * SUM_BLOCK_BYTES + 100, 1)
    shop.disk.flip(path, at + 9 * SUM_BLOCK_BYTES)
    assert scrubbed(store, 0) == ((3, 9), MIB)
    store.close()


def test_a_pending_version_is_looked_at_too() -> None:
    shop = SimShop()
    store = shop.create()
    apply(store, write(chunk(0), identity(1), pattern(1000)))
    store.stage([write(chunk(0), identity(2), pattern(SUM_BLOCK_BYTES))])
    assert scrubbed(store, 0) == ((), 1000 + SUM_BLOCK_BYTES)
    assert scrubbed(store, 1) == ((), 0)  # there is none
    store.close()


def test_a_ragged_read_sees_what_the_scrub_saw() -> None:
    shop = SimShop()
    store = shop.create()
    apply(store, write(chunk(0), identity(1), pattern(MIB)))
    content(store, chunk(0))
    buffer = memoryview(bytearray(10))
    store.read_into(chunk(0), None, 5, buffer, wait=True)  # the block was checked: it is believed from now on
    path, at = region_of(store, 0)
    shop.disk.flip(path, at + 7)
    with pytest.raises(AssertionError):  # whole blocks are the reader's to check; now it is in the page cache
        content(store, chunk(0))
    assert store.read_into(chunk(0), None, 5, buffer) is not None
    assert bytes(buffer) != pattern(MIB)[5:15]  # wrong bytes, and a sum that matches them
    assert scrubbed(store, 0).bad == (0,)
    with pytest.raises(Exception, match="fails its sum"):
        store.read_into(chunk(0), None, 5, buffer, wait=True)
    store.close()


def test_the_position_outlives_the_process_once_something_is_durable() -> None:
    shop = SimShop()
    store = shop.create()
    assert store.scrub_mark() == ScrubMark()
    mark = ScrubMark(5, 3, 1 << 40, 9, 2, chunk(7))
    store.note_scrub(mark)
    assert store.scrub_mark() == mark
    store.close()
    shop.disk = shop.disk.after_kill()
    store = shop.open()
    assert store.scrub_mark() == mark
    store.note_scrub(ScrubMark(0, 9))
    shop.disk = shop.disk.after_kill()  # nothing was durable since
    store = shop.open()
    assert store.scrub_mark() == mark
    store.close()


# -- a chain of real servers, in virtual time

COUNT = 40


def scrub_of(server: StorageServer) -> Any:
    assert server.scrub is not None
    return server.scrub


def shown(world: StorageWorld, number: int) -> dict[str, Any]:
    (found,) = scrub_of(world.servers[number]).health().values()
    return dict(found)


def figure(world: StorageWorld, number: int, name: str) -> float:
    values = world.servers[number]._components.metrics.values()
    return sum(float(value) for key, value in values.items() if key.startswith(name))


def rot(world: StorageWorld, number: int, index: int) -> None:
    """A bit of a chunk changes on a node's disk."""
    handle = world.runner(number).store.read(ChunkId(INODE, index), None, 0, 1)
    world.disks[number].flip(handle.regions[0].file.path, handle.regions[0].offset_bytes + 11)
    handle.release()


async def filled(world: StorageWorld) -> None:
    await world.storage_cluster()
    user = world.user(100)
    for index in range(COUNT):
        await user.write(ChunkId(INODE, index), UpdateKind.WRITE, 0, bytes([index]) * 5000)
    await user.close()


async def ended(world: StorageWorld, number: int) -> None:
    """The round under way, or the next one, has ended."""
    before = scrub_of(world.servers[number])._walks[0].mark.ended_ms

    def is_over() -> bool:
        mark = scrub_of(world.servers[number])._walks[0].mark
        return bool(mark.ended_ms > before)

    await world.until(is_over, 1000.0, "a round of the scrub")


def run(
    scenario: Callable[[StorageWorld], Coroutine[Any, Any, None]], settings: ScrubSettings, seed: int = 1
) -> StorageWorld:
    async def with_settings(world: StorageWorld) -> None:
        world.scrub = settings
        await scenario(world)

    return run_storage(with_settings, seed)


@pytest.mark.parametrize("victim", [FIRST, FIRST + 1, FIRST + 2])
def test_rot_that_nobody_reads_is_found_and_mended(victim: int) -> None:
    async def scenario(world: StorageWorld) -> None:
        await filled(world)
        rotten = (0, 17, COUNT - 1)
        for index in rotten:
            rot(world, victim, index)
        store = world.runner(victim).store
        assert all(store.verify_chunk(ChunkId(INODE, index)) for index in rotten)
        await ended(world, victim)
        await ended(world, victim)  # one that began after the rot
        assert not any(store.verify_chunk(ChunkId(INODE, index)) for index in range(COUNT))
        assert figure(world, victim, "fs3_storage_scrub_bad_blocks_total") == len(rotten)
        assert figure(world, victim, "fs3_storage_repaired_chunks_total") == len(rotten)
        assert figure(world, victim, "fs3_storage_scrub_unmended_chunks") == 0
        assert figure(world, victim, "fs3_storage_scrub_read_bytes_total") >= COUNT * 5000
        assert shown(world, victim)["state"] == "waiting"

    run(scenario, ScrubSettings(1 << 20, 30.0))


def test_what_nobody_has_is_reported_until_it_is_written_anew() -> None:
    async def scenario(world: StorageWorld) -> None:
        await filled(world)
        for number in sorted(world.servers):
            rot(world, number, 3)
        for _ in range(2):
            await ended(world, FIRST)
        assert shown(world, FIRST)["unmended_chunks"] == 1
        assert figure(world, FIRST, "fs3_storage_scrub_unmended_chunks") == 1
        assert [e for e in world.events if e["event"].startswith("bytes are lost here")]  # type: ignore[attr-defined]
        user = world.user(101)
        await user.write(ChunkId(INODE, 3), UpdateKind.REPLACE, 0, b"new" * 1000)
        await user.close()
        await ended(world, FIRST)
        await ended(world, FIRST)
        assert shown(world, FIRST)["unmended_chunks"] == 0

    run(scenario, ScrubSettings(1 << 20, 30.0))


def test_a_restart_goes_on_where_it_was() -> None:
    async def scenario(world: StorageWorld) -> None:
        await filled(world)

        def is_half_way() -> bool:
            return bool(shown(world, FIRST)["read_bytes"] >= COUNT * 5000 // 2)

        await world.until(is_half_way, 300.0, "half of the first round")
        mark = world.runner(FIRST).store.scrub_mark()
        assert mark.began_ms and mark.after is not None
        await world.servers.pop(FIRST).stop()
        world.disks[FIRST] = world.disks[FIRST].after_kill()
        await world.start_storage(FIRST)
        assert scrub_of(world.servers[FIRST])._walks[0].mark == mark
        await ended(world, FIRST)
        assert shown(world, FIRST)["read_bytes"] == COUNT * 5000

    run(scenario, ScrubSettings(2000, DAY_S))


def test_it_stands_still_while_clients_need_the_node_unless_it_is_late() -> None:
    async def scenario(world: StorageWorld) -> None:
        await world.storage_cluster()
        scrub_of(world.servers[FIRST])._foreground_bytes = lambda: world.loop.time() * 4 * LOAD_BYTES_S
        user = world.user(100)
        for index in range(COUNT):
            await user.write(ChunkId(INODE, index), UpdateKind.WRITE, 0, bytes(5000))
        await user.close()
        await world.until(lambda: shown(world, FIRST)["state"] == "paused", 60.0, "it gives way")
        before = figure(world, FIRST, "fs3_storage_scrub_read_bytes_total")
        await asyncio.sleep(30)
        assert figure(world, FIRST, "fs3_storage_scrub_read_bytes_total") - before <= 16 * 5000
        await ended(world, FIRST)  # its time comes: under the same load

    run(scenario, ScrubSettings(20_000, 300.0))


def test_none_if_none_is_wanted() -> None:
    async def scenario(world: StorageWorld) -> None:
        await filled(world)
        await asyncio.sleep(100)
        assert scrub_of(world.servers[FIRST]).health() == {}
        assert figure(world, FIRST, "fs3_storage_scrub_read_bytes_total") == 0

    run(scenario, ScrubSettings(rate_bytes_s=0))


def test_a_failed_disk_is_not_scrubbed() -> None:
    async def scenario(world: StorageWorld) -> None:
        await filled(world)
        world.disks[FIRST].fail("injected")
        await world.until(lambda: shown(world, FIRST)["state"] == "offline", 60.0, "it is offline")
        assert not world.failures

    run(scenario, ScrubSettings(1 << 20, 30.0))
