"""Runs one target's replica: the only place that performs its effects.

Requests enter as events and wait for their ticket; stages and other durable work go to the committer;
forwards, decrees passed on and repairs are tasks of the target's scope. The machine is called on the event
loop only, and every list of effects is performed before the next event (``effects.py``).

Source: design 4.3, 4.7, 5.3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar, assert_never

from fs3.clock import Clock
from fs3.errors import CorruptData, Fs3Error, Unavailable
from fs3.ids import ChainId, ChunkId, Generation, TargetId
from fs3.log import Logger
from fs3.metrics import Metrics
from fs3.routing import ChainInfo
from fs3.rpc.service import Caller
from fs3.stubs.storage import for_each
from fs3.tasks import TaskScope

from .committer import Committer
from .disk import DiskFailed
from .effects import (
    Adopt,
    Answer,
    Commit,
    Done,
    DropPendings,
    Effect,
    EpochRaise,
    Fail,
    Forward,
    GoOffline,
    Mend,
    PassOn,
    Payload,
    Record,
    Repair,
    SessionEnd,
    Stage,
    Ticket,
    Verify,
)
from .engine.store import ChunkStore
from .engine.versions import EpochRecord, StageItem, StageOutcome
from .forwarding import Forwarder, PendingCorrupt
from .held import HeldBytes
from .lanes import READS, Lanes
from .membership import Membership
from .mending import Mender
from .replica import Replica

I = TypeVar("I")  # noqa: E741  # an item of any kind
O = TypeVar("O")  # noqa: E741  # what became of it

TICK_S = 0.1
REPAIRS_MAX = 256
"""Chunks of one target that wait for their repair; what is found beyond that is found again by its next
reader."""
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
    ) -> None:
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
        self._tickets: dict[Ticket, asyncio.Future[Done | None]] = {}
        self._last_ticket = 0
        self.committer = Committer(
            store,
            lanes,
            f"target-{store.target:x}",
            clock=clock,
            cluster_time_ms=self._cluster_ms,
            on_disk_failed=self._disk_failed,
            metrics=metrics,
        )
        self._forwarder = Forwarder(store, membership, caller, lanes)
        self._mender = Mender(store, membership, caller, self.committer, lanes)
        self._repairing: dict[ChunkId, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._sending: dict[asyncio.Task[None], HeldBytes | None] = {}
        self._is_stopping = False
        label = f"{store.target:x}"
        self._written = metrics.counter("fs3_storage_written_bytes_total", target=label)
        self._corrupt = metrics.counter("fs3_storage_corrupt_blocks_total", target=label)
        self._repaired = metrics.counter("fs3_storage_repaired_chunks_total", target=label)
        self._replays = metrics.counter("fs3_storage_replays_total")
        self._updates_ok = metrics.counter("fs3_storage_updates_total", outcome="ok")
        self._updates_failed = metrics.counter("fs3_storage_updates_total", outcome="failed")

    def start(self) -> None:
        """Begin to commit and to tick."""
        self._scope.spawn(f"committer {self.target:x}", self.committer.run())
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def stop(self) -> None:
        """Answer everybody who waits; nothing is taken any more. The scope's owner ends the tasks."""
        self._is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._sending):
            task.cancel()  # they use bytes of requests, whose handlers wait for them
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
        self._perform(self.replica.on_routing(info, self._loop.time()))

    def go_offline(self, reason: str) -> None:
        """Take the target out of use."""
        self._perform(self.replica.go_offline(reason))

    async def ask(
        self, request: Callable[[Ticket, float], list[Effect]], held: HeldBytes | None = None
    ) -> Done | None:
        """Hand the machine a request and wait for its answer; raises what it was refused with.

        ``request(ticket, now_s)`` calls the machine. ``held``: the request's bytes; this returns only when
        nobody uses them.
        """
        if self._is_stopping:
            raise Unavailable(f"target {self.target:x} stops")
        self._last_ticket += 1
        ticket = self._last_ticket
        future: asyncio.Future[Done | None] = self._loop.create_future()
        self._tickets[ticket] = future
        self._perform(request(ticket, self._loop.time()))
        try:
            return await future
        except asyncio.CancelledError:
            self._tickets.pop(ticket, None)
            self.replica.on_cancelled(ticket)
            raise
        finally:
            if held is not None:
                await held.until_unused()

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
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self._perform(self.replica.on_tick(self._loop.time()))

    # -- effects

    def _perform(self, effects: list[Effect]) -> None:
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
                    self._start(f"forward {effect.update.chunk}", self._forward(effect), effect.payload)
                case _:
                    self._perform_rare(effect)

    def _perform_rare(
        self,
        effect: Adopt | DropPendings | GoOffline | Mend | PassOn | Record | Repair | Verify,
    ) -> None:
        match effect:
            case Record():
                work = self._record_work(effect)
                self.committer.call(work, partial(self._decree_step, effect.token))
            case PassOn():
                self._start(f"pass on {effect.decree}", self._pass_on(effect))
            case Adopt(version):
                note = partial(self.store.note_chain_version, version)
                self.committer.call(note, partial(self._adopted, version))
            case DropPendings():
                self.committer.call(self.store.drop_pendings, self._pendings_dropped)
            case GoOffline(reason):
                self._log.error("target offline", reason=reason)
                self._on_offline(self, reason)
            case Verify():
                self._start(f"verify {effect.chunk}", self._verify(effect))
            case Mend():
                self._start(f"mend {effect.update.chunk}", self._mend(effect), effect.payload)
            case Repair():
                self.repair(effect.chunk)
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
        future = self._tickets.pop(ticket, None)
        if future is None or future.done():
            return
        if error is None:
            future.set_result(done)
        else:
            future.set_exception(error)

    def _stage(self, effect: Stage, *, is_second: bool = False) -> None:
        held = effect.payload
        view = _EMPTY
        if isinstance(held, HeldBytes):
            held.use()
            view = held.view
        item = StageItem(effect.update, view, effect.dedup, from_client=effect.from_client)
        self.committer.stage(item, partial(self._staged, effect, is_second))

    def _staged(self, effect: Stage, is_second: bool, outcome: StageOutcome) -> None:
        if isinstance(outcome.error, CorruptData) and not is_second and not self._is_stopping:
            # what the update builds on fails its sum: mend it, then stage once more
            self._corrupt.value += 1
            again = self._repair_and_stage(effect)
            self._start(f"repair {effect.update.chunk}", again, effect.payload)
        else:
            self._updates_ok.value += outcome.error is None
            self._updates_failed.value += outcome.error is not None
            if outcome.error is None and effect.payload is not None:
                self._written.value += len(effect.payload.view)
            events = self.replica.on_staged(effect.token, outcome.version, outcome.error, self._loop.time())
            self._perform(events)
        if isinstance(effect.payload, HeldBytes):
            effect.payload.free()

    async def _repair_and_stage(self, effect: Stage) -> None:
        try:
            await self._mend_chunk(effect.update.chunk)
        finally:
            self._stage(effect, is_second=True)

    async def _forward(self, effect: Forward) -> None:
        assert self.chain is not None, effect
        try:
            answer = await self._forwarder.send(self.chain, effect)
        except PendingCorrupt as error:
            self._corrupt.value += 1
            self.go_offline(str(error))
        except Fs3Error as error:
            self._log.debug("forward failed", chunk=str(effect.update.chunk), reason=str(error))
            self.replica.on_forward_failed(effect.token, self._loop.time())
        else:
            task = asyncio.current_task()
            assert task is not None
            self._sent(
                task
            )  # before the request is answered: else its handler would wait for this task's end
            self._perform(
                self.replica.on_forwarded(
                    effect.token, answer.identity, answer.content_sum, self._loop.time()
                )
            )

    async def _pass_on(self, effect: PassOn) -> None:
        error: Fs3Error | None = None
        assert self.chain is not None, effect
        try:
            await self._forwarder.pass_on(self.chain, effect)
        except Fs3Error as failed:
            error = failed
        self._decree_step(effect.token, None, error)

    def _decree_step(self, token: int, _: object, error: Fs3Error | None) -> None:
        self._perform(self.replica.on_decree_step(token, error, self._loop.time()))

    def _record_work(self, effect: Record) -> Callable[[], None]:
        now_ms = self._cluster_ms()
        match effect.decree:
            case EpochRaise(inode, epoch):
                return partial(self.store.set_epochs, [EpochRecord(inode, epoch, now_ms)])
            case SessionEnd(session):
                return partial(self.store.end_sessions, [session], cluster_ms=now_ms)

    def _adopted(self, version: int, _: object, error: Fs3Error | None) -> None:
        standing = self.replica.gate.standing
        if error is None and standing is not None and standing.version == version:
            self._membership.acknowledge(standing.chain, standing.version)

    def _pendings_dropped(self, _: object, error: Fs3Error | None) -> None:
        if error is None:
            self._perform(self.replica.on_pendings_dropped())

    def _disk_failed(self, reason: str) -> None:
        self.go_offline(f"disk: {reason}")

    # -- bytes that are not what they should be

    async def _verify(self, effect: Verify) -> None:
        """Contents differ under one identity: are the own bytes what their sums say?"""
        self._log.warning("replicas differ", chunk=str(effect.chunk), identity=str(effect.identity))
        bad = await self._lanes.run(READS, partial(self.store.verify_chunk, effect.chunk))
        self._corrupt.value += len(bad)
        self._perform(
            self.replica.on_verified(effect.chunk, effect.identity, ok=not bad, now_s=self._loop.time())
        )

    async def _mend(self, effect: Mend) -> None:
        held = effect.payload
        assert isinstance(held, HeldBytes), effect
        try:
            await self._mender.take(effect.update, held.view)
        except Fs3Error as error:
            self._log.warning("could not take the predecessor's bytes", reason=str(error))

    def repair(self, chunk: ChunkId, block_count: int = 1) -> None:
        """Blocks of a chunk fail their sums: count them, and fetch them from another member. Once for all
        readers who meet them before they are right again."""
        if chunk in self._repairing:
            return
        self._corrupt.value += block_count
        if len(self._repairing) < REPAIRS_MAX:
            self._repairing[chunk] = None
            self._start(f"repair {chunk}", self._repair(chunk))

    async def _repair(self, chunk: ChunkId) -> None:
        try:
            await self._mend_chunk(chunk)
        finally:
            del self._repairing[chunk]

    def report_corrupt(self, chunk: ChunkId, block_count: int = 1) -> None:
        """``repair``, from any thread."""
        self._loop.call_soon_threadsafe(self.repair, chunk, block_count)

    def report_disk_failed(self, reason: str) -> None:
        """A read found the disk failed. From any thread."""
        self._loop.call_soon_threadsafe(self._disk_failed, reason)

    async def _mend_chunk(self, chunk: ChunkId) -> None:
        try:
            is_mended = self.chain is not None and await self._mender.repair(self.chain, chunk)
        except DiskFailed as error:
            self._disk_failed(str(error))
            return
        self._repaired.value += is_mended
        self._log.warning("corrupt block", chunk=str(chunk), mended=is_mended)
