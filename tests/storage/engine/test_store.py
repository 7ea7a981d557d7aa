"""What a chunk store does, on the simulated disk."""

from __future__ import annotations

import errno

import pytest

from fs3.errors import Busy, CorruptData, FsError, InvalidRequest
from fs3.storage.engine.versions import EngineSettings, Extent, FileExtent
from fs3.wire.chunk import UpdateKind

from .shop import (
    KIB,
    MIB,
    SimShop,
    apply,
    chunk,
    content,
    identity,
    pattern,
    remove,
    sums_of,
    truncate,
    write,
)


def test_a_staged_version_is_pending_until_it_is_committed() -> None:
    store = SimShop().create()
    data = pattern(100 * KIB)
    (outcome,) = store.stage([write(chunk(0), identity(1), data)])
    assert outcome.version is not None and outcome.version.identity == identity(1)
    assert content(store, chunk(0)) is None
    assert content(store, chunk(0), identity(1)) == data
    state = store.versions(chunk(0))
    assert state.committed is None and state.pending is not None
    assert state.pending.update.length_bytes == len(data) and state.pending.update.sums == ()
    assert store.commit(chunk(0), identity(1))
    assert store.commit(chunk(0), identity(1))  # again: it is
    assert not store.commit(chunk(0), identity(2))
    assert content(store, chunk(0)) == data
    assert store.versions(chunk(0)).pending is None


@pytest.mark.parametrize("size", [1, 4095, 4096, 64 * KIB, 64 * KIB + 1, 300 * KIB, MIB])
def test_both_versions_stay_readable_over_an_overwrite(size: int) -> None:
    store = SimShop().create()
    old, new = pattern(size, 1), pattern(size, 2)
    apply(store, write(chunk(0), identity(1), old))
    store.stage([write(chunk(0), identity(2), new)])
    assert content(store, chunk(0)) == old
    assert content(store, chunk(0), identity(2)) == new


def test_a_gap_reads_as_zeros() -> None:
    store = SimShop().create()
    apply(store, write(chunk(0), identity(1), b"ab"))
    apply(store, write(chunk(0), identity(2), b"xy", 200 * KIB))
    assert content(store, chunk(0)) == b"ab" + bytes(200 * KIB - 2) + b"xy"
    apply(store, write(chunk(1), identity(1), b"xy", 5000))
    assert content(store, chunk(1)) == bytes(5000) + b"xy"


def test_bytes_cut_off_do_not_come_back() -> None:
    store = SimShop().create()
    apply(store, write(chunk(0), identity(1), pattern(1000)))
    apply(store, truncate(chunk(0), identity(2), 10))
    apply(store, truncate(chunk(0), identity(3), 500))
    assert content(store, chunk(0)) == pattern(1000)[:10] + bytes(490)
    apply(store, truncate(chunk(0), identity(4), 0))
    assert content(store, chunk(0)) == b""
    apply(store, truncate(chunk(0), identity(5), 3))
    assert content(store, chunk(0)) == bytes(3)


def test_an_append_goes_into_the_same_block_and_an_overwrite_does_not() -> None:
    store = SimShop().create()
    apply(store, write(chunk(0), identity(1), b"a" * 5000))
    used_bytes = store.space().used_bytes
    store.stage([write(chunk(0), identity(2), b"b" * 5000, 5000)])
    assert store.space().used_bytes == used_bytes
    # The pending version's bytes are in the block: another one in its place must not touch them.
    store.stage([write(chunk(0), identity(2, 2), b"c" * 5000, 5000)])
    assert store.space().used_bytes == 2 * used_bytes
    assert store.commit(chunk(0), identity(2, 2))
    assert content(store, chunk(0)) == b"a" * 5000 + b"c" * 5000


def test_a_dropped_pending_append_still_guards_its_bytes() -> None:
    shop = SimShop()
    store = shop.create()
    apply(store, write(chunk(0), identity(1), b"a" * 100))
    store.stage([write(chunk(0), identity(2), b"b" * 100, 100)])
    reader = store.read(chunk(0), identity(2), 0, 200)
    store.drop_pendings()
    apply(store, write(chunk(0), identity(2, 2), b"c" * 100, 100))
    (region,) = reader.regions
    buffer = memoryview(bytearray(200))
    region.file.pread(buffer, region.offset_bytes)
    assert bytes(buffer) == b"a" * 100 + b"b" * 100
    reader.release()
    store.close()
    shop.disk = shop.disk.after_kill()
    assert content(shop.open(), chunk(0)) == b"a" * 100 + b"c" * 100


def test_a_block_is_not_used_again_while_a_reader_holds_it() -> None:
    store = SimShop().create()
    data = pattern(64 * KIB, 1)
    apply(store, write(chunk(0), identity(1), data))
    reader = store.read(chunk(0), None, 0, MIB)
    for number in range(2, 40):
        apply(store, write(chunk(0), identity(number), pattern(64 * KIB, number)))
    (region,) = reader.regions
    buffer = memoryview(bytearray(region.length_bytes))
    region.file.pread(buffer, region.offset_bytes)
    assert bytes(buffer) == data
    assert store.space().resting_bytes == 64 * KIB
    reader.release()
    reader.release()
    assert store.space().resting_bytes == 0
    store.flush()
    assert store.space().used_bytes == 64 * KIB


def test_nothing_that_was_used_is_used_again_for_a_while_after_an_open() -> None:
    shop = SimShop()
    store = shop.create()
    apply(store, write(chunk(0), identity(1), b"a" * 100))
    old = store.read(chunk(0), None, 0, 100).regions[0].offset_bytes
    apply(store, write(chunk(0), identity(2), b"b" * 100))
    store.close()
    shop.disk = shop.disk.after_kill()
    store = shop.open()

    def next_offset(number: int) -> int:
        apply(store, write(chunk(number), identity(1), b"c"))
        handle = store.read(chunk(number), None, 0, 1)
        handle.release()
        return handle.regions[0].offset_bytes

    assert next_offset(1) != old
    shop.clock.now_s += 29.9
    assert next_offset(2) != old
    shop.clock.now_s += 0.2
    assert next_offset(3) == old


def test_remove_leaves_a_tombstone_and_numbers_go_on_after_it_is_dropped() -> None:
    shop = SimShop()
    store = shop.create()
    apply(store, write(chunk(0), identity(7), b"a"))
    (outcome,) = store.stage([remove(chunk(0), identity(8))], cluster_ms=1234)
    assert outcome.version is not None and outcome.version.removed
    store.commit(chunk(0), identity(8))
    state = store.versions(chunk(0))
    assert state.committed is not None and state.committed.removed and state.removed_ms == 1234
    assert content(store, chunk(0)) is None
    assert store.space().chunk_count == 0
    store.drop_tombstones([(chunk(0), identity(9))])
    assert store.versions(chunk(0)).committed is not None
    store.drop_tombstones([(chunk(0), identity(8))])
    assert store.versions(chunk(0)).committed is None
    assert store.number_floor == 8 and store.dropped_change == state.change
    store.close()
    shop.disk = shop.disk.after_kill()
    store = shop.open()
    assert store.number_floor == 8 and store.dropped_change == state.change
    assert store.change > state.change


def test_the_same_identity_is_answered_as_it_is_and_another_one_takes_its_place() -> None:
    store = SimShop().create()
    item = write(chunk(0), identity(1), b"abc")
    store.stage([item])
    steps = store.change
    (outcome,) = store.stage([item])
    assert outcome.already and outcome.version is not None and store.change == steps
    store.stage([write(chunk(0), identity(1, 2), b"xyz")])
    with pytest.raises(Busy):
        store.read(chunk(0), identity(1), 0, 3)
    assert content(store, chunk(0), identity(1, 2)) == b"xyz"
    forced = write(chunk(0), identity(1, 2), b"new", kind=UpdateKind.REPLACE, replaces=identity(1, 2))
    store.stage([forced])
    assert content(store, chunk(0), identity(1, 2)) == b"new"


def test_a_number_goes_back_only_for_a_replace_that_names_what_it_replaces() -> None:
    store = SimShop().create()
    apply(store, write(chunk(0), identity(5), b"abc"))
    (outcome,) = store.stage([write(chunk(0), identity(5, 2), b"xyz")])
    assert isinstance(outcome.error, InvalidRequest)
    (outcome,) = store.stage([write(chunk(0), identity(4), b"xyz", kind=UpdateKind.REPLACE)])
    assert isinstance(outcome.error, InvalidRequest)
    item = write(chunk(0), identity(4), b"xyz", kind=UpdateKind.REPLACE, replaces=identity(5))
    apply(store, item)
    assert content(store, chunk(0)) == b"xyz"


def test_one_bad_item_does_not_hurt_the_others() -> None:
    store = SimShop().create()
    bad = write(chunk(1), identity(1), b"abc", 64 * MIB)
    good = [write(chunk(0), identity(1), b"abc"), write(chunk(2), identity(1), b"abc")]
    outcomes = store.stage([good[0], bad, good[1]])
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, InvalidRequest)


def test_two_updates_of_one_chunk_in_a_batch_are_taken_in_order() -> None:
    store = SimShop().create()
    outcomes = store.stage([write(chunk(0), identity(1, n), bytes([n]) * 10) for n in (1, 2, 3)])
    assert all(outcome.version is not None for outcome in outcomes)
    assert content(store, chunk(0), identity(1, 3)) == bytes([3]) * 10


def test_a_full_store_refuses_new_chunks_of_clients_only() -> None:
    settings = EngineSettings(capacity_bytes=10 * MIB, group_bytes=MIB, full_ratio=0.8, file_bytes=64 * MIB)
    store = SimShop(settings=settings).create()
    for number in range(8):
        apply(store, write(chunk(number), identity(1), pattern(MIB), from_client=True))
    (outcome,) = store.stage([write(chunk(8), identity(1), b"abc", from_client=True)])
    assert isinstance(outcome.error, FsError) and outcome.error.errno == errno.ENOSPC
    # An old chunk may change, and what is forwarded may use the rest, again and again.
    for number in range(2, 5):
        apply(store, write(chunk(0), identity(number), b"x" * 1000, from_client=True))
    apply(store, write(chunk(8), identity(1), pattern(MIB)))
    (outcome,) = store.stage([write(chunk(9), identity(1), pattern(MIB))])
    assert isinstance(outcome.error, FsError) and outcome.error.errno == errno.ENOSPC
    apply(store, remove(chunk(1), identity(2)))
    apply(store, remove(chunk(2), identity(2)))
    apply(store, write(chunk(9), identity(1), pattern(MIB)))
    assert content(store, chunk(9)) == pattern(MIB)


def test_space_of_one_size_becomes_space_of_another() -> None:
    settings = EngineSettings(capacity_bytes=8 * MIB, group_bytes=MIB, file_bytes=64 * MIB)
    shop = SimShop(settings=settings)
    store = shop.create()
    for number in range(7):
        apply(store, write(chunk(number), identity(1), pattern(MIB)))
    for number in range(7):
        apply(store, remove(chunk(number), identity(2)))
    for number in range(60):
        apply(store, write(chunk(number, 6), identity(1), pattern(60 * KIB, number)))
    assert content(store, chunk(59, 6)) == pattern(60 * KIB, 59)
    store.close()
    shop.disk = shop.disk.after_kill()
    store = shop.open()
    assert all(content(store, chunk(number, 6)) == pattern(60 * KIB, number) for number in range(60))


def test_a_full_disk_and_a_full_index_change_nothing() -> None:
    shop = SimShop()
    store = shop.create()
    apply(store, write(chunk(0), identity(1), b"a" * 10))
    shop.disk.fill()
    (outcome,) = store.stage([write(chunk(1), identity(1), pattern(MIB))])
    assert isinstance(outcome.error, FsError) and outcome.error.errno == errno.ENOSPC
    apply(store, write(chunk(2), identity(1), b"b" * 10))
    store._core.index.is_full = True  # type: ignore[attr-defined]
    used_bytes = store.space().used_bytes
    (outcome,) = store.stage([write(chunk(3), identity(1), b"c" * 10)])
    assert isinstance(outcome.error, FsError) and outcome.error.errno == errno.ENOSPC
    assert store.space().used_bytes == used_bytes and store.versions(chunk(3)).pending is None
    store._core.index.is_full = False  # type: ignore[attr-defined]
    apply(store, write(chunk(3), identity(1), b"c" * 10))
    assert content(store, chunk(2)) == b"b" * 10


def test_ranges_come_with_sums_cut_at_block_borders() -> None:
    store = SimShop().create()
    data = pattern(300 * KIB)
    apply(store, write(chunk(0), identity(1), data))
    for start, length in [
        (0, 64 * KIB),
        (0, MIB),
        (64 * KIB, 100 * KIB),
        (5, 70000),
        (299 * KIB, 5000),
        (9, 0),
    ]:
        handle = store.read(chunk(0), None, start, length)
        part = data[start : start + length]
        assert handle.length_bytes == len(part)
        assert handle.sums == sums_of(part, start)
        handle.release()
        buffer = memoryview(bytearray(length))
        small = store.read_into(chunk(0), None, start, buffer)
        assert small is not None and small.length_bytes == len(part) and small.sums == sums_of(part, start)
        assert bytes(buffer[: small.length_bytes]) == part
    assert store.read(chunk(9), None, 0, 10).version is None
    assert store.read(chunk(0), None, MIB, 10).length_bytes == 0


def test_a_flipped_bit_is_seen_by_ragged_reads_scrub_and_overwrites_and_mended_by_repair() -> None:
    shop = SimShop()
    store = shop.create()
    data = pattern(200 * KIB)
    apply(store, write(chunk(0), identity(1), data))
    handle = store.read(chunk(0), None, 0, MIB)
    (region,) = handle.regions
    shop.disk.flip(region.file.path, region.offset_bytes + 70 * KIB)
    handle.release()
    assert store.read_into(chunk(0), None, 0, memoryview(bytearray(100))) is not None
    with pytest.raises(CorruptData):
        store.read_into(chunk(0), None, 100 * KIB, memoryview(bytearray(100)), wait=True)
    with pytest.raises(CorruptData):
        store.read(chunk(0), None, 100 * KIB, 100)
    assert store.verify_chunk(chunk(0)) == [1]
    (outcome,) = store.stage([write(chunk(0), identity(2), b"x", 71 * KIB)])
    assert isinstance(outcome.error, CorruptData)
    # A copy does not hide it: the old sum goes along.
    apply(store, write(chunk(0), identity(2), b"x", 0))
    assert store.verify_chunk(chunk(0)) == [1]
    version = store.versions(chunk(0)).committed
    assert version is not None
    mended = b"x" + data[1:]
    assert store.repair(chunk(0), version, memoryview(mended))
    assert store.verify_chunk(chunk(0)) == [] and content(store, chunk(0)) == mended
    apply(store, write(chunk(0), identity(3), b"y", 71 * KIB))


def test_an_unreadable_sector_is_corruption_not_a_failed_disk() -> None:
    shop = SimShop()
    store = shop.create()
    apply(store, write(chunk(0), identity(1), pattern(100 * KIB)))
    (region,) = store.read(chunk(0), None, 0, MIB).regions
    shop.disk.make_unreadable(region.file.path, region.offset_bytes, 10)
    with pytest.raises(CorruptData):
        store.read_into(chunk(0), None, 5, memoryview(bytearray(100)))
    assert store.verify_chunk(chunk(0)) == [0]
    assert shop.disk.failure is None


@pytest.mark.parametrize("length_bytes", [100, 100 * KIB])
def test_a_block_that_goes_bad_after_its_check_is_checked_again_when_it_comes_from_the_disk(
    length_bytes: int,
) -> None:
    shop = SimShop()
    store = shop.create()
    apply(store, write(chunk(0), identity(1), pattern(200 * KIB)))
    (region,) = store.read(chunk(0), None, 0, MIB).regions
    buffer = memoryview(bytearray(length_bytes))
    assert store.read_into(chunk(0), None, 5, buffer) is not None
    shop.disk.flip(region.file.path, region.offset_bytes + 50)
    assert store.read_into(chunk(0), None, 5, buffer) is None  # it is not in the page cache any more
    with pytest.raises(CorruptData):
        store.read_into(chunk(0), None, 5, buffer, wait=True)
    with pytest.raises(CorruptData):
        store.read_into(chunk(0), None, 5, buffer)  # and what is bad there now stays known as such


def test_a_bulk_read_checks_its_ragged_ends_again_when_they_come_from_the_disk() -> None:
    shop = SimShop()
    store = shop.create()
    apply(store, write(chunk(0), identity(1), pattern(200 * KIB)))
    (region,) = store.read(chunk(0), None, 5, MIB).regions
    shop.disk.flip(region.file.path, region.offset_bytes + 50)
    with pytest.raises(CorruptData):
        store.read(chunk(0), None, 5, MIB)


def test_a_read_that_would_wait_says_so() -> None:
    shop = SimShop()
    store = shop.create()
    apply(store, write(chunk(0), identity(1), b"abc"))
    shop.disk.cold_share = 1.0
    assert store.read_into(chunk(0), None, 0, memoryview(bytearray(3))) is None
    small = store.read_into(chunk(0), None, 0, memoryview(bytearray(3)), wait=True)
    assert small is not None and small.length_bytes == 3


def test_pages_of_chunks_and_the_end_of_a_file() -> None:
    store = SimShop().create()
    for inode in (4, 5, 6):
        for number in (0, 1, 3):
            apply(store, write(chunk(number, inode), identity(1), b"x" * (number + 1)))
    store.stage([write(chunk(2, 5), identity(1), b"new"), write(chunk(0, 5), identity(2), b"y")])
    listed = store.list_chunks(limit=4)
    assert [found for found, _ in listed] == [chunk(0, 4), chunk(1, 4), chunk(3, 4), chunk(0, 5)]
    assert listed[3][1] == store.versions(chunk(0, 5))
    rest = store.list_chunks(chunk(0, 5), limit=4)
    assert [found for found, _ in rest] == [chunk(1, 5), chunk(2, 5), chunk(3, 5), chunk(0, 6)]
    assert [found.chunk_index for found, _ in store.list_chunks(inode=chunk(0, 5).inode)] == [0, 1, 2, 3]
    assert store.file_extent(chunk(0, 5).inode) == FileExtent(Extent(3, 4), Extent(2, 3))
    apply(store, truncate(chunk(3, 5), identity(2), 0))
    apply(store, remove(chunk(1, 5), identity(2)))
    assert store.file_extent(chunk(0, 5).inode) == FileExtent(Extent(0, 1), Extent(2, 3))
    assert store.file_extent(chunk(0, 7).inode) == FileExtent(None, None)


def test_the_high_water_mark_of_a_dropped_append_is_known_after_a_restart() -> None:
    shop = SimShop()
    store = shop.create()
    apply(store, write(chunk(0), identity(1), b"a" * 100))
    store.stage([write(chunk(0), identity(2), b"b" * 100, 100)])
    store.drop_pendings()
    store.close()
    shop.disk = shop.disk.after_kill()
    store = shop.open()
    used_bytes = store.space().used_bytes
    store.stage([write(chunk(0), identity(2, 2), b"c" * 100, 100)])  # the old bytes may be in a socket
    assert store.space().used_bytes == 2 * used_bytes


def test_the_floor_of_numbers_only_grows() -> None:
    store = SimShop().create()
    store.raise_floor(7)
    store.raise_floor(5)
    assert store.number_floor == 7
    apply(store, remove(chunk(0), identity(3)))
    store.drop_tombstones([(chunk(0), identity(3))])
    assert store.number_floor == 7, "numbers of other chunks are above this one's"


def test_many_versions_are_held_at_once_unless_one_is_pending_or_missing() -> None:
    store = SimShop().create()
    data = pattern(100 * KIB)
    for number in (0, 1):
        apply(store, write(chunk(number), identity(1), data))
    held = store.hold_committed([chunk(0), chunk(1), chunk(0)])
    assert held is not None
    apply(store, write(chunk(0), identity(2), pattern(100 * KIB, 2)))  # what is held stays as it was
    for number, offset in ((0, 5), (2, 64 * KIB - 3), (1, 0)):
        room = memoryview(bytearray(1000))
        assert held.read(number, offset, room) == sums_of(data[offset : offset + 1000], offset)
        assert room == data[offset : offset + 1000]
    assert held.read(0, 100 * KIB - 5, memoryview(bytearray(6))) is None  # beyond the end
    held.release()
    assert store.hold_committed([chunk(1), chunk(7)]) is None
    apply(store, remove(chunk(1), identity(2)))
    assert store.hold_committed([chunk(1)]) is None
    store.stage([write(chunk(0), identity(3), data)])
    assert store.hold_committed([chunk(0)]) is None
