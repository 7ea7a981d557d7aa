"""Resync in the chain model: the product's ``Job`` and ``decide``, with messages that are late and lost.

``Resync`` is both parts of one node: what it does as a source, and what it answers as a receiver.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fs3.errors import Fs3Error, StaleRouting
from fs3.ids import ChainVersion
from fs3.storage.dedup import Found, find
from fs3.storage.effects import Done, Resynced, UpdateAsk
from fs3.storage.engine.versions import DedupRecord
from fs3.storage.resync.job import Job, Phase, base_change, follow
from fs3.storage.resync.plan import Action, Put, Settle, decide, record_of
from fs3.wire.chunk import Identity, Update, UpdateKind
from fs3.wire.storage import ResyncRecord

from .chain_store import CHAIN, CHUNK

STEP_S = 0.05
PUT_S = 2.0
Reply = Callable[[Any], None]
Source = tuple[ChainVersion, ChainVersion]
"""(version under which it is sent, since when the receiver is SYNCING; 0: not known yet)."""


class Resync:
    """A node's part as source and as receiver."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.world = node.chain_world
        self.job: Job | None = None
        self.step_count = 0
        """As a source: what was answered."""
        self.brought: set[Identity] = set()
        """What this receiver got by resync."""
        self._is_busy = False
        node.every(STEP_S, self._step)

    def follow(self) -> None:
        """A version was adopted."""
        job = follow(self.job, self.node.replica.gate.standing)
        if job is not self.job:
            self.job, self._is_busy = job, False

    # --- source ---

    def _step(self) -> None:
        job, standing = self.job, self.node.replica.gate.standing
        if job is None or self._is_busy or job.phase is Phase.FINISHED or standing is None:
            return
        if standing.version == job.version:
            self._is_busy = True
            self._begin_step(job)

    def _begin_step(self, job: Job) -> None:
        image = self.node.store.image
        source = (job.version, ChainVersion(0) if job.must_begin else job.since)
        if job.must_begin:
            self._ask(job, lambda peer, reply: peer.resync.on_begin(self.node, source, reply), self._begun)
        elif job.phase is Phase.EPOCHS:
            epoch = image.epoch
            self._send_records(job, source, lambda store: store.merge(epoch=epoch))
        elif job.phase is Phase.SESSIONS:
            ended = image.ended
            self._send_records(job, source, lambda store: store.merge(ended=ended))
        elif job.phase is Phase.CHANNELS:
            records = self.channels()
            self._send_records(job, source, lambda store: store.merge(records=records))
        elif job.phase is Phase.CHUNKS:
            self._compare(job, source)
        else:
            self._ask(job, lambda peer, reply: peer.resync.on_done(self.node, source, reply), self._stated)

    def _ask(self, job: Job, work: Callable[[Any, Any], None], done: Callable[[Job, Any], None]) -> None:
        """One message; nothing that comes after the job's end or its step counts."""
        version = job.version

        def answered(answer: Any) -> None:
            if self.job is not job:
                return
            self._is_busy = False
            if isinstance(answer, Fs3Error) or job.version != version:
                job.on_failed()
            else:
                self.step_count += not job.must_begin
                done(job, answer)

        self.node.call(job.receiver.target, work, answered, PUT_S)

    def _begun(self, job: Job, answer: Any) -> None:
        job.on_begun(*answer)

    def _stated(self, job: Job, answer: Any) -> None:
        self.world.counts["resyncs"] += job.on_done(job.version)

    def channels(self) -> tuple[DedupRecord, ...]:
        """Records of committed versions: that of a pending one travels with it (V5)."""
        return tuple(r for r in self.node.store.image.dedup.values() if self._is_committed(r))

    def _is_committed(self, record: DedupRecord) -> bool:
        image = self.node.store.image
        pending = image.pending.version if image.pending is not None else None
        return find(record.result.identity, image.committed, pending, 0) is Found.COMMITTED

    def _send_records(self, job: Job, source: Source, merge: Callable[[Any], None]) -> None:
        self._ask(
            job,
            lambda peer, reply: peer.resync.on_records(self.node, source, merge, reply),
            lambda job, _: job.on_page(None),
        )

    def _compare(self, job: Job, source: Source) -> None:
        """The one page, if the chunk is in it."""
        image = self.node.store.image
        noted = image.notes.get(job.complete_version) if job.complete_version else None
        base = base_change(noted, 0)
        behind = job.complete_version if base else ChainVersion(0)
        is_asked = image.chunk_change > base or image.pending is not None

        def paged(job: Job, there: Any) -> None:
            if there is None:
                job.on_page(None)
                return
            self._is_busy = True
            wait_s = self.world.rng.uniform(0, self.world.source_late_s)
            action = self.action(job, there)  # for the mutant that doesn't look again
            self.world.after(wait_s, lambda: self.node.run(lambda: self._bring(job, source, there, action)))

        self._ask(
            job,
            lambda peer, reply: peer.resync.on_page(self.node, source, is_asked, behind, reply),
            paged,
        )

    def action(self, job: Job, there: ResyncRecord) -> Action | None:
        """What is to be done."""
        return decide(self.node.store.versions(CHUNK), there, job.version)

    def now(self, job: Job, there: ResyncRecord, earlier: Action | None) -> Action | None:
        """The local record is read again, right before it is sent (4.6)."""
        return self.action(job, there)

    def _bring(self, job: Job, source: Source, there: ResyncRecord, earlier: Action | None) -> None:
        if self.job is not job:
            return
        self._is_busy = False
        standing = self.node.replica.gate.standing
        if standing is None or standing.version != source[0]:
            job.on_failed()
            return
        match self.now(job, there, earlier):
            case None:
                job.on_page(None)
            case Settle():
                pass  # the page is asked for again
            case Put() as put:
                self._put(job, source, put)

    def _put(self, job: Job, source: Source, put: Put) -> None:
        image = self.node.store.image
        content = self.content_of(put)
        if content is None:
            return
        version = image.committed
        update = Update(
            chunk=CHUNK,
            identity=put.identity,
            kind=put.kind,
            length_bytes=len(content),
            sums=version.sums if version is not None else (),
        )
        self._is_busy = True

        def done(job: Job, is_applied: Any) -> None:
            if is_applied:
                job.on_page(None)

        self._ask(
            job,
            lambda peer, reply: peer.resync.on_put(self.node, source, update, content, put, reply),
            done,
        )

    def content_of(self, put: Put) -> bytes | None:
        """The committed bytes of exactly this version; None: it is not there any more."""
        image = self.node.store.image
        is_there = image.committed is not None and image.committed.identity == put.identity
        return image.content if is_there and put.kind is UpdateKind.REPLACE else b"" if is_there else None

    # --- receiver ---

    def _problem(self, sender: Any, source: Source) -> Fs3Error | None:
        """As the product's ``_admitted``; asked again after each wait."""
        node, (version, since) = self.node, source
        gate = node.replica.gate
        if (error := node.sender_problem(sender)) is not None:
            return error  # type: ignore[no-any-return]
        if (error := gate.update_problem(version, sender.target)) is not None:
            return error  # type: ignore[no-any-return]
        if not gate.is_syncing or (since and since != gate.syncing_since):
            return StaleRouting("begin again")
        return None

    def on_begin(self, sender: Any, source: Source, reply: Reply) -> None:
        if (error := self._problem(sender, source)) is not None:
            return reply(error)
        notes = self.node.store.image.notes
        since = self.node.replica.gate.syncing_since
        return reply((since, int(self.node.number), max(notes, default=ChainVersion(0))))

    def on_records(self, sender: Any, source: Source, merge: Any, reply: Reply) -> None:
        if (error := self._problem(sender, source)) is not None:
            return reply(error)

        def work() -> None:
            merge(self.node.store)
            reply(self._problem(sender, source) or True)

        self.node.lane(work)
        return None

    def on_page(self, sender: Any, source: Source, asked: bool, behind: ChainVersion, reply: Reply) -> None:
        """The chunk's record; None: neither asked for nor changed here since."""
        if (error := self._problem(sender, source)) is not None:
            return reply(error)
        image = self.node.store.image
        base = image.notes.get(behind) if behind else 0
        if base is None:
            return reply(StaleRouting("no note"))
        record = record_of(CHUNK, self.node.store.versions(CHUNK))
        return reply(record if asked or image.chunk_change > base else None)

    def on_put(
        self, sender: Any, source: Source, update: Update, content: bytes, put: Put, reply: Reply
    ) -> None:
        """Answers whether it was applied."""
        if (error := self._problem(sender, source)) is not None:
            return reply(error)
        node = self.node
        self.brought.add(update.identity)

        def done(outcome: Any) -> None:
            problem = self._problem(sender, source)
            reply(problem if problem is not None else isinstance(outcome, Done))

        resync = Resynced(put.replaces, put.forgets)
        ask = UpdateAsk(update, source[0], sender.target, resync)
        now_s = node.now_s()
        ticket = node.ticket(done)
        node.perform(node.replica.on_update(ticket, ask, _Held(content), now_s, now_s + 1.5))
        return None

    def on_done(self, sender: Any, source: Source, reply: Reply) -> None:
        """UPTODATE, at this very version."""
        if (error := self._problem(sender, source)) is not None:
            return reply(error)

        def work() -> None:
            self.node.store.flush()
            problem = self._problem(sender, source)
            if problem is None:
                self.node.replica.gate.synced_version = self.node.copied[CHAIN] = source[0]
            reply(problem or True)

        self.node.lane(work)
        return None


class _Held:
    def __init__(self, view: bytes) -> None:
        self.view = view
