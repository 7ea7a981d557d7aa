"""The engines under test, each behind the same few handles.

An ``Engine`` is one store with as many clients as a test asks for. What differs between engines, how time
passes and how an answer gets lost, is a method here, so that no test knows which engine it runs on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from fs3.errors import MaybeApplied
from fs3.kv.faults import ScriptedFaults
from fs3.kv.memory import MemoryKv, MemoryStore
from fs3.kv.transaction import Kv


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


@asynccontextmanager
async def memory_engine() -> AsyncIterator[Engine]:
    yield MemoryEngine()
