"""Sessions that are over: lost ones are found, and what any of them left behind is settled.

A session is lost when its renewals have not grown for 60 s by the clock of this observer, all of which it
could read the store: after a gap in its own view (the KV store was away, the service has just started or
been paused) everybody gets 60 s anew. The renewal count is read with conflict in the transaction that
declares it lost, so a renewal that comes at the last moment wins.

Of a session that is over: each file that it had open is settled (its length found out from the chains),
then its updates are refused on all chains, then its records go (design 3.4, 3.5, 4.5; ``3fs`` mistake 22).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import msgspec

from fs3.errors import Fs3Error
from fs3.ids import ClientSessionId, InodeId
from fs3.kv.ranges import key_after
from fs3.kv.run import OnMaybeApplied, run
from fs3.kv.schema import range_of, split_u64
from fs3.kv.transaction import Transaction
from fs3.stubs.storage import for_each
from fs3.tasks import TaskScope
from fs3.wire.meta import Storage

from ..finisher import Finisher, begin_settlement
from ..inode import get_inode
from ..intents import SpillIntent, get_settlement, get_spill
from ..services import Event, Services
from ..session import (
    LOST_AFTER_S,
    Session,
    clear_session,
    decode_session,
    drop_open,
    get_session,
    held_inodes,
    holding_key,
    open_count,
    open_key,
    put_session,
    renewal_key,
    session_key,
)
from .leases import WorkLeases
from .pace import has_to_wait

T = TypeVar("T")
LOOK_EVERY_S = 5.0
GAP_S = 15.0
"""Time between two looks after which nothing is concluded from the first."""
PAGE = 500
HELD_PAGE = 256
AT_ONCE = 8
STEP_S = 20.0

_Look = tuple[ClientSessionId, Session, bytes]


class SessionWorker:
    """Finds lost sessions and ends those that are over."""

    name = "sessions"

    def __init__(self, services: Services, leases: WorkLeases, finisher: Finisher, scope: TaskScope) -> None:
        self._services = services
        self._leases = leases
        self._finisher = finisher
        self._scope = scope
        self._seen: dict[ClientSessionId, tuple[bytes, float]] = {}
        self._looked_s = float("-inf")
        self.session_count = 0
        """Sessions at the last look."""

    async def work_once(self) -> float:
        """Look at all sessions once."""
        if not await self._leases.hold(self.name):
            self._seen.clear()
            self._looked_s = float("-inf")
            return LOOK_EVERY_S
        looked = await self._look()
        now_s = self._services.clock.boot_s()
        if now_s - self._looked_s > GAP_S:
            self._seen.clear()
        self._looked_s = now_s
        self.session_count = len(looked)
        ending = [(session, record) for session, record, _ in looked if record.ending]
        ending += await self._lost([one for one in looked if not one[1].ending], now_s)
        results = await for_each(self._scope, self.name, self._try_end, ending, at_once=AT_ONCE)
        return LOOK_EVERY_S if all(results) else LOOK_EVERY_S / 2

    async def _look(self) -> list[_Look]:
        found: list[_Look] = []
        begin, end = range_of(b"SESS")
        while True:
            page = await self._transact(partial(self._page, begin, end))
            found += page
            if len(page) < PAGE:
                return found
            begin = key_after(session_key(page[-1][0]))

    async def _page(self, begin: bytes, end: bytes, txn: Transaction) -> list[_Look]:
        reads = txn.snapshot
        pairs = await reads.range(begin, end, limit=PAGE)
        found: list[_Look] = []
        for key, value in pairs:
            session = ClientSessionId(split_u64(key, 1)[0][0])
            renewals = await reads.get(renewal_key(session)) or b""
            found.append((session, decode_session(value), renewals))
        return found

    async def _lost(self, alive: list[_Look], now_s: float) -> list[tuple[ClientSessionId, Session]]:
        """Those that have shown no sign for too long, now declared over."""
        seen: dict[ClientSessionId, tuple[bytes, float]] = {}
        lost: list[tuple[ClientSessionId, Session]] = []
        for session, _, renewals in alive:
            before = self._seen.get(session)
            since_s = before[1] if before is not None and before[0] == renewals else now_s
            seen[session] = (renewals, since_s)
            if now_s - since_s >= LOST_AFTER_S:
                record = await self._transact(partial(self._declare_lost, session, renewals))
                if record is not None:
                    lost.append((session, record))
                    self._services.publish(Event("session lost", session=session, detail=record.host))
        self._seen = seen
        return lost

    async def _declare_lost(
        self, session: ClientSessionId, renewals: bytes, txn: Transaction
    ) -> Session | None:
        record = await get_session(txn, session)
        if record is None or (await txn.get(renewal_key(session)) or b"") != renewals:
            return None
        ending = msgspec.structs.replace(record, ending=True)
        put_session(txn, session, ending)
        return ending

    async def _try_end(self, item: tuple[ClientSessionId, Session]) -> bool:
        try:
            return await self._end(*item)
        except Fs3Error as error:
            if not has_to_wait(error):
                raise
            return False  # a chain is away: this session stays, the others go on

    async def _end(self, session: ClientSessionId, record: Session) -> bool:
        """Settle its files, refuse it on the chains, drop its records; False: not finished."""
        services = self._services
        after = None
        settled = True
        while True:
            held = await self._transact(partial(_held, session, after))
            settle = partial(self._settle, session)
            results = await for_each(self._scope, f"settle {session:x}", settle, held, at_once=AT_ONCE)
            settled = settled and all(results)
            if len(held) < HELD_PAGE:
                break
            after = held[-1]
        if not settled:
            return False
        await services.chains.end_session(session, services.placement.all_chains(), timeout_s=STEP_S)

        async def drop(txn: Transaction) -> bool:
            if await held_inodes(txn, session, 1):
                return False
            clear_session(txn, session, record)
            return True

        return await self._transact(drop)

    async def _settle(self, session: ClientSessionId, inode: InodeId) -> bool:
        """One file; False: a chain does not answer, it stays settling."""
        spill = await self._transact(partial(self._begin, session, inode))
        deadline_s = self._services.clock.boot_s() + STEP_S
        try:
            if spill is not None:
                await self._finisher.roll_back_spill(inode, spill, deadline_s)
                await self._transact(partial(self._begin, session, inode))
            await self._finisher.finish(inode, deadline_s)
        except Fs3Error as error:
            if not has_to_wait(error):
                raise
            return False
        return True

    async def _begin(self, session: ClientSessionId, inode: InodeId, txn: Transaction) -> SpillIntent | None:
        """Take the file out of the session's hands; returns its spill, if that is to be rolled back first."""
        record = await get_inode(txn, inode)
        if not await open_count(txn, inode, session):
            settlement = await get_settlement(txn, inode)
            if settlement is None or session not in settlement.sessions:
                txn.clear(holding_key(session, inode))
            return None
        if record is not None and record.nlink and record.storage is Storage.SPILLING:
            spill = await get_spill(txn, inode)
            if spill is not None and spill.session == session:
                return spill
        if record is None or not record.nlink or record.storage is not Storage.CHUNKED:
            drop_open(txn, inode, session)
            return None
        txn.clear(open_key(inode, session))
        await begin_settlement(txn, record, (session,))
        return None

    async def _transact(self, body: Callable[[Transaction], Awaitable[T]]) -> T:
        services = self._services
        return await run(
            services.kv,
            body,
            clock=services.clock,
            rng=services.rng,
            deadline_s=services.clock.boot_s() + STEP_S,
            on_maybe_applied=OnMaybeApplied.RETRY,
        )


async def _held(session: ClientSessionId, after: InodeId | None, txn: Transaction) -> list[InodeId]:
    return await held_inodes(txn.snapshot, session, HELD_PAGE, after)
