"""Limits of single blocking calls: late ones are ended, and nothing goes on behind the caller's back."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Iterator

import pytest
import uvloop

from fs3.client.deadlines import deadline, locked, time_left_s
from fs3.client.loop_thread import LoopThread


@pytest.fixture(scope="module", autouse=True)
def _first_loop() -> None:
    uvloop.new_event_loop().close()  # libuv keeps one pipe from its first loop to the end of the process


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    made.stop()


async def for_ever(seen: list[str]) -> None:
    """Ends when it is cancelled."""
    try:
        await asyncio.Event().wait()
    finally:
        seen.append("ended")


async def soon() -> str:
    return "done"


async def failing() -> None:
    raise TimeoutError(errno.ETIMEDOUT, "its own")


def test_a_late_call_is_ended_before_its_error_is_raised(thread: LoopThread) -> None:
    seen: list[str] = []
    with deadline(0.05):
        with pytest.raises(TimeoutError) as caught:
            thread.run(for_ever(seen))
        assert seen == ["ended"]
        assert caught.value.errno == errno.ETIMEDOUT and "deadline" in str(caught.value)
    assert thread.run(soon()) == "done"


def test_a_call_in_time_is_not_touched(thread: LoopThread) -> None:
    with deadline(60):
        assert thread.run(soon()) == "done"
        with pytest.raises(TimeoutError, match="its own"):
            thread.run(failing())


def test_the_earlier_of_two_deadlines_counts_and_both_end() -> None:
    assert time_left_s() is None
    with deadline(5):
        with deadline(1000):
            assert 0 < (time_left_s() or 0) <= 5
        with deadline(0):
            assert time_left_s() == 0
        assert (time_left_s() or 0) > 0
    assert time_left_s() is None


def test_other_threads_have_no_deadline() -> None:
    seen: list[float | None] = []
    with deadline(5):
        other = threading.Thread(target=lambda: seen.append(time_left_s()))
        other.start()
        other.join()
    assert seen == [None]


def test_a_lock_that_another_call_holds_is_waited_for_until_the_deadline() -> None:
    lock, held, release = threading.RLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with locked(lock):
            held.set()
            release.wait()

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    with deadline(0.05), pytest.raises(TimeoutError), locked(lock):
        raise AssertionError("held by two")
    release.set()
    other.join()
    with deadline(60), locked(lock):
        pass
