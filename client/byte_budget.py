"""A bound on bytes under way, shared by all who take from it, in order of arrival."""

from __future__ import annotations

import asyncio
from collections import deque

from fs3.errors import Busy

WAITING_MAX = 65_536


class ByteBudget:
    """``take`` before, ``give`` after. One request larger than all of it passes when nothing else is out."""

    def __init__(self, total_bytes: int) -> None:
        assert total_bytes > 0, total_bytes
        self._total_bytes = total_bytes
        self._out_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def out_bytes(self) -> int:
        """Taken and not given back."""
        return self._out_bytes

    def _fits(self, size_bytes: int) -> bool:
        return not self._out_bytes or self._out_bytes + size_bytes <= self._total_bytes

    async def take(self, size_bytes: int) -> None:
        """Wait until so many bytes may go out. Busy: too many wait."""
        if not self._waiting and self._fits(size_bytes):
            self._out_bytes += size_bytes
            return
        if len(self._waiting) >= WAITING_MAX:
            raise Busy(f"{WAITING_MAX} requests wait for memory")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, future))
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled():
                self.give(size_bytes)  # it was let through as the wait ended
            else:
                self._waiting.remove((size_bytes, future))
                self._let_through()
            raise

    def give(self, size_bytes: int) -> None:
        """They have arrived, or never will."""
        self._out_bytes -= size_bytes
        assert self._out_bytes >= 0, self._out_bytes
        self._let_through()

    def _let_through(self) -> None:
        while self._waiting:
            size_bytes, future = self._waiting[0]
            if future.done():
                self._waiting.popleft()
            elif self._fits(size_bytes):
                self._waiting.popleft()
                self._out_bytes += size_bytes
                future.set_result(None)
            else:
                return
