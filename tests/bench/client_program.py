"""A client process of the benchmarks: connects, says "ready", waits for a line, does its job, says how fast.

    python -m tests.bench.client_program CLIENT_FILE JOB [PATH] [--count N] [--size BYTES] [--depth N]
        [--for-good]

The last line on standard output is JSON: ``{"per_s": rate, "cpu_s": seconds of this process}``; what is
counted is operations, or MiB for the jobs that move bulk data.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fs3.client
from fs3.rng import derived_rng

MIB = 1 << 20
KIB4 = 4096
BATCH = 64


class Job:
    """What the jobs share."""

    def __init__(self, filesystem: fs3.client.FileSystem, arguments: argparse.Namespace) -> None:
        self.filesystem = filesystem
        self.path: str = arguments.path
        self.count: int = arguments.count
        self.size_bytes: int = arguments.size
        self.depth: int = arguments.depth

    def read(self) -> Callable[[], float]:
        """Sequential pieces of ``size``, ``depth`` in a batch; MiB."""
        file = self.filesystem.open(self.path, "rb")
        buffer = memoryview(bytearray(self.size_bytes * self.depth))
        outs = [buffer[i * self.size_bytes : (i + 1) * self.size_bytes] for i in range(self.depth)]
        pieces = self.filesystem.stat(self.path).st_size // self.size_bytes

        def run() -> float:
            for start in range(0, self.count, self.depth):
                ranges = [
                    (file, (start + i) % pieces * self.size_bytes, self.size_bytes) for i in range(self.depth)
                ]
                self.filesystem.read_batch(ranges, out=outs)
            return self.count * self.size_bytes / MIB

        run()  # what is measured is the page cache, as the limit's
        return run

    def random_single(self) -> Callable[[], float]:
        """4 KiB at random places, one after the other."""
        file = self.filesystem.open(self.path, "rb")
        pieces = self.filesystem.stat(self.path).st_size // KIB4
        rng = derived_rng(1, "random_single")
        offsets = [rng.randrange(pieces) * KIB4 for _ in range(self.count)]

        def run() -> float:
            for offset in offsets:
                file.pread(KIB4, offset)
            return len(offsets)

        return run

    def random_batch(self) -> Callable[[], float]:
        """4 KiB at random places in batches of 64, by ``depth`` threads."""
        file = self.filesystem.open(self.path, "rb")
        pieces = self.filesystem.stat(self.path).st_size // KIB4
        rng = derived_rng(2, "random_batch")
        count = self.count // BATCH // self.depth

        def prepared() -> tuple[list[memoryview], list[list[tuple[fs3.client.File, int, int]]]]:
            buffer = memoryview(bytearray(BATCH * KIB4))
            outs = [buffer[i * KIB4 : (i + 1) * KIB4] for i in range(BATCH)]
            return outs, [
                [(file, rng.randrange(pieces) * KIB4, KIB4) for _ in range(BATCH)] for _ in range(count)
            ]

        work = [prepared() for _ in range(self.depth)]

        def one(number: int) -> None:
            outs, batches = work[number]
            for batch in batches:
                self.filesystem.read_batch(batch, out=outs)

        def run() -> float:
            with ThreadPoolExecutor(self.depth) as threads:
                list(threads.map(one, range(self.depth)))
            return count * self.depth * BATCH

        return run

    def write(self) -> Callable[[], float]:
        """``count`` writes of ``size`` over and over one file, ``depth`` at a time, all durable; MiB."""
        data = os.urandom(self.size_bytes)
        with self.filesystem.open(self.path, "wb") as file:
            for _ in range(self.depth * 4):
                file.write(data)

        async def work() -> float:
            inner = await self.filesystem.asynchronous.open(self.path, "r+b")
            slots = self.depth * 4

            async def one(first: int) -> None:
                for i in range(first, self.count, self.depth):
                    await inner.pwrite(data, i % slots * self.size_bytes)

            await asyncio.gather(*(one(first) for first in range(self.depth)))
            await inner.fsync()
            await inner.close()
            return self.count * self.size_bytes / MIB

        return self._in_loop(work)

    def small_create(self) -> Callable[[], float]:
        """Files of 3,000 bytes, ``depth`` at a time."""
        self.filesystem.makedirs(self.path, exist_ok=True)
        content = os.urandom(3000)
        return self._each(lambda i: self.filesystem.asynchronous.write_file(f"{self.path}/{i:06d}", content))

    def small_read(self) -> Callable[[], float]:
        """Read them back."""
        return self._each(lambda i: self.filesystem.asynchronous.read_file(f"{self.path}/{i:06d}"))

    def _each(self, operation: Callable[[int], Coroutine[Any, Any, Any]]) -> Callable[[], float]:
        async def work() -> float:
            async def one(first: int) -> None:
                for i in range(first, self.count, self.depth):
                    await operation(i)

            await asyncio.gather(*(one(first) for first in range(self.depth)))
            return self.count

        return self._in_loop(work)

    def _in_loop(self, work: Callable[[], Coroutine[Any, Any, float]]) -> Callable[[], float]:
        return lambda: self.filesystem.run(work())


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client_file")
    parser.add_argument("job", choices=[name for name in vars(Job) if not name.startswith("_")])
    parser.add_argument("path")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--size", type=int, default=MIB)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--for-good", action="store_true", help="again and again, until it is killed")
    arguments = parser.parse_args()
    with fs3.client.connect(arguments.client_file) as filesystem:
        run = getattr(Job(filesystem, arguments), arguments.job)()
        print("ready", flush=True)
        sys.stdin.readline()
        while arguments.for_good:
            run()
        began, cpu = time.perf_counter(), time.process_time()
        count = run()
        took_s = time.perf_counter() - began
        print(json.dumps({"per_s": count / took_s, "cpu_s": time.process_time() - cpu, "count": count}))


if __name__ == "__main__":
    main()
