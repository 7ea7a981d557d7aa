"""The only place that creates asyncio tasks: each has a name and an owner, and no failure goes unseen.

A ``TaskScope`` owns tasks for as long as it is open. A task that ends with an exception which its starter
does not await is reported to ``on_failure`` (a daemon logs, counts and stops); leaving the scope cancels
what still runs and waits for it, with a bound.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from .errors import MaybeApplied

T = TypeVar("T")

CLOSE_TIMEOUT_S = 2.5
"""A clean stop has 3 s in all; tasks that do not end within this are named in the error."""


def time_limit(timeout_s: float) -> asyncio.Timeout:
    """``asyncio.timeout``; an infinite one sets no timer."""
    return asyncio.timeout(None if timeout_s == math.inf else timeout_s)


async def outcome_of(task: asyncio.Task[T]) -> T:
    """What a task comes to, for somebody who is not its owner: its result, or its exception raised.

    A CancelledError from here is always the caller's own. MaybeApplied: the owner has ended the task (its
    scope closes). The caller's cancellation leaves the task alone, unlike ``await task``.
    """
    if not task.done():
        await asyncio.wait((task,))
    if task.cancelled():
        raise MaybeApplied(f"{task.get_name()} was stopped")
    return task.result()


async def end_tasks(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended, whatever else is cancelled meanwhile: what they use
    belongs to the caller again afterwards. Their exceptions are seen here."""
    cancelled: asyncio.CancelledError | None = None
    for task in tasks:
        task.cancel()
    for task in tasks:
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as error:
                cancelled = error
        if not task.cancelled():
            task.exception()
    if cancelled is not None:
        raise cancelled


class TaskScope:
    """Owner of named tasks.

    ``spawn`` is for background work whose failure is the owner's business; ``start`` for work that the
    caller awaits itself (its exception is the caller's), by ``outcome_of`` where it may outlive the scope.
    """

    def __init__(self, name: str, on_failure: Callable[[str, BaseException], None]) -> None:
        self._name = name
        self._on_failure = on_failure
        self._tasks: dict[asyncio.Task[Any], None] = {}  # a dict keeps order: iteration is deterministic
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def start(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work``; whoever called awaits the task and handles its exception."""
        if self._closed:
            work.close()
            raise RuntimeError(f"task scope {self._name!r} is closed: cannot start {name!r}")
        task = asyncio.get_running_loop().create_task(work, name=f"{self._name}/{name}")
        self._tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` in the background; an exception that ends it goes to ``on_failure``."""
        task = self.start(name, work)
        task.add_done_callback(self._report)
        return task

    def __len__(self) -> int:
        return len(self._tasks)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    def _report(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(task.get_name(), error)

    async def aclose(self) -> None:
        """Cancel every task and wait for it, at most ``CLOSE_TIMEOUT_S``; then RuntimeError names them."""
        self._closed = True
        running = list(self._tasks)
        for task in running:
            task.cancel()
        if running:
            _, late = await asyncio.wait(running, timeout=CLOSE_TIMEOUT_S)
            if late:
                names = sorted(task.get_name() for task in late)
                raise RuntimeError(f"tasks of {self._name!r} did not stop: {', '.join(names)}")


class Worker(Protocol):
    """A background job: does one unit of work at a time, so that all jobs are paced and listed alike."""

    name: str

    async def work_once(self) -> float:
        """Do one unit; returns the seconds to wait before the next (0: there is more to do now).

        A ``Retryable`` error is counted and the unit tried again after ``retry_s``; others end the daemon.
        """
        ...
