"""Calls that wait until something changes, or their time is over."""

from __future__ import annotations

import asyncio

from fs3.errors import Busy

WAITERS_MAX = 65_536


class Waiters:
    """Who waits for one kind of change."""

    def __init__(self) -> None:
        self._futures: dict[asyncio.Future[None], None] = {}

    def wake(self) -> None:
        """It has changed."""
        futures, self._futures = self._futures, {}
        for future in futures:
            _finish(future)

    async def wait(self, timeout_s: float) -> None:
        """Returns when it changes or the time is over. Busy: too many wait already."""
        if len(self._futures) >= WAITERS_MAX:
            raise Busy("too many wait for a change of routing")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._futures[future] = None
        timer = loop.call_later(timeout_s, _finish, future)
        try:
            await future
        finally:
            timer.cancel()
            self._futures.pop(future, None)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
