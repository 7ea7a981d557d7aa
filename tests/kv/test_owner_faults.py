"""The owner is killed and stopped under load: what was acknowledged is there, the rest is all or nothing.

Each transaction of the load raises a shared counter (read with conflict) and writes two keys of its own that
hold the new count. Afterwards the store tells for each transaction whether it happened, and that has to fit
what its client was told.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fs3.clock import SystemClock
from fs3.errors import (
    Busy,
    Fs3Error,
    MaybeApplied,
    TransactionConflict,
    TransactionTooOld,
    Unavailable,
)
from fs3.kv.lmdb_client import LmdbKv, LmdbSettings
from fs3.kv.schema import key_u64, range_of
from fs3.rng import Rng, derived_rng
from fs3.tasks import TaskScope

from .owner_process import OwnerProcess

COUNTER = b"TESTcounter"
WORKERS = 16
PAUSE_S = 0.002
"""Of a client after an error; a pace, not a wait for something."""
PATIENCE_S = 20.0
DOCUMENTED = (TransactionConflict, TransactionTooOld, MaybeApplied, Unavailable, Busy)


class Load:
    """Clients at work, and what they were told."""

    def __init__(self, clients: list[LmdbKv]) -> None:
        self._clients = clients
        self._numbers = 0
        self.told: dict[int, type[Fs3Error] | None] = {}
        """Transaction → None (acknowledged) or the error."""
        self.acknowledged = 0
        self.more = asyncio.Event()
        self.stopping = False

    async def worker(self, which: int) -> None:
        kv = self._clients[which % len(self._clients)]
        while not self.stopping:
            self._numbers += 1
            number = self._numbers
            try:
                await self.one(kv, number)
            except DOCUMENTED as error:
                self.told[number] = type(error)
                await asyncio.sleep(PAUSE_S)
            else:
                self.told[number] = None
                self.acknowledged += 1
                self.more.set()

    async def one(self, kv: LmdbKv, number: int) -> None:
        txn = kv.transaction()
        try:
            if number % 4 == 0:  # three of four do not meet each other
                count = int.from_bytes(await txn.get(COUNTER) or b"", "big") + 1
                txn.set(COUNTER, count.to_bytes(8, "big"))
            else:
                count = 0
            value = count.to_bytes(8, "big")
            txn.set(key_u64(b"TEST", number, 0), value)
            txn.set(key_u64(b"TEST", number, 1), value)
            await txn.commit()
        finally:
            txn.cancel()

    async def progress(self) -> None:
        """Returns when something more has been acknowledged."""
        before = self.acknowledged
        self.more.clear()
        async with asyncio.timeout(PATIENCE_S):
            await self.more.wait()
        assert self.acknowledged > before

    async def check(self, kv: LmdbKv) -> Counter[str]:
        """Compare the store with what was told; returns how often each outcome occurred."""
        txn = kv.transaction()
        present: dict[int, list[bytes]] = {}
        for number in self.told:
            begin, end = range_of(key_u64(b"TEST", number))
            present[number] = [value for _, value in await txn.range(begin, end)]
        counter = int.from_bytes(await txn.get(COUNTER) or b"", "big")
        txn.cancel()
        outcomes: Counter[str] = Counter()
        counts: list[int] = []
        for number, told in self.told.items():
            values = present[number]
            name = told.__name__ if told else "acknowledged"
            outcomes[name] += 1
            assert len(values) in (0, 2) and len(set(values)) <= 1, f"{number} is half there: {values}"
            if told is None:
                assert values, f"{number} was acknowledged and is lost"
            elif told is not MaybeApplied:
                assert not values, f"{number} was refused ({name}) and is there"
            counts += [int.from_bytes(value, "big") for value in values[:1] if any(value)]
        assert sorted(counts) == list(range(1, counter + 1)), "each raise of the counter happened once"
        return outcomes


@asynccontextmanager
async def at_work(directory: Path, *, commit_timeout_s: float) -> AsyncIterator[tuple[OwnerProcess, Load]]:
    """An owner and two clients under load; the outcome is checked at the end."""
    owner = OwnerProcess(directory)
    owner.start()
    settings = LmdbSettings(directory, connect_timeout_s=0.5, commit_timeout_s=commit_timeout_s)
    clients = [LmdbKv(settings, clock=SystemClock()) for _ in range(2)]
    load = Load(clients)
    failures: list[BaseException] = []
    try:
        async with TaskScope("load", lambda _, error: failures.append(error)) as scope:
            workers = [scope.start(str(number), load.worker(number)) for number in range(WORKERS)]
            yield owner, load
            load.stopping = True
            for worker in workers:
                await worker
        outcomes = await load.check(clients[0])
        assert outcomes["acknowledged"] > 0, outcomes
    finally:
        for kv in clients:
            await kv.aclose()
        owner.stop()
    assert not failures


async def kill(owner: OwnerProcess, rng: Rng) -> None:
    owner.kill()
    await asyncio.sleep(rng.random() * 0.1)
    owner.start()


async def stop_for(owner: OwnerProcess, seconds: float) -> None:
    owner.signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    owner.signal(signal.SIGCONT)


async def rounds(directory: Path, count: int, stop_s: float, seed: int) -> None:
    """``count`` times each: killed under load, and stopped beyond the clients' patience."""
    rng = derived_rng(seed, "owner faults")
    async with at_work(directory, commit_timeout_s=stop_s / 2) as (owner, load):
        for _ in range(count):
            faults: list[Callable[[], Awaitable[None]]] = [
                lambda: kill(owner, rng),
                lambda: stop_for(owner, stop_s),
            ]
            rng.shuffle(faults)
            for fault in faults:
                await load.progress()
                await asyncio.sleep(rng.random() * 0.2)
                await fault()
        await load.progress()


async def test_killed_and_stopped_under_load(tmp_path: Path) -> None:
    await rounds(tmp_path, 3, 0.4, 1)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_killed_often_under_load(tmp_path: Path) -> None:
    await rounds(tmp_path, 60, 0.3, 2)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_stopped_for_half_a_minute_under_load(tmp_path: Path) -> None:
    async with at_work(tmp_path, commit_timeout_s=5.0) as (owner, load):
        for _ in range(2):
            await load.progress()
            await stop_for(owner, 30.0)
            await load.progress()
        assert MaybeApplied in load.told.values()


async def test_a_new_owner_judges_no_older_snapshot(tmp_path: Path) -> None:
    owner = OwnerProcess(tmp_path)
    owner.start()
    kv = LmdbKv(LmdbSettings(tmp_path), clock=SystemClock())
    try:
        await put(kv, b"TESTa")
        older = kv.transaction()
        await older.get(b"TESTx")
        await put(kv, b"TESTb")
        newest = kv.transaction()
        await newest.get(b"TESTx")
        owner.kill()
        owner.start()
        with pytest.raises(Unavailable):  # the old connection does not take it
            await put(kv, b"TESTe")
        older.set(b"TESTc", b"1")
        with pytest.raises(TransactionTooOld):
            await older.commit()
        newest.set(b"TESTd", b"1")
        assert await newest.commit() is not None
    finally:
        await kv.aclose()
        owner.stop()


async def put(kv: LmdbKv, key: bytes) -> None:
    txn = kv.transaction()
    txn.set(key, b"1")
    await txn.commit()


async def test_reads_go_on_without_an_owner_and_commits_say_unavailable(tmp_path: Path) -> None:
    kv = LmdbKv(LmdbSettings(tmp_path / "store"), clock=SystemClock())
    owner = OwnerProcess(tmp_path / "store")
    try:
        early = kv.transaction()
        with pytest.raises(Unavailable, match="fs3 kv"):
            await early.get(b"TESTa")
        early.cancel()
        with pytest.raises(Unavailable, match="fs3 kv"):
            await put(kv, b"TESTa")
        owner.start()
        await put(kv, b"TESTa")
        watch = await kv.watch(b"TESTa", b"1")
        assert owner.stop() == 0
        with pytest.raises(Unavailable):
            await asyncio.wait_for(watch, PATIENCE_S)
        txn = kv.transaction()
        assert await txn.get(b"TESTa") == b"1"
        txn.cancel()
        with pytest.raises(Unavailable):
            await put(kv, b"TESTb")
        owner.start()
        await put(kv, b"TESTb")
    finally:
        await kv.aclose()
        owner.stop()


async def test_a_client_that_starts_over_a_new_store_reads_the_new_one(tmp_path: Path) -> None:
    owner = OwnerProcess(tmp_path)
    owner.start()
    kv = LmdbKv(LmdbSettings(tmp_path), clock=SystemClock())
    try:
        await put(kv, b"TESTa")
        txn = kv.transaction()
        assert await txn.get(b"TESTa") == b"1"
        txn.cancel()
        owner.stop()
        for name in ("data.mdb", "lock.mdb"):
            (tmp_path / name).unlink()
        owner.start()
        with pytest.raises(Unavailable):  # the old connection does not take it
            await put(kv, b"TESTb")
        await put(kv, b"TESTc")
        txn = kv.transaction()
        assert await txn.get(b"TESTa") is None
        assert await txn.get(b"TESTc") == b"1"
        txn.cancel()
    finally:
        await kv.aclose()
        owner.stop()
