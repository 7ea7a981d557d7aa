"""Large writes pass each member in the thread that received them: real nodes, real threads, real disks."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fs3.clock import SystemClock
from fs3.errors import Fs3Error, InternalError, MaybeApplied, Retryable, Unavailable
from fs3.ids import ChunkId
from fs3.metrics import Metrics
from fs3.routing import LocalState
from fs3.storage.committer import Committer
from fs3.storage.disk import DiskFailed
from fs3.storage.engine.versions import StageItem, StageOutcome
from fs3.storage.lanes import ThreadLanes
from fs3.storage.runner import TargetRunner
from fs3.tasks import TaskScope

from .engine.shop import chunk, identity, write
from .storage_cluster import MIB, StorageCluster, User, storage_cluster, until
from .test_failures import retried

WRITERS = 8


def target(cluster: StorageCluster, number: int) -> TargetRunner:
    runner: TargetRunner = cluster.servers[number].target
    return runner


def buffers_taken(cluster: StorageCluster) -> list[int]:
    servers: list[Any] = list(cluster.servers.values())
    return [server.rpc._bulk.buffers_taken for server in servers]


class Gate:
    """Holds a call until it is opened."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        self._inner = inner
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.entered.set()
        assert self.opened.wait(20), "the test forgot the gate"
        return self._inner(*arguments, **options)


async def test_writers_of_the_same_and_of_other_chunks(tmp_path: Path) -> None:
    """Readers at every member see whole versions only; nothing of a hop runs anywhere but in its thread."""
    async with storage_cluster(tmp_path) as cluster:
        forwards: list[str] = []
        for number in (1, 2):
            forwarder: Any = target(cluster, number)._forwarder
            forwarder.send = lambda *_: forwards.append("on the event loop")
        user = User(cluster)
        await user.present()
        contents = [bytes([n]) * (100_000 + n * 1000) for n in range(WRITERS)]
        written: dict[int, set[bytes]] = {n: {b""} for n in range(4)}

        async def writer(number: int) -> None:
            for round_ in range(6):
                where = (number + round_) % 4
                written[where].add(contents[number])
                request = user.request(contents[number], where, channel=number)
                await retried(user, request, contents[number])

        async def reader(at: int) -> None:
            for round_ in range(24):
                item = user.item(round_ % 4, 0, 1)
                sink = await user.read_items([item], at=at, bulk=True, relaxed=True)
                assert sink.data[0] in {content[:1] for content in written[round_ % 4]}

        await asyncio.gather(*(writer(n) for n in range(WRITERS)), *(reader(at) for at in (1, 2, 3)))
        for number in range(4):
            copies = [await user.read(number, 0, MIB, at=at, bulk=True) for at in (1, 2, 3)]
            assert copies[0][:1] in {content[:1] for content in written[number]}
            assert copies == [copies[0]] * 3
        assert not forwards
        await user.close()
        await until(lambda: buffers_taken(cluster) == [0, 0, 0])


async def test_a_stop_does_not_wait_for_a_successor_that_hangs(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        store: Any = target(cluster, 3).store
        store.stage = gate = Gate(store.stage)
        data = os.urandom(100_000)
        waits = asyncio.ensure_future(user.send(user.request(data, 5), data, timeout_s=20))
        await asyncio.to_thread(gate.entered.wait, 10)
        async with asyncio.timeout(4):  # a forward alone may last 5 s
            await cluster.stop_node(2)
            await cluster.stop_node(1)
        with pytest.raises(Fs3Error):
            await waits
        gate.opened.set()
        await user.close()
        await until(lambda: buffers_taken(cluster) == [0])


async def test_a_successor_that_dies_in_the_middle_of_a_forward(tmp_path: Path) -> None:
    """Its predecessor keeps the update, and the chain without the dead one takes it once."""
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        store: Any = target(cluster, 3).store
        store.stage = gate = Gate(store.stage)
        data = os.urandom(200_000)
        request = user.request(data)
        waits = asyncio.ensure_future(user.send(request, data, timeout_s=2))
        await asyncio.to_thread(gate.entered.wait, 10)  # both members before it forward
        await cluster.stop_node(2)
        gate.opened.set()
        with pytest.raises(MaybeApplied):
            await waits
        await until(lambda: buffers_taken(cluster) == [0, 0])
        cluster.publish([1, 3])
        await user.present(1, 3)
        answer = await retried(user, request, data)
        assert answer.result.identity.update_version == 1
        for at in (1, 3):
            assert await user.read(0, 0, MIB, at=at, bulk=True) == data
        await user.close()


@pytest.mark.parametrize("size_bytes", [4096, 100_000], ids=["on the loop", "in a thread"])
async def test_an_answer_does_not_wait_for_a_successor_that_has_left(tmp_path: Path, size_bytes: int) -> None:
    """It hangs and leaves the chain; the update is committed without it, and the writer learns of it."""
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        store: Any = target(cluster, 2).store
        store.stage = gate = Gate(store.stage)
        data = os.urandom(size_bytes)
        waits = asyncio.ensure_future(user.send(user.request(data, 5), data, timeout_s=20))
        await asyncio.to_thread(gate.entered.wait, 10)
        cluster.publish([1, 3])
        async with asyncio.timeout(4):  # a forward alone may last 5 s
            await waits
        assert not gate.opened.is_set()
        gate.opened.set()
        for at in (1, 3):
            assert await user.read(5, 0, MIB, at=at, bulk=True) == data
        await user.close()
        await until(lambda: buffers_taken(cluster) == [0, 0, 0])


async def test_a_deadline_ends_a_request_whose_group_is_slow_and_keeps_its_bytes(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        store: Any = target(cluster, 1).store
        store.stage = gate = Gate(store.stage)
        data = os.urandom(200_000)
        request = user.request(data)
        with pytest.raises(MaybeApplied):
            await user.send(request, data, timeout_s=0.5)
        assert buffers_taken(cluster)[0] == 1  # the disk may still read it
        gate.opened.set()
        await until(lambda: buffers_taken(cluster) == [0, 0, 0])
        answer = await retried(user, request, data)  # the same update, which was applied meanwhile
        assert answer.result.identity.update_version == 1
        for at in (1, 2, 3):
            assert await user.read(0, 0, MIB, at=at, bulk=True) == data
        await user.close()


async def test_a_caller_that_goes_leaves_an_update_that_happens(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        store: Any = target(cluster, 2).store
        store.stage = gate = Gate(store.stage)
        data = os.urandom(200_000)
        task = asyncio.ensure_future(user.write(data))
        await asyncio.to_thread(gate.entered.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.opened.set()
        await until(lambda: not any(target(cluster, n).pending_count for n in (1, 2, 3)))
        await until(lambda: buffers_taken(cluster) == [0, 0, 0])
        for at in (1, 2, 3):
            assert await user.read(0, 0, MIB, at=at, bulk=True) == data
        await user.close()


@pytest.mark.parametrize("victim", [1, 2, 3])
async def test_a_disk_that_fails_under_a_full_group(tmp_path: Path, victim: int) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        store: Any = target(cluster, victim).store

        def fail(*_: Any, **__: Any) -> Any:
            raise DiskFailed("injected")

        store.stage = gate = Gate(fail)
        payloads = [os.urandom(100_000 + n) for n in range(5)]
        requests = [user.request(payloads[n], n, channel=n) for n in range(5)]
        asked = [
            asyncio.ensure_future(user.send(request, data, timeout_s=3))
            for request, data in zip(requests, payloads, strict=True)
        ]
        await asyncio.to_thread(gate.entered.wait, 10)
        gate.opened.set()
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(outcome, MaybeApplied | Retryable), outcome
        static = cluster.servers[victim].static
        await until(lambda: [report.state for report in static.reports] == [LocalState.OFFLINE])
        await until(lambda: buffers_taken(cluster) == [0, 0, 0])
        await user.close()


class GatedStore:
    """Notes groups and the threads that made them durable; each waits until it is let through."""

    def __init__(self) -> None:
        self.groups: list[list[ChunkId]] = []
        self.threads: list[str] = []
        self.permits = threading.Semaphore(0)

    def stage(self, items: list[StageItem], *, cluster_ms: int = 0) -> list[StageOutcome]:
        assert self.permits.acquire(timeout=10)
        self.groups.append([item.update.chunk for item in items])
        self.threads.append(threading.current_thread().name)
        return [StageOutcome(None) for _ in items]


def committer_of(store: GatedStore, lanes: ThreadLanes) -> Committer:
    """A committer of a disk that does not fail."""
    return Committer(
        store,
        lanes,
        "lane",
        clock=SystemClock(),
        cluster_time_ms=lambda: 0,
        on_disk_failed=lambda reason: None,
        metrics=Metrics(),
    )


async def test_the_lead_goes_to_whoever_waits_longest() -> None:
    """Thread a leads alone; b, c and the loop's item gather meanwhile: b leads all of them. A call is the
    committer's own, and does not overtake."""
    store, lanes = GatedStore(), ThreadLanes()
    committer = committer_of(store, lanes)
    done: list[str] = []

    def hop(name: str, number: int) -> None:
        turn, staged = threading.Event(), threading.Event()

        def tell(_: StageOutcome) -> None:
            done.append(name)
            staged.set()

        committer.stage(write(chunk(number), identity(1), b"x"), tell, turn.set)
        while not staged.is_set():
            if turn.wait(0.01):
                turn.clear()
                committer.lead_group()

    async with TaskScope("test", lambda name, error: None) as scope:
        scope.spawn("committer", committer.run())
        threads = [threading.Thread(target=hop, args=(n, i), name=n) for i, n in enumerate("abc")]
        threads[0].start()
        await until(lambda: not len(committer))
        for waiting, thread in enumerate(threads[1:], 1):
            thread.start()
            await until(lambda waiting=waiting: len(committer) == waiting)  # type: ignore[misc]
        committer.stage(write(chunk(8), identity(1), b"x"), lambda _: done.append("loop"))
        committer.call(lambda: None, lambda _, error: done.append(f"call {error}"))
        committer.stage(write(chunk(9), identity(1), b"x"), lambda _: done.append("last"))
        for _ in range(3):
            store.permits.release()
        await until(lambda: len(done) == 6)
        for thread in threads:
            await asyncio.to_thread(thread.join, 5)
    lanes.close()
    assert done == ["a", "b", "c", "loop", "call None", "last"]
    assert store.groups == [[chunk(0)], [chunk(1), chunk(2), chunk(8)], [chunk(9)]]
    assert store.threads[:2] == ["a", "b"] and store.threads[2] not in "abc"


async def test_nothing_is_taken_by_a_committer_that_has_ended() -> None:
    lanes = ThreadLanes()
    committer = committer_of(GatedStore(), lanes)
    async with TaskScope("test", lambda name, error: None) as scope:
        scope.spawn("committer", committer.run())
        await asyncio.sleep(0)
    told: list[StageOutcome] = []
    item = write(chunk(0), identity(1), b"x")
    await asyncio.to_thread(committer.stage, item, told.append, lambda: None)
    await until(lambda: bool(told))
    assert isinstance(told[0].error, Unavailable)
    lanes.close()


@pytest.mark.parametrize("is_bug", [False, True], ids=["cancelled", "bug"])
async def test_who_waits_for_a_call_is_told_when_the_committer_ends_within_it(is_bug: bool) -> None:
    begun, go = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go.wait(10)
        raise ValueError("a bug")

    lanes = ThreadLanes()
    committer = committer_of(GatedStore(), lanes)
    async with TaskScope("test", lambda name, error: None) as scope:
        running = scope.start("committer", committer.run())
        waiting = scope.start("waiting", committer.wait(work))
        await until(begun.is_set)
        if is_bug:
            go.set()
        else:
            running.cancel()
        await asyncio.wait((running,))
        with pytest.raises(Unavailable, match="has ended"):
            await asyncio.wait_for(waiting, 10)
        if is_bug:
            with pytest.raises(ValueError, match="a bug"):
                running.result()
    go.set()
    lanes.close()


async def test_one_who_cannot_bear_the_news_keeps_it_from_nobody_else() -> None:
    store, lanes = GatedStore(), ThreadLanes()
    committer = committer_of(store, lanes)
    told: list[int] = []

    def tell(number: int, _: StageOutcome) -> None:
        told.append(number)
        assert number != 1, "a bug"

    turn = threading.Event()
    for number in range(3):
        committer.stage(write(chunk(number), identity(1), b"x"), partial(tell, number), turn.set)
    store.permits.release()
    with pytest.raises(AssertionError, match="a bug"):
        await asyncio.to_thread(committer.lead_group)
    assert told == [0, 1, 2]
    lanes.close()


@pytest.mark.parametrize("place", ["stage", "forward"])
async def test_a_bug_in_the_thread_of_a_hop_ends_the_process(tmp_path: Path, place: str) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()

        def fail(*_: Any, **__: Any) -> Any:
            raise ZeroDivisionError("injected")

        victim: Any = target(cluster, 1)
        if place == "stage":
            victim.store.stage = fail
        else:
            victim._forwarder.send_here = fail
        data = os.urandom(100_000)
        with pytest.raises(InternalError):
            await user.send(user.request(data), data, timeout_s=3)
        await until(lambda: bool(cluster.failures))
        assert all(isinstance(error, ZeroDivisionError) for _, error in cluster.failures)
        cluster.failures.clear()
        await until(lambda: buffers_taken(cluster) == [0, 0, 0])
        await user.close()
