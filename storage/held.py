"""The bytes of a request while the disk or a send uses them.

A request's buffer belongs to its RPC layer and is used again when the handler ends. So a handler, however
it ends (answered, deadline, cancelled by its caller), first waits until nobody uses its bytes: what is
being staged or forwarded must not change under the disk's or the successor's eyes.
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

    async def until_unused(self) -> None:
        """Wait until nobody uses the bytes. A cancellation meanwhile is raised at the end of the wait.

        Bounded by the disk's and the forward's own time limits.
        """
        cancelled: asyncio.CancelledError | None = None
        while self.is_used:
            self._idle = self._loop.create_future()
            try:
                await self._idle
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
