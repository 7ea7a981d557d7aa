"""What operations, workers and the hearing share: settings, components, the term, the writer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from fs3.clock import Clock
from fs3.errors import Busy, MaybeApplied, Unauthenticated, Unavailable
from fs3.identity.keys import ClusterKey
from fs3.ids import NodeId
from fs3.kv.run import OnMaybeApplied, run
from fs3.kv.transaction import Kv, Transaction
from fs3.log import Logger
from fs3.member.timing import TIMING, Timing
from fs3.rng import Rng
from fs3.rpc.network import Network
from fs3.rpc.service import Call, PeerIdentity
from fs3.tasks import TaskScope

from .lease import PrimaryLease
from .store import Change, TermOver, put_change
from .term import Term
from .waiters import Waiters

T = TypeVar("T")

WRITE_TIMEOUT_S = 2.0
WRITERS_MAX = 1024
"""Changes that wait for their turn; more are answered Busy."""


@dataclass(frozen=True, slots=True)
class MgmtdSettings:
    """Who this mgmtd is."""

    node: NodeId
    host: str
    address: str
    """RPC ``host:port`` to listen at; port 0 takes a free one."""
    beacon_address: str
    """UDP ``host:port``; port 0 takes a free one."""
    seeds: tuple[str, ...] = ()
    """RPC addresses of the other mgmtds (its own may be among them)."""
    zone: str = ""
    version: str = ""
    timing: Timing = TIMING


@dataclass(frozen=True, slots=True)
class MgmtdComponents:
    """What it works with. ``make_nonce``: 16 unpredictable bytes; ``fail``: a task ended with a bug."""

    clock: Clock
    rng: Rng
    kv: Kv
    network: Network
    key: ClusterKey
    make_nonce: Callable[[], bytes]
    log: Logger
    fail: Callable[[str, BaseException], None]


@dataclass(slots=True)
class Services:
    """Shared by everything in one mgmtd."""

    settings: MgmtdSettings
    components: MgmtdComponents
    lease: PrimaryLease
    scope: TaskScope
    term: Term | None = None
    """Of the present or last time as primary; see ``primary_term``."""
    pass_wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Something happened that verdicts or renewals depend on."""
    standing_changed: Waiters = field(default_factory=Waiters)
    """Who waits until another mgmtd is primary than the one that is known."""
    keys_changed: Callable[[], None] = lambda: None
    """Connections of revoked users are to be cut."""
    takeover_count: int = 0
    is_stopping: bool = False
    """``MgmtdServer.stop`` has begun: nothing new is written."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _waiting_count: int = 0

    @property
    def clock(self) -> Clock:
        """The machine's, or the simulated world's."""
        return self.components.clock

    @property
    def log(self) -> Logger:
        """Where events go."""
        return self.components.log

    def primary_term(self) -> Term | None:
        """The term, if this process may act as primary now."""
        term = self.term
        if term is None or term.is_over or not self.lease.is_primary(self.clock.boot_s()):
            return None
        return term

    def acting_term(self) -> Term:
        """The term; Unavailable (with the primary's address, if known) when this is no primary."""
        term = self.primary_term()
        if term is None:
            where = self.lease.primary_address
            raise Unavailable(f"this mgmtd is not the primary; {where or 'nobody'} is")
        return term

    async def transact(self, body: Callable[[Transaction], Awaitable[T]], timeout_s: float) -> T:
        """Run a transaction that recognises by itself when it has been applied already."""
        components = self.components
        return await run(
            components.kv,
            body,
            clock=components.clock,
            rng=components.rng,
            deadline_s=components.clock.boot_s() + timeout_s,
            on_maybe_applied=OnMaybeApplied.RETRY,
        )

    async def write(self, term: Term, plan: Callable[[Term], Change]) -> int:
        """Persist what ``plan`` says, then publish it; returns the routing version with it in force.

        Writers take turns: ``plan`` sees everything that was written before, and may run long after the
        call. Unavailable: this is no primary any more. MaybeApplied: the store did not answer; the term is
        given up, since nobody knows whether the change is in; or this process stops meanwhile.
        """
        if self.is_stopping:
            raise Unavailable("this mgmtd stops")
        self._check_primary(term)
        # in a task of its own: a caller that gives up must not leave a change between store and picture
        task = self.scope.start("write routing", self._write_in_turn(term, plan))
        task.add_done_callback(_seen)
        await asyncio.wait((task,))
        if task.cancelled():
            raise MaybeApplied("this mgmtd has stopped during a change of routing")
        return task.result()

    def _check_primary(self, term: Term) -> None:
        if self.primary_term() is not term:
            raise Unavailable("this mgmtd is not the primary any more")

    async def _write_in_turn(self, term: Term, plan: Callable[[Term], Change]) -> int:
        if self._waiting_count >= WRITERS_MAX:
            raise Busy("too many changes of routing wait")
        self._waiting_count += 1
        try:
            async with self._turn:  # each turn is bounded by WRITE_TIMEOUT_S
                return await self._write(term, plan)
        finally:
            self._waiting_count -= 1

    async def _write(self, term: Term, plan: Callable[[Term], Change]) -> int:
        self._check_primary(term)
        change = plan(term)
        if change.is_empty:
            return term.routing.version
        version = term.routing.version + 1
        try:
            await self.transact(lambda txn: put_change(txn, term.record, change, version), WRITE_TIMEOUT_S)
        except TermOver as error:
            self.step_down(str(error))
            raise Unavailable(str(error)) from error
        except MaybeApplied as error:
            self.step_down(f"a change of routing is in doubt: {error}")
            raise
        term.publish(change)
        if change.key_generations:
            self.keys_changed()
        return version

    def step_down(self, why: str) -> None:
        """Act no more as primary."""
        self.lease.resign()
        if self.term is not None and not self.term.is_over:
            self.term.end()
            self.log.warning("not primary any more", reason=why, term=self.term.record.start)


def require_admin(call: Call) -> PeerIdentity:
    """The caller, if it may administer the cluster: an admin's token, or a node."""
    peer = call.peer
    if peer.role != "node" and not peer.is_admin:
        raise Unauthenticated("this needs an administrator's token")
    return peer


def _seen(task: asyncio.Task[int]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waits has it; if nobody does, the next report or pass tries again
