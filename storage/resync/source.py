"""The source's tasks: one for each target whose successor is SYNCING. Event loop only.

A task does its job's steps one after the other; several share the process's pace, memory and turns. Nothing
that fails ends it: it says why, waits a little, asks the receiver who it is, and goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from fs3.errors import Fs3Error
from fs3.ids import ChunkId, TargetId
from fs3.log import Logger
from fs3.metrics import Metrics
from fs3.rpc.service import Caller
from fs3.tasks import TaskScope
from fs3.wire.storage import (
    RESYNC_BEGIN,
    RESYNC_DONE,
    RESYNC_PAGE,
    RESYNC_RECORDS,
    ResyncBeginRequest,
    ResyncDoneRequest,
    ResyncPageRequest,
    ResyncRecord,
)

from ..disk import DiskFailed
from ..lanes import READS, Lanes
from ..membership import Membership
from ..runner import TargetRunner
from .figures import Progress, ResyncCounts
from .job import NEVER, Job, Phase, base_change, follow
from .ledgers import channels_page, epochs_page, sessions_page
from .link import Link
from .pace import Pace, ResyncSettings
from .pages import own_page
from .sending import Sender

PAGES_AT_ONCE = 4
"""Targets of this process that compare or send at a time; the others wait for their turn, page by page."""
SENDS_AT_ONCE = 16
"""Chunks of one page under way: enough to keep a receiver's disk and the way to it busy."""
PAUSE_S = 0.1
PAUSE_MAX_S = 2.0
"""Between attempts that fail, one after the other."""


@dataclass(slots=True)
class _Work:
    runner: TargetRunner
    job: Job
    progress: Progress
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """The chain has changed."""
    task: asyncio.Task[None] | None = None


class Resync:
    """One storage process's part as source, and the figures of both parts."""

    def __init__(
        self,
        membership: Membership,
        caller: Caller,
        lanes: Lanes,
        scope: TaskScope,
        log: Logger,
        metrics: Metrics,
        settings: ResyncSettings,
        foreground_bytes: Callable[[], float],
    ) -> None:
        """``foreground_bytes``: written and read so far by clients, resync left out."""
        self._membership = membership
        self._caller = caller
        self._lanes = lanes
        self._scope = scope
        self._log = log
        self._counts = ResyncCounts(metrics)
        self.received = self._counts.received
        self._pace = Pace(settings.rate_bytes_s)
        self._sender = Sender(lanes, self._counts, self._pace, foreground_bytes)
        self._turns = asyncio.Semaphore(PAGES_AT_ONCE)
        self._works: dict[TargetId, _Work] = {}
        self._loop = asyncio.get_running_loop()
        metrics.computed("fs3_storage_resync_jobs", lambda: len(self._unfinished()))
        metrics.computed("fs3_storage_resync_left_bytes", self._left_bytes)
        metrics.computed("fs3_storage_resync_eta_seconds", self._eta_s)
        metrics.computed("fs3_storage_resync_allowed_bytes_per_second", lambda: self._pace.rate_bytes_s)

    def follow(self, runners: Sequence[TargetRunner]) -> None:
        """The picture of the chains has changed, and these targets are in use."""
        for runner in runners:
            work = self._works.get(runner.target)
            job = follow(work.job if work is not None else None, runner.replica.gate.standing)
            if work is not None and job is work.job:
                work.changed.set()
                continue
            if work is not None and work.task is not None:
                work.task.cancel()
                del self._works[runner.target]
            if job is not None:
                self._begin(runner, job)

    def _begin(self, runner: TargetRunner, job: Job) -> None:
        progress = Progress(self._loop.time(), runner.store.space().used_bytes)
        work = self._works[runner.target] = _Work(runner, job, progress)
        work.task = self._scope.spawn(f"resync {runner.target:x}", self._run(work))

    # -- one job

    async def _run(self, work: _Work) -> None:
        """Until cancelled, or the target is offline."""
        pause_s = PAUSE_S
        while not work.runner.replica.gate.offline_reason:
            work.changed.clear()
            if work.job.phase is Phase.FINISHED:
                await work.changed.wait()
                continue
            try:
                await self._step(work)
            except DiskFailed as error:
                work.runner.report_disk_failed(str(error))
            except Fs3Error as error:
                self._failed(work, error)
                await self._pause(work, pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
            else:
                work.progress.reason, pause_s = "", PAUSE_S

    def _failed(self, work: _Work, error: Fs3Error) -> None:
        work.job.on_failed()
        work.progress.reason = f"{type(error).__name__}: {error}"
        self._counts.failures.value += 1
        self._log.debug("resync waits", target=f"{work.runner.target:x}", reason=work.progress.reason)

    async def _pause(self, work: _Work, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await work.changed.wait()
        except TimeoutError:
            return

    async def _step(self, work: _Work) -> None:
        job = work.job
        link = Link(work.runner, job, self._membership, self._caller)
        if job.must_begin:
            await self._ask(work, link)
        elif job.phase is Phase.DONE:
            await link.call(RESYNC_DONE, ResyncDoneRequest(source=link.speaker()))
            if job.on_done(link.version):
                self._counts.finished.value += 1
                self._log.info("resynced", target=f"{job.receiver.target:x}", version=link.version)
        else:
            async with self._turns:
                await (self._chunks(work, link) if job.phase is Phase.CHUNKS else self._ledger(work, link))
            work.progress.step_count += 1

    async def _ask(self, work: _Work, link: Link) -> None:
        request = ResyncBeginRequest(source=link.speaker(), number_floor=work.runner.store.number_floor)
        answer = await link.call(RESYNC_BEGIN, request)
        if link.version != work.job.version:
            return  # it is asked again, under the new one
        is_known = work.job.since == answer.since and work.job.store_id == answer.store_id
        work.job.on_begun(answer.since, answer.store_id, answer.complete_version)
        if not is_known:
            space = work.runner.store.space()
            work.progress = Progress(self._loop.time(), space.used_bytes)

    async def _ledger(self, work: _Work, link: Link) -> None:
        """A page of epochs, ended sessions or channels."""
        page = {
            Phase.EPOCHS: epochs_page,
            Phase.SESSIONS: sessions_page,
            Phase.CHANNELS: channels_page,
        }[work.job.phase]
        found = partial(page, work.runner.store, link.speaker(), work.job.after)
        request, after = await self._lanes.run(READS, found)
        if request is not None:
            await link.call(RESYNC_RECORDS, request)
        work.job.on_page(after)

    async def _chunks(self, work: _Work, link: Link) -> None:
        """Compare a page of chunks and bring what differs."""
        job, store = work.job, work.runner.store
        after = job.after
        assert after is None or isinstance(after, ChunkId), after
        noted = store.chain_version_note(job.complete_version) if job.complete_version else None
        base = base_change(noted, store.dropped_change)
        own = await self._lanes.run(READS, partial(own_page, store, after, base))
        request = ResyncPageRequest(
            source=link.speaker(),
            chunks=own.chunks,
            after=after,
            through=own.through,
            changed_after=job.complete_version if base else NEVER,
        )
        answer = await link.call(RESYNC_PAGE, request)
        through = answer.through
        there = {record.chunk: record for record in answer.records}
        wanted = {chunk: None for chunk in own.chunks if through is None or chunk <= through}

        async def one(chunk: ChunkId) -> None:
            await self._sender.bring(link, work.progress, chunk, there.get(chunk, ResyncRecord(chunk)))

        await work.runner.each(one, sorted({**wanted, **dict.fromkeys(there)}), SENDS_AT_ONCE)
        work.progress.passed_bytes += own.passed_bytes if through == own.through else 0
        job.on_page(through)

    # -- what is seen

    def _unfinished(self) -> list[_Work]:
        return [work for work in self._works.values() if work.job.phase is not Phase.FINISHED]

    def _left_bytes(self) -> float:
        return sum(work.progress.left_bytes() for work in self._unfinished())

    def _eta_s(self) -> float:
        now_s = self._loop.time()
        return max((work.progress.eta_s(now_s) for work in self._unfinished()), default=0.0)

    def step_count(self, source: TargetId) -> int:
        """How far the copying is of which ``source`` is the source: grows while it goes on."""
        work = self._works.get(source)
        if work is None:
            return 0
        return work.progress.step_count + work.progress.copied_count + work.progress.removed_count

    def health(self) -> dict[str, object]:
        """For ``/healthz``: the jobs of which this process is the source, by receiver."""
        now_s = self._loop.time()
        return {f"{work.job.receiver.target:x}": _shown(work, now_s) for work in self._works.values()}


def _shown(work: _Work, now_s: float) -> dict[str, object]:
    progress, is_over = work.progress, work.job.phase is Phase.FINISHED
    return {
        "source": f"{work.runner.target:x}",
        "chain_version": work.job.version,
        "phase": work.job.phase.name.lower(),
        "left_bytes": 0 if is_over else progress.left_bytes(),
        "eta_s": 0.0 if is_over else round(progress.eta_s(now_s), 1),
        "sent_bytes": progress.sent_bytes,
        "copied_chunks": progress.copied_count,
        "removed_chunks": progress.removed_count,
        "waits_for": progress.reason,
    }
