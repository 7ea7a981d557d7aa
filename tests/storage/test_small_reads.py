"""Many small reads in one request: the usual case at once, and each unusual one the general way."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from fs3.errors import CapabilityExpired, StaleRouting, Unauthenticated
from fs3.ids import ChainId, ChainVersion, ChunkId, InodeId
from fs3.rpc.service import Buffer, FileRegion
from fs3.storage import read_batch
from fs3.storage.ops import read
from fs3.storage.sums import sums_of
from fs3.wire.storage import ReadItem

from .storage_cluster import MIB, Parts, StorageCluster, User, storage_cluster

CHUNKS = 4
PLACES = [(n % CHUNKS, n * 37_003 % (MIB - 4096), 1 + n * 131 % 4096) for n in range(100)]


async def written(cluster: StorageCluster) -> tuple[User, list[bytes]]:
    """A user, and the content of chunks that it wrote."""
    user = User(cluster)
    await user.present()
    datas = [os.urandom(MIB) for _ in range(CHUNKS)]
    for chunk, data in enumerate(datas):
        await user.write(data, chunk)
    return user, datas


def check(sink: Parts, items: list[ReadItem], datas: list[bytes]) -> None:
    for item, data, result in zip(items, sink.data, sink.results, strict=True):
        end = item.offset_bytes + item.length_bytes
        assert data == datas[item.chunk.chunk_index][item.offset_bytes : end]
        assert result is not None and result.code == 0
        assert result.sums == sums_of(memoryview(data), item.offset_bytes)
        assert result.update_version == 1


async def test_all_ranges_come_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def general_way(*_: object) -> None:
        raise AssertionError("these reads are all usual")

    async with storage_cluster(tmp_path) as cluster:
        user, datas = await written(cluster)
        items = [user.item(*place) for place in PLACES]
        check(await user.read_items(items, at=2), items, datas)  # from the disk; afterwards from memory
        monkeypatch.setattr(read, "ReadBatch", general_way)
        check(await user.read_items(items, at=2), items, datas)
        await user.close()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"chain": ChainId(99)}, StaleRouting),
        ({"chain_version": ChainVersion(7)}, StaleRouting),
        ({"capability": 2}, CapabilityExpired),
        ({"chunk": ChunkId(InodeId(5), 0)}, Unauthenticated),
    ],
)
async def test_one_refused_item_leaves_the_others(
    tmp_path: Path, changes: dict[str, object], error: type[Exception]
) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user, datas = await written(cluster)
        items = [user.item(*place) for place in PLACES]
        sink = await user.read_items([*items, msgspec.structs.replace(user.item(0, 0, 10), **changes)], at=1)
        refused = sink.results.pop()
        sink.data.pop()
        assert refused is not None and refused.code == error.code  # type: ignore[attr-defined]
        check(sink, items, datas)
        await user.close()


async def test_holes_and_ends_of_chunks_are_short(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        await user.write(b"short")
        items = [user.item(0, 0, 3), user.item(0, 3, 100), user.item(0, 50, 10), user.item(1, 0, 10)]
        sink = await user.read_items(items, at=1)
        assert sink.data == [b"sho", b"rt", b"", b""]
        await user.close()


async def test_without_a_lease_nothing_is_read(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user, _ = await written(cluster)
        cluster.servers[1].static.has_lease = False
        sink = await user.read_items([user.item(0, 0, 10), user.item(1, 0, 10)], at=1)
        assert [result.code for result in sink.results if result] == [StaleRouting.code] * 2
        cluster.servers[1].static.has_lease = True
        await user.close()


async def test_neighbouring_ranges_of_a_chunk_leave_as_one_region(tmp_path: Path) -> None:
    part_bytes = 128 * 1024
    async with storage_cluster(tmp_path) as cluster:
        user, datas = await written(cluster)
        places = [(0, 0), (0, 1), (0, 2), (1, 3), (1, 5), (0, 6)]
        items = [user.item(chunk, n * part_bytes, part_bytes) for chunk, n in places]
        check(await user.read_items(items, at=1, bulk=True), items, datas)
        await user.close()


def test_only_neighbours_are_joined() -> None:
    payload: list[Buffer | FileRegion] = []
    for region in (FileRegion(3, 0, 10), FileRegion(3, 10, 5), FileRegion(3, 20, 5), FileRegion(4, 25, 5)):
        read_batch._append(payload, region)
    assert payload == [FileRegion(3, 0, 15), FileRegion(3, 20, 5), FileRegion(4, 25, 5)]
