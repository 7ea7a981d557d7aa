"""Runs one target's replica: the only place that performs its effects.

Requests enter as events and wait for their ticket, on the event loop or, those of the bulk plane, in the
thread that received them (``hop``). One lock guards the machine; events are short, and every list of effects
is performed before the next event (``effects.py``): stages and other durable work go to the committer,
forwards to the thread that has the bytes, everything else is a task of the target's scope.

Source: design 4.3, 4.7, 5.3.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar, assert_never

from fs3.clock import Clock
from fs3.errors import CorruptData, Fs3Error, Unavailable
from fs3.ids import ChainId, ChunkId, Generation, InodeId, TargetId
from fs3.log import Logger
from fs3.metrics import Metrics
from fs3.routing import ChainInfo
from fs3.rpc.service import BlockingCaller, Caller
from fs3.stubs.storage import for_each
from fs3.tasks import TaskScope
from fs3.wire.storage import UpdateResponse

from .committer import Committer
from .durable import keep_decree, note_adoption
from .effects import (
    Adopt,
    Answer,
    Commit,
    Done,
    DropPendings,
    Effect,
    Fail,
    Forward,
    GoOffline,
    Mend,
    PassOn,
    Payload,
    Record,
    Repair,
    Stage,
    Ticket,
    Verify,
)
from .engine.store import ChunkStore
from .engine.versions import StageItem, StageOutcome
from .forwarding import Forwarder, PendingCorrupt
from .held import HeldBytes, LoopBytes
from .hop import Hop, Outcome, failed, resolve
from .lanes import Lanes
from .membership import Membership
from .mending import Mender
from .repairs import Repairs
from .replica import Replica
from .ticker import Ticker

I = TypeVar("I")  # noqa: E741  # an item of any kind
O = TypeVar("O")  # noqa: E741  # what became of it

_EMPTY = memoryview(b"")


class TargetRunner:
    """One target: store, replica, committer, and what moves between them."""

    def __init__(
        self,
        store: ChunkStore,
        membership: Membership,
        caller: Caller,
        lanes: Lanes,
        scope: TaskScope,
        *,
        clock: Clock,
        log: Logger,
        metrics: Metrics,
        on_offline: Callable[[TargetRunner, str], None],
        now_s: Callable[[], float] | None = None,
        blocking: BlockingCaller | None = None,
    ) -> None:
        """``now_s``: the loop's clock, readable in any thread; ``blocking``: for hops in threads."""
        self.store = store
        self.target: TargetId = store.target
        self.chain: ChainId | None = None
        """The chain that it is a member of, as far as routing says."""
        self.replica = Replica(store.target, membership.generation, store, self._lease_valid)
        self._membership = membership
        self._lanes = lanes
        self._scope = scope
        self._log = log.bind(target=f"{store.target:x}")
        self._on_offline = on_offline
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._now_s = now_s or self._loop.time
        self._lock = threading.Lock()
        """Guards the machine and the tickets; never held over a wait."""
        self._tickets: dict[Ticket, asyncio.Future[Done | None] | Hop] = {}
        self._last_ticket = 0
        self.committer = Committer(
            store,
            lanes,
            f"target-{store.target:x}",
            clock=clock,
            cluster_time_ms=self._cluster_ms,
            on_disk_failed=self.report_disk_failed,
            metrics=metrics,
        )
        self._forwarder = Forwarder(store, membership, caller, lanes, blocking)
        self.repairs = Repairs(
            store,
            Mender(store, membership, caller, self.committer, lanes),
            lanes,
            start=self._start,
            chain=lambda: self.chain,
            on_disk_failed=self.report_disk_failed,
            log=self._log,
            metrics=metrics,
        )
        self._ticker = Ticker(self._on_loop, self._tick)
        self._sending: dict[asyncio.Task[None], HeldBytes | None] = {}
        self._is_stopping = False
        self._written = metrics.counter("fs3_storage_written_bytes_total", target=f"{store.target:x}")
        self._replays = metrics.counter("fs3_storage_replays_total")
        self._updates_ok = metrics.counter("fs3_storage_updates_total", outcome="ok")
        self._updates_failed = metrics.counter("fs3_storage_updates_total", outcome="failed")

    def start(self) -> None:
        """Begin to commit and to tick."""
        self._scope.spawn(f"committer {self.target:x}", self.committer.run())
        self._ticker.want()

    def stop(self) -> None:
        """Answer everybody who waits; nothing is taken any more. The scope's owner ends the tasks."""
        self._is_stopping = True
        self._ticker.stop()
        for task in list(self._sending):
            task.cancel()  # they use bytes of requests, whose handlers wait for them
        with self._lock:
            for ticket in list(self._tickets):
                self.replica.on_cancelled(ticket)
                self._settle(ticket, None, Unavailable(f"target {self.target:x} stops"))

    def close(self) -> None:
        """Close the store; its tasks have ended. What a failed disk did not take is lost, as it must be."""
        try:
            self.store.close()
        except Fs3Error as error:
            self._log.error("store not closed", reason=str(error))

    # -- events

    def on_chain(self, info: ChainInfo) -> None:
        """A chain record that names this target."""
        self.chain = info.chain
        with self._lock:
            self._perform(self.replica.on_routing(info, self._now_s()))

    def go_offline(self, reason: str) -> None:
        """Take the target out of use."""
        with self._lock:
            self._perform(self.replica.go_offline(reason))

    async def ask(
        self, request: Callable[[Ticket, float], list[Effect]], held: LoopBytes | None = None
    ) -> Done | None:
        """Hand the machine a request and wait for its answer; raises what it was refused with.

        ``request(ticket, now_s)`` calls the machine. ``held``: the request's bytes; this returns only when
        nobody uses them.
        """
        future: asyncio.Future[Done | None] = self._loop.create_future()
        ticket = self._begin(request, future)
        try:
            return await future
        except asyncio.CancelledError:
            self._cancel(ticket)
            raise
        finally:
            if held is not None:
                await held.until_unused(is_answered=not future.cancelled())

    def ask_here(
        self, request: Callable[[Ticket, float], list[Effect]], hop: Hop, peer_has_gone: Callable[[], bool]
    ) -> Done:
        """``ask`` in a thread of the bulk plane, which does what there is to do meanwhile."""
        ticket = self._begin(request, hop)
        try:
            return hop.run(self, peer_has_gone)
        except Exception as error:  # border: a bug ends the process, as one in a task of the target does
            if not isinstance(error, Fs3Error):
                self._start_soon("hop", failed(error), None)
            raise
        finally:
            self._cancel(ticket)  # nothing, if it was answered

    def _begin(
        self, request: Callable[[Ticket, float], list[Effect]], waiter: asyncio.Future[Done | None] | Hop
    ) -> Ticket:
        with self._lock:
            if self._is_stopping:
                raise Unavailable(f"target {self.target:x} stops")
            self._last_ticket += 1
            ticket = self._last_ticket
            self._tickets[ticket] = waiter
            self._perform(request(ticket, self._now_s()))
            return ticket

    def _cancel(self, ticket: Ticket) -> None:
        with self._lock:
            if self._tickets.pop(ticket, None) is not None:
                self.replica.on_cancelled(ticket)

    def give_up(self, hop: Hop) -> None:
        """See ``HopWork``."""
        with self._lock:
            tickets = [ticket for ticket, waiter in self._tickets.items() if waiter is hop]
        for ticket in tickets:
            self._cancel(ticket)

    def lead_group(self) -> None:
        """See ``HopWork``."""
        self.committer.lead_group()

    def pendings_of(self, inode: InodeId) -> list[ChunkId]:
        """Chunks of a file that have a pending version, in order."""
        with self._lock:
            return self.replica.pendings_of(inode)

    @property
    def written_bytes(self) -> float:
        """Payloads staged since the start."""
        return self._written.value

    @property
    def pending_count(self) -> int:
        """Versions staged and not committed."""
        with self._lock:
            return self.replica.pending_count

    async def each(self, one: Callable[[I], Awaitable[O]], items: Sequence[I], at_once: int) -> list[O]:
        """``one(item)`` for all items, at most ``at_once`` at a time."""
        return await for_each(self._scope, f"target {self.target:x}", one, items, at_once=at_once)

    def sender_generation(self, sender: TargetId) -> Generation | None:
        """The generation in which ``sender`` is the predecessor here; None: it is not."""
        standing = self.replica.gate.standing
        before = standing.predecessor if standing is not None else None
        return before.generation if before is not None and before.target == sender else None

    def _cluster_ms(self) -> int:
        """Cluster time; 0 while no primary has told it (whoever ages records takes 0 for "just now")."""
        try:
            return self._membership.cluster_time_ms()
        except Unavailable:
            return 0

    def _lease_valid(self, version: int) -> bool:
        standing = self.replica.gate.standing
        if standing is None or standing.version != version:
            return False
        return self._membership.lease_valid(standing.chain, standing.version)

    def _tick(self) -> None:
        with self._lock:
            self._perform(self.replica.on_tick(self._now_s()))

    # -- effects

    def _perform(self, effects: list[Effect]) -> None:
        """The lock is held; nothing here waits."""
        for effect in effects:
            match effect:
                case Stage():
                    self._stage(effect)
                case Commit(chunk, identity):
                    is_committed = self.store.commit(chunk, identity)
                    assert is_committed, (chunk, identity)
                case Answer(ticket, done, replayed):
                    self._replays.value += replayed
                    self._settle(ticket, done, None)
                case Fail(ticket, error):
                    self._settle(ticket, None, error)
                case Forward():
                    self._start_forward(effect)
                case Mend():
                    self._start_soon("mend", self.repairs.take(effect), effect.payload)
                case _:
                    self._on_loop(self._perform_rare, effect)
        if self.replica.is_under_way:
            self._ticker.want()

    def _on_loop(self, work: Callable[..., object], *arguments: object) -> None:
        """At once if this is the loop's thread, else soon."""
        if threading.get_ident() == self._thread:
            work(*arguments)
        else:
            self._loop.call_soon_threadsafe(work, *arguments)

    def _start_forward(self, effect: Forward) -> None:
        held = effect.payload
        if isinstance(held, Hop) and not effect.whole:
            held.forward(effect)
        else:
            self._start_soon("forward", self._forward(effect), held)

    def _start_soon(self, name: str, work: Coroutine[Any, Any, None], held: Payload | None) -> None:
        """``_start`` from any thread; the bytes are in use from this moment on."""
        if threading.get_ident() == self._thread:
            self._start(name, work, held)
            return
        if isinstance(held, HeldBytes):
            held.use()
        self._loop.call_soon_threadsafe(self._start_used, name, work, held)

    def _start_used(self, name: str, work: Coroutine[Any, Any, None], held: Payload | None) -> None:
        self._start(name, work, held)
        if isinstance(held, HeldBytes):
            held.free()

    def _perform_rare(
        self, effect: Adopt | DropPendings | GoOffline | PassOn | Record | Repair | Verify
    ) -> None:
        match effect:
            case Record():
                work = partial(keep_decree, self.store, effect.decree, self._cluster_ms())
                self.committer.call(work, partial(self._decree_step, effect.token))
            case PassOn():
                self._start(f"pass on {effect.decree}", self._pass_on(effect))
            case Adopt(version):
                standing = self.replica.gate.standing
                assert standing is not None, effect
                note = partial(note_adoption, self.store, standing, self.store.change)
                self.committer.call(note, partial(self._adopted, version))
            case DropPendings():
                self.committer.call(self.store.drop_pendings, self._pendings_dropped)
            case GoOffline(reason):
                self._log.error("target offline", reason=reason)
                self._on_offline(self, reason)
            case Verify():
                self._start(f"verify {effect.chunk}", self._verify(effect))
            case Repair():
                self.repairs.begin(effect.chunk)
            case _:
                assert_never(effect)

    def _start(self, name: str, work: Coroutine[Any, Any, None], held: Payload | None = None) -> None:
        """A task of the target, which uses the bytes of a request as long as it lives."""
        if self._is_stopping:
            work.close()
            return
        task = self._scope.spawn(f"{self.target:x} {name}", work)
        self._sending[task] = None
        if isinstance(held, HeldBytes):
            held.use()
            self._sending[task] = held
        task.add_done_callback(self._sent)  # not in the task itself: it may be cancelled before it begins

    def _sent(self, task: asyncio.Task[None]) -> None:
        """The task uses the bytes no more: it says so itself, or it has ended."""
        held = self._sending.pop(task, None)
        if held is not None:
            held.free()

    def _settle(self, ticket: Ticket, done: Done | None, error: Fs3Error | None) -> None:
        waiter = self._tickets.pop(ticket, None)
        if isinstance(waiter, Hop):
            waiter.settle(Outcome(done, error))
        elif waiter is not None:
            self._on_loop(resolve, waiter, Outcome(done, error))

    def _stage(self, effect: Stage, *, is_second: bool = False) -> None:
        held = effect.payload
        view = held.view if held is not None else _EMPTY
        if isinstance(held, HeldBytes):
            held.use()
        item = StageItem(
            effect.update, view, effect.dedup, from_client=effect.from_client, replaces=effect.replaces
        )
        lead = held.lead if isinstance(held, Hop) and not is_second else None
        self.committer.stage(item, partial(self._staged, effect, is_second), lead)

    def _staged(self, effect: Stage, is_second: bool, outcome: StageOutcome) -> None:
        try:
            self._note_staged(effect, is_second, outcome)
        finally:
            if isinstance(effect.payload, HeldBytes):
                effect.payload.free()

    def _note_staged(self, effect: Stage, is_second: bool, outcome: StageOutcome) -> None:
        if isinstance(outcome.error, CorruptData) and not is_second and not self._is_stopping:
            # what the update builds on fails its sum: mend it, then stage once more
            self.repairs.corrupt.value += 1
            self._start_soon("repair", self._repair_and_stage(effect), effect.payload)
        else:
            self._updates_ok.value += outcome.error is None
            self._updates_failed.value += outcome.error is not None
            if outcome.error is None and effect.payload is not None:
                self._written.value += len(effect.payload.view)
            with self._lock:
                now_s = self._now_s()
                self._perform(self.replica.on_staged(effect.token, outcome.version, outcome.error, now_s))

    async def _repair_and_stage(self, effect: Stage) -> None:
        try:
            await self.repairs.mend(effect.update.chunk)
        finally:
            self._stage(effect, is_second=True)

    async def _forward(self, effect: Forward) -> None:
        assert self.chain is not None, effect
        try:
            answer = await self._forwarder.send(self.chain, effect)
        except Fs3Error as error:
            self._forward_failed(effect, error)
        else:
            task = asyncio.current_task()
            assert task is not None
            self._sent(task)  # before the answer: else the request's handler would wait for this task's end
            self._forwarded(effect, answer)

    def forward_here(self, effect: Forward) -> None:
        """See ``HopWork``."""
        held = effect.payload
        assert self.chain is not None and isinstance(held, Hop), effect
        try:
            if self._is_stopping:
                raise Unavailable(f"target {self.target:x} stops")
            answer = self._forwarder.send_here(self.chain, effect)
        except Fs3Error as error:
            self._forward_failed(effect, error)
        else:
            self._forwarded(effect, answer)
        finally:
            held.free()

    def _forwarded(self, effect: Forward, answer: UpdateResponse) -> None:
        with self._lock:
            now_s = self._now_s()
            self._perform(self.replica.on_forwarded(effect.token, answer.identity, answer.content_sum, now_s))

    def _forward_failed(self, effect: Forward, error: Fs3Error) -> None:
        if isinstance(error, PendingCorrupt):
            return self._start_soon("mend pending", self._mend_pending(effect, error), None)
        self._log.debug("forward failed", chunk=str(effect.update.chunk), reason=str(error))
        with self._lock:
            self.replica.on_forward_failed(effect.token, self._now_s())

    async def _mend_pending(self, effect: Forward, error: Fs3Error) -> None:
        if await self.repairs.make_right(effect.update.chunk, effect.update.identity):
            self._forward_failed(effect, Unavailable("its bytes were mended: it is sent again"))
        else:
            self.go_offline(str(error))

    async def _pass_on(self, effect: PassOn) -> None:
        error: Fs3Error | None = None
        assert self.chain is not None, effect
        try:
            await self._forwarder.pass_on(self.chain, effect)
        except Fs3Error as failed:
            error = failed
        self._decree_step(effect.token, None, error)

    def _decree_step(self, token: int, _: object, error: Fs3Error | None) -> None:
        with self._lock:
            self._perform(self.replica.on_decree_step(token, error, self._now_s()))

    def _adopted(self, version: int, _: object, error: Fs3Error | None) -> None:
        standing = self.replica.gate.standing
        if error is None and standing is not None and standing.version == version:
            self._membership.acknowledge(standing.chain, standing.version)

    def _pendings_dropped(self, _: object, error: Fs3Error | None) -> None:
        if error is None:
            with self._lock:
                self._perform(self.replica.on_pendings_dropped())

    # -- bytes that are not what they should be

    async def _verify(self, effect: Verify) -> None:
        """Contents differ under one identity: are the own bytes what their sums say?"""
        self._log.warning("replicas differ", chunk=str(effect.chunk), identity=str(effect.identity))
        is_right = await self.repairs.is_right(effect.chunk)
        with self._lock:
            self._perform(
                self.replica.on_verified(effect.chunk, effect.identity, ok=is_right, now_s=self._now_s())
            )

    def report_corrupt(self, chunk: ChunkId, block_count: int = 1) -> None:
        """Blocks of a chunk fail their sums. From any thread."""
        self._loop.call_soon_threadsafe(self.repairs.begin, chunk, block_count)

    def report_disk_failed(self, reason: str) -> None:
        """The disk was found failed. From any thread."""
        self._on_loop(self.go_offline, f"disk: {reason}")
