"""Lanes: where blocking work runs. Threads in production, inline in a simulated world.

A lane runs one piece of work at a time, in order of arrival: the committer of a target has one of its own,
so that the order of its disk calls is the order in which it asked for them. Reads that would wait for the
disk share a few (``READS``).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

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
        self._lanes: dict[str, _Lane] = {}
        self._reads: ThreadPoolExecutor | None = None
        self._is_closed = False

    async def run(self, lane: str, work: Callable[[], T]) -> T:
        """See ``Lanes``."""
        if self._is_closed:
            raise RuntimeError(f"lane {lane}: the lanes are closed")
        if lane == READS:
            if self._reads is None:
                self._reads = ThreadPoolExecutor(READ_THREADS, thread_name_prefix=f"fs3-{lane}")
            return await asyncio.get_running_loop().run_in_executor(self._reads, work)
        found = self._lanes.get(lane)
        if found is None:
            found = self._lanes[lane] = _Lane(f"fs3-{lane}")
        return await found.start(work)  # type: ignore[no-any-return]  # of what ``work`` gives

    def close(self) -> None:
        """See ``Lanes``."""
        self._is_closed = True
        for lane in self._lanes.values():
            lane.close()
        if self._reads is not None:
            self._reads.shutdown(wait=True, cancel_futures=True)


class _Lane:
    """One thread and its queue. An executor does the same with three locks and two futures for each piece."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()  # bounded by who waits
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def start(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """What ``work`` will come to."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()

        def finish(result: Any, error: BaseException | None) -> None:
            if outcome.done():
                return  # whoever waited has gone
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        def job() -> None:
            result, failure = None, None
            try:
                result = work()
            except BaseException as error:  # worker runner: whatever it is goes to who asked
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(finish, result, failure)
            failure = None  # its traceback leads back here

        self._jobs.put(job)
        return outcome

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # and with it what it worked on: payloads

    def close(self) -> None:
        """Do what is queued, then end."""
        self._jobs.put(None)
        self._thread.join()


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
