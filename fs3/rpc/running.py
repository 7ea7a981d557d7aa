"""One run of a handler that waits: deadline, cancellation, and exactly one end. The same on both planes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import MaybeApplied
from ..tasks import TaskScope
from .dispatch import Resumed, Row, as_reply
from .service import Reply


class HandlerRun:
    """Steps a handler's coroutine where it is, and goes on in a task if it waits. Event loop only.

    Ends in exactly one of: ``on_reply(reply)``, ``on_error(error)``, or neither because it is unwanted
    (the caller gave up, or the server stops); then ``on_end()`` in every case, if it had become a task.
    """

    __slots__ = (
        "_coroutine",
        "_deadline_s",
        "_expired",
        "_loop",
        "_name",
        "_on_end",
        "_on_error",
        "_on_reply",
        "_row",
        "_running",
        "_task",
        "unwanted",
    )

    def __init__(
        self,
        row: Row,
        coroutine: Coroutine[Any, Any, Any],
        deadline_s: float,
        request_id: int,
        on_reply: Callable[[Reply[Any]], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._row = row
        self._coroutine = coroutine
        self._deadline_s = deadline_s
        self._name = f"{row.method.name} {request_id}"
        self._on_reply = on_reply
        self._on_error = on_error
        self._on_end: Callable[[], None] = _nothing
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._running = False  # the task has begun: cancelled before, the handler would never learn of it
        self._expired = False
        self.unwanted = False
        """The caller gave up or is gone: nothing is answered."""

    def step(self, scope: TaskScope, on_end: Callable[[], None]) -> bool:
        """Run to the first wait. True: it has ended, ``on_end`` is not called. Raises what it raised."""
        try:
            yielded = self._coroutine.send(None)
        except StopIteration as stop:
            self._on_reply(as_reply(stop.value))
            return True
        except asyncio.CancelledError as error:
            raise self._stray(error) from error
        self._on_end = on_end
        self._task = scope.start(self._name, self._drive(yielded))
        self._task.add_done_callback(self._ended)
        return False

    def give_up(self) -> None:
        """The answer is not wanted any more: cancel the handler."""
        self.unwanted = True
        self._cancel()

    def _expire(self) -> None:
        self._expired = True
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None and self._running:
            self._task.cancel()

    async def _drive(self, yielded: Any) -> None:
        timer = self._loop.call_at(self._deadline_s, self._expire)
        self._running = True
        if self.unwanted:
            self._cancel()
        try:
            reply = as_reply(await Resumed(self._coroutine, yielded))
            if self.unwanted:
                _drop(reply)
            else:
                self._on_reply(reply)
        except asyncio.CancelledError as error:
            if self.unwanted:
                return
            if self._expired:
                self._on_error(MaybeApplied(f"{self._name}: deadline passed in the server"))
            elif self._task is not None and self._task.cancelling():
                raise  # the server stops
            else:
                self._on_error(self._stray(error))
        except Exception as error:  # dispatch: whatever a handler raises is answered
            if not self.unwanted:
                self._on_error(error)
        finally:
            timer.cancel()

    def _stray(self, error: BaseException) -> Exception:
        """Something that the handler waited for was cancelled, and it let that through: a bug of its own."""
        return RuntimeError(f"{self._name}: the handler waited for something that was cancelled: {error!r}")

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._coroutine.close()  # cancelled before its first step as a task: nobody else would
        self._on_end()
        # they hold the call, which holds this run: without the circle both go now, without the collector
        del self._on_reply, self._on_error, self._on_end


def _drop(reply: Reply[Any]) -> None:
    if reply.released is not None:
        reply.released()


def _nothing() -> None:
    pass
