"""Options of connections, as the kernel has them."""

from __future__ import annotations

import asyncio
import socket

import pytest

from fs3.identity.key_file import system_nonce
from fs3.rpc.bulk_client import BulkClient
from fs3.rpc.bulk_server import BulkServer
from fs3.rpc.network import RETRANSMIT_MS_MAX, TCP_RTO_MAX_MS, SystemNetwork, refuse_itself
from fs3.rpc.service import Call, Reply, Routes

from .world import FETCH, NODE, Ask, Into, Tell, calling, serving


class Watched(SystemNetwork):
    """Keeps descriptors of what it tuned or took."""

    def __init__(self) -> None:
        self.kept: list[socket.socket] = []

    def tune(self, transport: asyncio.Transport) -> None:
        super().tune(transport)
        held = transport.get_extra_info("socket")
        self.kept.append(socket.fromfd(held.fileno(), held.family, held.type))

    def take_socket(self, transport: asyncio.Transport) -> socket.socket:
        self.kept.append((taken := super().take_socket(transport)).dup())
        return taken

    def connect_blocking(self, address: str, timeout_s: float) -> socket.socket:
        self.kept.append((made := super().connect_blocking(address, timeout_s)).dup())
        return made


def longest_pause_ms(sock: socket.socket) -> int:
    """Between two retransmissions; as it should be where the kernel cannot say."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS)
    except OSError:
        return RETRANSMIT_MS_MAX


async def test_connections_within_a_host_are_not_paced_at_either_end() -> None:
    """Answers leave the server's end, payloads the client's."""

    def fetch(call: Call, ask: Ask) -> Reply[Tell]:
        return Reply(Tell(number=10), [bytes(10)])

    routes, network = Routes(), Watched()
    routes.add(FETCH, fetch, in_thread=fetch)
    bulk = BulkClient(NODE, network, make_nonce=system_nonce)
    async with serving(routes, bulk=BulkServer(), network=network) as (_, where):
        async with calling(bulk=bulk, network=network) as caller:
            for is_bulk in (False, True):
                await caller.call(where, FETCH, Ask(), timeout_s=5, sink=Into(10), bulk=is_bulk)
    assert len(network.kept) >= 5  # two ends of two connections, one of them twice
    for sock in network.kept:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert (
            longest_pause_ms(sock) == RETRANSMIT_MS_MAX
        )  # a link that was cut is used again within a second
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"
        sock.close()


def test_a_socket_that_is_connected_to_itself_is_no_server() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())  # as happens by chance with a port of the ephemeral range
        with pytest.raises(ConnectionRefusedError, match="nobody listens"):
            refuse_itself(sock)
    near, far = socket.socketpair()
    with near, far:
        refuse_itself(near)
