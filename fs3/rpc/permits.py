"""A bounded number of things at a time, asked for by threads and by tasks alike."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from ..errors import Busy, Unavailable
from .client_connection import wait_until


class Permits:
    """``count`` permits, first come first served; at most ``waiting_max`` wait. Thread-safe."""

    def __init__(self, count: int, waiting_max: int) -> None:
        assert count > 0, count
        self._free = count
        self._waiting_max = waiting_max
        self._waiting: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()

    def take_now(self) -> bool:
        """Take one if it can be had without waiting."""
        with self._lock:
            if not self._free:
                return False
            self._free -= 1
            return True

    def give(self) -> None:
        """Give one back, from any thread; who waits longest gets it."""
        with self._lock:
            wake = self._waiting.popleft() if self._waiting else None
            if wake is None:
                self._free += 1
        if wake is not None:
            wake()

    def _wait(self, wake: Callable[[], None]) -> bool:
        """Queue up; True: a permit was free after all and is taken. Busy: too many wait."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            if len(self._waiting) >= self._waiting_max:
                raise Busy(f"{len(self._waiting)} calls wait already")
            self._waiting.append(wake)
            return False

    def _leave(self, wake: Callable[[], None]) -> bool:
        """Out of the queue; False: a permit is on its way."""
        with self._lock:
            if wake in self._waiting:
                self._waiting.remove(wake)
                return True
            return False

    async def take(self, deadline_s: float) -> None:
        """Take one on the event loop (loop clock). Unavailable at the deadline; Busy: too many wait."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def arrive() -> None:
            if future.done():
                self.give()  # whoever waited has gone meanwhile
            else:
                future.set_result(None)

        def wake() -> None:
            loop.call_soon_threadsafe(arrive)

        if self._wait(wake):
            return
        try:
            await wait_until(future, deadline_s, "no bulk connection came free in time")
        except BaseException:
            self._leave(wake)  # False: ``arrive`` gives the permit back
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give()  # cancelled after it had arrived
            raise

    def take_blocking(self, timeout_s: float) -> None:
        """Take one in a thread. Unavailable after ``timeout_s``; Busy: too many wait."""
        event = threading.Event()
        wake = event.set
        if self._wait(wake) or event.wait(timeout_s) or not self._leave(wake):
            return
        raise Unavailable("no bulk connection came free in time")
