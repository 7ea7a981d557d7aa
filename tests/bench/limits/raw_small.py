"""Frozen limit program: the least that a call can be on one event loop and one connection, at both ends.

64-byte requests, each answered with 64 bytes; fixed size, no checksum, no decoding, no deadline: a protocol
that answers each 64 bytes that arrive, all that are ready in one write; a client that keeps ``depth`` calls
in flight, each a future of its own. Do not improve it: ratios of different years are only comparable while it
stays as it is.

    python -m tests.bench.limits.raw_small serve
    python -m tests.bench.limits.raw_small call PORT --depth 64 --seconds 2
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import deque

import uvloop

SIZE_BYTES = 64


class Answerer(asyncio.Protocol):
    """Answers each request with as many bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        out = []
        at = 0
        while at + SIZE_BYTES <= len(data):
            out.append(data[at : at + SIZE_BYTES])
            at += SIZE_BYTES
        self._rest = data[at:]
        self._transport.write(b"".join(out))  # type: ignore[attr-defined]  # a Transport


class Asker(asyncio.Protocol):
    """Completes one future for each answer, in order."""

    def __init__(self) -> None:
        self.waiting: deque[asyncio.Future[None]] = deque()
        self._out: list[bytes] = []
        self._rest_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._rest_bytes += len(data)
        while self._rest_bytes >= SIZE_BYTES:
            self._rest_bytes -= SIZE_BYTES
            self.waiting.popleft().set_result(None)

    def ask(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.waiting.append(future)
        if not self._out:
            loop.call_soon(self._flush)
        self._out.append(bytes(SIZE_BYTES))
        return future

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))  # type: ignore[attr-defined]  # a Transport
        self._out.clear()


async def serve() -> None:
    """Answer on a free port, which is printed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answerer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def call(port: int, depth: int, seconds: float) -> float:
    """Calls a second."""
    loop = asyncio.get_running_loop()
    _, asker = await loop.create_connection(Asker, "127.0.0.1", port)
    count = 0
    end_s = time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal count
        while time.perf_counter() < end_s:
            await asker.ask()
            count += 1

    began_s = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(depth)))
    return count / (time.perf_counter() - began_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["serve", "call"])
    parser.add_argument("port", nargs="?", type=int, default=0)
    parser.add_argument("--depth", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    if arguments.role == "serve":
        uvloop.run(serve())
    else:
        print(uvloop.run(call(arguments.port, arguments.depth, arguments.seconds)))


if __name__ == "__main__":
    main()
