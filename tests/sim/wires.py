"""Streams and datagrams of the simulated network: what TCP and UDP would do, on virtual time.

A stream keeps its order and loses nothing until it breaks: a cut link delays it (bytes are kept and sent
again), and when the cut lasts, or by an injected reset, both ends lose the connection and what was under
way. Datagrams are lost, delayed, doubled and so reordered, each for itself. A crashed host is silent or
resets, as the fault says.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import struct
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from fs3.rng import Rng

from .process import SimProcess, owner_of

HIGH_WATER_BYTES = 1 << 20
LOW_WATER_BYTES = 1 << 18
RETRANSMIT_S = 0.2
"""A cut link is tried again this often."""
BROKEN_AFTER_S = 15.0
"""A stream whose link is cut for this long breaks at both ends."""

_DELIVERY = struct.Struct("<dI")
"""Loop time and CRC-32 of a delivery, as the trace has them."""

Plane = Literal["all", "datagrams", "streams"]


@dataclass(slots=True)
class LinkFaults:
    """How the network behaves; may be changed while the world runs."""

    latency_s: tuple[float, float] = (0.000_05, 0.000_5)
    """Least and greatest delay of a delivery."""
    slow_rate: float = 0.0
    """Share of deliveries that take up to ``slow_s`` more."""
    slow_s: float = 0.3
    reset_rate: float = 0.0
    """Share of stream deliveries at which the connection breaks instead."""
    datagram_loss_rate: float = 0.0
    datagram_copy_rate: float = 0.0
    cut: dict[tuple[str, str], Plane] = field(default_factory=dict)
    """(from host, to host) -> what does not pass this way."""
    late: dict[tuple[str, str], tuple[Plane, float]] = field(default_factory=dict)
    """(from host, to host) -> which deliveries take how many seconds longer, at most."""
    refused: dict[tuple[str, str], bool] = field(default_factory=dict)
    """(from host, to host): a firewall answers for the host that nobody listens there."""
    secluded: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Host -> how the names of those begin that it reaches, and is reached by; nobody else."""
    down: dict[str, bool] = field(default_factory=dict)
    """Hosts without power: nothing passes, and nobody is told."""
    counts: dict[str, int] = field(default_factory=dict)
    """How often each fault struck."""

    def struck(self, kind: str) -> None:
        """Count a fault."""
        self.counts[kind] = self.counts.get(kind, 0) + 1


class Weather:
    """Draws what happens to each delivery, and keeps the trace of all of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: Rng, faults: LinkFaults) -> None:
        self.loop = loop
        self.faults = faults
        self._rng = rng
        self._trace = hashlib.sha256()
        self._context = contextvars.copy_context()
        self.delivered_count = 0

    def after(self, delay_s: float, action: Callable[..., object], *values: Any) -> None:
        """Do something later, as the network: what is under way does not end with who sent it.

        One context does for all: what runs in it enters that of the process it reaches, and sets nothing.
        """
        self.loop.call_later(delay_s, action, *values, context=self._context)

    def note(self, way: bytes, data: bytes) -> None:
        """A delivery (``way_of`` whom to whom): the trace is a sum over who, to whom, what and when."""
        self.delivered_count += 1
        self._trace.update(_DELIVERY.pack(self.loop.time(), zlib.crc32(data)) + way)

    @property
    def trace(self) -> str:
        """Equal for two runs exactly if every byte went the same way at the same time."""
        return self._trace.hexdigest()

    def delay_s(self) -> float:
        """How long one delivery takes."""
        faults = self.faults
        low, high = faults.latency_s
        delay = low + (high - low) * self._rng.random()
        if faults.slow_rate and self._rng.random() < faults.slow_rate:
            faults.struck("slow")
            delay += self._rng.uniform(0, faults.slow_s)
        return delay

    def delay_between_s(self, source: str, destination: str, plane: Plane) -> float:
        """How long a delivery from one host to another takes."""
        delay = self.delay_s()
        if self.faults.late:
            held, most_s = self.faults.late.get((source, destination), ("all", 0.0))
            if most_s and held in ("all", plane):
                self.faults.struck(f"held back, {plane}")
                delay += self._rng.uniform(most_s / 2, most_s)
        return delay

    def strikes(self, kind: str, rate: float) -> bool:
        """Whether a fault of this rate strikes now."""
        if rate and self._rng.random() < rate:
            self.faults.struck(kind)
            return True
        return False

    def is_cut(self, source: str, destination: str, plane: Plane) -> bool:
        """Whether nothing of a plane passes from one host to the other."""
        faults = self.faults
        if faults.down and (source in faults.down or destination in faults.down):
            return True
        if faults.secluded:
            for one, other in ((source, destination), (destination, source)):
                if one in faults.secluded and not other.startswith(faults.secluded[one]):
                    return True
        return bool(faults.cut) and faults.cut.get((source, destination)) in ("all", plane)


def way_of(source: str, destination: str) -> bytes:
    """Who sends to whom, as the trace has it."""
    return f"{source} {destination}\n".encode()


class SimStream(asyncio.Transport):
    """One end of a connection; offers what asyncio's socket transports offer."""

    def __init__(
        self,
        weather: Weather,
        host: str,
        peer_host: str,
        extra: dict[str, Any],
        context: contextvars.Context,
    ) -> None:
        super().__init__(extra)
        self._weather = weather
        self._context = context
        """Of the process whose end this is: its protocol runs there, whoever sent."""
        self.owner: SimProcess | None = owner_of(context)
        self.host = host
        self._peer_host = peer_host
        self._way = way_of(host, peer_host)
        self.peer: SimStream | None = None
        self.has_vanished = False
        self._protocol: asyncio.BaseProtocol | None = None
        self._in_flight: deque[bytes] = deque()
        self._in_flight_bytes = 0
        self._busy = False
        self._cut_since_s: float | None = None
        self._inbox: deque[bytes] = deque()
        self._reading = True
        self._closing = False
        self._ended = False
        self._write_paused = False

    # -- what the protocol's side calls

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        self._soon(self._drain_inbox)  # what came before the end was told of itself

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not len(data):
            return
        self._in_flight.append(bytes(data))
        self._in_flight_bytes += len(data)
        if self._in_flight_bytes > HIGH_WATER_BYTES and not self._write_paused:
            self._write_paused = True
            self.get_protocol().pause_writing()
        self._pump()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self._in_flight_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Limits are fixed here."""

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._soon(self._drain_inbox)

    def is_reading(self) -> bool:
        return self._reading

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Send what is left, then end both ends."""
        if not self._closing:
            self._closing = True
            self._pump()

    def abort(self) -> None:
        """Drop what is left; the peer sees a reset."""
        peer = None if self._ended else self.peer
        self.lose(None)
        if peer is not None:
            self._weather.after(self._weather.delay_s(), peer.lose, ConnectionResetError("reset by peer"))

    # -- the network's side

    @property
    def is_secluded(self) -> bool:
        """Whether nothing passes any more because one of the two is secluded."""
        return bool(self._weather.faults.secluded) and self._weather.is_cut(
            self.host, self._peer_host, "streams"
        )

    def is_between(self, one: str, other: str) -> bool:
        """Whether this is an end of a connection of these two hosts."""
        return (self.host, self._peer_host) in ((one, other), (other, one))

    def lose(self, error: Exception | None) -> None:
        """This end's connection is over."""
        if self._ended:
            return
        self._ended = self._closing = True
        self._in_flight.clear()
        self._inbox.clear()
        self._in_flight_bytes = 0
        if self._protocol is not None:
            self._soon(self._protocol.connection_lost, error)

    def vanish(self) -> None:
        """The host crashed: this end runs no more code."""
        self.has_vanished = True
        self._ended = self._closing = True
        self._protocol = None
        self._in_flight.clear()

    def _pump(self) -> None:
        if self._busy or self._ended:
            return
        if not self._in_flight:
            if self._closing:
                self._finish()
            return
        self._busy = True
        delay_s = self._weather.delay_between_s(self.host, self._peer_host, "streams")
        self._weather.after(delay_s, self._deliver)

    def _deliver(self) -> None:
        self._busy = False
        peer, weather = self.peer, self._weather
        if self._ended or peer is None:
            return
        if weather.is_cut(self.host, self._peer_host, "streams"):
            self._wait_out_cut()
            return
        self._cut_since_s = None
        if peer.has_vanished:
            self.lose(ConnectionResetError("the host has started again since"))
            return
        if weather.strikes("reset", weather.faults.reset_rate):
            peer.lose(ConnectionResetError("injected reset"))
            self.lose(ConnectionResetError("injected reset"))
            return
        data = b"".join(self._in_flight)
        self._in_flight.clear()
        self._in_flight_bytes = 0
        if self._write_paused:
            self._write_paused = False
            self._soon(self.get_protocol().resume_writing)
        weather.note(self._way, data)
        peer.arrive(data)
        self._pump()

    def _wait_out_cut(self) -> None:
        now_s = self._weather.loop.time()
        if self._cut_since_s is None:
            self._cut_since_s = now_s
        if now_s - self._cut_since_s > BROKEN_AFTER_S:
            self.lose(TimeoutError("link is cut"))
            return
        self._busy = True
        self._weather.after(RETRANSMIT_S, self._deliver)

    def _finish(self) -> None:
        peer = self.peer
        self.lose(None)
        if peer is not None:
            self._weather.after(self._weather.delay_s(), peer.lose, None)

    def arrive(self, data: bytes) -> None:
        """Bytes have come."""
        if not self._ended:
            self._inbox.append(data)
            if self.owner is not None and self.owner.is_paused:
                self._soon(self._drain_inbox)
            else:
                self._context.run(self._drain_inbox)

    def _soon(self, action: Callable[..., object], *values: Any) -> None:
        self._weather.loop.call_soon(action, *values, context=self._context)

    def _drain_inbox(self) -> None:
        while self._inbox and self._reading and not self._ended and self._protocol is not None:
            feed(self._protocol, self._inbox.popleft())


def feed(protocol: asyncio.BaseProtocol, data: bytes) -> None:
    """Hand received bytes to a protocol of either kind."""
    if isinstance(protocol, asyncio.BufferedProtocol):
        view = memoryview(data)
        while view:
            buffer = memoryview(protocol.get_buffer(len(view)))
            count = min(len(buffer), len(view))
            buffer[:count] = view[:count]
            protocol.buffer_updated(count)
            view = view[count:]
    else:
        assert isinstance(protocol, asyncio.Protocol), protocol
        protocol.data_received(data)
