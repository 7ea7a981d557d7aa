"""Tasks that several wait for: nobody meets a cancellation that is not its own."""

from __future__ import annotations

import asyncio

import pytest

from fs3.errors import MaybeApplied
from fs3.tasks import TaskScope, end_tasks, outcome_of
from tests.sim.loop import run_virtual


def new_scope() -> TaskScope:
    """A scope in which nothing may fail unseen."""

    def failed(name: str, error: BaseException) -> None:
        raise AssertionError(name) from error

    return TaskScope("test", failed)


async def for_ever() -> int:
    """Ends when it is cancelled."""
    await asyncio.Event().wait()
    return 0


async def after(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return 7


def test_who_waits_for_a_task_whose_scope_closes_is_told_so() -> None:
    async def work() -> None:
        scope, own = new_scope(), new_scope()
        waiting = own.start("waiting", outcome_of(scope.start("shared", for_ever())))
        await asyncio.sleep(1)
        await scope.aclose()
        with pytest.raises(MaybeApplied, match="test/shared was stopped"):
            await waiting

    run_virtual(work())


def test_a_waiter_that_is_cancelled_leaves_the_task_to_the_others() -> None:
    async def work() -> None:
        scope = new_scope()
        shared = scope.start("shared", after(2))
        first = scope.start("first", outcome_of(shared))
        second = scope.start("second", outcome_of(shared))
        await asyncio.sleep(1)
        first.cancel()
        assert await second == 7
        assert first.cancelled() and await outcome_of(shared) == 7

    run_virtual(work())


def test_the_tasks_have_ended_even_if_the_wait_for_them_is_cancelled_again() -> None:
    async def work() -> None:
        ended: list[int] = []

        async def slow_to_end(number: int) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(3)
                ended.append(number)

        scope = new_scope()
        tasks = [scope.start(f"slow {number}", slow_to_end(number)) for number in range(2)]
        ending = scope.start("ending", end_tasks(tasks))
        for _ in range(2):
            await asyncio.sleep(1)
            ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        assert ended == [0, 1]

    run_virtual(work())
