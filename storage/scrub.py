"""Scrubs the disks of a node: finds bytes that went bad before a reader needs them. Event loop only.

One task a disk walks its targets chunk by chunk, reads from the disk itself (``engine/scrubbing.py``), and
hands what is wrong to the target's ordinary repairs. So bytes are right again that nobody reads; and so is a
block that went bad after a reader's check of it and came into the page cache with a bulk read or the system's
readahead, of which a ragged read would get a matching sum. How far a target is lies in its store: a restart
goes on there. When and how fast is ``scrub_round``'s to say.

Source: design 4.2, 4.7.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from fs3.errors import CorruptData, Unavailable
from fs3.ids import ChunkId
from fs3.log import Logger
from fs3.metrics import Counter, Metrics
from fs3.rpc.buffers import aligned_payload
from fs3.tasks import TaskScope

from .disk import DiskFailed
from .engine.scrubbing import PIECE_BYTES
from .engine.versions import ScrubMark
from .lanes import Lanes
from .membership import Membership
from .runner import TargetRunner
from .scrub_round import Bucket, Load, ScrubSettings, is_behind, is_due

PAGE_COUNT = 16
"""Chunks between two looks at the load; the position is kept after each page."""
LOOK_S = 5.0
"""How often it is seen whether there is something to do."""


@dataclass(slots=True)
class _Walk:
    """The scrub of one target."""

    runner: TargetRunner
    mark: ScrubMark
    read: Counter
    bad: Counter
    unmended: dict[ChunkId, None] = field(default_factory=dict)
    """Chunks of this round, or of the last one, that nobody has the right bytes of."""
    is_paused: bool = False


class Scrub:
    """One storage process's scrubs."""

    def __init__(
        self,
        membership: Membership,
        lanes: Lanes,
        scope: TaskScope,
        log: Logger,
        metrics: Metrics,
        settings: ScrubSettings,
        foreground_bytes: Callable[[], float],
    ) -> None:
        """``foreground_bytes``: read and written so far by clients."""
        self._membership = membership
        self._lanes = lanes
        self._scope = scope
        self._log = log
        self._metrics = metrics
        self._settings = settings
        self._foreground_bytes = foreground_bytes
        self._load = Load()
        self._walks: list[_Walk] = []
        self._loop = asyncio.get_running_loop()

    def start(self, disks: Sequence[Sequence[TargetRunner]]) -> None:
        """Begin, with the targets of each disk."""
        if not self._settings.rate_bytes_s:
            return
        for number, runners in enumerate(disks):
            walks = [self._walk_of(runner) for runner in runners]
            self._walks += walks
            if walks:
                self._scope.spawn(f"scrub {number}", self._run(f"scrub-{number}", walks))

    def _walk_of(self, runner: TargetRunner) -> _Walk:
        label = f"{runner.target:x}"
        walk = _Walk(
            runner,
            runner.store.scrub_mark(),
            self._metrics.counter("fs3_storage_scrub_read_bytes_total", target=label),
            self._metrics.counter("fs3_storage_scrub_bad_blocks_total", target=label),
        )
        self._metrics.computed("fs3_storage_scrub_unmended_chunks", lambda: len(walk.unmended), target=label)
        self._metrics.computed("fs3_storage_scrub_age_seconds", lambda: self._age_s(walk.mark), target=label)
        return walk

    # -- walking

    async def _run(self, lane: str, walks: Sequence[_Walk]) -> None:
        bucket, scratch = Bucket(self._settings.rate_bytes_s), aligned_payload(PIECE_BYTES)
        while True:
            is_busy = False
            for walk in walks:
                if walk.runner.replica.gate.offline_reason:
                    continue
                try:
                    is_busy |= await self._step(walk, lane, bucket, scratch)
                except DiskFailed as error:
                    walk.runner.report_disk_failed(str(error))
                except CorruptData as error:  # a record of the index: what else is wrong there?
                    walk.runner.go_offline(str(error))
            if not is_busy:
                await asyncio.sleep(LOOK_S)

    async def _step(self, walk: _Walk, lane: str, bucket: Bucket, scratch: memoryview) -> bool:
        """Look at the next page of a target. False: there is nothing to do now."""
        try:
            now_ms = self._membership.cluster_time_ms()
        except Unavailable:
            return False
        store, every_s = walk.runner.store, self._settings.every_s
        if not is_due(walk.mark, now_ms, every_s):
            return False
        if not walk.mark.began_ms:
            walk.mark = ScrubMark(began_ms=now_ms, ended_ms=walk.mark.ended_ms)
            walk.unmended.clear()
        self._load.note(self._foreground_bytes(), self._loop.time())
        is_on_schedule = not is_behind(walk.mark, store.space().chunk_count, now_ms, every_s)
        walk.is_paused = self._load.is_high and is_on_schedule
        if walk.is_paused:
            return False
        page = await self._lanes.run(lane, partial(store.list_chunks, walk.mark.after, PAGE_COUNT))
        for chunk, state in page:
            size_bytes = state.committed.length_bytes if state.committed is not None else 0
            await asyncio.sleep(bucket.take(size_bytes, self._loop.time()))
            await self._look_at(walk, lane, chunk, scratch)
        if page:
            walk.mark = walk.mark._replace(after=page[-1][0])
        else:
            self._end(walk, now_ms)
        store.note_scrub(walk.mark)
        return True

    async def _look_at(self, walk: _Walk, lane: str, chunk: ChunkId, scratch: memoryview) -> None:
        look = partial(walk.runner.store.scrub_chunk, chunk, scratch)
        found = await self._lanes.run(lane, look)
        self._note(walk, found.read_bytes, len(found.bad))
        if not found.bad or await walk.runner.repairs.mend_found(chunk, len(found.bad)):
            return
        found = await self._lanes.run(lane, look)  # it may have been overwritten, or mended for a reader
        if found.bad and not walk.runner.replica.gate.offline_reason:
            walk.unmended[chunk] = None
            self._log.error(
                "bytes are lost here, and no serving member has them",
                target=f"{walk.runner.target:x}",
                chunk=str(chunk),
                blocks=list(found.bad),
            )

    def _note(self, walk: _Walk, read_bytes: int, bad_count: int) -> None:
        walk.read.value += read_bytes
        walk.bad.value += bad_count
        mark = walk.mark
        walk.mark = mark._replace(
            read_bytes=mark.read_bytes + read_bytes,
            chunk_count=mark.chunk_count + (read_bytes > 0),
            bad_count=mark.bad_count + bad_count,
        )

    def _end(self, walk: _Walk, now_ms: int) -> None:
        mark = walk.mark
        self._log.info(
            "scrubbed", target=f"{walk.runner.target:x}", bytes=mark.read_bytes, bad=mark.bad_count
        )
        walk.mark = mark._replace(began_ms=0, ended_ms=now_ms, after=None)

    # -- what is seen

    def _age_s(self, mark: ScrubMark) -> float:
        try:
            now_ms = self._membership.cluster_time_ms()
        except Unavailable:
            return 0.0
        since_ms = mark.ended_ms or mark.began_ms or now_ms
        return max(0, now_ms - since_ms) / 1000

    def health(self) -> dict[str, object]:
        """For ``/healthz``: by target."""
        return {f"{walk.runner.target:x}": self._shown(walk) for walk in self._walks}

    def _shown(self, walk: _Walk) -> dict[str, object]:
        mark = walk.mark
        is_offline = bool(walk.runner.replica.gate.offline_reason)
        state = "paused" if walk.is_paused else "running" if mark.began_ms else "waiting"
        return {
            "state": "offline" if is_offline else state,
            "read_bytes": mark.read_bytes,
            "looked_at_chunks": mark.chunk_count,
            "chunks": 0 if is_offline else walk.runner.store.space().chunk_count,
            "bad_blocks": mark.bad_count,
            "unmended_chunks": len(walk.unmended),
            "age_s": round(self._age_s(mark), 1),
        }
