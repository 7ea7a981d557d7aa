"""Reads, own writes, isolation and conflicts."""

from __future__ import annotations

import pytest

from fs3.errors import MaybeApplied, TransactionConflict, TransactionTooOld
from fs3.kv.transaction import AtomicOp, Kv

from .engines import Engine


async def put(kv: Kv, **pairs: bytes) -> None:
    txn = kv.transaction()
    for key, value in pairs.items():
        txn.set(key.encode(), value)
    await txn.commit()


async def look(kv: Kv, key: bytes) -> bytes | None:
    txn = kv.transaction()
    try:
        return await txn.get(key)
    finally:
        txn.cancel()


async def test_what_was_committed_is_read_by_everyone(engine: Engine, kv: Kv) -> None:
    await put(kv, a=b"1", b=b"")
    other = await engine.client()
    assert await look(other, b"a") == b"1"
    assert await look(other, b"b") == b""
    assert await look(other, b"c") is None


async def test_nothing_is_seen_before_commit_or_after_cancel(engine: Engine, kv: Kv) -> None:
    txn = kv.transaction()
    txn.set(b"a", b"1")
    assert await look(kv, b"a") is None
    txn.cancel()
    txn.cancel()
    assert await look(await engine.client(), b"a") is None


async def test_a_snapshot_stays_what_it_was(engine: Engine, kv: Kv) -> None:
    await put(kv, a=b"old", b=b"old")
    reader = kv.transaction()
    assert await reader.get(b"a") == b"old"
    await put(await engine.client(), a=b"new", b=b"new", c=b"new")
    assert await reader.get(b"b") == b"old"
    assert await reader.get(b"c") is None
    assert await reader.range(b"a", b"z") == [(b"a", b"old"), (b"b", b"old")]
    assert await reader.commit() is None  # it wrote nothing: no conflict


async def test_own_writes_are_read(kv: Kv) -> None:
    await put(kv, a=b"1", b=b"2", c=b"3")
    txn = kv.transaction()
    txn.set(b"b", b"own")
    txn.clear(b"c")
    txn.set(b"d", b"own")
    assert await txn.get(b"b") == b"own"
    assert await txn.get(b"c") is None
    assert await txn.snapshot.get(b"d") == b"own"
    assert await txn.range(b"a", b"z") == [(b"a", b"1"), (b"b", b"own"), (b"d", b"own")]
    txn.clear_range(b"a", b"c")
    assert await txn.range(b"a", b"z") == [(b"d", b"own")]
    txn.set(b"a", b"again")
    assert await txn.range(b"a", b"z") == [(b"a", b"again"), (b"d", b"own")]
    await txn.commit()
    check = kv.transaction()
    assert await check.range(b"", b"\xff") == [(b"a", b"again"), (b"d", b"own")]
    check.cancel()


async def test_a_read_key_written_since_is_a_conflict(engine: Engine, kv: Kv) -> None:
    txn = kv.transaction()
    assert await txn.get(b"a") is None
    await put(await engine.client(), a=b"1")
    txn.set(b"b", b"x")
    with pytest.raises(TransactionConflict):
        await txn.commit()
    assert await look(kv, b"b") is None


async def test_a_read_range_written_since_is_a_conflict(engine: Engine, kv: Kv) -> None:
    other = await engine.client()
    for key, clash in ((b"c", True), (b"b", True), (b"d", False), (b"a", False)):
        txn = kv.transaction()
        await txn.range(b"b", b"d")
        writer = other.transaction()
        writer.set(key, b"1")
        await writer.commit()
        txn.set(b"x", key)
        if clash:
            with pytest.raises(TransactionConflict):
                await txn.commit()
        else:
            await txn.commit()


async def test_clearing_a_range_conflicts_with_readers_inside(engine: Engine, kv: Kv) -> None:
    other = await engine.client()
    for key, clash in ((b"b", True), (b"c", True), (b"d", False)):
        txn = kv.transaction()
        await txn.get(key)
        clearer = other.transaction()
        clearer.clear_range(b"b", b"d")
        await clearer.commit()
        txn.set(b"x", key)
        if clash:
            with pytest.raises(TransactionConflict):
                await txn.commit()
        else:
            await txn.commit()


async def test_a_cut_range_conflicts_only_up_to_its_last_key(engine: Engine, kv: Kv) -> None:
    await put(kv, a=b"1", b=b"1", c=b"1", d=b"1")
    other = await engine.client()
    forward = kv.transaction()
    assert [key for key, _ in await forward.range(b"a", b"z", limit=2)] == [b"a", b"b"]
    backward = kv.transaction()
    assert [key for key, _ in await backward.range(b"a", b"z", limit=2, reverse=True)] == [b"d", b"c"]
    await put(other, bb=b"2")
    forward.set(b"f", b"1")
    await forward.commit()
    backward.set(b"g", b"1")
    with pytest.raises(TransactionConflict):  # f came to lie in what was looked at from behind
        await backward.commit()
    forward = kv.transaction()
    await forward.range(b"a", b"z", limit=2)
    await put(other, b=b"3")
    forward.set(b"f", b"2")
    with pytest.raises(TransactionConflict):
        await forward.commit()


async def test_snapshot_reads_and_own_values_take_no_conflict(engine: Engine, kv: Kv) -> None:
    await put(kv, a=b"1")
    txn = kv.transaction()
    txn.set(b"own", b"1")
    assert await txn.snapshot.get(b"a") == b"1"
    assert await txn.snapshot.range(b"a", b"c") == [(b"a", b"1")]
    assert await txn.get(b"own") == b"1"
    await put(await engine.client(), a=b"2", own=b"2")
    assert await txn.commit() is not None
    assert await look(kv, b"own") == b"1"


async def test_conflicts_can_be_added_by_hand(engine: Engine, kv: Kv) -> None:
    other = await engine.client()
    reader = kv.transaction()
    assert await reader.snapshot.get(b"a") is None
    reader.add_read_conflict_key(b"a")
    in_range = kv.transaction()
    assert await in_range.snapshot.get(b"a") is None
    in_range.add_read_conflict_range(b"a", b"b")
    writer = other.transaction()
    writer.add_write_conflict_key(b"a")
    assert await writer.commit() is not None
    for txn in (reader, in_range):
        txn.set(b"x", b"1")
        with pytest.raises(TransactionConflict):
            await txn.commit()
    reader = kv.transaction()
    await reader.get(b"b5")
    writer = other.transaction()
    writer.add_write_conflict_range(b"b", b"c")
    await writer.commit()
    reader.set(b"x", b"1")
    with pytest.raises(TransactionConflict):
        await reader.commit()


async def test_blind_writes_never_conflict(engine: Engine, kv: Kv) -> None:
    other = await engine.client()
    first, second = kv.transaction(), other.transaction()
    await first.read_version()
    await second.read_version()
    first.set(b"a", b"1")
    second.set(b"a", b"2")
    await first.commit()
    await second.commit()
    assert await look(kv, b"a") == b"2"


async def test_write_skew_is_refused(engine: Engine, kv: Kv) -> None:
    await put(kv, a=b"1", b=b"1")
    other = await engine.client()
    first, second = kv.transaction(), other.transaction()
    for txn in (first, second):
        assert await txn.get(b"a") == await txn.get(b"b") == b"1"
    first.set(b"a", b"0")
    second.set(b"b", b"0")
    await first.commit()
    with pytest.raises(TransactionConflict):
        await second.commit()


async def test_versions_grow_with_commits(kv: Kv) -> None:
    versions = []
    for number in range(3):
        txn = kv.transaction()
        versions.append(await txn.read_version())
        assert await txn.snapshot.read_version() == versions[-1]
        txn.set(b"a", bytes([number]))
        await txn.commit()
    assert versions == sorted(set(versions))


async def test_a_transaction_becomes_too_old(engine: Engine, kv: Kv) -> None:
    await put(kv, a=b"1")
    reader, writer = kv.transaction(), kv.transaction()
    await reader.get(b"a")
    await writer.get(b"a")
    engine.pass_time(kv.limits.transaction_s + 0.5)
    await put(await engine.client(), b=b"1")
    with pytest.raises(TransactionTooOld):
        await reader.get(b"a")
    reader.cancel()
    writer.set(b"c", b"1")
    with pytest.raises(TransactionTooOld):
        await writer.commit()
    fresh = kv.transaction()
    assert await fresh.get(b"b") == b"1"
    fresh.set(b"c", b"2")
    await fresh.commit()


async def test_a_lost_answer_is_maybe_applied_and_all_or_nothing(engine: Engine, kv: Kv) -> None:
    await put(kv, before=b"1")  # connected from now on
    for number in range(4):
        first, second = f"first{number}".encode(), f"second{number}".encode()

        async def commit(keys: tuple[bytes, bytes] = (first, second)) -> None:
            txn = kv.transaction()
            for key in keys:
                txn.set(key, b"1")
            txn.atomic(AtomicOp.ADD, b"count", b"\x01")
            await txn.commit()

        with pytest.raises(MaybeApplied):
            await engine.lose_answer(kv, commit)
        await put(kv, after=b"1")  # what follows works, and the doubt is settled by now
        assert await look(kv, first) == await look(kv, second)
