"""Exactly once: what the head says to a request of a client's channel. PURE.

A channel carries one request at a time. Its last staged request is recorded with the chunk's pending
version, in the same index transaction, on every member; so whoever becomes head recognises a retry
(design 4.5). A record alone is never an answer: the version that it names must be *committed* here, else
it is rolled forward first (``chain_model`` V5: answering at once was wrong in 535 of 600 walks).
"""

from __future__ import annotations

import enum

from fs3.errors import Busy, Fs3Error, InvalidRequest, SessionLost
from fs3.ids import HEAD_SESSION, ChunkId, ClientSessionId
from fs3.wire.chunk import Identity, UpdateResult, VersionInfo, WriterTag

from .engine.versions import DedupRecord

CHANNELS_MAX = 256
"""Channels of one client session."""
IN_FLIGHT_MAX = 65_536
"""Channels of all sessions with a request between arrival and staging."""

_Channel = tuple[ClientSessionId, int]


class Found(enum.Enum):
    """Where the version that a record names is."""

    COMMITTED = 1
    PENDING = 2
    NOWHERE = 3
    """Invariant violation."""


class Channels:
    """The channels with a request that has arrived and is not staged yet (or refused)."""

    def __init__(self) -> None:
        self._in_flight: dict[_Channel, int] = {}

    def enter(self, writer: WriterTag, *, ended: bool) -> Fs3Error | None:
        """A request arrives. The error to refuse it with, or None: ``leave`` must be called for it."""
        if writer.session == HEAD_SESSION:
            return None
        if not 0 <= writer.channel < CHANNELS_MAX:
            return InvalidRequest(f"channel {writer.channel} is not below {CHANNELS_MAX}")
        if ended:
            return SessionLost(f"client session {writer.session:x} is over")
        channel = (writer.session, writer.channel)
        present = self._in_flight.get(channel)
        if present is not None:
            return Busy(f"channel {writer.channel} of session {writer.session:x} is at request {present}")
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            return Busy(f"{IN_FLIGHT_MAX} channels have requests under way")
        self._in_flight[channel] = writer.sequence
        return None

    def leave(self, writer: WriterTag) -> None:
        """The request is staged (its record stands in the store) or refused."""
        self._in_flight.pop((writer.session, writer.channel), None)

    def __len__(self) -> int:
        return len(self._in_flight)


def judge(record: DedupRecord | None, writer: WriterTag, chunk: ChunkId) -> UpdateResult | Fs3Error | None:
    """What a channel's record says to a request: None: it is new; the result of the same one; a refusal."""
    if record is None or writer.sequence > record.sequence:
        return None
    if writer.sequence < record.sequence:
        return InvalidRequest(
            f"channel {writer.channel} of session {writer.session:x} is at request {record.sequence}, "
            f"{writer.sequence} is over"
        )
    if record.chunk != chunk:
        return InvalidRequest(f"request {writer.sequence} was for chunk {record.chunk}, now for {chunk}")
    return record.result


def find(
    identity: Identity, committed: VersionInfo | None, pending: VersionInfo | None, number_floor: int
) -> Found:
    """Where the version named by a record is. A higher committed one was built on it: it was committed."""
    if pending is not None and pending.identity == identity:
        return Found.PENDING
    if committed is None:
        return Found.COMMITTED if identity.update_version <= number_floor else Found.NOWHERE
    if committed.identity == identity or committed.identity.update_version > identity.update_version:
        return Found.COMMITTED
    return Found.NOWHERE
