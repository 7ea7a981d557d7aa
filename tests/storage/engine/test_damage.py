"""Stores that cannot be opened and disks that fail: a clear error each, nothing retried, nothing lost."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from crc32c import crc32c

from fs3.errors import CorruptData, IncompatibleVersion, InvalidRequest
from fs3.ids import TargetId
from fs3.rng import Rng
from fs3.storage.disk import DiskFailed, OsDisk
from fs3.storage.engine.format import HEADER_KEY, MAGIC, committed_key
from fs3.storage.engine.index import Batch
from fs3.storage.engine.logged_index import index_opener
from fs3.storage.engine.store import ChunkStore
from fs3.storage.engine.versions import EngineParts

from .shop import (
    MIB,
    SMALL,
    TARGET,
    HandClock,
    SimShop,
    apply,
    chunk,
    content,
    identity,
    pattern,
    write,
)


def filled(shop: SimShop) -> SimShop:
    """A store with two chunks, closed."""
    store = shop.create()
    apply(store, write(chunk(0), identity(1), pattern(1000)))
    apply(store, write(chunk(1), identity(1), pattern(MIB)))
    store.close()
    shop.disk = shop.disk.after_kill()
    return shop


def test_where_there_is_no_store() -> None:
    shop = SimShop()
    with pytest.raises(InvalidRequest, match="there is no chunk store in /t"):
        shop.open()
    filled(shop)
    with pytest.raises(InvalidRequest, match="already"):
        shop.create()
    assert content(shop.open(), chunk(0)) == pattern(1000)


def test_a_store_is_open_once() -> None:
    shop = SimShop()
    store = shop.create()
    with pytest.raises(InvalidRequest, match="open elsewhere"):
        shop.open()
    store.close()
    store.close()
    shop.open().close()


def test_the_store_of_another_target() -> None:
    shop = filled(SimShop())
    with pytest.raises(InvalidRequest, match="belongs to target 0x10001, not to 0x10002"):
        ChunkStore.open("/t", TargetId(0x10002), shop.parts, SMALL)
    shop.open()  # the refusal left nothing locked


def test_another_format_version() -> None:
    shop = filled(SimShop())
    body = struct.pack(">8sI", MAGIC, 3) + b"who knows what"
    shop.disk.indexes["/t/index"][HEADER_KEY] = body + struct.pack(">I", crc32c(body, crc32c(HEADER_KEY)))
    with pytest.raises(IncompatibleVersion, match="format 3; this program reads 1 to 2"):
        shop.open()


def test_something_else_than_a_store() -> None:
    shop = filled(SimShop())
    shop.disk.indexes["/t/index"][HEADER_KEY] = b"something else"
    with pytest.raises(CorruptData, match="not a chunk store"):
        shop.open()
    shop = filled(SimShop())
    shop.disk.open("/t/data/readme.txt", create=True)
    with pytest.raises(CorruptData, match="is not a file of a chunk store"):
        shop.open()


@pytest.mark.parametrize("byte", range(0, 200, 7))
def test_a_flipped_bit_in_any_record(byte: int) -> None:
    shop = filled(SimShop())
    records = shop.disk.indexes["/t/index"]
    for key in sorted(records):
        if byte < len(records[key]):
            good = records[key]
            bad = bytearray(good)
            bad[byte] ^= 0x10
            records[key] = bytes(bad)
            with pytest.raises((CorruptData, IncompatibleVersion)):
                shop.open()
            shop.disk = shop.disk.after_kill()
            records = shop.disk.indexes["/t/index"]
            records[key] = good
    shop.open()


def test_two_chunks_in_one_block() -> None:
    shop = filled(SimShop())
    records = shop.disk.indexes["/t/index"]
    body = records[committed_key(chunk(0))][:-4]
    key = committed_key(chunk(7))
    records[key] = body + struct.pack(">I", crc32c(body, crc32c(key)))
    with pytest.raises(CorruptData, match="and to another chunk"):
        shop.open()


def test_a_data_file_that_was_cut_or_is_gone() -> None:
    shop = filled(SimShop())
    shop.disk.open("/t/data/20-0000").truncate(0)
    with pytest.raises(CorruptData, match="which no data file has"):
        shop.open()
    shop = filled(SimShop())
    shop.disk.remove("/t/data/16-0000")
    with pytest.raises(CorruptData, match="which no data file has"):
        shop.open()


@pytest.mark.parametrize("call", ["pwrite", "sync", "index"])
def test_a_failed_write_or_sync_is_never_tried_again(call: str) -> None:
    shop = filled(SimShop())
    store = shop.open()
    shop.disk.fault(call)
    with pytest.raises(DiskFailed, match=call):
        store.stage([write(chunk(0), identity(2), b"new")])
    with pytest.raises(DiskFailed, match=call):  # without asking the disk: it would say that all is well
        store.stage([write(chunk(0), identity(2), b"new")])
    with pytest.raises(DiskFailed):
        store.read_into(chunk(0), None, 0, memoryview(bytearray(10)))
    store.close()
    assert shop.disk.failure is not None


@pytest.fixture
def os_parts() -> Iterator[EngineParts]:
    """Real files and LMDB."""
    disk = OsDisk()
    yield EngineParts(disk, index_opener(disk, Rng(1)), HandClock())
    disk.close()


def test_the_real_pair_opens_again_and_is_open_once(tmp_path: Path, os_parts: EngineParts) -> None:
    store = ChunkStore.create(str(tmp_path / "t"), TARGET, 5, os_parts, SMALL)
    items = [write(chunk(number), identity(1), pattern(MIB, number), with_dedup=True) for number in range(4)]
    assert all(outcome.error is None for outcome in store.stage(items))
    store.commit(chunk(0), identity(1))
    with pytest.raises(InvalidRequest, match="open elsewhere"):
        ChunkStore.open(str(tmp_path / "t"), TARGET, os_parts, SMALL)
    store.close()
    store = ChunkStore.open(str(tmp_path / "t"), TARGET, os_parts, SMALL)
    assert store.store_id == 5
    assert content(store, chunk(0)) == pattern(MIB, 0)
    assert [where for where, _ in store.pendings()] == [chunk(1), chunk(2), chunk(3)]
    assert content(store, chunk(3), identity(1)) == pattern(MIB, 3)
    store.close()


def test_a_real_index_that_was_cut_or_overwritten(tmp_path: Path, os_parts: EngineParts) -> None:
    store = ChunkStore.create(str(tmp_path / "t"), TARGET, 5, os_parts, SMALL)
    store.stage([write(chunk(number), identity(1), b"x" * 10) for number in range(200)])
    store.close()
    path = tmp_path / "t" / "index" / "data.mdb"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 // 4096 * 4096])
    with pytest.raises(CorruptData, match="was cut"):
        ChunkStore.open(str(tmp_path / "t"), TARGET, os_parts, SMALL)
    path.write_bytes(bytes(len(whole)))
    with pytest.raises((CorruptData, InvalidRequest)):
        ChunkStore.open(str(tmp_path / "t"), TARGET, os_parts, SMALL)
    path.write_bytes(whole)
    store = ChunkStore.open(str(tmp_path / "t"), TARGET, os_parts, SMALL)
    assert len(store.pendings()) == 200
    store.close()


def test_a_batch_that_waits_is_not_lost_by_a_full_index() -> None:
    shop = SimShop()
    store = shop.create()
    index = store._core.index
    batch = Batch()
    batch.put(b"x", b"y")
    index.apply(batch, durable=False)
    index.is_full = True  # type: ignore[attr-defined]
    store.stage([write(chunk(0), identity(1), b"a")])
    assert index.get(b"x") == b"y"
