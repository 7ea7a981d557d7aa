"""Brings one chunk to a receiver: read what is committed, wait for the bucket, send, look at the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from fs3.errors import Busy, CorruptData
from fs3.ids import ChunkId
from fs3.rpc.buffers import aligned_payload
from fs3.wire.chunk import CHUNK_BYTES_MAX, Update, UpdateKind
from fs3.wire.storage import RESYNC_PUT, ResyncPutRequest, ResyncPutResponse, ResyncRecord

from ..lanes import READS, Lanes
from ..runner import TargetRunner
from ..sums import check_payload
from .figures import Progress, ResyncCounts
from .link import Link
from .pace import Pace
from .plan import Put, Settle, decide, record_of

PUT_TIMEOUT_S = 10.0
SETTLE_TIMEOUT_S = 2.0
"""Longest wait for a pending version to be committed: it is sent again every 0.3 s."""
ATTEMPTS = 4
"""Looks at one chunk before the page is begun anew: each time something else was there meanwhile."""
IN_FLIGHT_BYTES = CHUNK_BYTES_MAX
"""Of chunks that are read, or under way to receivers, in the whole process."""


class InFlight:
    """A bound of bytes in memory; one chunk always fits."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._freed = asyncio.Condition()

    async def take(self, size_bytes: int) -> None:
        """Wait until so many more fit."""
        async with self._freed:
            await self._freed.wait_for(
                lambda: not self._used_bytes or self._used_bytes + size_bytes <= self._limit_bytes
            )
            self._used_bytes += size_bytes

    async def free(self, size_bytes: int) -> None:
        """They are used no more."""
        self._used_bytes -= size_bytes
        async with self._freed:
            self._freed.notify_all()


class Sender:
    """Sends chunks of all targets of a process, at one pace."""

    def __init__(
        self, lanes: Lanes, counts: ResyncCounts, pace: Pace, foreground_bytes: Callable[[], float]
    ) -> None:
        self._lanes = lanes
        self._counts = counts
        self._pace = pace
        self._foreground_bytes = foreground_bytes
        self._in_flight = InFlight(IN_FLIGHT_BYTES)

    async def bring(self, link: Link, progress: Progress, chunk: ChunkId, there: ResyncRecord) -> None:
        """Make the receiver's committed version of a chunk the source's, if it is not; ``there``: what it
        said it has. Raises what keeps it from that: the page is to be begun anew."""
        runner = link.runner
        self._counts.compared.value += 1
        for _ in range(ATTEMPTS):
            action = decide(runner.store.versions(chunk), there, link.version)
            match action:
                case None:
                    return
                case Settle(pending):
                    await _settle(runner, chunk)
                    now = record_of(chunk, runner.store.versions(chunk))
                    there = now if now.identity == pending else there  # it went by way of the receiver
                case Put():
                    answer = await self._put(link, progress, chunk, action)
                    if answer is None:
                        continue
                    there = answer.present
                    if answer.applied:
                        return
        raise Busy(f"chunk {chunk} changes all the time")

    async def _put(
        self, link: Link, progress: Progress, chunk: ChunkId, put: Put
    ) -> ResyncPutResponse | None:
        """None: the version is not there any more."""
        size_bytes = put.length_bytes
        await self._in_flight.take(size_bytes)
        try:
            now_s = asyncio.get_running_loop().time()
            self._pace.note_foreground(self._foreground_bytes(), now_s)
            await asyncio.sleep(self._pace.take(size_bytes, now_s))
            view, sums = memoryview(b""), tuple[int, ...]()
            if size_bytes:
                try:
                    view, sums = await self._lanes.run(READS, partial(_read, link.runner, chunk, put))
                except Busy:
                    return None
                except CorruptData:
                    await link.runner.repairs.mend(chunk)  # from another member; then the page is begun anew
                    raise
            answer = await link.call(RESYNC_PUT, _request(link, chunk, put, sums), view, PUT_TIMEOUT_S)
        finally:
            await self._in_flight.free(size_bytes)
        if answer.applied:
            self._note(progress, put)
        return answer

    def _note(self, progress: Progress, put: Put) -> None:
        progress.sent_bytes += put.length_bytes
        self._counts.sent.value += put.length_bytes
        if put.kind is UpdateKind.REMOVE:
            progress.removed_count += 1
            self._counts.removed.value += 1
        else:
            progress.copied_count += 1
            self._counts.copied.value += 1


async def _settle(runner: TargetRunner, chunk: ChunkId) -> None:
    await runner.ask(
        lambda ticket, now_s: runner.replica.on_settle(ticket, [chunk], now_s + SETTLE_TIMEOUT_S)
    )


def _read(runner: TargetRunner, chunk: ChunkId, put: Put) -> tuple[memoryview, tuple[int, ...]]:
    """In a lane: the bytes of a version, which match their sums. Busy: it is not there any more."""
    view = aligned_payload(put.length_bytes)
    found = runner.store.read_into(chunk, put.identity, 0, view, wait=True)
    if found is None or found.length_bytes != put.length_bytes:
        raise Busy(f"version {put.identity} of chunk {chunk} is not as it was")
    check_payload(view, 0, found.sums)
    return view, found.sums


def _request(link: Link, chunk: ChunkId, put: Put, sums: tuple[int, ...]) -> ResyncPutRequest:
    update = Update(
        chunk=chunk,
        identity=put.identity,
        kind=put.kind,
        length_bytes=put.length_bytes,
        sums=sums,
        epoch=link.runner.store.epoch(chunk.inode),
        chunk_size_bytes=CHUNK_BYTES_MAX,  # the file's own is not known here; only bounds come of it
    )
    return ResyncPutRequest(source=link.speaker(), update=update, replaces=put.replaces, forgets=put.forgets)
