"""The loop thread of the blocking face: results, errors, interrupts, its end."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import uvloop

from fs3.client.loop_thread import acquire_loop, release_loop

uvloop.new_event_loop().close()  # libuv keeps one pipe from its first loop to the end of the process


def test_users_share_one_thread_which_ends_with_the_last() -> None:
    one, other = acquire_loop(), acquire_loop()
    assert one is other
    release_loop(one)

    async def answer() -> int:
        return 42

    async def fail() -> None:
        raise OSError(5, "no")

    assert other.run(answer()) == 42
    with pytest.raises(OSError, match="no"):
        other.run(fail())
    release_loop(other)
    assert "fs3-client-loop" not in [thread.name for thread in threading.enumerate()]


def test_an_interrupt_is_raised_when_the_work_has_ended() -> None:
    thread = acquire_loop()
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ended.append("ended")

    real = asyncio.run_coroutine_threadsafe

    class Interrupted(BaseException):
        """Stands for KeyboardInterrupt, which would end the test run."""

    def started(coroutine: Any, loop: asyncio.AbstractEventLoop) -> Any:
        future: Any = real(coroutine, loop)

        def result(timeout_s: float | None) -> None:
            assert timeout_s is None
            real(asyncio.sleep(0.02), loop).result()
            raise Interrupted

        future.result = result
        return future

    asyncio.run_coroutine_threadsafe = started  # type: ignore[assignment]
    try:
        with pytest.raises(Interrupted):
            thread.run(work())
        assert ended == ["ended"]
    finally:
        asyncio.run_coroutine_threadsafe = real
        release_loop(thread)


def test_a_blocking_call_within_the_loop_is_refused() -> None:
    thread = acquire_loop()

    async def nothing() -> None: ...

    async def inside() -> None:
        thread.run(nothing())

    try:
        with pytest.raises(RuntimeError, match="connect_async"):
            thread.run(inside())
    finally:
        release_loop(thread)
