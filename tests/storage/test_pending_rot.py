"""A block of a version goes bad before it is committed: mended by who has it, else the target is over."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from fs3.errors import CorruptData, MaybeApplied, Retryable
from fs3.ids import ChunkId
from fs3.routing import LocalState

from .storage_cluster import INODE, MIB, StorageCluster, User, storage_cluster, until

CHUNK = ChunkId(INODE, 0)


def damage(cluster: StorageCluster, number: int) -> None:
    """A byte of the pending version changes on a node's disk."""
    store = cluster.servers[number].target.store
    identity = store.versions(CHUNK).pending.version.identity
    handle = store.read(CHUNK, identity, 0, MIB)
    region = handle.regions[0]
    handle.release()
    fd = os.open(region.file.path, os.O_RDWR)
    os.pwrite(fd, bytes([os.pread(fd, 1, region.offset_bytes + 9)[0] ^ 1]), region.offset_bytes + 9)
    os.close(fd)


async def left_pending(cluster: StorageCluster, user: User, data: bytes) -> None:
    """Node 3 is dead: nodes 1 and 2 hold the write."""
    await cluster.stop_node(3)
    with pytest.raises((MaybeApplied, Retryable)):
        await user.send(user.request(data), data, timeout_s=2.5)
    for number in (1, 2):
        assert cluster.servers[number].target.store.versions(CHUNK).pending is not None


@pytest.mark.parametrize("number", [1, 2])
async def test_a_pending_version_is_mended_by_the_member_that_has_it_too(tmp_path: Path, number: int) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        data = os.urandom(MIB)
        await left_pending(cluster, user, data)
        damage(cluster, number)
        target = cluster.servers[number].target
        target.report_corrupt(CHUNK)
        await until(lambda: not target.store.verify_chunk(CHUNK))
        assert target.store.versions(CHUNK).pending is not None
        await cluster.start_node(3)
        cluster.publish()
        await user.present()
        await until(lambda: not any(s.target.replica.pending_count for s in cluster.servers.values()))
        for at in (1, 2, 3):
            assert await user.read(0, 0, MIB, at=at, bulk=True) == data
        await user.close()


async def test_who_has_to_send_it_on_mends_it_first(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        data = os.urandom(MIB)
        await left_pending(cluster, user, data)
        damage(cluster, 2)
        await cluster.start_node(3)
        cluster.publish()  # node 2 reads it back for node 3, and finds it
        await user.present()
        await until(lambda: not any(s.target.replica.pending_count for s in cluster.servers.values()))
        for at in (1, 2, 3):
            assert await user.read(0, 0, MIB, at=at, bulk=True) == data
            assert not cluster.servers[at].target.store.verify_chunk(CHUNK)
        assert [e for e in cluster.events if e["event"] == "corrupt block" and e["mended"]]
        await user.close()


async def test_where_nobody_has_it_the_target_goes_offline(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        await left_pending(cluster, user, os.urandom(MIB))
        for number in (1, 2):
            damage(cluster, number)
        await cluster.start_node(3)
        cluster.publish()
        await until(lambda: cluster.servers[2].static.reports[0].state is LocalState.OFFLINE)
        assert "pending version" in cluster.servers[2].static.reports[0].reason
        await user.close()


async def test_only_nodes_get_a_pending_version_by_asking_for_it(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        before = os.urandom(1000)
        await user.write(before)
        await left_pending(cluster, user, os.urandom(MIB))
        sink = await user.read_items([user.item(0, 0, MIB)], at=1, relaxed=True, pending=True)
        assert sink.data == [before]
        await asyncio.sleep(0)
        await user.close()


async def test_a_mend_without_space_is_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        data = os.urandom(MIB)
        await user.write(data)
        target = cluster.servers[2].target
        handle = target.store.read(CHUNK, None, 0, MIB)
        region = handle.regions[0]
        handle.release()
        fd = os.open(region.file.path, os.O_RDWR)
        os.pwrite(fd, bytes(8), region.offset_bytes)
        os.close(fd)
        core = target.store._core
        monkeypatch.setattr(core.allocator, "growth", lambda *_: None)
        monkeypatch.setattr(core.allocator, "take", lambda *_: None)
        monkeypatch.setattr(core.allocator, "shrink", lambda *_: [])
        sink = await user.read_items([user.item(0, 1, 10)], at=2)
        assert [result.code for result in sink.results if result] == [CorruptData.code]
        await until(lambda: any("is full" in str(e.get("reason")) for e in cluster.events))
        monkeypatch.undo()
        await user.read_items([user.item(0, 1, 10)], at=2)
        await until(lambda: not target.store.verify_chunk(CHUNK))
        assert await user.read(0, 0, MIB, at=2, bulk=True) == data
        await user.close()
