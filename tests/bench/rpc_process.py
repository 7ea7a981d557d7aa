"""The server process of the RPC benchmarks: echo, and 1 MiB answers from a file.

python -m tests.bench.rpc_process FILE
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import uvloop

from fs3.rpc.bulk_server import BulkServer
from fs3.rpc.service import Call, FileRegion, Reply, Routes

from ..rpc.world import ECHO, FETCH, STREAM, Ask, Tell, serving

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
FILE_MIB = 64


def echo(call: Call, ask: Ask) -> Tell:
    return Tell(ask.text, ask.number)


def fetch(fd: int, call: Call, ask: Ask) -> Reply[Tell]:
    region = FileRegion(fd, ask.number % FILE_MIB * MIB, MIB)
    return Reply(Tell(number=MIB), [region], released=_released)


def stream(fd: int, call: Call, ask: Ask) -> Reply[Tell]:
    """``ask.number`` parts of 1 MiB, as a batch of reads is answered."""
    for part in range(ask.number - 1):
        region = FileRegion(fd, part % FILE_MIB * MIB, MIB)
        call.send_part(Reply(Tell(number=MIB), [region], released=_released))
    return Reply(Tell(number=MIB), [FileRegion(fd, 0, MIB)], released=_released)


def _released() -> None:
    pass


async def serve(path: str) -> None:
    routes = Routes()
    routes.add(ECHO, echo)
    fd = os.open(path, os.O_RDONLY)
    for method, handler in ((FETCH, partial(fetch, fd)), (STREAM, partial(stream, fd))):
        routes.add(method, handler, in_thread=handler)
    async with serving(routes, bulk=BulkServer()) as (_, where):
        print(where, flush=True)
        await asyncio.Event().wait()


class Server:
    """A Python module run as a process of its own that prints its address."""

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        self.pid = self._process.pid

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
