"""1 MiB answers over the bulk plane, each with one CRC32C pass in the receiving thread.

The limit is ``limits/raw_read.py`` with as many threads, measured in turn: with the same pass, and bare.

    python -m tests.bench.rpc_bulk [--mib 1024]
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import os
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import crc32c
import uvloop
from rich.console import Console

from fs3.identity.key_file import system_nonce
from fs3.rpc.bulk_client import BulkClient
from fs3.rpc.client import RpcClient
from fs3.rpc.network import SystemNetwork

from ..rpc.world import FETCH, NODE, STREAM, Ask, calling
from .harness import RUNS, Row, cpu_s, paired, row, show
from .limits import raw_read
from .rpc_process import FILE_MIB, MIB, Server

TARGET_RATIO = 0.8


class Verifying:
    """Receives one answer into a reused buffer, and sums it while it is hot."""

    def __init__(self) -> None:
        self._buffer = memoryview(mmap.mmap(-1, MIB))

    def buffers(self, response: Any) -> Sequence[memoryview]:
        return [self._buffer]

    def received(self, response: Any) -> None:
        crc32c.crc32c(self._buffer)


class Way(NamedTuple):
    """How a megabyte is asked for."""

    name: str
    is_blocking: bool
    parts: int
    """Megabytes that one call is answered with: 1, or a batch that streams."""


WAYS = (
    Way("blocking", True, 1),
    Way("async", False, 1),
    Way("blocking, batches of 16", True, 16),
    Way("async, batches of 16", False, 16),
)


async def _measure(address: str, mib: int, depth: int, way: Way) -> float:
    bulk = BulkClient(NODE, SystemNetwork(), make_nonce=system_nonce)
    async with calling(bulk=bulk) as client:
        began_s = 0.0
        calls = max(mib // depth // way.parts, 1)
        for count in (1, calls):  # the first connects
            began_s = time.perf_counter()
            if way.is_blocking:
                work = [
                    asyncio.to_thread(_read_blocking, client, address, count, way.parts) for _ in range(depth)
                ]
            else:
                work = [_read(client, address, count, way.parts) for _ in range(depth)]
            await asyncio.gather(*work)
        return calls * depth * way.parts / 1024 / (time.perf_counter() - began_s)


async def _read(client: RpcClient, address: str, count: int, parts: int) -> None:
    sink = Verifying()
    for number in range(count):
        if parts == 1:
            await client.call(address, FETCH, Ask(number=number), timeout_s=10, sink=sink, bulk=True)
        else:
            await client.call(address, STREAM, Ask(number=parts), timeout_s=10, sink=sink, bulk=True)


def _read_blocking(client: RpcClient, address: str, count: int, parts: int = 1) -> None:
    sink = Verifying()
    for number in range(count):
        if parts == 1:
            client.call_blocking(address, FETCH, Ask(number=number), timeout_s=10, sink=sink)
        else:
            client.call_blocking(address, STREAM, Ask(number=parts), timeout_s=10, sink=sink)


def rows(mib: int = 1024, runs: int = RUNS) -> list[Row]:
    """Each way, one, two and four calls at a time."""
    found: list[Row] = []
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(FILE_MIB * MIB))
        file.flush()
        ours = Server("tests.bench.rpc_process", file.name)
        limit = Server("tests.bench.limits.raw_read", "serve", file.name)
        try:
            found.extend(
                _row(ours, int(limit.address), mib, depth, way, runs) for depth in (1, 2, 4) for way in WAYS
            )
            bare = raw_read.read(int(limit.address), 2, mib, FILE_MIB, True)
            found.append(row("raw read x2, bare", bare, "GiB/s", note="beside it"))
        finally:
            ours.close()
            limit.close()
    return found


def _row(ours: Server, port: int, mib: int, depth: int, way: Way, runs: int) -> Row:
    before_s = cpu_s(ours.pid)
    value, most = paired(
        lambda: uvloop.run(_measure(ours.address, mib, depth, way)),
        lambda: raw_read.read(port, depth, mib, FILE_MIB, False),
        runs,
    )
    cpu = (cpu_s(ours.pid) - before_s) / (runs * mib / 1024)
    return row(
        f"rpc bulk 1 MiB x{depth}, {way.name}",
        value,
        "GiB/s",
        limit=most,
        limit_name="raw read, summed",
        target=TARGET_RATIO,
        note=f"server {cpu:.2f} CPU s/GiB",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    show(rows(parser.parse_args().mib), Console(width=160))


if __name__ == "__main__":
    main()
