"""Finishes what the storage nodes have to do for a file: cut its chunks, find its length after a loss.

Two services may finish the same file at the same time, and a request of one may arrive long after the other
has finished. So a cut uses two epochs. With e the intent's epoch::

    1  raise e on all chains        no write of before is under way any more
    2  cut, under e
    3  raise e + 1 on all chains    no cut under e can happen any more, however late it arrives
    4  transaction: if the intent is still this one, clear it; the file's epoch is e + 1

Writers are let in (open for writing waits) only after 4, under e + 1, so that no late cut meets their
bytes. Who finds e + 1 in force on some chain goes on with step 3: another one came that far and died, and had
cut all chains before. That holds if nobody else has taken e + 1 (a settlement, a removal): 4 looks. In all
other cases the intent gets a new epoch, in a transaction, and everything starts again.

A settlement cuts nothing: raise, ask where the bytes end, store the length if the intent is unchanged.

Within a service one finisher works on a file at a time. A chain that is away would have every request for the
file, and a file may have many openers, ask all its chains again and again until it is back.

Source: design 3.5, 3.6, 3.9, 4.9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from fs3.errors import DeadlineExceeded, MaybeApplied, StaleFile, Unavailable
from fs3.ids import ClientSessionId, Epoch, InodeId
from fs3.kv.run import OnMaybeApplied, run
from fs3.kv.transaction import Transaction
from fs3.layout import Layout
from fs3.wire.meta import Storage

from .inode import Inode, get_inode, put_inode
from .intents import (
    CUTS,
    SETTLEMENTS,
    SPILLS,
    CutIntent,
    SettleIntent,
    SpillIntent,
    clear_intent,
    get_cut,
    get_settlement,
    get_spill,
    put_cut,
    put_settlement,
)
from .services import Event, Services
from .session import holding_key

T = TypeVar("T")
ROUNDS_MAX = 16
"""Times that another finisher may get in between before we give up for this request."""
STEP_MAX_S = 30.0


class Finisher:
    """Brings files to rest. All calls may be made at any time, by any service."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._under_way: dict[InodeId, asyncio.Future[None]] = {}
        """Files that somebody here works on; done when that one has ended, whatever came of it."""

    async def finish(self, inode: InodeId, deadline_s: float) -> None:
        """Finish the cut and the settlement of a file, if there are any.

        Unavailable or DeadlineExceeded when a chain does not answer in time; the intent stays.
        """
        try:
            for _ in range(ROUNDS_MAX):
                while True:
                    record, cut, settle = await self._transact(lambda txn: _look(txn, inode), deadline_s)
                    if record is None or not (cut or settle):
                        return
                    if inode not in self._under_way:
                        break
                    await self._another_ended(inode, deadline_s)
                assert record.layout is not None, f"file {inode:x} has no layout"
                await self._in_turn(inode, self._once(inode, record.layout, cut, settle, deadline_s))
        except MaybeApplied as error:  # every step may be done twice: to the caller nothing has happened
            raise DeadlineExceeded(f"file {inode:x} could not be brought to rest: {error}") from error
        raise Unavailable(f"file {inode:x} is being changed by others all the time")

    async def _another_ended(self, inode: InodeId, deadline_s: float) -> None:
        """DeadlineExceeded: whoever works on the file is still at it."""
        left_s = deadline_s - self._services.clock.boot_s()
        _, working = await asyncio.wait((self._under_way[inode],), timeout=max(0.0, left_s))
        if working:
            raise DeadlineExceeded(f"file {inode:x} is not at rest yet")

    async def _in_turn(self, inode: InodeId, work: Awaitable[None]) -> None:
        ended = self._under_way[inode] = asyncio.get_running_loop().create_future()
        try:
            await work
        finally:
            del self._under_way[inode]
            ended.set_result(None)

    async def _once(
        self,
        inode: InodeId,
        layout: Layout,
        cut: CutIntent | None,
        settle: SettleIntent | None,
        deadline_s: float,
    ) -> None:
        if cut is not None:
            await self._cut_once(inode, layout, cut, deadline_s)
        elif settle is not None:
            await self._settle_once(inode, layout, settle, deadline_s)

    async def roll_back_spill(self, inode: InodeId, seen: SpillIntent, deadline_s: float) -> bool:
        """Give up a spill whose client is gone: the content is still in the KV store, and stays there.

        The chunk that the client may have written is cut before anybody may write again. False: the intent
        is not the one that was seen.
        """

        async def body(txn: Transaction) -> bool:
            intent, record = await get_spill(txn, inode), await get_inode(txn, inode)
            if intent != seen or record is None or not record.nlink:
                return False
            assert record.storage is Storage.SPILLING, record
            clear_intent(txn, SPILLS, inode)
            keep_inline(txn, record)
            return True

        rolled_back = await self._transact(body, deadline_s)
        if rolled_back:
            self._services.publish(Event("spill rolled back", inode, seen.session))
        return rolled_back

    async def _cut_once(self, inode: InodeId, layout: Layout, intent: CutIntent, deadline_s: float) -> None:
        chains = self._services.placement.chains_of(layout)
        stub = self._services.chains
        after = Epoch(intent.epoch + 1)
        force = await stub.raise_epoch(inode, intent.epoch, chains, timeout_s=self._step_s(deadline_s))
        cut_by_another = force > intent.epoch
        if not cut_by_another:
            try:
                await stub.cut(
                    inode,
                    layout,
                    chains,
                    intent.length_bytes,
                    intent.epoch,
                    timeout_s=self._step_s(deadline_s),
                )
            except StaleFile:
                cut_by_another = True
        force = await stub.raise_epoch(inode, after, chains, timeout_s=self._step_s(deadline_s))

        async def body(txn: Transaction) -> bool:
            record = await get_inode(txn, inode)
            if record is None or await get_cut(txn, inode) != intent:
                return True
            if cut_by_another and not (force == after and record.epoch == intent.epoch and record.nlink):
                return False  # who raised the epoch may not have been a finisher of this intent
            clear_intent(txn, CUTS, inode)
            epoch = Epoch(max(record.epoch, after, force))
            put_inode(txn, msgspec.structs.replace(record, cutting=False, epoch=epoch))
            return True

        if not await self._transact(body, deadline_s):
            await self._renumber_cut(inode, intent, max(after, force), deadline_s)

    async def _renumber_cut(
        self, inode: InodeId, intent: CutIntent, in_force: Epoch, deadline_s: float
    ) -> None:
        """Somebody took a later epoch: cut again, above what is in force."""

        async def body(txn: Transaction) -> None:
            record = await get_inode(txn, inode)
            if record is None or await get_cut(txn, inode) != intent:
                return
            epoch = Epoch(max(record.epoch, in_force) + 1)
            put_cut(txn, inode, CutIntent(epoch, intent.length_bytes))
            put_inode(txn, msgspec.structs.replace(record, epoch=epoch))

        await self._transact(body, deadline_s)

    async def _settle_once(
        self, inode: InodeId, layout: Layout, intent: SettleIntent, deadline_s: float
    ) -> None:
        chains = self._services.placement.chains_of(layout)
        stub = self._services.chains
        force = await stub.raise_epoch(inode, intent.epoch, chains, timeout_s=self._step_s(deadline_s))
        end = await stub.file_end(inode, layout, chains, timeout_s=self._step_s(deadline_s))

        async def body(txn: Transaction) -> bool:
            record = await get_inode(txn, inode)
            if record is None or await get_settlement(txn, inode) != intent:
                return False
            clear_intent(txn, SETTLEMENTS, inode)
            for session in intent.sessions:
                txn.clear(holding_key(session, inode))
            length_bytes = max(record.length_bytes, end.length_bytes)
            put_inode(
                txn,
                msgspec.structs.replace(
                    record,
                    settling=False,
                    length_bytes=length_bytes,
                    epoch=Epoch(max(record.epoch, force)),
                    mtime_ns=max(record.mtime_ns, self._services.clock.wall_ns())
                    if length_bytes > record.length_bytes
                    else record.mtime_ns,
                ),
            )
            return True

        if await self._transact(body, deadline_s):
            self._services.publish(
                Event("file settled", inode, detail=f"{end.length_bytes} bytes were written")
            )

    def _step_s(self, deadline_s: float) -> float:
        return max(0.001, min(STEP_MAX_S, deadline_s - self._services.clock.boot_s()))

    async def _transact(self, body: Callable[[Transaction], Awaitable[T]], deadline_s: float) -> T:
        services = self._services
        return await run(
            services.kv,
            body,
            clock=services.clock,
            rng=services.rng,
            deadline_s=deadline_s,
            on_maybe_applied=OnMaybeApplied.RETRY,
        )


async def _look(
    txn: Transaction, inode: InodeId
) -> tuple[Inode | None, CutIntent | None, SettleIntent | None]:
    reads = txn.snapshot
    return await get_inode(reads, inode), await get_cut(reads, inode), await get_settlement(reads, inode)


async def begin_settlement(txn: Transaction, record: Inode, sessions: tuple[ClientSessionId, ...]) -> None:
    """Mark a file whose writers are lost: its length is a lower bound until ``finish`` has settled it."""
    present = await get_settlement(txn, record.inode)
    known = present.sessions if present else ()
    added = tuple(s for s in sessions if s not in known)
    epoch = Epoch(record.epoch + 1)
    put_settlement(txn, record.inode, SettleIntent(epoch, known + added))
    put_inode(txn, msgspec.structs.replace(record, settling=True, epoch=epoch))


def keep_inline(txn: Transaction, record: Inode) -> None:
    """The content stays in the KV store: what of it is in chunks is cut before anybody writes again."""
    epoch = Epoch(record.epoch + 1)
    put_cut(txn, record.inode, CutIntent(epoch, 0))
    changed = msgspec.structs.replace(
        record,
        storage=Storage.INLINE,
        content_version=record.content_version + 1,
        epoch=epoch,
        cutting=True,
    )
    put_inode(txn, changed)
