"""The bytes of a request while the disk or a send uses them.

A request's buffer belongs to its RPC layer and is used again when the handler ends. So a handler, however
it ends (answered, deadline, cancelled by its caller), first waits until nobody uses its bytes: what is
being staged or forwarded must not change under the disk's or the successor's eyes. But a send is given up
when its request has been answered, or when the bytes are to be sent to somebody else: its successor has left
the chain then, and may be silent for long.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


class HeldBytes:
    """Bytes with a count of their users, who may be in any thread. ``on_unused`` wakes whoever waits."""

    def __init__(self, view: memoryview, on_unused: Callable[[], None]) -> None:
        self.view = view
        self._on_unused = on_unused
        self._users = 0
        self._count_lock = threading.Lock()
        self._is_answered = False
        self._newest_send = 0
        self._send = 0
        """The one that the owner of the bytes is at."""
        self._give_up: Callable[[], object] | None = None

    @property
    def is_used(self) -> bool:
        """Somebody uses the bytes. False is final once the request has been answered: nobody begins then."""
        return self._users > 0

    def use(self) -> None:
        """Somebody begins to use the bytes."""
        with self._count_lock:
            self._users += 1

    def free(self) -> None:
        """It does not use them any more."""
        with self._count_lock:
            assert self._users > 0, self._users
            self._users -= 1
            is_unused = not self._users
        if is_unused:
            self._on_unused()

    @property
    def is_answered(self) -> bool:
        """Whether the request has its answer."""
        return self._is_answered

    def sending(self, give_up: Callable[[], object]) -> None:
        """They are being sent on, instead of where they went before. ``give_up`` ends that soon, from any
        thread; when it is over, it does nothing."""
        with self._count_lock:
            before, self._give_up = self._give_up, give_up
            is_late = self._is_answered or self._send != self._newest_send
        if before is not None:
            before()
        if is_late:
            give_up()

    def supersede(self) -> int:
        """They are to be sent, by a send of this number: one under way, or about to begin, is given up."""
        with self._count_lock:
            self._newest_send += 1
            number, give_up = self._newest_send, self._give_up
        if give_up is not None:
            give_up()
        return number

    def answered(self) -> None:
        """The request has its answer: whoever sends its bytes on need not wait for what comes of it."""
        with self._count_lock:
            self._is_answered = True
            give_up = self._give_up
        if give_up is not None:
            give_up()


class LoopBytes(HeldBytes):
    """Those of a handler on the event loop."""

    def __init__(self, view: memoryview) -> None:
        super().__init__(view, self._now_unused)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._idle: asyncio.Future[None] | None = None

    def _now_unused(self) -> None:
        if threading.get_ident() == self._thread:
            self._wake()
        else:
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def until_unused(self, *, is_answered: bool = False) -> None:
        """Wait until nobody uses the bytes. A cancellation meanwhile is raised at the end of the wait.

        Bounded by the disk's and the forward's own time limits.
        """
        if is_answered:
            self.answered()
        cancelled: asyncio.CancelledError | None = None
        while self.is_used:
            self._idle = self._loop.create_future()
            try:
                await self._idle
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
