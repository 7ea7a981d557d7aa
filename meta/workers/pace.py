"""Runs a worker: one unit of work after the other, with pauses, woken when there is something to do."""

from __future__ import annotations

import asyncio
import errno

from fs3.errors import Fs3Error, FsError, MaybeApplied, Retryable, StaleFile
from fs3.log import Logger
from fs3.tasks import Worker

RETRY_S = 1.0
"""Pause after a unit that could not be done now."""


def has_to_wait(error: Fs3Error) -> bool:
    """Whether this is no bug: what it happened to can be done when a chain or the KV store is back, when
    whoever changed the file has done with it, or when a disk has room again."""
    is_full = isinstance(error, FsError) and error.errno == errno.ENOSPC
    return is_full or isinstance(error, Retryable | MaybeApplied | StaleFile)


class WorkerLoop:
    """One worker and its pace."""

    def __init__(self, worker: Worker, log: Logger) -> None:
        self._worker = worker
        self._log = log.bind(worker=worker.name)
        self._wake = asyncio.Event()
        self.failures = 0
        """Units that could not be done when they were tried."""

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled. An error that need not wait ends the daemon (a bug)."""
        while True:
            self._wake.clear()
            try:
                pause_s = await self._worker.work_once()
            except Fs3Error as error:
                if not has_to_wait(error):
                    raise
                self._note(error)
                pause_s = RETRY_S
            if pause_s > 0:
                try:
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue
            else:
                await asyncio.sleep(0)  # more to do; others first

    def _note(self, error: Fs3Error) -> None:
        self.failures += 1
        if (
            self.failures.bit_count() == 1
        ):  # the 1st, 2nd, 4th, 8th …: a store that is away must not fill logs
            self._log.warning("work has to wait", error=str(error), failures=self.failures)
