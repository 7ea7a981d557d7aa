"""Real file systems that fill up, fail, turn read-only, go away, and rot: three nodes, one such disk."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fs3.errors import Fs3Error, FsError, MaybeApplied, Retryable
from fs3.ids import ChunkId, Epoch
from fs3.routing import LocalState, TargetState
from fs3.storage.disks import NEW_DISK
from fs3.storage.scrub_round import ScrubSettings
from fs3.wire.storage import CUT, RAISE_EPOCH, CutRequest, RaiseEpochRequest

from .loop_disk import LoopDisk, loop_disk
from .storage_cluster import CHAIN, INODE, MIB, StorageCluster, User, until

pytestmark = [pytest.mark.slow, pytest.mark.loop_devices]

NODE = 2
OFFLINE = {NODE: TargetState.OFFLINE}


@asynccontextmanager
async def cluster_on(
    directory: Path, number: int = NODE, size_bytes: int = 128 * MIB, *, scrub: ScrubSettings | None = None
) -> AsyncIterator[tuple[StorageCluster, LoopDisk, User]]:
    """A chain of three nodes that serves; the disk of one is a loop device."""
    point = directory / f"node-{number}" / "disk-0"
    with loop_disk(directory / "image", point, size_bytes) as disk:
        cluster = StorageCluster(directory, capacity_bytes=0, scrub=scrub or ScrubSettings(0))
        user: User | None = None
        try:
            for one in (1, 2, 3):
                await cluster.start_node(one)
            cluster.publish()
            user = User(cluster)
            await user.present()
            yield cluster, disk, user
        finally:
            if user is not None:
                await user.close()
            await cluster.stop()


def reported(cluster: StorageCluster, number: int = NODE) -> str:
    """Why the node's target is offline; empty: it is not."""
    (report,) = cluster.servers[number].static.reports
    return report.reason if report.state is LocalState.OFFLINE else ""


async def left_the_chain(cluster: StorageCluster, user: User, why: str) -> None:
    """The node has said so, and the others serve."""
    await until(lambda: why in reported(cluster), 15.0)
    cluster.publish(states=OFFLINE)
    data = os.urandom(100_000)
    await user.write(data, 900)
    for number in (1, 3):
        assert await user.read(900, 0, MIB, at=number, bulk=True) == data


def forget_all_cached() -> None:
    """What is clean in the page cache goes."""
    Path("/proc/sys/vm/drop_caches").write_text("1\n")


async def filled(user: User, data: bytes) -> int:
    """New chunks until one is refused; how many there are."""
    for number in range(1000):
        try:
            await user.write(data, number)
        except FsError as error:
            refusal = error
            break
    else:
        raise AssertionError("it takes everything")
    assert refusal.errno == errno.ENOSPC and "no new chunks" in str(refusal)
    return number


async def test_a_full_disk_refuses_new_chunks_only_and_takes_them_again(tmp_path: Path) -> None:
    async with cluster_on(tmp_path, 1) as (cluster, disk, user):
        data = os.urandom(MIB)
        count = await filled(user, data)
        assert 90 < count < 128
        disk.fill()  # and not one byte is left for anybody
        for number in range(0, count, 10):
            assert await user.read(number, 0, MIB, at=1, bulk=True) == data
        small = b"over it" * 100
        await user.write(small, 5)  # what is there can be changed
        assert (await user.read(5, 0, MIB, at=1, bulk=True))[: len(small)] == small
        with pytest.raises(FsError, match="no new chunks"):
            await user.write(data, count + 1)

        node = cluster.servers[3].client
        assert node is not None
        chain: dict[str, Any] = {
            "chain": CHAIN,
            "chain_version": cluster.version,
            "inode": INODE,
            "epoch": Epoch(1),
        }
        await node.call(cluster.addresses[1], RAISE_EPOCH, RaiseEpochRequest(**chain), timeout_s=10)
        cut = CutRequest(**chain, first_removed=10, chunk_size_bytes=MIB)
        answer = await node.call(cluster.addresses[1], CUT, cut, timeout_s=30)
        assert answer.removed_count == count - 10 and not answer.more
        await user.present(capability=user.capability(epoch=Epoch(1)))
        for number in range(10, 40):
            await user.write(data, number, epoch=Epoch(1))
        assert await user.read(39, 0, MIB, at=1, bulk=True) == data
        assert not reported(cluster, 1)


async def test_a_member_behind_the_head_takes_what_the_head_took(tmp_path: Path) -> None:
    async with cluster_on(tmp_path, NODE, 64 * MIB) as (cluster, _, user):
        data = os.urandom(MIB)
        written = 0
        try:
            for number in range(100):
                await user.send(user.request(data, number), data, timeout_s=3)
                written += 1
        except (Fs3Error, OSError):
            pass
        assert written > 40, "the head's mark is of its own disk; this one uses all it has"
        for number in range(0, written, 7):
            assert await user.read(number, 0, MIB, at=NODE, bulk=True) == data
        assert not reported(cluster)


async def test_a_disk_that_fails_under_load(tmp_path: Path) -> None:
    async with cluster_on(tmp_path) as (cluster, disk, user):
        for number in range(5):
            await user.write(os.urandom(MIB), number)
        disk.shut_down()
        request, data = user.request(b"x" * MIB), b"x" * MIB
        with pytest.raises((MaybeApplied, Retryable)):
            await user.send(request, data, timeout_s=3)
        await left_the_chain(cluster, user, "Input/output error")


async def test_a_disk_that_fails_while_nobody_writes(tmp_path: Path) -> None:
    async with cluster_on(tmp_path) as (cluster, disk, user):
        await user.write(b"x" * 1000)
        disk.shut_down()
        await left_the_chain(cluster, user, "")


async def test_a_read_only_file_system(tmp_path: Path) -> None:
    async with cluster_on(tmp_path) as (cluster, disk, user):
        await user.write(b"x" * 1000)
        disk.turn_read_only()
        await left_the_chain(cluster, user, "disk: ")
        await cluster.stop_node(NODE)
        await cluster.start_node(NODE)  # and it does not come back by a restart
        assert "only be read" in reported(cluster) or "Read-only" in reported(cluster)


async def test_a_missing_mount_at_the_start(tmp_path: Path) -> None:
    async with cluster_on(tmp_path) as (cluster, disk, user):
        data = os.urandom(MIB)
        await user.write(data)
        store_id = cluster.servers[NODE].target.store.store_id
        await cluster.stop_node(NODE)
        disk.unmount()
        await cluster.start_node(NODE)
        assert "is the disk mounted?" in reported(cluster)
        assert os.listdir(disk.point) == []
        await cluster.stop_node(NODE)
        disk.mount()
        await cluster.start_node(NODE)
        cluster.publish()
        await user.present()
        assert cluster.servers[NODE].target.store.store_id == store_id
        assert await user.read(0, 0, MIB, at=NODE, bulk=True) == data


async def test_a_mount_that_goes_while_its_files_are_open(tmp_path: Path) -> None:
    async with cluster_on(tmp_path) as (cluster, disk, user):
        await user.write(b"x" * 1000)
        disk.unmount(lazily=True)
        await left_the_chain(cluster, user, "was the disk unmounted?")
        assert os.listdir(disk.point) == [], "nothing was written below the mount point"


async def test_an_empty_disk_in_its_place(tmp_path: Path) -> None:
    async with cluster_on(tmp_path) as (cluster, disk, user):
        await user.write(b"x" * 1000)
        store_id = cluster.servers[NODE].target.store.store_id
        await cluster.stop_node(NODE)
        disk.unmount()
        disk.make()
        disk.mount()
        await cluster.start_node(NODE)
        assert NEW_DISK in reported(cluster)
        await cluster.stop_node(NODE)
        (disk.point / NEW_DISK).touch()
        await cluster.start_node(NODE)
        assert not reported(cluster)
        report = cluster.servers[NODE].static.reports[0]
        assert int.from_bytes(report.store_id, "big") != store_id


async def test_rot_below_the_page_cache_is_found_and_mended(tmp_path: Path) -> None:
    async with cluster_on(tmp_path, scrub=ScrubSettings(1 << 30, 60.0)) as (cluster, disk, user):
        data = os.urandom(MIB)
        await user.write(data)
        assert await user.read(0, 0, MIB, at=NODE, bulk=True) == data  # it is cached now
        disk.rot(data[:4096])
        assert await user.read(0, 0, MIB, at=NODE, bulk=True) == data
        scrub = cluster.servers[NODE].scrub
        assert scrub is not None
        first_ms = cluster.time_ms
        await until(lambda: scrub._walks[0].mark.ended_ms >= first_ms, 20.0)
        cluster.time_ms += 61_000
        await until(lambda: scrub._walks[0].mark.ended_ms > first_ms, 20.0)
        assert scrub._walks[0].mark.bad_count == 1 and not scrub._walks[0].unmended
        forget_all_cached()
        assert not cluster.servers[NODE].target.store.verify_chunk(ChunkId(INODE, 0))
        assert await user.read(0, 0, MIB, at=NODE, bulk=True) == data
