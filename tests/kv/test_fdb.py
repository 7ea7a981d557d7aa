"""The FoundationDB engine's reaction to each error code, through the double of the binding."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from fs3.errors import (
    Busy,
    Fs3Error,
    InvalidRequest,
    MaybeApplied,
    TransactionConflict,
    TransactionTooOld,
    Unavailable,
)
from fs3.kv.fdb import FdbKv, error_of, open_fdb
from fs3.kv.memory import MemoryStore
from fs3.kv.open import open_kv
from fs3.kv.transaction import KvLimits
from tests.conformance.kv.engines import StepClock, fdb_missing

from .fdb_double import NEVER, Double, DoubleError, DoubleFuture

AT_READ: list[tuple[int, type[Fs3Error]]] = [
    (1007, TransactionTooOld),
    (1009, TransactionTooOld),
    (1025, Unavailable),
    (1031, Unavailable),
    (1036, InvalidRequest),
    (1037, Unavailable),
    (1039, Unavailable),
    (1213, Busy),
    (1999, Unavailable),
]
AT_COMMIT: list[tuple[int, type[Fs3Error]]] = [
    (1007, TransactionTooOld),
    (1020, TransactionConflict),
    (1021, MaybeApplied),
    (1025, MaybeApplied),
    (1031, MaybeApplied),
    (1037, Unavailable),
    (1039, MaybeApplied),
    (1042, Busy),
    (1999, MaybeApplied),
    (2101, InvalidRequest),
    (2102, InvalidRequest),
    (2103, InvalidRequest),
]


class World:
    """A double and two clients on it."""

    def __init__(self) -> None:
        self.double = Double(MemoryStore(StepClock(), KvLimits()))
        self.kv = FdbKv(self.double, self.double.open(""))

    async def look(self, key: bytes) -> bytes | None:
        txn = self.kv.transaction()
        try:
            return await txn.get(key)
        finally:
            txn.cancel()


@pytest.mark.parametrize(("code", "kind"), AT_READ)
async def test_errors_of_reads(code: int, kind: type[Fs3Error]) -> None:
    world = World()
    for read in ("get", "range", "version"):
        txn = world.kv.transaction()
        calls: dict[str, Awaitable[object]] = {
            "get": txn.get(b"a"),
            "range": txn.range(b"a", b"b"),
            "version": txn.read_version(),
        }
        for name, call in calls.items():
            if name == read:
                world.double.read_errors = [code]
                with pytest.raises(kind, match=str(code)):
                    await call
            else:
                await call
        txn.cancel()
    assert await world.look(b"a") is None


@pytest.mark.parametrize(("code", "kind"), AT_COMMIT)
async def test_errors_of_commits(code: int, kind: type[Fs3Error]) -> None:
    world = World()
    for _ in range(2):  # once with a ready future, once with a late one
        world.double.commit_errors = [code]
        txn = world.kv.transaction()
        txn.set(b"a", b"1")
        with pytest.raises(kind, match=str(code)):
            await txn.commit()
        txn.cancel()
        assert await world.look(b"a") is None


async def test_an_unknown_result_may_be_applied() -> None:
    world = World()
    world.double.commit_errors = [NEVER]
    txn = world.kv.transaction()
    txn.set(b"a", b"1")
    with pytest.raises(MaybeApplied):
        await txn.commit()
    assert await world.look(b"a") == b"1"


def test_every_code_has_a_reaction() -> None:
    for code in range(1000, 3000):
        assert isinstance(error_of(code, "x", committing=True), Fs3Error)
        assert not isinstance(error_of(code, "x", committing=False), MaybeApplied)


@pytest.mark.parametrize(("code", "fires"), [(1101, True), (1031, True), (1032, False)])
async def test_a_watch_that_ends_badly_makes_the_caller_look_again(code: int, fires: bool) -> None:
    world = World()
    world.double.watch_errors = [code]
    watch = await world.kv.watch(b"a", None)
    if fires:
        await asyncio.wait_for(watch, 5)
    else:
        with pytest.raises(Busy):
            await asyncio.wait_for(watch, 5)


async def test_a_cancelled_wait_cancels_the_bindings_future() -> None:
    world = World()
    future = DoubleFuture()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(world.kv.finish(future), 0.01)
    assert future.is_ready()
    with pytest.raises(DoubleError, match="1101"):
        future.wait()


def test_addresses_are_checked(tmp_path: Path) -> None:
    for url in ("", "redis://x", "lmdb://", "fdb://", "mem://x", "lmdb:/x"):
        with pytest.raises(InvalidRequest):
            open_kv(url, clock=StepClock())
    double = Double(MemoryStore(StepClock(), KvLimits()))
    with pytest.raises(Unavailable, match="no FoundationDB cluster file"):
        open_fdb(tmp_path / "none", binding=double)
    (tmp_path / "fdb.cluster").write_text("x:y@127.0.0.1:4500")
    assert open_fdb(tmp_path / "fdb.cluster", binding=double).limits.inline_limit_bytes == 4096


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    if "libfdb_c" not in fdb_missing_library():
        return  # it is installed here, and the conformance suite can use it
    with pytest.raises(Unavailable, match=r"libfdb_c\.so.*foundationdb-clients"):
        open_kv(f"fdb://{tmp_path}/fdb.cluster", clock=StepClock())


def fdb_missing_library() -> str:
    """What loading the binding complains about; empty if nothing."""
    from fs3.kv.fdb import load_binding

    try:
        load_binding()
    except Unavailable as error:
        return str(error)
    return ""


async def test_each_address_opens_its_engine(tmp_path: Path) -> None:
    memory = open_kv("mem://", clock=StepClock())
    txn = memory.transaction()
    txn.set(b"a", b"1")
    await txn.commit()
    await memory.aclose()
    embedded = open_kv(f"lmdb://{tmp_path}/with%20space", clock=StepClock())
    assert embedded.limits.inline_limit_bytes == 16 * 1024
    txn = embedded.transaction()
    with pytest.raises(Unavailable, match="with space"):
        await txn.get(b"a")
    txn.cancel()
    await embedded.aclose()
    assert fdb_missing() is not None
