"""Runs seeds in several processes. One that dies or hangs costs one seed, and another takes its place."""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from .outcome import Judged, broken_off
from .worker import CPU_LIMIT_S, serve

Serve = Callable[[Connection, str], None]
"""What a process does."""
WALL_LIMIT_S = 10.0 * CPU_LIMIT_S
"""Of one seed, on a machine that others use as well."""
END_TIMEOUT_S = 60.0
_SPAWN = multiprocessing.get_context("spawn")  # nothing of the product is loaded before coverage begins


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    seed: int | None = None
    since_s: float = 0.0


class Pool:
    """So many processes, for one run. ``coverage_directory``: where each puts the lines that ran."""

    def __init__(self, jobs: int, coverage_directory: Path | None = None, serve: Serve = serve) -> None:
        self._jobs = jobs
        self._coverage = coverage_directory
        self._serve = serve
        self._workers: list[_Worker] = []
        self._made_count = 0

    def run(
        self, seeds: Sequence[int], *, twice_every: int = 0, until_s: float = float("inf")
    ) -> Iterator[Judged]:
        """What each seed comes to, in the order in which they end. Every ``twice_every``th is run twice.

        No seed is begun after ``until_s`` (of ``time.monotonic``).
        """
        waiting = deque(enumerate(seeds))
        try:
            while waiting or any(worker.seed is not None for worker in self._workers):
                if time.monotonic() > until_s:
                    waiting.clear()
                self._give(waiting, twice_every)
                yield from self._take()
            self._end()
        finally:
            for worker in self._workers:
                worker.process.kill()
                worker.process.join()
                worker.pipe.close()
            self._workers.clear()

    def _give(self, waiting: deque[tuple[int, int]], twice_every: int) -> None:
        while waiting and len(self._workers) < self._jobs:
            self._workers.append(self._start())
        for worker in self._workers:
            if worker.seed is None and waiting:
                number, worker.seed = waiting.popleft()
                worker.since_s = time.monotonic()
                worker.pipe.send((worker.seed, bool(twice_every) and number % twice_every == 0))

    def _start(self) -> _Worker:
        self._made_count += 1
        near, far = _SPAWN.Pipe()
        place = str(self._coverage / f"lines.{self._made_count}") if self._coverage is not None else ""
        process = _SPAWN.Process(target=self._serve, args=(far, place), daemon=True)
        process.start()
        far.close()
        return _Worker(process, near)

    def _take(self) -> Iterator[Judged]:
        busy = {worker.pipe: worker for worker in self._workers if worker.seed is not None}
        for pipe in wait(list(busy), timeout=1.0):
            assert isinstance(pipe, Connection)
            worker = busy.pop(pipe)
            try:
                judged = pipe.recv()
            except (EOFError, OSError):
                yield self._lost(worker, "its process died")
            else:
                worker.seed = None
                if judged.is_bad:
                    self._retire(worker)  # what a seed that was broken off left behind could stir in the next
                yield judged
        for worker in busy.values():
            if time.monotonic() - worker.since_s > WALL_LIMIT_S:
                yield self._lost(worker, f"it took more than {WALL_LIMIT_S:.0f} s")

    def _lost(self, worker: _Worker, why: str) -> Judged:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        assert worker.seed is not None
        return broken_off(worker.seed, f"{why} (exit code {worker.process.exitcode})")

    def _end(self) -> None:
        """Let all put away what they have measured."""
        for worker in self._workers:
            worker.pipe.send(None)
        for worker in self._workers:
            _wait_for(worker)

    def _retire(self, worker: _Worker) -> None:
        worker.pipe.send(None)
        _wait_for(worker)
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)


def _wait_for(worker: _Worker) -> None:
    if worker.pipe.poll(END_TIMEOUT_S):
        worker.pipe.recv()
    worker.process.join(END_TIMEOUT_S)
