"""The committer of one target: everything that must be durable, in order, as many as possible at once.

While one group is on its way to the disk the next gathers: many updates, one sync, one index transaction,
many answers (design 5.3). Somebody leads each group, one at a time: the committer's own task by way of its
lane, or the thread whose update is the first that waits (``hop``), which then needs no other thread. Nothing
is ever tried again after a failed disk (design 4.7): what waits fails with the disk, and ``on_disk_failed``
is told once.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from fs3.clock import Clock
from fs3.errors import CorruptData, Fs3Error, FsError, InvalidRequest, Unavailable
from fs3.metrics import Metrics

from .ack_pace import AckPace
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
    lead: Callable[[], None] | None


@dataclass(slots=True)
class _Call:
    work: Callable[[], Any]
    done: Callable[[Any, Fs3Error | None], None]


class Committer:
    """Give it work with ``stage`` and ``call``; ``run`` is its one task. ``call`` and ``wait`` are for the
    event loop; ``stage`` and ``lead_group`` for any thread."""

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
        self._lock = threading.Lock()
        """Guards what waits and who leads; held for moments."""
        self._waiting: deque[_Update | _Call] = deque()
        self._is_led = False
        """Somebody leads, or has been told to."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._woken = asyncio.Event()
        self._failure = ""
        self._pace = AckPace()
        self._sync_s = metrics.histogram("fs3_storage_sync_seconds")
        self._group = metrics.histogram("fs3_storage_sync_group_updates")

    def stage(
        self,
        item: StageItem,
        done: Callable[[StageOutcome], None],
        lead: Callable[[], None] | None = None,
    ) -> None:
        """Make an update durable; ``done`` is told by whoever leads its group, in order. The payload is held.

        ``lead`` is called when it is the turn of this update's owner: it must have ``lead_group`` called
        soon, in any thread. None: the committer's own task leads.
        """
        if not self._add(_Update(item, done, lead)):
            self._later(done, StageOutcome(None, DiskFailed(self._failure)))

    def call(self, work: Callable[[], Any], done: Callable[[Any, Fs3Error | None], None]) -> None:
        """Run a blocking call of the store after everything that was asked for before."""
        if not self._add(_Call(work, done)):
            self._later(done, None, DiskFailed(self._failure))

    async def wait(self, work: Callable[[], Any]) -> Any:
        """``call``, awaited: its result, or the error raised."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def done(result: Any, error: Fs3Error | None) -> None:
            if future.done():
                return  # whoever waited has gone
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call(work, done)
        return await future

    # -- who leads

    def _later(self, tell: Callable[..., None], *what: object) -> None:
        """On the event loop, never inside this call: whoever asks holds locks."""
        if threading.get_ident() == self._thread:
            self._loop.call_soon(tell, *what)
        else:
            self._loop.call_soon_threadsafe(tell, *what)

    def _add(self, entry: _Update | _Call) -> bool:
        """False: nothing is taken any more."""
        with self._lock:
            if self._failure:
                return False
            assert len(self._waiting) < WAITING_MAX, len(self._waiting)
            self._waiting.append(entry)
            offer = self._offer()
        if offer is not None:
            offer()
        return True

    def _offer(self) -> Callable[[], None] | None:
        """Whom to tell that it leads now; the lock is held. None: nobody need be told."""
        if self._is_led or not self._waiting:
            return None
        self._is_led = True
        first = self._waiting[0]
        return (first.lead if isinstance(first, _Update) else None) or self._wake

    def _wake(self) -> None:
        if threading.get_ident() == self._thread:
            self._woken.set()
        else:
            self._loop.call_soon_threadsafe(self._woken.set)

    def _pass_on(self) -> None:
        """The group is over: the owner of what waits longest leads the next."""
        with self._lock:
            self._is_led = False
            offer = self._offer()
        if offer is not None:
            offer()

    # -- leading

    async def run(self) -> None:
        """Work until cancelled. However it ends, everybody who waits is told: their bytes are free then."""
        try:
            while True:
                await self._woken.wait()
                self._woken.clear()
                try:
                    await self._lead_in_lane()
                finally:
                    self._pass_on()
        finally:
            self._fail_waiting("the committer has ended")

    async def _lead_in_lane(self) -> None:
        if self._waiting and isinstance(self._waiting[0], _Call):
            await self._call_one()
            return
        group = self._take_group()
        if group:
            with self._leading(group) as stage:
                stage.outcomes = await self._lanes.run(self._lane, stage.run)

    def lead_group(self) -> None:
        """Make the group durable that waits, in this thread: its turn was told by ``lead``."""
        try:
            group = self._take_group()
            if group:
                with self._leading(group) as stage:
                    stage.outcomes = stage.run()
        finally:
            self._pass_on()

    def _take_group(self) -> list[_Update]:
        group: list[_Update] = []
        size_bytes = 0
        with self._lock:
            while self._waiting and len(group) < GROUP_UPDATES_MAX and size_bytes < GROUP_BYTES_MAX:
                entry = self._waiting[0]
                if not isinstance(entry, _Update):
                    break
                self._waiting.popleft()
                group.append(entry)
                size_bytes += len(entry.item.payload)
        return group

    @contextmanager
    def _leading(self, group: list[_Update]) -> Iterator[_Group]:
        """Time the group that is staged within, and tell everybody in it what it came to."""
        stage = _Group(self._store, [entry.item for entry in group], self._cluster_time_ms())
        started_s = self._clock.boot_s()
        with self._lock:
            self._pace.began(started_s)
        try:
            yield stage
        except DiskFailed as error:
            stage.outcomes = [StageOutcome(None, error) for _ in group]
            self._fail(str(error))
        except BaseException as error:
            # border: cancelled, or a bug; what is on the disk is found at the next open
            for entry in group:
                entry.done(StageOutcome(None, Unavailable(f"the committer has ended: {error!r}")))
            if isinstance(error, Exception):
                self._fail(f"bug: {error!r}")
            raise
        finally:
            with self._lock:
                self._pace.ended(self._clock.boot_s())
        self._sync_s.observe(self._clock.boot_s() - started_s)
        self._group.observe(len(group))
        with ExitStack() as told:  # everybody is, even if one cannot bear it
            for entry, outcome in zip(reversed(group), reversed(stage.outcomes), strict=True):
                told.callback(entry.done, outcome)

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
        except BaseException as error:  # border: cancelled, or a bug
            entry.done(None, Unavailable(f"the committer has ended: {error!r}"))
            raise
        else:
            entry.done(result, None)

    # -- the end

    def _fail(self, reason: str) -> None:
        """The disk is over: nothing that waits can be done."""
        if not self._failure:
            self._failure = reason
            self._on_disk_failed(reason)
        self._fail_waiting(reason)

    def _fail_waiting(self, reason: str) -> None:
        with self._lock:
            self._failure = self._failure or reason
            waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            if isinstance(entry, _Update):
                entry.done(StageOutcome(None, DiskFailed(reason)))
            elif threading.get_ident() == self._thread:
                entry.done(None, DiskFailed(reason))
            else:
                self._later(entry.done, None, DiskFailed(reason))

    def acknowledge_us(self) -> int:
        """How long updates lately took to be durable; 0: there were none."""
        with self._lock:
            return self._pace.recent_us(self._clock.boot_s())

    def __len__(self) -> int:
        return len(self._waiting)


class _Group:
    """Updates that are staged together."""

    def __init__(self, store: Staging, items: list[StageItem], cluster_ms: int) -> None:
        self._store = store
        self._items = items
        self._cluster_ms = cluster_ms
        self.outcomes: list[StageOutcome] = []

    def run(self) -> list[StageOutcome]:
        """Blocks until they are durable, or have failed."""
        return self._store.stage(self._items, cluster_ms=self._cluster_ms)
