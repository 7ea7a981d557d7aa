"""Ranges, atomic operations, versionstamps and limits."""

from __future__ import annotations

import asyncio

import pytest

from fs3.errors import InvalidRequest, TransactionConflict
from fs3.kv.transaction import AtomicOp, Kv

from .engines import Engine


async def pairs(kv: Kv, begin: bytes = b"", end: bytes = b"\xff") -> list[tuple[bytes, bytes]]:
    txn = kv.transaction()
    try:
        return await txn.range(begin, end)
    finally:
        txn.cancel()


async def fill(kv: Kv, count: int) -> None:
    txn = kv.transaction()
    for number in range(count):
        txn.set(b"k%03d" % number, b"%d" % number)
    await txn.commit()


async def test_ranges_are_ordered_half_open_and_cut(kv: Kv) -> None:
    await fill(kv, 30)
    txn = kv.transaction()
    found = await txn.range(b"k005", b"k010")
    assert [key for key, _ in found] == [b"k005", b"k006", b"k007", b"k008", b"k009"]
    assert await txn.range(b"k005", b"k010", reverse=True) == found[::-1]
    assert await txn.range(b"k005", b"k010", limit=3) == found[:3]
    assert await txn.range(b"k005", b"k010", limit=3, reverse=True) == found[:1:-1]
    assert await txn.range(b"k0055", b"k006") == []
    assert await txn.range(b"k005", b"k005") == []
    assert len(await txn.range(b"", b"\xff")) == 30
    assert (await txn.range(b"k", b"\xff", limit=1, reverse=True))[0][0] == b"k029"
    txn.cancel()


async def test_ranges_with_own_writes_and_limits(kv: Kv) -> None:
    await fill(kv, 10)
    txn = kv.transaction()
    txn.clear_range(b"k002", b"k005")
    txn.set(b"k003", b"own")
    txn.clear(b"k006")
    txn.atomic(AtomicOp.BYTE_MAX, b"k007", b"z")
    expected = [(b"k000", b"0"), (b"k001", b"1"), (b"k003", b"own"), (b"k005", b"5"), (b"k007", b"z")]
    expected += [(b"k008", b"8"), (b"k009", b"9")]
    assert await txn.range(b"k", b"l") == expected
    assert await txn.range(b"k", b"l", reverse=True) == expected[::-1]
    assert await txn.range(b"k001", b"l", limit=3) == expected[1:4]
    assert await txn.range(b"k", b"k008", limit=2, reverse=True) == expected[3:5][::-1]
    await txn.commit()
    assert await pairs(kv) == expected


async def test_a_long_range_comes_whole(kv: Kv) -> None:
    for start in range(0, 3000, 500):
        txn = kv.transaction()
        for number in range(start, start + 500):
            txn.set(b"n%05d" % number, b"v" * 200)
        await txn.commit()
    found = await pairs(kv)
    assert [key for key, _ in found] == [b"n%05d" % number for number in range(3000)]


ATOMIC_CASES = [
    (AtomicOp.ADD, None, b"\x05\x00", b"\x05\x00"),
    (AtomicOp.ADD, b"\xff\x00", b"\x01\x00", b"\x00\x01"),
    (AtomicOp.ADD, b"\xff\xff", b"\x01\x00", b"\x00\x00"),
    (AtomicOp.ADD, b"\x01", b"\x01\x00\x00", b"\x02\x00\x00"),
    (AtomicOp.ADD, b"\x01\x02\x03", b"\x01", b"\x02"),
    (AtomicOp.MAX, None, b"\x05", b"\x05"),
    (AtomicOp.MAX, b"\x00\x01", b"\xff\x00", b"\x00\x01"),
    (AtomicOp.MAX, b"\x07", b"\x06\x00", b"\x07\x00"),
    (AtomicOp.MIN, None, b"\x05", b"\x05"),
    (AtomicOp.MIN, b"\x00\x01", b"\xff\x00", b"\xff\x00"),
    (AtomicOp.MIN, b"\x03", b"\x06\x00", b"\x03\x00"),
    (AtomicOp.BYTE_MAX, None, b"abc", b"abc"),
    (AtomicOp.BYTE_MAX, b"abd", b"abc", b"abd"),
    (AtomicOp.BYTE_MAX, b"ab", b"abc", b"abc"),
    (AtomicOp.COMPARE_AND_CLEAR, b"x", b"x", None),
    (AtomicOp.COMPARE_AND_CLEAR, b"x", b"y", b"x"),
    (AtomicOp.COMPARE_AND_CLEAR, None, b"x", None),
]


@pytest.mark.parametrize(("op", "before", "operand", "after"), ATOMIC_CASES)
async def test_atomic_operations(
    kv: Kv, op: AtomicOp, before: bytes | None, operand: bytes, after: bytes | None
) -> None:
    if before is not None:
        txn = kv.transaction()
        txn.set(b"a", before)
        await txn.commit()
    txn = kv.transaction()
    txn.atomic(op, b"a", operand)
    assert await txn.snapshot.get(b"a") == after  # seen by itself
    await txn.commit()
    assert await pairs(kv) == ([] if after is None else [(b"a", after)])


async def test_atomic_operations_do_not_conflict_with_each_other(engine: Engine, kv: Kv) -> None:
    other = await engine.client()
    open_ones = [client.transaction() for client in (kv, other) for _ in range(10)]
    for txn in open_ones:
        await txn.read_version()
        txn.atomic(AtomicOp.ADD, b"count", b"\x01\x00\x00\x00")
    await asyncio.gather(*(txn.commit() for txn in open_ones))
    assert await pairs(kv) == [(b"count", b"\x14\x00\x00\x00")]


async def test_reading_what_one_added_to_is_a_read(engine: Engine, kv: Kv) -> None:
    txn = kv.transaction()
    txn.atomic(AtomicOp.ADD, b"a", b"\x01")
    assert await txn.get(b"a") == b"\x01"
    other = (await engine.client()).transaction()
    other.set(b"a", b"\x05")
    await other.commit()
    with pytest.raises(TransactionConflict):
        await txn.commit()


async def test_own_writes_and_atomics_fold_in_order(kv: Kv) -> None:
    txn = kv.transaction()
    txn.set(b"a", b"\x01")
    txn.atomic(AtomicOp.ADD, b"a", b"\x02")
    txn.atomic(AtomicOp.MAX, b"b", b"\x09")
    txn.clear_range(b"b", b"c")
    txn.atomic(AtomicOp.ADD, b"b", b"\x04")
    txn.atomic(AtomicOp.ADD, b"c", b"\x01")
    txn.set(b"c", b"\x07")
    expected = [(b"a", b"\x03"), (b"b", b"\x04"), (b"c", b"\x07")]
    assert await txn.range(b"a", b"z") == expected
    await txn.commit()
    assert await pairs(kv) == expected


async def test_stamps_are_ordered_by_commit(engine: Engine, kv: Kv) -> None:
    other = await engine.client()
    stamps = []
    for number in range(6):
        txn = (kv, other)[number % 2].transaction()
        txn.set_versionstamped_key(b"log/", b"/end", b"%d" % number)
        txn.set_versionstamped_value(b"last", b"<", b">")
        stamp = await txn.commit()
        assert stamp is not None and len(stamp) == 10
        stamps.append(stamp)
    assert stamps == sorted(set(stamps))
    expected = [(b"log/" + stamp + b"/end", b"%d" % number) for number, stamp in enumerate(stamps)]
    assert await pairs(kv, b"log/", b"log0") == expected
    assert await pairs(kv, b"last", b"last0") == [(b"last", b"<" + stamps[-1] + b">")]


async def test_stamps_of_concurrent_commits_differ(kv: Kv) -> None:
    async def one(number: int) -> bytes:
        txn = kv.transaction()
        txn.set(b"n%d" % number, b"")
        stamp = await txn.commit()
        assert stamp is not None
        return stamp

    stamps = await asyncio.gather(*(one(number) for number in range(50)))
    assert len(set(stamps)) == 50


async def test_a_stamp_has_the_version_that_readers_get(kv: Kv) -> None:
    txn = kv.transaction()
    before = await txn.read_version()
    txn.set(b"a", b"")
    stamp = await txn.commit()
    assert stamp is not None
    check = kv.transaction()
    assert before < int.from_bytes(stamp[:8], "big") <= await check.read_version()
    check.cancel()


async def test_a_stamped_key_conflicts_with_readers_of_its_range(engine: Engine, kv: Kv) -> None:
    txn = kv.transaction()
    assert await txn.range(b"log/", b"log0") == []
    writer = (await engine.client()).transaction()
    writer.set_versionstamped_key(b"log/", b"", b"")
    await writer.commit()
    txn.set(b"x", b"")
    with pytest.raises(TransactionConflict):
        await txn.commit()


async def test_what_waits_for_its_stamp_cannot_be_read(kv: Kv) -> None:
    txn = kv.transaction()
    txn.set_versionstamped_value(b"v", b"", b"")
    txn.set_versionstamped_key(b"log/", b"", b"")
    with pytest.raises(InvalidRequest):
        await txn.get(b"v")
    with pytest.raises(InvalidRequest):
        await txn.range(b"log/", b"log0")
    assert await txn.get(b"other") is None
    txn.set(b"v", b"known")
    assert await txn.get(b"v") == b"known"
    txn.cancel()


async def test_limits_of_keys_values_and_ranges(kv: Kv) -> None:
    limits = kv.limits
    txn = kv.transaction()
    longest = b"k" * limits.key_bytes
    txn.set(longest, b"v" * limits.value_bytes)
    for wrong in (longest + b"k", b"", b"\xff", b"\xff/system"):
        with pytest.raises(InvalidRequest):
            txn.set(wrong, b"")
        with pytest.raises(InvalidRequest):
            txn.clear(wrong)
        with pytest.raises(InvalidRequest):
            txn.atomic(AtomicOp.ADD, wrong, b"\x01")
        with pytest.raises(InvalidRequest):
            txn.add_write_conflict_key(wrong)
        with pytest.raises(InvalidRequest):
            await txn.get(wrong)
    with pytest.raises(InvalidRequest):
        txn.set(b"a", b"v" * (limits.value_bytes + 1))
    with pytest.raises(InvalidRequest):
        await txn.range(b"b", b"a")
    with pytest.raises(InvalidRequest):
        await txn.range(b"b", b"\xff\x00")
    with pytest.raises(InvalidRequest):
        txn.set_versionstamped_key(b"k" * limits.key_bytes, b"", b"")
    await txn.commit()
    assert await pairs(kv) == [(longest, b"v" * limits.value_bytes)]


async def test_a_transaction_has_a_size_limit(kv: Kv) -> None:
    limits = kv.limits
    assert limits.transaction_bytes == 1_000_000
    piece = limits.value_bytes // 2
    txn = kv.transaction()
    for number in range(limits.transaction_bytes // piece - 1):
        txn.set(b"k%03d" % number, b"v" * piece)
    await txn.commit()
    txn = kv.transaction()
    for number in range(limits.transaction_bytes // piece + 1):
        txn.set(b"m%03d" % number, b"v" * piece)
    with pytest.raises(InvalidRequest):
        await txn.commit()
    assert await pairs(kv, b"m", b"n") == []
