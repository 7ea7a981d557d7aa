"""A small service, and servers and clients of it, for the tests of the RPC layer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from fs3.identity.handshake import Credentials, NodeCredentials, ServerIdentity
from fs3.identity.key_file import system_nonce
from fs3.identity.keys import ClusterKey
from fs3.ids import Generation, NodeId
from fs3.rng import derived_rng
from fs3.rpc.client import RpcClient
from fs3.rpc.network import Network, SystemNetwork
from fs3.rpc.server import RpcServer
from fs3.rpc.service import Method, Routes
from fs3.rpc.settings import ClientSettings, ServerSettings

KEY = ClusterKey("alpha", 1, bytes(range(32)))
NODE = NodeCredentials(KEY, NodeId(7), Generation(5))


class Ask(msgspec.Struct, frozen=True, array_like=True):
    text: str = ""
    number: int = 0


class Tell(msgspec.Struct, frozen=True, array_like=True):
    text: str = ""
    number: int = 0


ECHO = Method("echo", 900, Ask, Tell)
WAIT = Method("wait", 901, Ask, Tell)
STREAM = Method("stream", 902, Ask, Tell, streams=True)
STORE = Method("store", 903, Ask, Tell, payload_bytes_max=8 << 20)
FETCH = Method("fetch", 904, Ask, Tell)
UNKNOWN = Method("unknown", 999, Ask, Tell)


class Into:
    """A sink that receives into one buffer, part after part."""

    def __init__(self, size_bytes: int) -> None:
        self.data = bytearray(size_bytes)
        self.at = 0
        self.parts: list[int] = []

    def buffers(self, response: Any) -> Sequence[memoryview]:
        size = response.number
        view = memoryview(self.data)[self.at : self.at + size]
        self.at += size
        return [view[: size // 2], view[size // 2 :]]

    def received(self, response: Any) -> None:
        self.parts.append(response.number)


class Bugs(list[str]):
    """What handlers raised that they should not."""

    def __call__(self, name: str, request: int, error: BaseException) -> None:
        self.append(f"{name} {request} {error!r}")


@asynccontextmanager
async def serving(
    routes: Routes,
    address: str = "127.0.0.1:0",
    *,
    settings: ServerSettings | None = None,
    minimum_key_generation: Callable[[int], int] = lambda uid: 0,
    key: ClusterKey = KEY,
    bugs: Bugs | None = None,
    bulk: Any = None,
    network: Network | None = None,
) -> AsyncIterator[tuple[RpcServer, str]]:
    """A server of ``routes``, and its address."""
    found = bugs if bugs is not None else Bugs()
    server = RpcServer(
        routes,
        ServerIdentity(key, NodeId(1), Generation(1), minimum_key_generation),
        network or SystemNetwork(),
        make_nonce=system_nonce,
        on_bug=found,
        settings=settings or ServerSettings(),
        bulk=bulk,
    )
    (where,) = await server.start([address])
    try:
        yield server, where
    finally:
        await server.aclose()
    if bugs is None:
        assert not found, found


@asynccontextmanager
async def calling(
    credentials: Credentials = NODE,
    settings: ClientSettings | None = None,
    bulk: Any = None,
    network: Network | None = None,
) -> AsyncIterator[RpcClient]:
    """A client."""
    failures: list[str] = []
    client = RpcClient(
        credentials,
        network or SystemNetwork(),
        rng=derived_rng(1, "client"),
        make_nonce=system_nonce,
        on_failure=lambda name, error: failures.append(f"{name}: {error!r}"),
        settings=settings or ClientSettings(),
        bulk=bulk,
    )
    try:
        yield client
    finally:
        await client.aclose()
    assert not failures, failures


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for something that happens soon; fails after the time."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + timeout_s
    while not condition():
        assert loop.time() < end_s, "it did not happen"
        await asyncio.sleep(0.002)
