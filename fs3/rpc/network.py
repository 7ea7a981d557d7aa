"""How bytes leave the process: the one seam for sockets (design 5.5).

Everything above speaks asyncio's transports and protocols, so a simulated world implements ``Network`` over
its own loop. TLS and RDMA have their place here: in how ``connect`` and ``listen`` make a transport, and in
how ``connect_blocking`` makes a socket.

Addresses are text: ``host:port``, ``[v6]:port`` or ``unix:/path``; port 0 takes a free one.

Datagrams are handed to their receiver inside the loop's read event, one by one, before the next is read:
nothing queues, so nothing can pile up but in the kernel's bounded buffer. (A stream that is awaited, as
asyncio-dgram has it, would keep an unbounded queue of datagrams and one of errors in between.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable
from typing import Protocol, TypeVar

from ..errors import Unavailable

P = TypeVar("P", bound=asyncio.Protocol)

BACKLOG = 1024
DATAGRAM_BUFFER_BYTES = 1 << 20
KEEPALIVE_IDLE_S = 10
KEEPALIVE_PROBES = 3
TCP_RTO_MAX_MS = 44
"""Of Linux 6.15 and later; Python has no name for it."""
RETRANSMIT_MS_MAX = 1000
"""After a cut of 4 s a connection stayed silent for up to 3 s more, so long had its pauses become."""


class Listener(Protocol):
    """A place where connections arrive."""

    address: str
    """As it really is: with the port that was taken."""

    def close(self) -> None:
        """Take no more connections; those taken live on."""
        ...


class DatagramPort(Protocol):
    """A UDP socket."""

    address: str

    def send(self, data: bytes, address: str) -> None:
        """Send or drop, never wait; errors are those of a lossy network and not reported."""
        ...

    def close(self) -> None: ...


class Network(Protocol):
    """Connections and datagrams."""

    has_threads: bool
    """Blocking sockets exist: the bulk plane can run in threads. False in a simulated world."""

    async def connect(self, address: str, make_protocol: Callable[[], P]) -> tuple[asyncio.Transport, P]:
        """Open a connection. OSError; no time limit of its own."""
        ...

    async def listen(self, address: str, make_protocol: Callable[[], asyncio.Protocol]) -> Listener:
        """Take connections. OSError."""
        ...

    async def open_datagrams(self, address: str, on_datagram: Callable[[bytes, str], None]) -> DatagramPort:
        """Receive datagrams: ``on_datagram(data, sender)`` is called for each, and must not wait. OSError."""
        ...

    def tune(self, transport: asyncio.Transport) -> None:
        """Set the options of a connection that has arrived, as ``connect`` does with those that it makes."""
        ...

    def take_socket(self, transport: asyncio.Transport) -> socket.socket:
        """Take the connection out of the loop: a blocking socket of its own. Only if ``has_threads``."""
        ...

    def connect_blocking(self, address: str, timeout_s: float) -> socket.socket:
        """Open a connection as a blocking socket. OSError. Only if ``has_threads``."""
        ...


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``; Unavailable when it is no such address."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise Unavailable(f"not an address: {address!r} (host:port or unix:/path)")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(name: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """The text of a socket name."""
    host, port = name[0], name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tune(sock: socket.socket) -> None:
    """Options of every connection, at both ends: no delay of small writes, notice a dead host."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    with contextlib.suppress(OSError):  # an older kernel doubles the pauses on and on
        sock.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, RETRANSMIT_MS_MAX)
    if _is_within_host(sock):
        # Nothing is congested there, and where the system's choice is one that paces (bbr) it only delays:
        # 1 MiB took 1.5 ms (p99 29 ms) instead of 0.9 (2). Every kernel has this one.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


def refuse_itself(sock: socket.socket) -> None:
    """ConnectionRefusedError if a socket is connected to itself, instead of to a server.

    Happens within a host: whoever connects to a port of the ephemeral range at which nobody listens may be
    given just this port as its own, and would then keep the server from ever listening there again.
    """
    if sock.family == socket.AF_UNIX:
        return
    try:
        own, peer = sock.getsockname(), sock.getpeername()
    except OSError:
        return  # the peer has gone already: a server, who may have said why
    if own == peer:
        raise ConnectionRefusedError(f"nobody listens at {join_address(peer)}")


def _is_within_host(sock: socket.socket) -> bool:
    try:
        return bool(sock.getpeername()[0] == sock.getsockname()[0])
    except OSError:
        return False  # the peer has gone already


class SystemNetwork:
    """The machine's sockets."""

    has_threads = True

    async def connect(self, address: str, make_protocol: Callable[[], P]) -> tuple[asyncio.Transport, P]:
        loop = asyncio.get_running_loop()
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            return await loop.create_unix_connection(make_protocol, path)
        host, port = split_address(address)
        transport, protocol = await loop.create_connection(make_protocol, host, port)
        try:
            refuse_itself(transport.get_extra_info("socket"))
        except OSError:
            transport.abort()
            raise
        self.tune(transport)
        return transport, protocol

    async def listen(self, address: str, make_protocol: Callable[[], asyncio.Protocol]) -> Listener:
        loop = asyncio.get_running_loop()
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            _remove_stale_socket(path)
            server: asyncio.AbstractServer = await loop.create_unix_server(
                make_protocol, path, backlog=BACKLOG
            )
            return _SystemListener(server, address, path)
        host, port = split_address(address)
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setblocking(False)
            sock.bind((host, port))
            server = await loop.create_server(make_protocol, sock=sock, backlog=BACKLOG)
        except BaseException:
            sock.close()
            raise
        return _SystemListener(server, join_address(sock.getsockname()), None)

    async def open_datagrams(self, address: str, on_datagram: Callable[[bytes, str], None]) -> DatagramPort:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_datagram_endpoint(
            lambda: _SystemDatagrams(on_datagram), local_addr=split_address(address)
        )
        return protocol

    def tune(self, transport: asyncio.Transport) -> None:
        held = transport.get_extra_info("socket")
        if held is not None:
            tune(held)

    def take_socket(self, transport: asyncio.Transport) -> socket.socket:
        transport.pause_reading()
        held = transport.get_extra_info("socket")
        sock = socket.socket(held.family, held.type, held.proto, fileno=os.dup(held.fileno()))
        transport.abort()  # closes the loop's descriptor only: ours keeps the connection
        sock.setblocking(True)
        return sock

    def connect_blocking(self, address: str, timeout_s: float) -> socket.socket:
        if address.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(timeout_s)
                sock.connect(address.removeprefix("unix:"))
            except BaseException:
                sock.close()
                raise
        else:
            sock = socket.create_connection(split_address(address), timeout_s)
            try:
                refuse_itself(sock)
            except OSError:
                sock.close()
                raise
        sock.setblocking(True)
        tune(sock)
        return sock


def _remove_stale_socket(path: str) -> None:
    # a socket file outlives its server; connecting tells whether somebody still listens there
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(f"{path} is in the way: not a socket")
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            refused = probe.connect_ex(path) != 0
        finally:
            probe.close()
        if refused:
            os.unlink(path)


class _SystemListener:
    def __init__(self, server: asyncio.AbstractServer, address: str, path: str | None) -> None:
        self._server = server
        self.address = address
        self._path = path

    def close(self) -> None:
        self._server.close()
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


class _SystemDatagrams(asyncio.DatagramProtocol):
    def __init__(self, on_datagram: Callable[[bytes, str], None]) -> None:
        self._on_datagram = on_datagram
        self._transport: asyncio.DatagramTransport | None = None
        self._is_full = False
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport) or hasattr(transport, "sendto"), transport
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        self.address = join_address(transport.get_extra_info("sockname"))
        held = transport.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BUFFER_BYTES)

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        self._on_datagram(data, join_address(sender))

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False

    def send(self, data: bytes, address: str) -> None:
        if self._transport is None or self._transport.is_closing() or self._is_full:
            return
        with contextlib.suppress(OSError):
            self._transport.sendto(data, split_address(address))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
