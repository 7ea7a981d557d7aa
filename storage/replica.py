"""The CRAQ replica of one target: a machine from events to effects. PURE.

Invariants (design 4.3):

- A chunk has one committed version and at most one unresolved pending version. A pending version is
  resolved: rolled forward, or replaced by its predecessor's under the same number. It is never dropped.
- The head gives a number only when nothing is pending, under the chunk's queue (its lock), after it has
  compared the chain version again and the file's epoch.
- Stage durably, then forward. Commit when the successor names the same identity with the same content;
  the last writable member commits when it has staged: a serving one under a lease, a SYNCING one, to which
  nobody grants any, without. A commit that is learnt needs none.
- Whoever holds a pending version sends it again on every adoption and every ``RESEND_S``.
- A member that becomes the last serving one settles each pending version that it brought along before it
  serves the chunk or answers a query about it (``inherited``).

What it does not do: it reads no bytes, keeps no copy of the store (state of chunks at rest is asked of
``StoreView``), and does not answer readers, who go past it unless something is pending (``reading.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fs3.errors import (
    Busy,
    DeadlineExceeded,
    Fs3Error,
    MaybeApplied,
    SessionLost,
    StaleFile,
    StaleRouting,
    Unavailable,
)
from fs3.ids import HEAD_SESSION, ChainVersion, ChunkId, Generation, InodeId, TargetId
from fs3.routing import ChainInfo, TargetState
from fs3.wire.chunk import Identity, Update, UpdateKind, UpdateResult, VersionInfo, WriterTag

from .arrival import Turn, judge_update
from .chunk_work import ChunkWork, Job, Pending, Staging, committed_already, done_of, held_by_store, numbered
from .dedup import Channels, Found, find, judge
from .effects import (
    Adopt,
    Answer,
    Commit,
    Decree,
    Done,
    DropPendings,
    Effect,
    EpochRaise,
    Fail,
    Forward,
    GoOffline,
    Payload,
    Repair,
    SessionEnd,
    Stage,
    StoreView,
    Ticket,
    Token,
    UpdateAsk,
    Verify,
    WriteAsk,
    next_number,
)
from .engine.versions import PendingInfo
from .epochs import Decrees
from .gate import Gate
from .settle import Settles
from .standing import standing_of
from .sums import content_sum

RESEND_S = 0.3
"""An unresolved pending version is sent again this often (design 4.3)."""
PATIENCE_S = 1.0
"""How long requests still wait when the chain does not take a version (a member is dead): each occupies a
buffer, of which a process has few. Their senders repeat them under the same identity."""
QUEUE_MAX = 64
"""Updates that wait for one chunk."""
QUEUED_MAX = 4096
"""Updates that wait for any chunk of the target."""


class Replica:
    """One target's replica. ``lease_valid(version)``: whether the target may serve and commit at it now.

    Times are seconds of any one clock. Every method returns the effects to perform, in order.
    """

    def __init__(
        self,
        target: TargetId,
        generation: Generation,
        view: StoreView,
        lease_valid: Callable[[ChainVersion], bool],
    ) -> None:
        self.gate = Gate(target, lease_valid)
        self._generation = generation
        self._view = view
        self._chunks: dict[ChunkId, ChunkWork] = {}
        self._channels = Channels()
        self.decrees = Decrees(view, self._is_unresolved, self._new_token, RESEND_S)
        self._settles = Settles()
        self._tokens: dict[Token, ChunkId] = {}
        self._last_token = 0
        self._own_sequence = generation << 32  # never used twice: a restart is a new generation
        self._queued_count = 0
        for chunk, info in view.pendings():
            self._load(chunk, info)

    def _load(self, chunk: ChunkId, info: PendingInfo | None = None) -> ChunkWork:
        found = self._chunks.get(chunk)
        if found is None:
            state = self._view.versions(chunk)
            found = self._chunks[chunk] = ChunkWork(
                chunk, state.committed, held_by_store(info or state.pending)
            )
        return found

    def _new_token(self, chunk: ChunkId | None = None) -> Token:
        self._last_token += 1
        if chunk is not None:
            self._tokens[self._last_token] = chunk
        return self._last_token

    def _by_token(self, token: Token) -> ChunkWork | None:
        chunk = self._tokens.pop(token, None)
        return self._chunks.get(chunk) if chunk is not None else None

    # -- what the chain says

    def on_routing(self, info: ChainInfo, now_s: float) -> list[Effect]:
        """A record of the chain arrived; one that is not newer changes nothing."""
        before = self.gate.standing
        if self.gate.offline_reason or (before is not None and info.version <= before.version):
            return []
        standing = self.gate.standing = standing_of(info, self.gate.target, self._generation)
        effects: list[Effect] = list(self.decrees.on_adopted(info.version))
        was_syncing = before is not None and before.state is TargetState.SYNCING
        if standing.state is TargetState.SYNCING and not was_syncing:
            self.gate.dropping, self.gate.syncing_since = True, standing.version
            error = StaleRouting(f"target {self.gate.target:x} is synced at version {info.version}")
            return [*effects, *self._fail_everybody(error, error), DropPendings(info.version)]
        effects.append(Adopt(standing.version))
        for work in self._chunks.values():
            if (pending := work.pending) is not None:
                self._tokens.pop(pending.token, None)
                pending.start_over(is_last_serving=standing.is_last_serving)
        return effects + self._pump_all(now_s)

    def on_pendings_dropped(self) -> list[Effect]:
        """``DropPendings`` is durable: live updates are taken from now on."""
        self.gate.dropping = False
        assert self.gate.standing is not None
        return [Adopt(self.gate.standing.version)]

    def go_offline(self, reason: str) -> list[Effect]:
        """Use the target no more: its disk failed, or an invariant does not hold."""
        if self.gate.offline_reason:
            return []
        self.gate.offline_reason = reason
        text = f"target {self.gate.target:x} went offline: {reason}"
        decrees = self.decrees.on_adopted(self.gate.standing.version if self.gate.standing is not None else 0)
        return [GoOffline(reason), *decrees, *self._fail_everybody(Unavailable(text), MaybeApplied(text))]

    def _fail_everybody(self, error: Fs3Error, doubt: Fs3Error) -> list[Effect]:
        """``doubt`` is for those whose update has begun."""
        effects: list[Effect] = []
        for work in self._chunks.values():
            effects += [Fail(job.ticket, error) for job in work.queue]
            effects += [Fail(ticket, doubt) for ticket in work.waiting()]
        effects += self._settles.fail_all(error)
        self._chunks.clear()
        self._tokens.clear()
        self._channels = Channels()
        self._queued_count = 0
        return effects

    # -- updates arrive

    def on_write(
        self, ticket: Ticket, ask: WriteAsk, payload: Payload | None, now_s: float, deadline_s: float
    ) -> list[Effect]:
        """A client's write, or one of the head's own; its payload matches its sums."""
        ended = self.decrees.session_ended(ask.writer.session)
        error = self.gate.write_problem(ask.chain_version) or self._channels.enter(ask.writer, ended=ended)
        if error is not None:
            return [Fail(ticket, error)]
        return self._enqueue(self._load(ask.chunk), Job(ticket, ask, payload, deadline_s), now_s)

    def on_update(
        self, ticket: Ticket, ask: UpdateAsk, payload: Payload | None, now_s: float, deadline_s: float
    ) -> list[Effect]:
        """A numbered update of the predecessor; its payload matches its sums."""
        if (error := self.gate.update_problem(ask.chain_version, ask.sender)) is not None:
            return [Fail(ticket, error)]
        work = self._load(ask.update.chunk)
        staging = work.staging
        if staging is not None and staging.update.identity == ask.update.identity:
            staging.waiters.append((ticket, deadline_s))  # sent again, after an adoption
            return []
        return self._enqueue(work, Job(ticket, ask, payload, deadline_s), now_s)

    def _enqueue(self, work: ChunkWork, job: Job, now_s: float) -> list[Effect]:
        if len(work.queue) >= QUEUE_MAX or self._queued_count >= QUEUED_MAX:
            self._left(job)
            return [Fail(job.ticket, Busy(f"{len(work.queue)} updates wait for chunk {work.chunk}"))]
        work.queue.append(job)
        self._queued_count += 1
        return self._pump(work, now_s)

    def _left(self, job: Job) -> None:
        """The job's channel may carry its next request (or this one again)."""
        if isinstance(job.ask, WriteAsk):
            self._channels.leave(job.ask.writer)

    def _pump(self, work: ChunkWork, now_s: float) -> list[Effect]:
        """Do what can be done for a chunk: resolve what is pending, then take the next of its queue."""
        effects: list[Effect] = []
        while not self.gate.offline_reason:
            if work.pending is not None:
                effects += self._drive(work, work.pending, now_s)
            if work.staging is not None or not work.queue:
                break
            job = work.queue[0]
            if isinstance(job.ask, WriteAsk):
                taken = self._take_write(work, job, job.ask)
            else:
                taken = self._take_update(work, job, job.ask)
            if taken is None:
                break
            effects += taken
            if work.queue:  # going offline has emptied it
                work.queue.popleft()
                self._queued_count -= 1
            if not work.stages(job):
                self._left(job)
        if work.idle:
            self._chunks.pop(work.chunk, None)
        return effects

    def _pump_all(self, now_s: float) -> list[Effect]:
        return [effect for work in list(self._chunks.values()) for effect in self._pump(work, now_s)]

    def _take_write(self, work: ChunkWork, job: Job, ask: WriteAsk) -> list[Effect] | None:
        """The head's decision under the lock; None: not yet, something is pending."""
        if (error := self.gate.write_problem(ask.chain_version)) is not None:
            return [Fail(job.ticket, error)]
        writer = ask.writer
        if writer.session != HEAD_SESSION:
            if self.decrees.session_ended(writer.session):
                return [Fail(job.ticket, SessionLost(f"client session {writer.session:x} is over"))]
            verdict = judge(self._view.dedup(writer.session, writer.channel), writer, ask.chunk)
            if isinstance(verdict, UpdateResult):
                return self._replay(work, job, verdict)
            if verdict is not None:
                return [Fail(job.ticket, verdict)]
        if work.pending is not None:
            return (
                [Fail(job.ticket, Busy(f"chunk {work.chunk} waits for its chain"))]
                if work.pending.is_stuck
                else None
            )
        in_force = self.decrees.epoch(ask.chunk.inode)
        if ask.epoch < in_force:
            return [Fail(job.ticket, StaleFile(f"epoch {ask.epoch} is over, {in_force} is in force"))]
        if writer.session == HEAD_SESSION:
            self._own_sequence += 1
            writer = WriterTag(HEAD_SESSION, 0, self._own_sequence)
        assert self.gate.standing is not None
        number = next_number(work.committed, self._view.number_floor)
        return self._stage(work, job, numbered(ask, Identity(self.gate.standing.version, number, writer)))

    def _replay(self, work: ChunkWork, job: Job, result: UpdateResult) -> list[Effect]:
        """A retry: its version is committed, or it waits until it is."""
        pending = work.pending
        stored = pending.version if pending is not None else None
        match find(result.identity, work.committed, stored, self._view.number_floor):
            case Found.COMMITTED:
                return [Answer(job.ticket, Done(result.identity, result.length_bytes, 0), replayed=True)]
            case Found.PENDING:
                assert pending is not None
                return pending.wait(job)
            case Found.NOWHERE:
                return self.go_offline(f"{result} is on record, chunk {work.chunk} has {work.committed}")

    def _take_update(self, work: ChunkWork, job: Job, ask: UpdateAsk) -> list[Effect] | None:
        """A numbered update under the lock; None: not yet, an older one is pending."""
        if (error := self.gate.update_problem(ask.chain_version, ask.sender)) is not None:
            return [Fail(job.ticket, error)]
        update, pending = ask.update, work.pending
        held = pending.version.identity if pending is not None else None
        turn = judge_update(ask, work.committed, held, is_syncing=self.gate.is_syncing)
        match turn:
            case Fs3Error():
                return [Fail(job.ticket, turn)]
            case Turn.LATER:
                return None
            case Turn.JOIN:
                assert pending is not None
                pending.is_committed_before |= ask.resync is not None
                return pending.wait(job)
            case Turn.DONE:
                assert work.committed is not None
                return committed_already(job, update, work.committed)
            case Turn.BROKEN:
                return self.go_offline(f"chunk {work.chunk}: {work.committed} is committed, got {update}")
            case Turn.STAGE:
                return [*self._give_way(work, update.identity), *self._stage(work, job, update)]

    def _give_way(self, work: ChunkWork, identity: Identity) -> list[Effect]:
        """A pending version is replaced by the predecessor's of its number, or a resynced one (4.3, 4.6)."""
        if (pending := work.pending) is None:
            return []
        error = StaleRouting(f"{pending.version.identity} is replaced by the predecessor's {identity}")
        self._tokens.pop(pending.token, None)
        work.pending = None
        return [Fail(ticket, error) for ticket, _ in pending.waiters]

    def _stage(self, work: ChunkWork, job: Job, update: Update) -> list[Effect]:
        token = self._new_token(work.chunk)
        work.staging = Staging(token, job, update, [(job.ticket, job.deadline_s)])
        from_client = isinstance(job.ask, WriteAsk) and job.ask.kind is not UpdateKind.REMOVE
        if (resync := job.resync) is not None:  # its channel may be at a later request: records come apart
            return [Stage(token, update, job.payload, None, from_client, resync.replaces)]
        return [Stage(token, update, job.payload, work.record_of(update), from_client)]

    # -- the work is done

    def on_staged(
        self, token: Token, version: VersionInfo | None, error: Fs3Error | None, now_s: float
    ) -> list[Effect]:
        """A ``Stage`` is durable as ``version``, or failed and left the chunk as it was."""
        work = self._by_token(token)
        if work is None or work.staging is None or work.staging.token != token:
            return []  # the target entered SYNCING, or went offline, meanwhile
        staging, work.staging = work.staging, None
        job = staging.job
        self._left(job)
        if version is not None:
            owner = job.ticket if any(t == job.ticket for t, _ in staging.waiters) else 0
            payload = job.payload if owner else None
            pending = work.pending = Pending(version, staging.update, payload, owner, staging.waiters)
            pending.is_committed_before = job.resync is not None
            return self._pump(work, now_s)
        assert error is not None, token
        # what was to be replaced is still there
        work.pending = held_by_store(self._view.versions(work.chunk).pending)
        failed = [Fail(ticket, error) for ticket, _ in staging.waiters]
        return [*failed, *self._pump(work, now_s), *self._wake_decrees(now_s)]

    def _drive(self, work: ChunkWork, pending: Pending, now_s: float) -> list[Effect]:
        """Move a pending version towards its commit."""
        standing = self.gate.standing
        if standing is None or not standing.writable or self.gate.dropping:
            return []
        successor = standing.successor
        if pending.is_committed_before:
            return self._commit(work, pending, now_s)
        if successor is None:
            may_commit = self.gate.is_syncing or self.gate.lease_valid(standing.version)
            return self._commit(work, pending, now_s) if may_commit else []
        if pending.token or now_s < pending.next_s:
            return []
        update, version = pending.update, pending.version
        pending.token = token = self._new_token(work.chunk)
        whole = pending.whole or successor.state is TargetState.SYNCING
        whole = whole and update.kind is not UpdateKind.REMOVE
        return [Forward(token, successor, standing.version, update, version, pending.payload, whole)]

    def _commit(self, work: ChunkWork, pending: Pending, now_s: float) -> list[Effect]:
        version = pending.version
        work.committed, work.pending = version, None
        self._tokens.pop(pending.token, None)
        done = done_of(version)
        return [
            Commit(work.chunk, version.identity),
            *[Answer(ticket, done) for ticket, _ in pending.waiters],
            *self._settles.on_resolved(work.chunk),
            *self._wake_decrees(now_s),
        ]

    def _wake_decrees(self, now_s: float) -> list[Effect]:
        if not len(self.decrees) or self.gate.standing is None:
            return []
        return self.decrees.on_resolved(self.gate.standing, now_s)

    def on_forwarded(
        self, token: Token, identity: Identity, content_sum_there: int, now_s: float
    ) -> list[Effect]:
        """The successor, and all behind it, have committed ``identity`` with this content."""
        work = self._by_token(token)
        if work is None or (pending := work.pending) is None or pending.token != token:
            return []
        if pending.version.identity == identity and content_sum_there == content_sum(pending.version.sums):
            return [*self._commit(work, pending, now_s), *self._pump(work, now_s)]
        pending.token, pending.payload, pending.next_s = 0, None, now_s + RESEND_S
        return [Verify(work.chunk, identity)] if pending.version.identity == identity else []

    def on_forward_failed(self, token: Token, now_s: float) -> None:
        """No answer, or a refusal: it is sent again by ``on_tick``, or when the chain's record changes."""
        work = self._by_token(token)
        if work is not None and work.pending is not None and work.pending.token == token:
            work.pending.attempt_failed(now_s + RESEND_S)
            work.hurry(now_s + PATIENCE_S)

    def on_verified(self, chunk: ChunkId, identity: Identity, *, ok: bool, now_s: float) -> list[Effect]:
        """The own bytes were checked after a divergence. Good: the successor gets them. Bad: take its."""
        work = self._chunks.get(chunk)
        if work is None or (pending := work.pending) is None or pending.version.identity != identity:
            return []
        if ok:
            pending.whole = True
            return self._pump(work, now_s)
        return [*self._commit(work, pending, now_s), Repair(chunk, identity), *self._pump(work, now_s)]

    def on_decree(
        self, ticket: Ticket, decree: Decree, version: ChainVersion, now_s: float, deadline_s: float
    ) -> list[Effect]:
        """An epoch to raise, or a session to end; from meta at the head, else from the predecessor."""
        if (error := self.gate.decree_problem(version)) is not None:
            return [Fail(ticket, error)]
        assert self.gate.standing is not None
        return self.decrees.start(ticket, decree, self.gate.standing, now_s, deadline_s)

    def on_decree_step(self, token: Token, error: Fs3Error | None, now_s: float) -> list[Effect]:
        """A ``Record`` or ``PassOn`` is done, or failed."""
        if error is not None:
            return self.decrees.on_step_failed(token, error, now_s)
        assert self.gate.standing is not None
        return self.decrees.on_step_done(token, self.gate.standing, now_s)

    def _is_unresolved(self, decree: Decree) -> bool:
        updates = (update for work in self._chunks.values() for update in work.updates())
        match decree:
            case EpochRaise(inode, epoch):
                return any(u.chunk.inode == inode and u.epoch < epoch for u in updates)
            case SessionEnd(session):
                return any(u.identity.writer.session == session for u in updates)

    # -- waiting, giving up

    def must_settle(self, chunk: ChunkId) -> bool:
        """Whether what is pending of the chunk is perhaps committed elsewhere: ``on_settle`` first (4.4)."""
        work = self._chunks.get(chunk)
        pending, standing = work.pending if work is not None else None, self.gate.standing  # read once:
        if pending is None or standing is None:  # other threads may change them meanwhile
            return False
        return pending.inherited and standing.is_last_serving

    def on_settle(self, ticket: Ticket, chunks: Sequence[ChunkId], deadline_s: float) -> list[Effect]:
        """Answer the ticket when each pending version that these chunks have now is resolved."""
        found = [(chunk, self._chunks.get(chunk)) for chunk in chunks]
        pending = [c for c, work in found if work is not None and work.pending is not None]
        return self._settles.start(ticket, pending, deadline_s)

    def pendings_of(self, inode: InodeId) -> list[ChunkId]:
        """Chunks of a file that have a pending version, in order."""
        return sorted(c.chunk for c in self._chunks.values() if c.chunk.inode == inode and c.pending)

    @property
    def pending_count(self) -> int:
        """Versions staged and not committed."""
        return sum(1 for work in self._chunks.values() if work.pending is not None)

    def on_cancelled(self, ticket: Ticket) -> None:
        """Nobody waits for this ticket any more; what has begun goes on, without the request's bytes."""
        self._settles.on_cancelled(ticket)
        self.decrees.on_cancelled(ticket)
        for work in self._chunks.values():
            if work.staging is not None:
                work.staging.waiters = [w for w in work.staging.waiters if w[0] != ticket]
            if work.pending is not None:
                work.pending.leave(ticket)
            self._unqueue(work, [job for job in work.queue if job.ticket == ticket])

    @property
    def is_under_way(self) -> bool:
        """Whether there is something that time alone may change."""
        return bool(self._chunks or self._settles or self.decrees)

    def on_tick(self, now_s: float) -> list[Effect]:
        """Send again what is unresolved, give up what is late: some times a second while ``is_under_way``."""
        effects = [effect for work in list(self._chunks.values()) for effect in self._expire(work, now_s)]
        effects += self._settles.on_tick(now_s)
        if self.gate.standing is not None:
            effects += self.decrees.on_tick(self.gate.standing, now_s)
        return effects + self._pump_all(now_s)

    def _unqueue(self, work: ChunkWork, jobs: list[Job]) -> list[Job]:
        for job in jobs:
            work.queue.remove(job)
            self._queued_count -= 1
            self._left(job)
        return jobs

    def _expire(self, work: ChunkWork, now_s: float) -> list[Effect]:
        late = self._unqueue(work, [job for job in work.queue if job.deadline_s <= now_s])
        text = f"chunk {work.chunk} was not free in time"
        given_up = work.pending.give_up_late(now_s) if work.pending is not None else []
        return [*(Fail(job.ticket, DeadlineExceeded(text)) for job in late), *given_up]
