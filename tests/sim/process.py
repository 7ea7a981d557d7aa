"""Processes of the simulated world: all that one starts belongs to it, and a kill ends it where it is.

Tasks and timers inherit the context in which they were made; a process is a mark in that context. So the
world knows what belongs to whom without asking the servers, and a kill needs none of their code: no stop
method runs. What its tasks still do while they are cancelled (``finally`` blocks) reaches nobody, because
the network, the disk and the store have been taken away from it before.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

from fs3.tasks import TaskScope

from .loop import SimLoop

T = TypeVar("T")

REAP_TURNS = 1_000
_PROCESS: contextvars.ContextVar[SimProcess | None] = contextvars.ContextVar("process", default=None)


class SimProcess:
    """One run of a server."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_paused = False
        self.tasks: dict[asyncio.Task[Any], None] = {}

    def start(self, scope: TaskScope, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work`` as this process; ``scope`` owns the task."""
        context = contextvars.copy_context()
        context.run(_PROCESS.set, self)
        return context.run(scope.start, self.name, work)

    def pause(self) -> None:
        """It stands still (SIGSTOP): nothing of it runs, and what comes for it waits."""
        self.is_paused = True
        _loop().hold_back(self._owns)

    def resume(self) -> None:
        """It goes on with all that has become due meanwhile."""
        if self.is_paused:
            self.is_paused = False
            _loop().let_go(self._owns)

    def _owns(self, context: contextvars.Context) -> bool:
        return context.get(_PROCESS) is self

    def kill(self) -> None:
        """Every task ends at the await where it is. The caller has taken its world away."""
        self.resume()
        self.is_dead = True
        for task in self.tasks:
            task.cancel()

    def forget(self, task: asyncio.Task[Any]) -> None:
        """A task has ended; how, is no news of a process that was killed."""
        del self.tasks[task]
        if self.is_dead and not task.cancelled():
            task.exception()

    async def reap(self) -> None:
        """Wait until nothing of a killed process is left, and drop its timers."""
        assert self.is_dead, self.name
        for _ in range(REAP_TURNS):
            if not self.tasks:
                _loop().cancel_timers(self._owns)
                return
            self.kill()  # what a ``finally`` waits for, or has started, ends as well
            await asyncio.sleep(0)
        left = sorted(task.get_name() for task in self.tasks)
        raise AssertionError(f"tasks of {self.name} do not end when they are cancelled: {left}")


def owner_of(context: contextvars.Context) -> SimProcess | None:
    """The process that a context belongs to."""
    return context.get(_PROCESS)


def _loop() -> SimLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    return loop


def keep_processes(loop: asyncio.AbstractEventLoop) -> None:
    """From now on the tasks of ``loop`` are known to the processes that they belong to."""
    loop.set_task_factory(_make_task)


def _make_task(
    loop: asyncio.AbstractEventLoop,
    work: Any,
    context: contextvars.Context | None = None,
) -> asyncio.Task[Any]:
    task = asyncio.Task(work, loop=loop, context=context)
    process = _PROCESS.get() if context is None else context.get(_PROCESS)
    if process is not None:
        process.tasks[task] = None
        task.add_done_callback(process.forget)
        if process.is_dead:
            task.cancel()
    return task
