"""Mistakes of the chain protocol, each with the faults that find it (``MUTANTS``).

V1 to V9 are rules that a first wording of the design lacked. The default tests run the mistakes that are
found within a few walks, the slow ones the others; ``UNFOUND`` says which are found by none, and why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from fs3.errors import Fs3Error, StaleFile
from fs3.ids import ChainVersion, ChunkId, Epoch, TargetId
from fs3.mgmtd.chain_machine import Situation, Step, next_step
from fs3.routing import ChainInfo, Member
from fs3.storage.chunk_work import ChunkWork, Job, Pending
from fs3.storage.effects import Answer, Done, Effect, Fail, Forward, Stage, Ticket, UpdateAsk
from fs3.storage.engine.versions import ChunkState, DedupRecord
from fs3.storage.gate import Gate
from fs3.storage.replica import Replica
from fs3.storage.resync.job import Job as ResyncJob
from fs3.storage.resync.plan import Action, Put, decide
from fs3.wire.chunk import Identity, Update, UpdateKind, UpdateResult
from fs3.wire.storage import ResyncRecord

from .chain_model import ChainMachines
from .chain_nodes import ChainNode
from .chain_resync import Reply, Resync
from .chain_store import CHAIN, CHUNK, Image, ModelStore
from .lease_walk import (
    AnyRoutingCounts,
    CountedFromReceipt,
    LeavesAtOnce,
    NoStartWait,
    NoTakeoverWait,
    OwnGrantsIgnored,
    in_force_at_once,
    resumes_at_once,
)

# --- replicas ---


class CommitsBeforeStagedEverywhere(Replica):
    """A member commits when it has staged."""

    def _drive(self, work: ChunkWork, pending: Pending, now_s: float) -> list[Effect]:
        standing = self.gate.standing
        if standing is not None and standing.is_head and pending.failure_count:
            return self._commit(work, pending, now_s)
        return super()._drive(work, pending, now_s)


class NumberGivenTwice(Replica):
    """The head does not roll forward what is pending before it gives a number."""

    def _take_write(self, work: ChunkWork, job: Job, ask: Any) -> list[Effect] | None:
        if work.pending is not None and work.pending.failure_count:
            work.pending = None
        return super()._take_write(work, job, ask)


class PendingsDroppedOnAdoption(Replica):
    """A new chain version drops what is pending."""

    def on_routing(self, info: ChainInfo, now_s: float) -> list[Effect]:
        before = self.gate.standing
        if before is not None and info.version > before.version:
            for work in self._chunks.values():
                work.pending = None
            store: Any = self._view
            image = store.image
            store.put(replace(image, pending=None), durable=True)
        return super().on_routing(info, now_s)


class NothingInherited(Replica):
    """V2: a new last serving member answers at once."""

    def must_settle(self, chunk: ChunkId) -> bool:
        return False


class AnsweredFromRecord(Replica):
    """A retry is answered when its record is found, committed or not."""

    def _replay(self, work: ChunkWork, job: Job, result: UpdateResult) -> list[Effect]:
        return [Answer(job.ticket, Done(result.identity, result.length_bytes, 0), replayed=True)]


class RaisePassesWritesInFlight(Replica):
    """V4: a raise does not wait for what was numbered before."""

    def _is_unresolved(self, decree: Any) -> bool:
        return False


class EveryHopChecksEpochs(Replica):
    """V4, the other reading: a numbered update is refused for its epoch."""

    def on_update(
        self, ticket: Ticket, ask: UpdateAsk, payload: Any, now_s: float, deadline_s: float
    ) -> list[Effect]:
        if ask.resync is None and ask.update.epoch < self._view.epoch(ask.update.chunk.inode):
            return [Fail(ticket, StaleFile("epoch"))]
        return super().on_update(ticket, ask, payload, now_s, deadline_s)


class EpochIgnored(Replica):
    """Nobody checks epochs, nor ended sessions."""

    def on_write(self, ticket: Ticket, ask: Any, *rest: Any) -> list[Effect]:
        return super().on_write(ticket, msgspec.structs.replace(ask, epoch=Epoch(1 << 30)), *rest)

    def _stage(self, work: ChunkWork, job: Job, update: Update) -> list[Effect]:
        return super()._stage(work, job, msgspec.structs.replace(update, epoch=Epoch(0)))


class UncheckedGate(Gate):
    """Asks nothing."""

    def write_problem(self, version: ChainVersion) -> Fs3Error | None:
        return None

    def update_problem(self, version: ChainVersion, sender: TargetId) -> Fs3Error | None:
        return None


class NotCheckedUnderLock(Replica):
    """The chain version is checked on arrival only."""

    def _take_write(self, work: ChunkWork, job: Job, ask: Any) -> list[Effect] | None:
        return self._unchecked(lambda: super(NotCheckedUnderLock, self)._take_write(work, job, ask))

    def _take_update(self, work: ChunkWork, job: Job, ask: UpdateAsk) -> list[Effect] | None:
        return self._unchecked(lambda: super(NotCheckedUnderLock, self)._take_update(work, job, ask))

    def _unchecked(self, work: Callable[[], list[Effect] | None]) -> list[Effect] | None:
        self.gate.__class__ = UncheckedGate
        try:
            return work()
        finally:
            self.gate.__class__ = Gate


class SyncingIsTail(Replica):
    """The last writable member answers what is committed, SYNCING or not."""

    def on_routing(self, info: ChainInfo, now_s: float) -> list[Effect]:
        before = self.gate.standing
        effects = super().on_routing(info, now_s)
        standing = self.gate.standing
        if standing is not None and standing is not before and info.writable:
            last = info.writable[-1]
            self.gate.standing = replace(
                standing, last_serving=last, is_last_serving=last.target == self.gate.target
            )
        return effects


class SyncingNeedsLease(Replica):
    """A SYNCING last member commits under a lease only; nobody grants it one (``docs/decisions.md`` 14)."""

    def _drive(self, work: ChunkWork, pending: Pending, now_s: float) -> list[Effect]:
        standing = self.gate.standing
        is_last = self.gate.is_syncing and standing is not None and standing.successor is None
        if is_last and not pending.is_committed_before:
            return []
        return super()._drive(work, pending, now_s)


# --- stores ---


class TombstoneForgotten(ModelStore):
    """A removed chunk is as one that never was: its numbers begin anew."""

    def versions(self, chunk: ChunkId) -> ChunkState:
        state = super().versions(chunk)
        if state.committed is not None and state.committed.removed:
            return msgspec.structs.replace(state, committed=None)
        return state


class StageNotDurable(ModelStore):
    """Stage is answered before it is durable."""

    def _staged(self, image: Image) -> None:
        self.put(image, durable=False)


class RecordsInMemory(ModelStore):
    """Dedup records do not survive."""

    def crash(self, rng: Any) -> None:
        super().crash(rng)
        self.put(replace(self.image, dedup={}), durable=True)


class PendingsKept(ModelStore):
    """V1: a target that enters SYNCING keeps its pendings and its records."""

    def drop_pendings(self) -> None:
        return


# --- shells ---


class IdentityCarried(ChainNode):
    """An update's identity takes the chain version that it travels under."""

    def forwarded(self, effect: Forward) -> tuple[Update, bytes] | None:
        sent = super().forwarded(effect)
        if sent is None:
            return None
        update, payload = sent
        old = update.identity
        identity = Identity(effect.version, old.update_version, old.writer)
        return msgspec.structs.replace(update, identity=identity), payload

    def answered(self, effect: Forward, done: Done) -> Identity:
        return effect.update.identity


class RecordsAtHeadOnly(ChainNode):
    """Only who numbers a write keeps its record."""

    def record(self, effect: Stage) -> Any:
        standing = self.replica.gate.standing
        return effect.dedup if standing is not None and standing.is_head else None


class SharedTailAnswer(ChainNode):
    """A tail's answer serves the reads that arrive a little later, too."""

    _shared: tuple[float, Any] = (-1.0, None)

    def ask_last(self, version: ChainVersion, done: Reply) -> None:
        now_s, answer = self._shared
        if self.world.now_s - now_s < 0.3 and not isinstance(answer, Fs3Error):
            done(answer)
            return

        def share(answer: Any) -> None:
            self._shared = (self.world.now_s, answer)
            done(answer)

        super().ask_last(version, share)


class UptodateCarriedOver(ChainNode):
    """V9: what was synced at an earlier version counts at the next one."""

    def uptodate_at(self) -> ChainVersion:
        gate = self.replica.gate
        if gate.is_syncing and gate.synced_version >= gate.syncing_since > 0 and gate.standing is not None:
            self.copied[CHAIN] = gate.standing.version
            return gate.standing.version
        return super().uptodate_at()


class JoinerServesAtOnce(ChainNode):
    """A joiner serves, and answers queries, before the older ones have acknowledged."""

    def _lease_valid(self, version: ChainVersion) -> bool:
        info = self.info
        own = None if info is None else next((m for m in info.serving if m.target == self.target), None)
        if own is not None and own.joining and own.generation == self.generation:
            return self.leases.primary_left_s(self.now_s()) > 0
        return super()._lease_valid(version)


# --- resync ---


class RecordsNotResynced(Resync):
    """No dedup records are sent."""

    def channels(self) -> tuple[DedupRecord, ...]:
        return ()


class RecordsOfPendings(Resync):
    """V5: records of versions that are only pending are sent, too."""

    def channels(self) -> tuple[DedupRecord, ...]:
        return tuple(self.node.store.image.dedup.values())


class PendingNotFirst(Resync):
    """V6: the source copies what is committed although something is pending; the receiver takes it."""

    def action(self, job: ResyncJob, there: ResyncRecord) -> Action | None:
        state, have = self.node.store.versions(CHUNK), there.identity
        own = state.committed
        if own is None or have == own.identity:
            return None
        kind = UpdateKind.REMOVE if own.removed else UpdateKind.REPLACE
        is_higher = have is not None and have.update_version >= own.identity.update_version
        return Put(kind, own.identity, own.length_bytes, have if is_higher else None)


class NotReadAgain(Resync):
    """What was read when the page came is sent when its turn comes."""

    _read: bytes = b""

    def action(self, job: ResyncJob, there: ResyncRecord) -> Action | None:
        self._read = self.node.store.image.content
        return decide(self.node.store.versions(CHUNK), there, job.version)

    def now(self, job: ResyncJob, there: ResyncRecord, earlier: Action | None) -> Action | None:
        return earlier

    def content_of(self, put: Put) -> bytes | None:
        return self._read if put.kind is UpdateKind.REPLACE else b""


# --- rules of the chain's record ---


def silent_older_blocks(at: Situation) -> Step:
    """V3: while one joins, nobody leaves who has not acknowledged it."""
    older = [m for m in at.info.serving if not m.joining]
    is_joining = len(older) < len(at.info.serving)
    if is_joining and not all(_has_acknowledged(at, m) for m in older):
        return Step()
    return next_step(at)


def _has_acknowledged(at: Situation, member: Member) -> bool:
    return at.is_present(member) and at.of(member).acknowledged >= at.info.version


def source_not_asked(at: Situation) -> Step:
    """V9, the other half: the source need not be at the version of the statement."""
    if not at.info.serving:
        return next_step(at)
    source = at.info.serving[-1].target
    known = {**at.known, source: replace(at.known[source], acknowledged=at.info.version)}
    return next_step(replace(at, known=known))


def anybody_resumes(at: Situation) -> Step:
    """Whoever is there resumes, candidate or not."""
    if at.info.serving:
        return next_step(at)
    candidates = tuple(m.target for m in reversed(at.info.members))
    return next_step(replace(at, info=msgspec.structs.replace(at.info, candidates=candidates)))


def _m(**parts: Any) -> ChainMachines:
    return ChainMachines(**parts)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake."""

    machines: ChainMachines
    focus: str
    walks: int = 0
    """So many walks of this focus, from seed 0 on, found it; 0: none did."""


MUTANTS: dict[str, Mutant] = {
    "V1 pendings kept": Mutant(_m(store=PendingsKept), "", 1),
    "V2 nothing inherited": Mutant(_m(replica=NothingInherited), "tail", 3),
    "V3 silent older blocks": Mutant(_m(decide=silent_older_blocks), "join", 1),
    "V4 raise does not wait": Mutant(_m(replica=RaisePassesWritesInFlight), "head", 2),
    "V4 every hop checks": Mutant(_m(replica=EveryHopChecksEpochs), "join", 6),
    "V7 no start wait": Mutant(_m(leases=NoStartWait), "isolated", 5),
    "V8 any routing counts": Mutant(_m(leases=AnyRoutingCounts), "routing", 1),
    "committed before staged": Mutant(_m(replica=CommitsBeforeStagedEverywhere), "head", 1),
    "identity carried": Mutant(_m(node=IdentityCarried), "head", 1),
    "number given twice": Mutant(_m(replica=NumberGivenTwice), "head", 1),
    "records at head only": Mutant(_m(node=RecordsAtHeadOnly), "head", 2),
    "tombstone forgotten": Mutant(_m(store=TombstoneForgotten), "", 2),
    "pendings dropped": Mutant(_m(replica=PendingsDroppedOnAdoption), "head", 1),
    "records in memory": Mutant(_m(store=RecordsInMemory), "head", 1),
    "stage not durable": Mutant(_m(store=StageNotDurable), "head", 1),
    "joiner in force at once": Mutant(_m(decide=in_force_at_once), "join", 1),
    "resumes without waiting": Mutant(_m(decide=resumes_at_once), "lost", 10),
    "syncing needs a lease": Mutant(_m(replica=SyncingNeedsLease), "", 1),
    "settled without epoch": Mutant(_m(settles_by_epoch=False), "head", 1),
    "epoch ignored": Mutant(_m(replica=EpochIgnored), "head", 1),
    "own grants ignored": Mutant(_m(leases=OwnGrantsIgnored), "routing", 6),
    "shared tail answer": Mutant(_m(node=SharedTailAnswer), "busy", 3),
    "answered from record": Mutant(_m(replica=AnsweredFromRecord), "head", 1),
    "joiner serves at once": Mutant(_m(node=JoinerServesAtOnce), "join", 8),
    "anybody resumes": Mutant(_m(decide=anybody_resumes), "lost", 2),
    "counted from receipt": Mutant(_m(leases=CountedFromReceipt), "late", 1),
    "new primary at once": Mutant(_m(grants=NoTakeoverWait), "takeover", 1),
    "reset is death": Mutant(_m(grants=LeavesAtOnce), "reset", 1),
}
"""Found by ``walks`` walks of their focus, from seed 0 on, when this was written."""

UNFOUND: dict[str, Mutant] = {
    # needs a request repeated until the member that joined meanwhile is the head: found once in 200 walks
    "records not resynced": Mutant(_m(resync=RecordsNotResynced), "busy"),
    # a receiver is complete only when what was pending went through it, with its record
    "V5 records of pendings": Mutant(_m(resync=RecordsOfPendings), "head"),
    # needs the source's commit between a page and the receiver's answer: milliseconds
    "V6 pending not first": Mutant(_m(resync=PendingNotFirst), "late"),
    # closed twice more: the joiner waits for acknowledgements, the reader's lease
    "V9 uptodate carried over": Mutant(_m(node=UptodateCarriedOver, decide=source_not_asked), "apart"),
    # closed twice: the receiver refuses what is not above its own version
    "not read again": Mutant(_m(resync=NotReadAgain), "late"),
    # closed twice: each hop's gate compares versions again
    "not checked under lock": Mutant(_m(replica=NotCheckedUnderLock), "late"),
    # closed twice: a SYNCING member refuses to be asked
    "syncing is tail": Mutant(_m(replica=SyncingIsTail), "late"),
}
"""Not found by 8 to 120 walks: of these rules a clean run says little, other rules stand in for them.
Tests that are aimed at each find the same mistakes in the product (``tests/mutants``)."""
