"""The engines under test, each behind the same few handles.

An ``Engine`` is one store with as many clients as a test asks for. What differs between engines, how time
passes and how an answer gets lost, is a method here, so that no test knows which engine it runs on.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from tempfile import TemporaryDirectory
from typing import Protocol

from fs3.errors import MaybeApplied, Unavailable
from fs3.kv.faults import ScriptedFaults
from fs3.kv.fdb import UNKNOWN_RESULT, FdbKv, load_binding, open_fdb
from fs3.kv.lmdb_client import LmdbKv, LmdbSettings
from fs3.kv.memory import MemoryKv, MemoryStore
from fs3.kv.transaction import Kv, KvLimits
from tests.kv.fdb_double import NEVER, Double
from tests.kv.owner_process import OwnerProcess


class StepClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def boot_s(self) -> float:
        return self.now_s

    def wall_ns(self) -> int:
        return int(self.now_s * 1e9)


class Engine(Protocol):
    """One store under test."""

    name: str

    async def client(self) -> Kv:
        """A new client of the store; closed with the engine."""
        ...

    def pass_time(self, seconds: float) -> None:
        """All clients' clocks move on."""
        ...

    async def lose_answer(self, kv: Kv, commit: Callable[[], Awaitable[object]]) -> None:
        """Run ``commit`` on client ``kv`` so that its answer is lost: it raises MaybeApplied."""
        ...

    async def clear(self) -> None:
        """Empty the store, close the clients: the next test finds it as new."""
        ...


class MemoryEngine:
    """``mem://``."""

    name = "memory"

    def __init__(self) -> None:
        self._clock = StepClock()
        self.store = MemoryStore(self._clock)
        self._faults: dict[int, ScriptedFaults] = {}
        self._lost = 0

    async def client(self) -> Kv:
        faults = ScriptedFaults()
        kv = MemoryKv(self.store, faults=faults)
        self._faults[id(kv)] = faults
        return kv

    def pass_time(self, seconds: float) -> None:
        self._clock.now_s += seconds

    async def lose_answer(self, kv: Kv, commit: Callable[[], Awaitable[object]]) -> None:
        faults = self._faults[id(kv)]
        self._lost += 1
        script = faults.after if self._lost % 2 else faults.before
        script.append(MaybeApplied("injected"))
        try:
            await commit()
        finally:
            script.clear()

    async def clear(self) -> None:
        pass


@asynccontextmanager
async def memory_engine() -> AsyncIterator[Engine]:
    yield MemoryEngine()


async def empty(kv: Kv) -> None:
    """Remove everything."""
    txn = kv.transaction()
    txn.clear_range(b"", b"\xff")
    await txn.commit()


class LmdbEngine:
    """``lmdb://DIR`` with an owner process. Clients' clocks are moved by hand, its own is real."""

    name = "lmdb"

    def __init__(self, directory: Path, owner: OwnerProcess) -> None:
        self._directory = directory
        self._owner = owner
        self._clock = StepClock()
        self._clients: list[LmdbKv] = []
        self._lost = 0

    async def client(self) -> Kv:
        settings = LmdbSettings(self._directory, connect_timeout_s=5.0, commit_timeout_s=0.3)
        kv = LmdbKv(settings, clock=self._clock)
        self._clients.append(kv)
        return kv

    def pass_time(self, seconds: float) -> None:
        self._clock.now_s += seconds

    async def lose_answer(self, kv: Kv, commit: Callable[[], Awaitable[object]]) -> None:
        """Odd ones: the owner is stopped beyond the time-out. Even ones: it is killed meanwhile."""
        self._lost += 1
        self._owner.signal(SIGSTOP)
        if self._lost % 2:
            try:
                await commit()
            finally:
                self._owner.signal(SIGCONT)
            return
        asyncio.get_running_loop().call_later(0.05, self._owner.kill)
        try:
            await commit()
        finally:
            self._owner.start()

    async def clear(self) -> None:
        await empty(await self.client())
        for kv in self._clients:
            await kv.aclose()


@asynccontextmanager
async def lmdb_engine() -> AsyncIterator[Engine]:
    with TemporaryDirectory(prefix="fs3-kv-") as folder:
        owner = OwnerProcess(Path(folder))
        owner.start()
        engine = LmdbEngine(Path(folder), owner)
        try:
            yield engine
            await engine.clear()
        finally:
            owner.stop()


class DoubleEngine:
    """``fdb://`` on the double of its binding."""

    name = "fdb_double"

    def __init__(self) -> None:
        self._clock = StepClock()
        self.double = Double(MemoryStore(self._clock, KvLimits()))
        self._lost = 0

    async def client(self) -> Kv:
        return FdbKv(self.double, self.double.open(""))

    def pass_time(self, seconds: float) -> None:
        self._clock.now_s += seconds

    async def lose_answer(self, kv: Kv, commit: Callable[[], Awaitable[object]]) -> None:
        self._lost += 1
        self.double.commit_errors.append(NEVER if self._lost % 2 else UNKNOWN_RESULT)
        await commit()

    async def clear(self) -> None:
        pass


@asynccontextmanager
async def double_engine() -> AsyncIterator[Engine]:
    yield DoubleEngine()


class FdbEngine:
    """``fdb://`` on a real cluster (environment variable FDB_CLUSTER_FILE). It is emptied by each test!"""

    name = "fdb"

    def __init__(self, cluster_file: Path) -> None:
        self._cluster_file = cluster_file

    async def client(self) -> Kv:
        return open_fdb(self._cluster_file)

    def pass_time(self, seconds: float) -> None:
        time.sleep(seconds)

    async def lose_answer(self, kv: Kv, commit: Callable[[], Awaitable[object]]) -> None:
        await commit()
        raise MaybeApplied("the cluster itself cannot be made to lose an answer on demand")

    async def clear(self) -> None:
        await empty(await self.client())


@asynccontextmanager
async def fdb_engine() -> AsyncIterator[Engine]:
    engine = FdbEngine(Path(os.environ["FDB_CLUSTER_FILE"]))
    await engine.clear()
    yield engine
    await engine.clear()


def fdb_missing() -> str:
    """Why the real FoundationDB cannot be tested here; empty if it can."""
    if "FDB_CLUSTER_FILE" not in os.environ:
        return "FDB_CLUSTER_FILE is not set"
    try:
        load_binding()
    except Unavailable as error:
        return str(error)
    return ""
