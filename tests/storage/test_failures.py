"""Members that die, disks that fail, bytes that flip: what the service does about it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from fs3.errors import CorruptData, MaybeApplied, Retryable, StaleRouting, Unavailable
from fs3.ids import ChunkId, Generation
from fs3.routing import LocalState
from fs3.storage.replica import Replica
from fs3.wire.storage import WriteRequest, WriteResponse

from .storage_cluster import INODE, MIB, StorageCluster, User, storage_cluster, until


async def retried(user: User, request: WriteRequest, data: bytes, *, to: int = 1) -> WriteResponse:
    """Send a write until it is answered, under the present chain version."""
    async with asyncio.timeout(20):
        while True:
            fresh = msgspec.structs.replace(request, chain_version=user.cluster.version)
            try:
                return await user.send(fresh, data, to=to, timeout_s=3)
            except (Retryable, MaybeApplied, StaleRouting):
                await asyncio.sleep(0.05)


async def _while_it_is_pending(user: User, victim: int, before: bytes) -> None:
    """Nobody reads the new version; where the last member is dead, readers who insist must wait for it."""
    item = user.item(0, 0, MIB)
    if victim == 2:
        assert await user.read(0, 0, MIB, at=3, bulk=True) == before
    else:
        sink = await user.read_items([item], at=2)
        assert sink.results[0] is not None
        assert sink.results[0].code == StaleRouting.code
        sink = await user.read_items([item], at=2, relaxed=True)
        assert sink.data == [before]


async def _until_resolved(replica: Replica) -> None:
    await until(lambda: not replica.pending_count)


@pytest.mark.parametrize("victim", [1, 2, 3])
async def test_a_write_waits_for_a_dead_member_and_happens_once(tmp_path: Path, victim: int) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        first = os.urandom(200_000)
        await user.write(first)
        await cluster.stop_node(victim)
        second = os.urandom(300_000)
        request = user.request(second)
        if victim != 1:
            with pytest.raises((MaybeApplied, Retryable)):
                await user.send(request, second, timeout_s=2.5)
            await _while_it_is_pending(user, victim, first)
        await cluster.start_node(victim)
        assert cluster.servers[victim].static.generation == Generation(2)
        cluster.publish()
        await user.present()
        answer = await retried(user, request, second)
        again = await retried(user, request, second)
        assert again == answer
        for number in (1, 2, 3):
            replica = cluster.servers[number].target.replica
            await _until_resolved(replica)
            assert await user.read(0, 0, MIB, at=number, bulk=True) == second
            state = cluster.servers[number].target.store.versions(ChunkId(INODE, 0))
            assert state.committed.identity.update_version == 2
        await user.close()


async def test_reads_go_on_while_a_member_is_dead(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        data = os.urandom(100_000)
        await user.write(data)
        await cluster.stop_node(3)
        for number in (1, 2):
            assert await user.read(0, 0, MIB, at=number) == data
        cluster.servers[1].static.has_lease = False
        with pytest.raises(AssertionError, match="no lease"):
            await user.read(0, 0, MIB, at=1)
        await user.close()


async def test_a_failed_disk_takes_its_targets_offline_and_says_so(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        await user.write(b"x" * 1000)
        server = cluster.servers[2]
        runner = server.target
        disk = runner.store._core.disk
        disk.fail("injected")
        with pytest.raises((MaybeApplied, Unavailable)):
            await user.send(user.request(b"y" * 1000), b"y" * 1000, timeout_s=2)
        await until(lambda: server.static.reports[0].state is LocalState.OFFLINE)
        assert "injected" in server.static.reports[0].reason
        sink = await user.read_items([user.item(0, 0, 10)], at=2)
        result = sink.results[0]
        assert result is not None and result.code == Unavailable.code
        await user.close()


def _flip(cluster: StorageCluster, number: int, chunk: ChunkId) -> None:
    """Change one byte of a chunk under the store's feet."""
    runner = cluster.servers[number].target
    handle = runner.store.read(chunk, None, 0, MIB)
    region = handle.regions[0]
    buffer = bytearray(1)
    region.file.pread(memoryview(buffer), region.offset_bytes + 10)
    fd = os.open(region.file.path, os.O_WRONLY)
    os.pwrite(fd, bytes([buffer[0] ^ 1]), region.offset_bytes + 10)
    os.close(fd)
    handle.release()


@pytest.mark.parametrize("number", [1, 3])
async def test_a_flipped_byte_is_seen_and_repaired_from_the_chain(tmp_path: Path, number: int) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        data = os.urandom(MIB)
        chunk = ChunkId(INODE, 0)
        await user.write(data)
        _flip(cluster, number, chunk)
        sink = await user.read_items([user.item(0, 5, 100)], at=number)
        result = sink.results[0]
        assert result is not None and result.code == CorruptData.code
        store = cluster.servers[number].target.store
        await until(lambda: not store.verify_chunk(chunk))
        assert await user.read(0, 0, MIB, at=number, bulk=True) == data
        metrics = cluster.servers[number]._components.metrics
        name = "fs3_storage_repaired_chunks_total"
        await until(lambda: any(v == 1 for k, v in metrics.values().items() if k.startswith(name)))
        await user.close()


async def test_an_update_over_a_flipped_byte_repairs_it_first(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        data = os.urandom(MIB)
        await user.write(data)
        _flip(cluster, 2, ChunkId(INODE, 0))
        await user.write(b"new", 0, 20)
        expected = data[:20] + b"new" + data[23:]
        for number in (1, 2, 3):
            assert await user.read(0, 0, MIB, at=number, bulk=True) == expected
        await user.close()


async def test_everything_stops_and_comes_back(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        datas = [os.urandom(100_000 + i) for i in range(8)]
        for number, data in enumerate(datas):
            await user.write(data, number)
        for number in (1, 2, 3):
            await cluster.stop_node(number)
        for number in (3, 1, 2):
            await cluster.start_node(number)
        cluster.publish()
        await user.present()
        for number in (1, 2, 3):
            items = [user.item(i, 0, MIB) for i in range(8)]
            sink = await user.read_items(items, at=number, bulk=True)
            assert sink.data == datas
        await user.write(b"more", 3)
        await user.close()
