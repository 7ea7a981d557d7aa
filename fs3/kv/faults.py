"""Faults that a memory store can be told to have, as a component handed to the engine.

``KvFaults`` is the whole interface: three places where a store can refuse, wait, or lose an answer. What is
raised there reaches the caller as if the store had met it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..errors import Fs3Error, MaybeApplied, TransactionConflict, Unavailable
from ..rng import Rng


class KvFaults:
    """No faults; the base of those that have some."""

    def at_read(self) -> None:
        """Before a snapshot is opened or a watch is set; may raise Unavailable."""

    async def before_commit(self) -> None:
        """May wait; what it raises means that the commit was not applied (MaybeApplied included)."""

    async def after_commit(self) -> None:
        """The commit is applied; may wait, and may raise MaybeApplied: its answer is lost."""


@dataclass(frozen=True, slots=True)
class FaultRates:
    """Probability of each fault at each commit (or read)."""

    read_unavailable: float = 0.0
    unavailable: float = 0.0
    conflict: float = 0.0
    unknown_not_applied: float = 0.0
    unknown_applied: float = 0.0
    slow: float = 0.0
    delay_max_s: float = 0.1


class RandomFaults(KvFaults):
    """Faults at given rates from a generator that was handed in. ``cut`` makes the store unreachable."""

    def __init__(self, rng: Rng, rates: FaultRates) -> None:
        self._rng = rng
        self.rates = rates
        self.cut = False

    def at_read(self) -> None:
        if self.cut or self._rng.random() < self.rates.read_unavailable:
            raise Unavailable("injected: the store cannot be reached")

    async def before_commit(self) -> None:
        rates, draw = self.rates, self._rng.random
        if rates.slow and draw() < rates.slow:
            await asyncio.sleep(draw() * rates.delay_max_s)
        if self.cut or draw() < rates.unavailable:
            raise Unavailable("injected: the store cannot be reached")
        if draw() < rates.conflict:
            raise TransactionConflict("injected")
        if draw() < rates.unknown_not_applied:
            raise MaybeApplied("injected: not applied")

    async def after_commit(self) -> None:
        if self._rng.random() < self.rates.unknown_applied:
            raise MaybeApplied("injected: applied")


class ScriptedFaults(KvFaults):
    """Faults of the next commits, one by one: each entry of ``before`` and ``after`` serves one commit.

    An entry is an error to raise, a function to await (for instance another transaction that gets in
    between body and commit), or None.
    """

    Step = Fs3Error | Callable[[], Awaitable[None]] | None

    def __init__(self) -> None:
        self.before: list[ScriptedFaults.Step] = []
        self.after: list[ScriptedFaults.Step] = []
        self.reads: list[Fs3Error] = []

    def at_read(self) -> None:
        if self.reads:
            raise self.reads.pop(0)

    async def before_commit(self) -> None:
        await self._take(self.before)

    async def after_commit(self) -> None:
        await self._take(self.after)

    async def _take(self, script: list[ScriptedFaults.Step]) -> None:
        step = script.pop(0) if script else None
        if isinstance(step, Fs3Error):
            raise step
        if step is not None:
            await step()
