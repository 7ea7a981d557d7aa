"""Bounds and times of the RPC layer: each queue, buffer and wait has its number here.

Defaults are for daemons; a test or a simulated world hands in its own.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Of ``RpcServer``."""

    connections_max: int = 4096
    handshake_s: float = 5.0
    """A connection that has not proved who it is within this is cut."""
    in_flight_max: int = 256
    """Calls of one connection that wait at a time; then its bytes stay in its socket."""
    in_flight_total_max: int = 8192
    """Calls of all connections that wait at a time; more are answered Busy."""
    payload_in_flight_bytes_max: int = 16 * MIB
    """Payloads of waiting calls of one connection; then its bytes stay in its socket."""
    small_payload_bytes_max: int = MIB
    """Longest payload of a request on the small plane. A simulated world, which has no other, sets 64 MiB."""
    write_buffer_bytes: int = MIB
    """Unsent answers of a connection at which no further request of it is read."""
    write_buffer_bytes_max: int = 128 * MIB
    """Unsent answers of a connection at which it is cut."""
    stall_s: float = 30.0
    """A connection whose unsent answers have waited this long is cut."""
    idle_s: float = 600.0
    """A connection without a call for this long is closed."""
    call_s_max: float = 300.0
    """Longest deadline: of calls that state none, and of those that state a later one."""
    drain_s: float = 1.0
    """At a clean stop, time for calls under way to be answered."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Of ``RpcClient``."""

    connect_s: float = 2.0
    """Connection and handshake."""
    in_flight_max: int = 1024
    """Calls under way on one connection (or fewer, when the server says so)."""
    waiting_max: int = 16_384
    """Calls of one connection that wait for room; more fail with Busy."""
    write_buffer_bytes: int = MIB
    """Unsent requests at which further calls wait."""
    keepalive_s: float = 2.0
    """Silence of a server that owes answers, after which it is sent a PING."""
    silence_s: float = 6.0
    """Silence of a server that owes answers, after which the connection is given up."""
    idle_s: float = 60.0
    """A connection without a call for this long is closed."""
    backoff_s_min: float = 0.010
    """Pause after the first failed connection attempt; doubles with each."""
    backoff_s_max: float = 0.100
    """Longest pause: lost connections are retried within 100 ms (design 2.5)."""
    payload_bytes_max: int = 64 * MIB
    """Longest payload of an answer."""
