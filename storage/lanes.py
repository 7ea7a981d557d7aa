"""Lanes: where blocking work runs. Threads in production, inline in a simulated world.

A lane runs one piece of work at a time, in order of arrival: the committer of a target has one of its own,
so that the order of its disk calls is the order in which it asked for them. Reads that would wait for the
disk share a few (``READS``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")

READS = "reads"
"""Lane of reads that may wait; several at a time."""
READ_THREADS = 4


class Lanes(Protocol):
    """Runs blocking functions off the event loop, if there is anything else to run them on."""

    async def run(self, lane: str, work: Callable[[], T]) -> T:
        """The outcome of ``work``. Cancelling the wait does not stop the work."""
        ...

    def close(self) -> None:
        """Wait until what runs has ended; nothing is taken any more."""
        ...


class ThreadLanes:
    """A thread for each lane, made when first used."""

    def __init__(self) -> None:
        self._pools: dict[str, ThreadPoolExecutor] = {}

    async def run(self, lane: str, work: Callable[[], T]) -> T:
        """See ``Lanes``."""
        pool = self._pools.get(lane)
        if pool is None:
            count = READ_THREADS if lane == READS else 1
            pool = self._pools[lane] = ThreadPoolExecutor(count, thread_name_prefix=f"fs3-{lane}")
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def close(self) -> None:
        """See ``Lanes``."""
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)


class InlineLanes:
    """Everything happens at once, ``delay_s()`` after it was asked for (a simulated disk's time)."""

    def __init__(self, delay_s: Callable[[], float] = lambda: 0.0) -> None:
        self._delay_s = delay_s
        self._free_s: dict[str, float] = {}

    async def run(self, lane: str, work: Callable[[], T]) -> T:
        """See ``Lanes``."""
        loop = asyncio.get_running_loop()
        done_s = max(self._free_s.get(lane, 0.0), loop.time()) + self._delay_s()
        self._free_s[lane] = done_s
        await asyncio.sleep(done_s - loop.time())
        return work()

    def close(self) -> None:
        """See ``Lanes``."""
