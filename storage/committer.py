"""The committer of one target: everything that must be durable, in order, as many as possible at once.

While one group is on its way to the disk the next gathers: many updates, one sync, one index transaction,
many answers (design 5.3). Nothing is ever tried again after a failed disk (design 4.7): what waits fails
with the disk, and ``on_disk_failed`` is told once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fs3.clock import Clock
from fs3.errors import CorruptData, Fs3Error, FsError, InvalidRequest, Unavailable
from fs3.metrics import Metrics

from .disk import DiskFailed
from .engine.versions import StageItem, StageOutcome
from .lanes import Lanes

GROUP_UPDATES_MAX = 64
"""Updates made durable by one sync."""
GROUP_BYTES_MAX = 64 << 20
WAITING_MAX = 16_384
"""Updates and calls that wait for the disk; what the replica lets through is less."""


class Staging(Protocol):
    """What the committer needs of ``ChunkStore``."""

    def stage(self, items: list[StageItem], *, cluster_ms: int = 0) -> list[StageOutcome]: ...


@dataclass(slots=True)
class _Update:
    item: StageItem
    done: Callable[[StageOutcome], None]


@dataclass(slots=True)
class _Call:
    work: Callable[[], Any]
    done: Callable[[Any, Fs3Error | None], None]


class Committer:
    """Give it work with ``stage`` and ``call``; ``run`` is its one task. Event loop only."""

    def __init__(
        self,
        store: Staging,
        lanes: Lanes,
        lane: str,
        *,
        clock: Clock,
        cluster_time_ms: Callable[[], int],
        on_disk_failed: Callable[[str], None],
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._lane = lane
        self._clock = clock
        self._cluster_time_ms = cluster_time_ms
        self._on_disk_failed = on_disk_failed
        self._waiting: deque[_Update | _Call] = deque()
        self._woken = asyncio.Event()
        self._failure = ""
        self._sync_s = metrics.histogram("fs3_storage_sync_seconds")
        self._group = metrics.histogram("fs3_storage_sync_group_updates")

    def stage(self, item: StageItem, done: Callable[[StageOutcome], None]) -> None:
        """Make an update durable; ``done`` is told on the event loop, in order. The payload is held."""
        if self._failure:
            error = DiskFailed(self._failure)
            asyncio.get_running_loop().call_soon(done, StageOutcome(None, error))  # never inside this call
            return
        self._add(_Update(item, done))

    def call(self, work: Callable[[], Any], done: Callable[[Any, Fs3Error | None], None]) -> None:
        """Run a blocking call of the store after everything that was asked for before."""
        if self._failure:
            asyncio.get_running_loop().call_soon(done, None, DiskFailed(self._failure))
            return
        self._add(_Call(work, done))

    async def wait(self, work: Callable[[], Any]) -> Any:
        """``call``, awaited: its result, or the error raised."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(result: Any, error: Fs3Error | None) -> None:
            if future.done():
                return  # whoever waited has gone
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call(work, done)
        return await future

    def _add(self, entry: _Update | _Call) -> None:
        assert len(self._waiting) < WAITING_MAX, len(self._waiting)
        self._waiting.append(entry)
        self._woken.set()

    async def run(self) -> None:
        """Work until cancelled. However it ends, everybody who waits is told: their bytes are free then."""
        try:
            while True:
                await self._woken.wait()
                while self._waiting:
                    if isinstance(self._waiting[0], _Update):
                        await self._stage_group()
                    else:
                        await self._call_one()
                self._woken.clear()
        finally:
            self._failure = self._failure or "the committer has ended"
            self._fail_waiting(self._failure)

    async def _stage_group(self) -> None:
        group: list[_Update] = []
        size_bytes = 0
        while self._waiting and len(group) < GROUP_UPDATES_MAX and size_bytes < GROUP_BYTES_MAX:
            entry = self._waiting[0]
            if not isinstance(entry, _Update):
                break
            self._waiting.popleft()
            group.append(entry)
            size_bytes += len(entry.item.payload)
        items = [entry.item for entry in group]
        cluster_ms = self._cluster_time_ms()
        started_s = self._clock.boot_s()
        try:
            outcomes = await self._lanes.run(
                self._lane, lambda: self._store.stage(items, cluster_ms=cluster_ms)
            )
        except DiskFailed as error:
            outcomes = [StageOutcome(None, error) for _ in group]
            self._fail(str(error))
        except BaseException as error:
            # cancelled, or a bug: what is on the disk is found at the next open
            for entry in group:
                entry.done(StageOutcome(None, Unavailable(f"the committer has ended: {error!r}")))
            raise
        self._sync_s.observe(self._clock.boot_s() - started_s)
        self._group.observe(len(group))
        for entry, outcome in zip(group, outcomes, strict=True):
            entry.done(outcome)

    async def _call_one(self) -> None:
        entry = self._waiting.popleft()
        assert isinstance(entry, _Call), entry
        try:
            result = await self._lanes.run(self._lane, entry.work)
        except DiskFailed as error:
            self._fail(str(error))
            entry.done(None, error)
        except (CorruptData, InvalidRequest, FsError, Unavailable) as error:
            entry.done(None, error)
        else:
            entry.done(result, None)

    def _fail(self, reason: str) -> None:
        """The disk is over: nothing that waits can be done."""
        if not self._failure:
            self._failure = reason
            self._on_disk_failed(reason)
        self._fail_waiting(reason)

    def _fail_waiting(self, reason: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            if isinstance(entry, _Update):
                entry.done(StageOutcome(None, DiskFailed(reason)))
            else:
                entry.done(None, DiskFailed(reason))

    def __len__(self) -> int:
        return len(self._waiting)
