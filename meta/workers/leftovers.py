"""Truncates, spills and settlements that whoever began them has left: found by age and finished.

Source: design 3.5, 3.6, 3.9 (whoever finds an old intent goes on).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from fs3.errors import Fs3Error
from fs3.ids import InodeId
from fs3.kv.run import run
from fs3.stubs.storage import for_each
from fs3.tasks import TaskScope

from ..finisher import Finisher
from ..inode import decoded
from ..intents import CUTS, SETTLEMENTS, SPILLS, SpillIntent, list_intents
from ..services import Services
from .aged import Aged
from .leases import WorkLeases
from .pace import has_to_wait

PAGE = 1000
AT_ONCE = 8
IDLE_S = 2.0
STEP_S = 30.0
CUT_AGE_S = 5.0
"""The operation that truncates finishes its own cut within this time, if it lives."""
SPILL_AGE_S = 15.0
"""A writer moves a few KiB within this time, if it lives; a live one that is slower starts anew."""
_SPILL = msgspec.msgpack.Decoder(SpillIntent)


class _IntentWorker:
    """Lists one kind of intent, lets them age, and works on the old ones."""

    def __init__(
        self, services: Services, leases: WorkLeases, finisher: Finisher, scope: TaskScope, age_s: float
    ) -> None:
        self._services = services
        self._leases = leases
        self._finisher = finisher
        self._scope = scope
        self._aged = Aged(age_s, PAGE)

    async def _work(self, name: str, kind: bytes, one: Callable[[InodeId, bytes], Awaitable[None]]) -> float:
        services = self._services
        if not await self._leases.hold(name):
            return IDLE_S
        now_s = services.clock.boot_s()
        entries = await run(
            services.kv,
            lambda txn: list_intents(txn.snapshot, kind, self._aged.after, PAGE),
            clock=services.clock,
            rng=services.rng,
            deadline_s=now_s + STEP_S,
        )

        async def attempt(entry: tuple[InodeId, bytes]) -> bool:
            try:
                await one(*entry)
            except Fs3Error as error:
                if not has_to_wait(error):
                    raise
                return False  # a chain is away; the others must not wait for it
            return True

        old = self._aged.old(entries, now_s)
        await for_each(self._scope, name, attempt, old, at_once=AT_ONCE)
        return IDLE_S

    def _deadline_s(self) -> float:
        return self._services.clock.boot_s() + STEP_S


class TruncateWorker(_IntentWorker):
    """Finishes cuts whose operation died."""

    name = "truncates"

    def __init__(self, services: Services, leases: WorkLeases, finisher: Finisher, scope: TaskScope) -> None:
        super().__init__(services, leases, finisher, scope, CUT_AGE_S)

    async def work_once(self) -> float:
        """Finish the old ones."""
        return await self._work(self.name, CUTS, self._finish)

    async def _finish(self, inode: InodeId, _intent: bytes) -> None:
        await self._finisher.finish(inode, self._deadline_s())


class SettlementWorker(_IntentWorker):
    """Goes on with settlements that could not be finished: a chain was away."""

    name = "settlements"

    def __init__(self, services: Services, leases: WorkLeases, finisher: Finisher, scope: TaskScope) -> None:
        super().__init__(services, leases, finisher, scope, 0.0)

    async def work_once(self) -> float:
        """Try all of them."""
        return await self._work(self.name, SETTLEMENTS, self._finish)

    async def _finish(self, inode: InodeId, _intent: bytes) -> None:
        await self._finisher.finish(inode, self._deadline_s())


class SpillWorker(_IntentWorker):
    """Rolls back spills whose writer is gone."""

    name = "spills"

    def __init__(self, services: Services, leases: WorkLeases, finisher: Finisher, scope: TaskScope) -> None:
        super().__init__(services, leases, finisher, scope, SPILL_AGE_S)

    async def work_once(self) -> float:
        """Roll the old ones back."""
        return await self._work(self.name, SPILLS, self._roll_back)

    async def _roll_back(self, inode: InodeId, data: bytes) -> None:
        seen = decoded(_SPILL, data, f"spill intent of {inode:x}")
        if await self._finisher.roll_back_spill(inode, seen, self._deadline_s()):
            await self._finisher.finish(inode, self._deadline_s())
