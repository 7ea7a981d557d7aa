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
from typing import Any

import crc32c
import uvloop
from rich.console import Console

from fs3.identity.key_file import system_nonce
from fs3.rpc.bulk_client import BulkClient
from fs3.rpc.client import RpcClient
from fs3.rpc.network import SystemNetwork

from ..rpc.world import FETCH, NODE, Ask, calling
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


async def _measure(address: str, mib: int, depth: int, is_blocking: bool) -> float:
    bulk = BulkClient(NODE, SystemNetwork(), make_nonce=system_nonce)
    async with calling(bulk=bulk) as client:
        began_s = 0.0
        for size_mib in (depth, mib):  # the first connects
            began_s = time.perf_counter()
            each = size_mib // depth
            if is_blocking:
                work = [asyncio.to_thread(_read_blocking, client, address, each) for _ in range(depth)]
            else:
                work = [_read(client, address, each) for _ in range(depth)]
            await asyncio.gather(*work)
        return mib // depth * depth / 1024 / (time.perf_counter() - began_s)


async def _read(client: RpcClient, address: str, count: int) -> None:
    sink = Verifying()
    for number in range(count):
        await client.call(address, FETCH, Ask(number=number), timeout_s=10, sink=sink, bulk=True)


def _read_blocking(client: RpcClient, address: str, count: int) -> None:
    sink = Verifying()
    for number in range(count):
        client.call_blocking(address, FETCH, Ask(number=number), timeout_s=10, sink=sink)


def rows(mib: int = 1024, runs: int = RUNS) -> list[Row]:
    """Blocking and asynchronous calls, one and two at a time."""
    found: list[Row] = []
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(FILE_MIB * MIB))
        file.flush()
        ours = Server("tests.bench.rpc_process", file.name)
        limit = Server("tests.bench.limits.raw_read", "serve", file.name)
        port = int(limit.address)
        try:
            for depth in (1, 2, 4):
                for is_blocking in (True, False):
                    before_s = cpu_s(ours.pid)
                    value, most = paired(
                        lambda d=depth, b=is_blocking: uvloop.run(_measure(ours.address, mib, d, b)),  # type: ignore[misc]
                        lambda d=depth: raw_read.read(port, d, mib, FILE_MIB, False),  # type: ignore[misc]
                        runs,
                    )
                    cpu = (cpu_s(ours.pid) - before_s) / (runs * (mib + depth) / 1024)
                    name = f"rpc bulk 1 MiB x{depth}, {'blocking' if is_blocking else 'async'}"
                    found.append(
                        row(
                            name,
                            value,
                            "GiB/s",
                            limit=most,
                            limit_name="raw read, summed",
                            target=TARGET_RATIO,
                            note=f"server {cpu:.2f} CPU s/GiB",
                        )
                    )
            bare = raw_read.read(port, 2, mib, FILE_MIB, True)
            found.append(row("raw read x2, bare", bare, "GiB/s", note="beside it"))
        finally:
            ours.close()
            limit.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    show(rows(parser.parse_args().mib), Console(width=160))


if __name__ == "__main__":
    main()
