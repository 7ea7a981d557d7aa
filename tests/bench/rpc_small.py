"""Calls a second over the small plane, authenticated, one connection, server in a process of its own.

The limit is ``limits/raw_small.py``: fixed-size messages without any protocol, measured in turn.

    python -m tests.bench.rpc_small [--seconds 1]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time

import uvloop
from rich.console import Console

from ..rpc.world import ECHO, Ask, calling
from .harness import RUNS, Row, paired, row, show
from .limits import raw_small
from .rpc_process import Server

TARGET_PER_S = 25_000
DEPTHS = (1, 8, 64)


async def _calls(address: str, depth: int, seconds: float) -> float:
    async with calling() as client:
        ask = Ask("hello", 5)
        await client.call(address, ECHO, ask, timeout_s=5)
        count = 0
        end_s = time.perf_counter() + seconds

        async def worker() -> None:
            nonlocal count
            while time.perf_counter() < end_s:
                await client.call(address, ECHO, ask, timeout_s=5)
                count += 1

        began_s = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(depth)))
        return count / (time.perf_counter() - began_s)


def rows(seconds: float = 1.0, runs: int = RUNS) -> list[Row]:
    """One row for each depth."""
    found = []
    with tempfile.NamedTemporaryFile() as file:
        ours = Server("tests.bench.rpc_process", file.name)
        limit = Server("tests.bench.limits.raw_small", "serve")
        try:
            for depth in DEPTHS:
                value, most = paired(
                    lambda depth=depth: uvloop.run(_calls(ours.address, depth, seconds)),  # type: ignore[misc]
                    lambda depth=depth: uvloop.run(  # type: ignore[misc]
                        raw_small.call(int(limit.address), depth, seconds)
                    ),
                    runs,
                )
                note = f"{value / TARGET_PER_S:.1f} x the {TARGET_PER_S:,}/s wanted" if depth == 64 else ""
                found.append(
                    row(
                        f"rpc small, depth {depth}", value, "calls/s", limit=most, limit_name="raw", note=note
                    )
                )
        finally:
            ours.close()
            limit.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    show(rows(parser.parse_args().seconds), Console())


if __name__ == "__main__":
    main()
