"""The one driver of all operations: who asks, exactly once, retries, the deadline, what is told afterwards.

An operation is a body, ``async def body(op, txn, request) -> response``, and a few facts about it
(``Operation``). The driver does the rest, in this order::

    identity   act_as only for admins; the session must live and belong to the caller
    slot       this request was applied before: its stored answer, nothing runs
    prepare    what has to be asked of the storage nodes, or read page by page, before the transaction
    body       in a transaction; again after a conflict; after ``Unfinished`` once that work is finished
    answer     stored in the same transaction, so that an unknown commit result is resolved by a new attempt
    events     published
    finish     what has to happen before the client is answered (cutting chunks, signing the capability);
               also after a replay: the first try may have died right after its commit

A body has no side effect but its transaction and ``op.events`` (cleared at each attempt). On a store in
local memory no read suspends, so an operation that only reads runs without a task.

Source: design 3.1, 3.3; style 1.1.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from fs3.errors import Busy, DeadlineExceeded, Fs3Error, MaybeApplied, Retryable, fs_error
from fs3.kv.run import OnMaybeApplied, RunStats, run
from fs3.kv.transaction import Transaction
from fs3.log import SlowLog
from fs3.metrics import Counter, Histogram, Metrics
from fs3.rpc.service import Call, Method, PeerIdentity
from fs3.wire.meta import ActAs, Mutation

from .acl import ROOT, Who
from .bounds import Check, bounds_of
from .finisher import Finisher
from .services import Op, PrepareAgain, Services, Unfinished
from .session import require_session
from .slots import check_mutation, store_answer, stored_answer

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

OPERATION_MAX_S = 60.0
"""Longest time that a client's deadline keeps an operation running."""

UNFINISHED_MAX = 20
"""Times that an operation finishes others' work on its file before it gives up."""


def _no_mutation(_request: Any) -> Mutation | None:
    return None


def _its_mutation(request: Any) -> Mutation | None:
    mutation: Mutation = request.mutation
    return mutation


def _no_ids(_request: Any) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Operation(Generic[Q, R]):
    """One RPC of the metadata service."""

    method: Method[Q, R]
    body: Callable[[Op, Transaction, Q], Awaitable[R]]
    mutation: Callable[[Q], Mutation | None] = _its_mutation
    """Identity under which it is applied once; None: it may be run as often as one likes."""
    only_reads: bool = False
    """Its transaction has nothing to commit."""
    prepare: Callable[[Op, Q], Awaitable[None]] | None = None
    """Runs before the transaction, perhaps more than once; leaves what it found in ``op.prepared``."""
    finish: Callable[[Op, Q, R], Awaitable[R]] | None = None
    """Runs after the commit (or replay), before the answer. Must be harmless when it runs twice."""
    ids: Callable[[Q], int] = _no_ids
    """How many inode ids it may need."""


reading = _no_mutation
"""For operations without a slot: ``Operation(..., mutation=reading)``."""


class Driver:
    """Runs operations for RPC handlers."""

    def __init__(self, services: Services, finisher: Finisher, metrics: Metrics, slow: SlowLog) -> None:
        self.services = services
        self.finisher = finisher
        self.stats = RunStats()
        self._metrics = metrics
        self._slow = slow
        self._replays = metrics.counter("fs3_meta_replays_total")
        self._outcomes: dict[tuple[str, str], Counter] = {}
        self._times: dict[str, tuple[Histogram, Counter]] = {}
        self._bounds: dict[type[msgspec.Struct], Check] = {}

    def handler(self, operation: Operation[Q, R]) -> Callable[[Call, Q], Awaitable[R]]:
        """The RPC handler of an operation."""
        name = operation.method.name
        self._times[name] = (
            self._metrics.histogram("fs3_meta_operation_seconds", operation=name),
            self._metrics.counter("fs3_meta_attempts_total", operation=name),
        )

        async def handle(call: Call, request: Q) -> R:
            left_s = call.deadline_s - asyncio.get_running_loop().time()
            return await self.run(operation, call.peer, request, left_s, call.request_id)

        return handle

    async def run(
        self,
        operation: Operation[Q, R],
        peer: PeerIdentity,
        request: Q,
        timeout_s: float,
        request_id: int = 0,
    ) -> R:
        """Run one operation for ``peer``, to the end or until ``timeout_s`` have passed.

        Raises what POSIX says (FsError); SessionLost, StaleFile, InvalidRequest, Unauthenticated;
        DeadlineExceeded and Unavailable (nothing was applied); MaybeApplied (send it again as it is).
        """
        services = self.services
        started_s = services.clock.boot_s()
        self._check(operation.method.request, request)
        op = Op(
            services,
            peer,
            who_acts(peer, getattr(request, "act_as", None)),
            services.clock.wall_ns(),
            started_s + min(timeout_s, OPERATION_MAX_S),
            is_admin(peer),
            self.finisher.finish,
        )
        outcome = "ok"
        try:
            mutation = operation.mutation(request)
            if mutation is None:
                response = await self._unnumbered(op, operation, request)
            else:
                check_mutation(mutation)
                response = await self._once(op, operation, request, mutation)
            for event in op.events:
                services.publish(event)
            if operation.finish is not None:
                response = await _finished(op, operation, request, response)
            return response
        except Fs3Error as error:
            outcome = type(error).__name__
            raise
        finally:
            self._count(operation.method.name, outcome, op, started_s, request_id)

    def _check(self, kind: type[msgspec.Struct], request: msgspec.Struct) -> None:
        check = self._bounds.get(kind)
        if check is None:
            check = self._bounds[kind] = bounds_of(kind)
        check(request)

    async def _unnumbered(self, op: Op, operation: Operation[Q, R], request: Q) -> R:
        """A reading operation, or one that recognises its repetition by itself."""

        async def attempt(txn: Transaction) -> R:
            op.begin()
            return await operation.body(op, txn, request)

        if operation.only_reads:
            try:
                return await self._read(op, operation, request)
            except Retryable:  # the store is away, or was too slow for this snapshot: with pauses, then
                pass
        if operation.prepare is not None:
            await _prepared(op, operation, request)
        response: R = await self._run(op, attempt)
        return response

    async def _read(self, op: Op, operation: Operation[Q, R], request: Q) -> R:
        """One attempt without anything to commit: most of what a service is asked, so it goes straight."""
        txn = self.services.kv.transaction()
        try:
            op.begin()
            response = await operation.body(op, txn, request)
        finally:
            txn.cancel()
        self.services.contact.last_s = self.services.clock.boot_s()
        return response

    async def _once(self, op: Op, operation: Operation[Q, R], request: Q, mutation: Mutation) -> R:
        """A mutation under its (session, slot, sequence)."""
        method = operation.method
        replayed = False

        async def attempt(txn: Transaction) -> R:
            nonlocal replayed
            op.begin()
            replayed = False
            await require_session(txn, mutation.session, op.peer.uid, is_admin=op.is_admin)
            answer = await stored_answer(txn, mutation, method.number)
            if answer is not None:
                replayed = True
                return _decoded(method, answer)
            response = await operation.body(op, txn, request)
            store_answer(txn, mutation, method.number, msgspec.msgpack.encode(response))
            return response

        needed = operation.ids(request)
        if needed:
            op.ids = await self.services.inode_ids.reserve(needed, op.deadline_s)
        for _ in range(UNFINISHED_MAX):
            if operation.prepare is not None:
                done = await self._replay(op, method, mutation)
                if done is not None:
                    return done
                await _prepared(op, operation, request)
            try:
                response: R = await self._run(op, attempt)
            except Unfinished as unfinished:
                await self.finisher.finish(unfinished.inode, op.deadline_s)
                continue
            except PrepareAgain:
                continue
            self._replays.value += replayed
            return response
        raise Busy("what the operation needs is being changed by others all the time")

    async def _replay(self, op: Op, method: Method[Q, R], mutation: Mutation) -> R | None:
        """The stored answer, looked up before the preparation: what it would look at may be gone."""

        async def look(txn: Transaction) -> bytes | None:
            await require_session(txn, mutation.session, op.peer.uid, is_admin=op.is_admin)
            return await stored_answer(txn, mutation, method.number)

        answer = await self._run(op, look)
        if answer is None:
            return None
        self._replays.value += 1
        return _decoded(method, answer)

    async def _run(self, op: Op, body: Callable[[Transaction], Awaitable[Any]]) -> Any:
        services = self.services
        result = await run(
            services.kv,
            body,
            clock=services.clock,
            rng=services.rng,
            deadline_s=op.deadline_s,
            on_maybe_applied=OnMaybeApplied.RETRY,
            stats=self.stats,
        )
        if not op.is_blind:
            services.contact.last_s = services.clock.boot_s()
        return result

    def _count(self, name: str, outcome: str, op: Op, started_s: float, request_id: int) -> None:
        took_s = self.services.clock.boot_s() - started_s
        counter = self._outcomes.get((name, outcome))
        if counter is None:
            counter = self._metrics.counter("fs3_meta_operations_total", operation=name, outcome=outcome)
            self._outcomes[name, outcome] = counter
        counter.value += 1
        times = self._times.get(name)
        if times is not None:
            times[0].observe(took_s)
            times[1].value += op.attempts
        if took_s > self._slow.threshold_s:
            self._slow.note(
                name, took_s, request_id=request_id, outcome=outcome, attempts=op.attempts, uid=op.who.uid
            )


async def _prepared(op: Op, operation: Operation[Q, R], request: Q) -> None:
    """The operation's ``prepare``; it only asks: a lost answer means that nothing was applied."""
    assert operation.prepare is not None
    try:
        await operation.prepare(op, request)
    except MaybeApplied as error:
        raise DeadlineExceeded(f"{operation.method.name} could not be prepared: {error}") from error


async def _finished(op: Op, operation: Operation[Q, R], request: Q, response: R) -> R:
    """The operation's ``finish``; the transaction is committed, so an error must not say that nothing was."""
    assert operation.finish is not None
    try:
        return await operation.finish(op, request, response)
    except Retryable as error:
        if operation.mutation(request) is None:
            raise
        raise MaybeApplied(f"{operation.method.name} is applied but not finished: {error}") from error


def _decoded(method: Method[Q, R], answer: bytes) -> R:
    response: R = msgspec.msgpack.decode(answer, type=method.response)
    return response


def is_admin(peer: PeerIdentity) -> bool:
    """May act for anybody: an admin's token, or a node of the cluster."""
    return peer.is_admin or peer.role == "node"


def who_acts(peer: PeerIdentity, act_as: ActAs | None) -> Who:
    """The user that a request acts for. EPERM when the caller may not act for them."""
    if act_as is None:
        return ROOT if peer.role == "node" else Who(peer.uid, peer.gid, peer.groups)
    if is_admin(peer):
        return Who(act_as.uid, act_as.gid, act_as.groups)
    own = (peer.gid, *peer.groups)
    if act_as.uid != peer.uid or any(gid not in own for gid in (act_as.gid, *act_as.groups)):
        raise fs_error(errno.EPERM, f"you may not act for uid {act_as.uid}")
    return Who(act_as.uid, act_as.gid, act_as.groups)
