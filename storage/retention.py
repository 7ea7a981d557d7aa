"""What may be forgotten of removed chunks, epochs and ended sessions, and what not yet. PURE.

A tombstone keeps a chunk's numbers going, an epoch refuses writers of before a truncate or a removal, a
session's end refuses a lost client. All three stand against requests under capabilities of before; once no
such capability can be valid, none of them is needed (design 4.5, 4.9).

Why a late request fails safe after that. A file without an epoch counts as of epoch 0, a session without an
end as alive, a chunk without a tombstone as never written. A write of an older epoch, or of an ended
session, must name a valid capability of just that epoch and session (``ops/write.py``), and there is none:
before meta raises an epoch on a chain it notes in the KV store that the file is cut, settled or removed, and
from then on gives no capability of before; the last was renewed at most ``BLIND_RENEWAL_MS`` after the
store was last asked, and lived ``CAPABILITY_MS``. So it is refused with CapabilityExpired; its client asks
meta for a new one, which carries the epoch of now. An epoch that is raised once more counts from then on
(``Ledger.set_epochs``): meta raises before each cut, so a cut that takes hours finds its epoch in force.
A chunk that is written again is numbered above every dropped tombstone (``number_floor``).

Records go from the last member first and from the head last: as long as a member has one, so have all
before it, and whoever is head after a crash has either the record, or a store whose counters are above it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fs3.identity.capability import CAPABILITY_MS
from fs3.ids import ChunkId, ClientSessionId, Epoch, InodeId
from fs3.wire.chunk import Identity
from fs3.wire.storage import Expired, ExpiredEpoch, ExpiredTombstone

from .engine.versions import ChunkState, EpochRecord

BLIND_RENEWAL_MS = 3_600_000
"""How long after a meta service last saw the KV store capabilities are renewed without it (design 7)."""
MARGIN_PERCENT = 2
"""For clocks that run apart, seconds that are rounded, requests admitted in time that wait for their turn."""
RETENTION_MS = (BLIND_RENEWAL_MS + CAPABILITY_MS) * (100 + MARGIN_PERCENT) // 100
"""1 h of renewal without the KV store + 10 min of life + 2 % = 4,284,000 ms of cluster time (design 4.9)."""


@dataclass(frozen=True, slots=True)
class Cutoff:
    """Which records are old enough."""

    before_ms: int
    """Cluster time; what was recorded after it stays."""
    known_since_ms: int
    """Cluster time when this run of the process first knew it. A record without a time (0) is of before the
    process knew it, in this run or an earlier one: it counts as made then, the latest that it can be."""

    def is_over(self, recorded_ms: int) -> bool:
        """Whether the retention of a record is over."""
        return (recorded_ms or self.known_since_ms) <= self.before_ms


def old_tombstones(page: Sequence[tuple[ChunkId, ChunkState]], cutoff: Cutoff) -> Expired:
    """Of a page of chunks, those removed long ago and not being written again."""
    found = [
        ExpiredTombstone(chunk, state.committed.identity)
        for chunk, state in page
        if state.committed is not None and _is_old_tombstone(state, state.committed.identity, cutoff)
    ]
    return Expired(tombstones=tuple(found))


def old_epochs(page: Sequence[EpochRecord], cutoff: Cutoff) -> Expired:
    """Of a page of epochs, those raised long ago."""
    return Expired(epochs=tuple(ExpiredEpoch(r.inode, r.epoch) for r in page if cutoff.is_over(r.raised_ms)))


def old_sessions(page: Sequence[tuple[ClientSessionId, int]], cutoff: Cutoff) -> Expired:
    """Of a page of ended sessions, those that ended long ago."""
    return Expired(sessions=tuple(session for session, ended_ms in page if cutoff.is_over(ended_ms)))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one member does about records that are to be dropped."""

    tombstones: tuple[tuple[ChunkId, Identity], ...]
    epochs: tuple[EpochRecord, ...]
    sessions: tuple[ClientSessionId, ...]
    number_floor: int
    """Highest number among the tombstones that go: the counter must not be below it, even at a member
    that never had them, for it may be the head that writes the chunk again."""
    kept: Expired
    """Needed here, or behind. Whatever is neither dropped nor kept is not here."""


def judge(
    asked: Expired,
    kept_behind: Expired,
    chunk_of: Callable[[ChunkId], ChunkState],
    epoch_of: Callable[[InodeId], EpochRecord | None],
    ended_of: Callable[[ClientSessionId], int | None],
    cutoff: Cutoff,
) -> Verdict:
    """Compare records that the members behind have dropped, or keep, with what this member's store has.

    Dropped is only what is here exactly as named and over by this member's own times, and what nobody
    behind keeps: the record then goes at nobody, until a later round.
    """
    keep_chunks = dict.fromkeys(t.chunk for t in kept_behind.tombstones)
    keep_inodes = dict.fromkeys(e.inode for e in kept_behind.epochs)
    keep_sessions = dict.fromkeys(kept_behind.sessions)
    tombstones: list[tuple[ChunkId, Identity]] = []
    epochs: list[EpochRecord] = []
    sessions: list[ClientSessionId] = []
    number_floor = 0
    for one in asked.tombstones:
        state = chunk_of(one.chunk)
        if one.chunk in keep_chunks:
            continue
        if state.committed is not None and not _is_old_tombstone(state, one.identity, cutoff):
            keep_chunks[one.chunk] = None
            continue
        number_floor = max(number_floor, one.identity.update_version)
        if state.committed is not None:
            tombstones.append((one.chunk, one.identity))
    for named in asked.epochs:
        record = epoch_of(named.inode)
        if record is None or named.inode in keep_inodes:
            continue
        if _may_go(record, named.epoch, cutoff):
            epochs.append(record)
        else:
            keep_inodes[named.inode] = None
    for session in asked.sessions:
        ended_ms = ended_of(session)
        if ended_ms is None or session in keep_sessions:
            continue
        if cutoff.is_over(ended_ms):
            sessions.append(session)
        else:
            keep_sessions[session] = None
    kept = Expired(
        tombstones=tuple(t for t in asked.tombstones if t.chunk in keep_chunks),
        epochs=tuple(e for e in asked.epochs if e.inode in keep_inodes),
        sessions=tuple(s for s in asked.sessions if s in keep_sessions),
    )
    return Verdict(tuple(tombstones), tuple(epochs), tuple(sessions), number_floor, kept)


def _is_old_tombstone(state: ChunkState, identity: Identity, cutoff: Cutoff) -> bool:
    version = state.committed
    if version is None or not version.removed or version.identity != identity:
        return False
    return state.pending is None and cutoff.is_over(state.removed_ms)


def _may_go(record: EpochRecord, epoch: Epoch, cutoff: Cutoff) -> bool:
    return record.epoch == epoch and cutoff.is_over(record.raised_ms)
