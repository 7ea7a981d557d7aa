"""What the RPC layer counts: plain integers, added to without label or lock, read by whoever exports them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ServerCounters:
    """Of one server, both planes. Event loop only; threads of the bulk plane count for themselves."""

    connections: int = 0
    """Open now."""
    accepted: int = 0
    refused_handshakes: int = 0
    """Connections that did not prove who they are, belong elsewhere, or speak no common version."""
    refused_connections: int = 0
    """Above a bound on connections."""
    bad_frames: int = 0
    """Frames that no honest peer sends; each ended its connection."""
    bad_requests: int = 0
    """Requests that could not be decoded, of unknown methods, or with too long a payload."""
    busy: int = 0
    """Requests refused for the bound on calls that wait."""
    cancelled: int = 0
    """Calls whose caller gave up."""
    expired: int = 0
    """Calls whose deadline passed in their handler."""
    stalled: int = 0
    """Connections cut because their answers were not taken."""
    bugs: int = 0
    """Handlers that raised what they should not."""
    in_flight: int = 0
    """Calls that wait now."""
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass(slots=True)
class ClientCounters:
    """Of one client, small plane."""

    connections: int = 0
    """Open now."""
    connected: int = 0
    failed_connects: int = 0
    lost: int = 0
    """Connections that ended with calls under way."""
    calls: int = 0
    timeouts: int = 0
    bad_frames: int = 0
    late_answers: int = 0
    """Answers to calls that had been given up."""
