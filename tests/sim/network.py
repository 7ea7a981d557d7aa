"""The network of the simulated world: ``fs3.rpc.network.Network`` for each host, over one ``Weather``."""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections.abc import Callable
from typing import NoReturn, TypeVar

from fs3.rng import Rng
from fs3.rpc.network import DatagramPort, Listener, split_address

from .loop import SimLoop
from .process import owner_of
from .wires import LinkFaults, Plane, SimStream, Weather, way_of

P = TypeVar("P", bound=asyncio.Protocol)

FIRST_EPHEMERAL_PORT = 40_000


class SimInternet:
    """Every host, listener and connection."""

    def __init__(self, loop: SimLoop, rng: Rng, faults: LinkFaults) -> None:
        self.weather = Weather(loop, rng, faults)
        self.listeners: dict[str, SimListener] = {}
        self.ports: dict[str, SimDatagramPort] = {}
        self._streams: dict[SimStream, None] = {}
        self._next_port = FIRST_EPHEMERAL_PORT
        self.crash_counts: dict[str, int] = {}

    def host(self, name: str) -> SimNetwork:
        """The network as host ``name`` sees it, until the host crashes."""
        return SimNetwork(self, name)

    def free_port(self) -> int:
        """A port number that nobody has."""
        self._next_port += 1
        return self._next_port

    def join(self, near: SimStream, far: SimStream) -> None:
        """Two ends are one connection now."""
        near.peer, far.peer = far, near
        self._streams = {s: None for s in self._streams if not s.is_closing()}
        self._streams[near] = self._streams[far] = None

    def crash(self, host: str, *, silent: bool = False) -> None:
        """All of a host's sockets are gone; peers see resets, or nothing (the machine lost its power).

        Silent until a new process of the host uses the network.
        """
        self.crash_counts[host] = self.crash_counts.get(host, 0) + 1
        if silent:
            self.weather.faults.down[host] = True
        for address in [a for a, found in self.listeners.items() if found.host == host]:
            del self.listeners[address]
        for address in [a for a, port in self.ports.items() if port.host == host]:
            del self.ports[address]
        for stream in [s for s in self._streams if s.host == host]:
            peer = stream.peer
            stream.vanish()
            if peer is not None and not silent:
                self.weather.after(self.weather.delay_s(), peer.lose, ConnectionResetError("host crashed"))

    def cut(self, source: str, destination: str, *, both_ways: bool = True, plane: Plane = "all") -> None:
        """Nothing (of a plane) passes from ``source`` to ``destination`` any more."""
        self.weather.faults.cut[source, destination] = plane
        if both_ways:
            self.weather.faults.cut[destination, source] = plane

    def mend(self, source: str, destination: str) -> None:
        """The links between two hosts are whole again."""
        self.weather.faults.cut.pop((source, destination), None)
        self.weather.faults.cut.pop((destination, source), None)
        self.weather.faults.refused.pop((source, destination), None)

    def seclude(self, host: str, *reached: str) -> None:
        """Only hosts whose names begin so reach this one: connections to all others end here at once."""
        self.weather.faults.secluded[host] = reached
        for stream in [s for s in self._streams if s.host == host and s.is_secluded]:
            stream.lose(ConnectionResetError("secluded"))

    def readmit(self, host: str) -> None:
        """Everybody reaches the host again."""
        self.weather.faults.secluded.pop(host, None)

    def refuse(self, source: str, destination: str) -> None:
        """A firewall refuses new connections from ``source`` in the name of ``destination``."""
        self.weather.faults.refused[source, destination] = True

    def hold_back(self, source: str, destination: str, plane: Plane, most_s: float) -> None:
        """What passes (of a plane) from ``source`` to ``destination`` takes up to ``most_s`` longer."""
        self.weather.faults.late[source, destination] = plane, most_s

    def let_pass(self, source: str, destination: str) -> None:
        """Nothing is held back on this way any more."""
        self.weather.faults.late.pop((source, destination), None)

    def reset(self, source: str, destination: str) -> int:
        """Somebody forges resets of all connections between two hosts; returns how many there were."""
        ends = [s for s in self._streams if s.is_between(source, destination) and not s.is_closing()]
        for stream in ends:
            stream.lose(ConnectionResetError("forged reset"))
        return len(ends)

    def accept(self, source: str, destination: str) -> None:
        """New connections reach ``destination`` again."""
        self.weather.faults.refused.pop((source, destination), None)

    def heal(self) -> None:
        """Every link is whole, and nothing is lost or slow any more."""
        faults = self.weather.faults
        faults.cut.clear()
        faults.late.clear()
        faults.refused.clear()
        faults.secluded.clear()
        faults.slow_rate = faults.reset_rate = faults.datagram_loss_rate = faults.datagram_copy_rate = 0.0


class SimListener:
    """A place where connections arrive."""

    def __init__(
        self, net: SimInternet, host: str, address: str, make: Callable[[], asyncio.Protocol]
    ) -> None:
        self._net = net
        self.host = host
        self.address = address
        self.make_protocol = make
        self.context = contextvars.copy_context()

    def accept(self, stream: SimStream) -> None:
        """Serve a connection, in the listening process; one that stands still does so when it goes on."""
        if stream.owner is not None and stream.owner.is_paused:
            self._net.weather.loop.call_soon(self._accept, stream, context=self.context)
        else:
            self.context.run(self._accept, stream)

    def _accept(self, stream: SimStream) -> None:
        if stream.is_closing():
            return  # the caller has gone, or the process was killed, while the connection waited
        protocol = self.make_protocol()
        stream.set_protocol(protocol)
        protocol.connection_made(stream)

    def close(self) -> None:
        """Take no more connections."""
        if self._net.listeners.get(self.address) is self:
            del self._net.listeners[self.address]


class SimDatagramPort:
    """A UDP socket."""

    def __init__(
        self, net: SimInternet, host: str, address: str, receive: Callable[[bytes, str], None]
    ) -> None:
        self._net = net
        self.host = host
        self.address = address
        self.receive = receive
        self._context = contextvars.copy_context()
        self._owner = owner_of(self._context)

    def send(self, data: bytes, address: str) -> None:
        """Send, lose, delay or double."""
        weather = self._net.weather
        faults = weather.faults
        if self._net.ports.get(self.address) is not self:
            return  # closed, or the host crashed
        peer_host = address.partition(":")[0]
        copies = 2 if weather.strikes("datagram copy", faults.datagram_copy_rate) else 1
        for _ in range(copies):
            if not weather.strikes("datagram loss", faults.datagram_loss_rate):
                delay_s = weather.delay_between_s(self.host, peer_host, "datagrams")
                weather.after(delay_s, self._arrive, data, address)

    def _arrive(self, data: bytes, address: str) -> None:
        port = self._net.ports.get(address)
        if port is not None and not self._net.weather.is_cut(self.host, port.host, "datagrams"):
            self._net.weather.note(way_of(self.host, port.host), data)
            port._receive_soon(data, self.address)

    def _receive_soon(self, data: bytes, sender: str) -> None:
        if self._owner is not None and self._owner.is_paused:
            self._net.weather.loop.call_soon(self._receive, data, sender, context=self._context)
        else:
            self._context.run(self.receive, data, sender)

    def _receive(self, data: bytes, sender: str) -> None:
        if self._net.ports.get(self.address) is self:
            self.receive(data, sender)

    def close(self) -> None:
        """Receive nothing more."""
        if self._net.ports.get(self.address) is self:
            del self._net.ports[self.address]


class SimNetwork:
    """What one host is handed as its network."""

    has_threads = False

    def __init__(self, net: SimInternet, host: str) -> None:
        self._net = net
        self.host = host
        self._crash_count = net.crash_counts.get(host, 0)

    def _use(self) -> None:
        """The host is up if a process of it that still runs is at work."""
        if self._crash_count != self._net.crash_counts.get(self.host, 0):
            raise ConnectionAbortedError(f"{self.host} has crashed since: this process is no more")
        self._net.weather.faults.down.pop(self.host, None)

    async def connect(self, address: str, make_protocol: Callable[[], P]) -> tuple[asyncio.Transport, P]:
        """A connection, after one round trip; refused where nobody listens."""
        self._use()
        weather = self._net.weather
        peer_host, _ = split_address(address)
        await asyncio.sleep(weather.delay_s())
        ways = (self.host, peer_host), (peer_host, self.host)
        while any(weather.is_cut(*way, "streams") for way in ways):  # noqa: ASYNC110
            await asyncio.sleep(1.0)  # as SYNs are sent again
        listener = self._net.listeners.get(address)
        if listener is None or (self.host, peer_host) in weather.faults.refused:
            raise ConnectionRefusedError(f"nobody listens at {address}")
        near_name, far_name = (self.host, self._net.free_port()), split_address(address)
        near_extra = {"sockname": near_name, "peername": far_name}
        far_extra = {"sockname": far_name, "peername": near_name}
        near = SimStream(weather, self.host, peer_host, near_extra, contextvars.copy_context())
        far = SimStream(weather, peer_host, self.host, far_extra, listener.context.copy())
        self._net.join(near, far)
        listener.accept(far)
        await asyncio.sleep(weather.delay_s())
        protocol = make_protocol()
        near.set_protocol(protocol)
        protocol.connection_made(near)
        return near, protocol

    async def listen(self, address: str, make_protocol: Callable[[], asyncio.Protocol]) -> Listener:
        """Take connections at ``address``; its host must be this one."""
        listener = SimListener(self._net, self.host, self._own(address), make_protocol)
        if listener.address in self._net.listeners:
            raise OSError(98, f"address {listener.address} is in use")
        self._net.listeners[listener.address] = listener
        return listener

    async def open_datagrams(self, address: str, on_datagram: Callable[[bytes, str], None]) -> DatagramPort:
        """Receive datagrams at ``address``."""
        port = SimDatagramPort(self._net, self.host, self._own(address), on_datagram)
        self._net.ports[port.address] = port
        return port

    def _own(self, address: str) -> str:
        self._use()
        host, port = split_address(address)
        assert host == self.host, f"{self.host} cannot listen at {address}"
        return f"{host}:{port or self._net.free_port()}"

    def tune(self, transport: asyncio.Transport) -> None:
        """Nothing to set."""

    def take_socket(self, transport: asyncio.Transport) -> socket.socket:
        """No sockets here."""
        raise AssertionError("a blocking socket in the simulated world")

    def connect_blocking(self, address: str, timeout_s: float) -> NoReturn:
        """No sockets here."""
        raise AssertionError("a blocking socket in the simulated world")
