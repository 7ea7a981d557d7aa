"""Lanes of threads: order, outcomes, cancelled waits, the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial

import pytest

from fs3.errors import Unavailable
from fs3.storage.lanes import READS, ThreadLanes

WAIT_S = 5.0


@pytest.fixture
async def lanes() -> AsyncIterator[ThreadLanes]:
    found = ThreadLanes()
    yield found
    found.close()


async def test_a_lane_is_one_thread_that_works_in_order_of_arrival(lanes: ThreadLanes) -> None:
    done: list[int] = []
    threads: dict[int, None] = {}

    def work(number: int) -> int:
        threads[threading.get_ident()] = None
        done.append(number)
        return number * 2

    async with asyncio.timeout(WAIT_S):
        runs = [lanes.run("a", partial(work, number)) for number in range(20)]
        assert await asyncio.gather(*runs) == [number * 2 for number in range(20)]
    assert done == list(range(20))
    assert len(threads) == 1 and threading.get_ident() not in threads


async def test_lanes_do_not_wait_for_one_another(lanes: ThreadLanes) -> None:
    go = threading.Event()
    async with asyncio.timeout(WAIT_S):
        waiting = asyncio.ensure_future(lanes.run("a", lambda: go.wait(WAIT_S)))
        await lanes.run("b", go.set)
        await lanes.run(READS, lambda: None)
        assert await waiting


async def test_what_work_raises_is_raised_and_the_lane_goes_on(lanes: ThreadLanes) -> None:
    def fail() -> None:
        raise Unavailable("no")

    async with asyncio.timeout(WAIT_S):
        with pytest.raises(Unavailable, match="no"):
            await lanes.run("a", fail)
        assert await lanes.run("a", lambda: 7) == 7


async def test_a_cancelled_wait_does_not_stop_the_work(lanes: ThreadLanes) -> None:
    begun, go, done = threading.Event(), threading.Event(), list[str]()

    def slow() -> None:
        begun.set()
        assert go.wait(WAIT_S)
        done.append("slow")

    async with asyncio.timeout(WAIT_S):
        waiting = asyncio.ensure_future(lanes.run("a", slow))
        await lanes.run("b", lambda: begun.wait(WAIT_S))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go.set()
        await lanes.run("a", lambda: done.append("next"))
    assert done == ["slow", "next"]


async def test_closing_waits_for_what_runs_and_takes_nothing_more() -> None:
    lanes, begun, done = ThreadLanes(), threading.Event(), list[int]()

    def work() -> None:
        begun.set()
        done.append(1)

    waiting = asyncio.ensure_future(lanes.run("a", work))
    async with asyncio.timeout(WAIT_S):
        await lanes.run("b", lambda: begun.wait(WAIT_S))
        lanes.close()
        assert done == [1]
        await waiting
    with pytest.raises(RuntimeError, match="closed"):
        await lanes.run("a", work)
