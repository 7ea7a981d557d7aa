"""What is under way for one chunk: who waits for it, what is being staged, what is pending. PURE.

The values that ``replica.py`` moves about; the rules are there.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from fs3.errors import Busy, MaybeApplied
from fs3.ids import HEAD_SESSION, ChunkId
from fs3.wire.chunk import Identity, Update, UpdateKind, UpdateResult, VersionInfo

from .effects import Answer, Done, Effect, Fail, Mend, Payload, Resynced, Ticket, Token, UpdateAsk, WriteAsk
from .engine.versions import DedupRecord, PendingInfo
from .sums import content_sum

STUCK_FAILURES = 2
WAITERS_MAX = 64
"""Requests that wait for one pending version: retries of the same update."""


@dataclass(slots=True)
class Job:
    """An update that waits for its chunk."""

    ticket: Ticket
    ask: WriteAsk | UpdateAsk
    payload: Payload | None
    deadline_s: float

    @property
    def resync(self) -> Resynced | None:
        """Set if a resync brings it."""
        return self.ask.resync if isinstance(self.ask, UpdateAsk) else None


@dataclass(slots=True)
class Staging:
    """An update on its way to the disk."""

    token: Token
    job: Job
    update: Update
    waiters: list[tuple[Ticket, float]]


@dataclass(slots=True)
class Pending:
    """The unresolved pending version of a chunk."""

    version: VersionInfo
    update: Update
    payload: Payload | None = None
    """Until the first attempt to forward it is over; then its bytes are read from the store."""
    payload_owner: Ticket = 0
    """The bytes are valid while this request waits."""
    waiters: list[tuple[Ticket, float]] = field(default_factory=list)
    """(ticket, deadline)."""
    token: Token = 0
    """Of the forward under way; 0: none."""
    next_s: float = 0.0
    """Not sent again before this time."""
    failure_count: int = 0
    """Attempts to forward it that failed, one after the other, under this chain version."""
    whole: bool = False
    """Send the whole chunk next time: contents differed."""
    inherited: bool = False
    """Held when the target came to be the last serving one: perhaps committed elsewhere."""
    is_committed_before: bool = False
    """The predecessor has committed it: a resync brought it. It waits for nobody behind."""

    @property
    def is_stuck(self) -> bool:
        """The chain does not take it: whoever comes to wait is sent away, with the buffer that it holds."""
        return self.failure_count >= STUCK_FAILURES

    def wait(self, job: Job) -> list[Effect]:
        """A retry of the same update joins those who wait for it."""
        if self.is_stuck:
            return [Fail(job.ticket, MaybeApplied(f"{self.version.identity} waits for its chain"))]
        if len(self.waiters) >= WAITERS_MAX:
            return [Fail(job.ticket, Busy(f"{WAITERS_MAX} requests wait for {self.version.identity}"))]
        self.waiters.append((job.ticket, job.deadline_s))
        return []

    def start_over(self, *, is_last_serving: bool) -> None:
        """Another chain version: it is sent again, at once."""
        self.token, self.next_s, self.whole, self.failure_count = 0, 0.0, False, 0
        self.inherited = self.inherited or is_last_serving

    def attempt_failed(self, next_s: float) -> None:
        """It is sent again at ``next_s``, with bytes from the store."""
        self.token, self.payload, self.next_s = 0, None, next_s
        self.failure_count += 1

    def leave(self, ticket: Ticket) -> None:
        """A request waits no longer; bytes that were its own must not be used any more."""
        self.waiters = [waiter for waiter in self.waiters if waiter[0] != ticket]
        if ticket == self.payload_owner:
            self.payload = None

    def give_up_late(self, now_s: float) -> list[Effect]:
        """Requests whose time is over wait no longer; what they asked for may still come about."""
        late = [ticket for ticket, deadline_s in self.waiters if deadline_s <= now_s]
        for ticket in late:
            self.leave(ticket)
        return [Fail(t, MaybeApplied(f"{self.version.identity} waits for its chain")) for t in late]


@dataclass(slots=True)
class ChunkWork:
    """A chunk that something happens to. Forgotten when nothing does."""

    chunk: ChunkId
    committed: VersionInfo | None
    pending: Pending | None
    queue: deque[Job] = field(default_factory=deque)
    """The chunk's lock, first come, first served."""
    staging: Staging | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self.pending is None and self.staging is None and not self.queue

    def hurry(self, deadline_s: float) -> None:
        """Nobody waits for this chunk longer than until then."""
        if self.pending is not None:
            self.pending.waiters = [(t, min(before_s, deadline_s)) for t, before_s in self.pending.waiters]
        for job in self.queue:
            job.deadline_s = min(job.deadline_s, deadline_s)

    def stages(self, job: Job) -> bool:
        """Whether this very request is being staged."""
        return self.staging is not None and self.staging.job is job

    def updates(self) -> list[Update]:
        """The numbered updates that are not resolved."""
        found = [self.staging.update] if self.staging is not None else []
        return [*found, self.pending.update] if self.pending is not None else found

    def waiting(self) -> list[Ticket]:
        """Tickets of those whose update has begun."""
        waiters = self.staging.waiters if self.staging is not None else []
        if self.pending is not None:
            waiters = [*waiters, *self.pending.waiters]
        return [ticket for ticket, _ in waiters]

    def record_of(self, update: Update) -> DedupRecord | None:
        """What is stored with an update so that a retry is recognised; None for the head's own."""
        writer = update.identity.writer
        if writer.session == HEAD_SESSION:
            return None
        old_bytes = self.committed.length_bytes if self.committed is not None else 0
        result = UpdateResult(identity=update.identity, length_bytes=length_after(update, old_bytes))
        return DedupRecord(writer.session, writer.channel, writer.sequence, update.chunk, result)


def length_after(update: Update, old_bytes: int) -> int:
    """Length of the chunk after an update of a version that was ``old_bytes`` long."""
    if update.kind is UpdateKind.WRITE:
        return max(old_bytes, update.offset_bytes + update.length_bytes)
    return 0 if update.kind is UpdateKind.REMOVE else update.length_bytes


def numbered(ask: WriteAsk, identity: Identity) -> Update:
    """The update that a request becomes when the head gives it its identity."""
    return Update(
        chunk=ask.chunk,
        identity=identity,
        kind=ask.kind,
        offset_bytes=ask.offset_bytes,
        length_bytes=ask.length_bytes,
        sums=ask.sums,
        epoch=ask.epoch,
        chunk_size_bytes=ask.chunk_size_bytes,
    )


def done_of(version: VersionInfo) -> Done:
    """What is answered to those who waited for a version."""
    return Done(version.identity, version.length_bytes, content_sum(version.sums))


def held_by_store(info: PendingInfo | None) -> Pending | None:
    """A pending version found in the store: nobody waits for it, and it was perhaps committed elsewhere."""
    return Pending(info.version, info.update, inherited=True) if info is not None else None


def committed_already(job: Job, update: Update, committed: VersionInfo) -> list[Effect]:
    """The predecessor sends what is committed here: say so; if its content differs, take it."""
    if update.kind is UpdateKind.REPLACE and update.sums != committed.sums:
        return [Mend(update, job.payload), Fail(job.ticket, Busy("taking the predecessor's bytes"))]
    return [Answer(job.ticket, done_of(committed))]
