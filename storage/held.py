"""The bytes of a request while the disk or a send uses them.

A request's buffer belongs to its RPC layer and is used again when the handler ends. So a handler, however
it ends (answered, deadline, cancelled by its caller), first waits until nobody uses its bytes: what is
being staged or forwarded must not change under the disk's or the successor's eyes.
"""

from __future__ import annotations

import asyncio


class HeldBytes:
    """Bytes with a count of their users. Event loop only."""

    __slots__ = ("_idle", "_users", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self._users = 0
        self._idle: asyncio.Future[None] | None = None

    def use(self) -> None:
        """Somebody begins to use the bytes."""
        self._users += 1

    def free(self) -> None:
        """It does not use them any more."""
        assert self._users > 0, self._users
        self._users -= 1
        if not self._users and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def until_unused(self) -> None:
        """Wait until nobody uses the bytes. A cancellation meanwhile is raised at the end of the wait.

        Bounded by the disk's and the forward's own time limits.
        """
        cancelled: asyncio.CancelledError | None = None
        while self._users:
            self._idle = asyncio.get_running_loop().create_future()
            try:
                await self._idle
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
