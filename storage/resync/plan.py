"""What is to be done about one chunk: what the source has against what the receiver said it has. PURE."""

from __future__ import annotations

from dataclasses import dataclass

from fs3.ids import HEAD_SESSION, ChainVersion, ChunkId
from fs3.wire.chunk import Identity, UpdateKind, WriterTag
from fs3.wire.storage import ResyncRecord

from ..engine.versions import ChunkState
from ..sums import content_sum

FORGOTTEN = WriterTag(HEAD_SESSION, 0, 0)
"""Writer of the removal of a chunk that the source knows nothing of; no update of a head has sequence 0."""


@dataclass(frozen=True, slots=True)
class Put:
    """Send the committed version, or its removal."""

    kind: UpdateKind
    identity: Identity
    length_bytes: int = 0
    replaces: Identity | None = None
    """The receiver's version whose place it takes although its number is not lower."""
    forgets: bool = False
    """The source knows nothing of the chunk."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Wait until this pending version of the source is committed: that takes the receiver."""

    pending: Identity


Action = Put | Settle


def record_of(chunk: ChunkId, state: ChunkState) -> ResyncRecord:
    """What is committed of a chunk, as members tell each other."""
    version = state.committed
    if version is None:
        return ResyncRecord(chunk)
    return ResyncRecord(chunk, version.identity, content_sum(version.sums), version.removed)


def decide(state: ChunkState, there: ResyncRecord, version: ChainVersion) -> Action | None:
    """None: nothing is to be done. ``version``: the present one, of both."""
    own, have = state.committed, there.identity
    if own is not None and own.identity.chain_version == version:
        return None  # committed here after the receiver had staged it
    if have is not None and have.chain_version == version and have.writer != FORGOTTEN:
        return None  # written there in this version: whatever was read here is older
    pending = state.pending.version.identity if state.pending is not None else None
    if pending is not None and not _is_barred(pending, have):
        return Settle(pending)
    if own is None:
        return _forget(have, version) if have is not None else None
    if own.identity == have and content_sum(own.sums) == there.content_sum:
        return None
    is_higher = have is not None and have.update_version >= own.identity.update_version
    kind = UpdateKind.REMOVE if own.removed else UpdateKind.REPLACE
    return Put(kind, own.identity, own.length_bytes, have if is_higher and have != own.identity else None)


def _is_barred(pending: Identity, have: Identity | None) -> bool:
    """The receiver has a version of another history in the pending one's place: that goes first."""
    return have is not None and have != pending and have.update_version >= pending.update_version


def _forget(have: Identity, version: ChainVersion) -> Put:
    identity = Identity(version, have.update_version, FORGOTTEN)
    return Put(UpdateKind.REMOVE, identity, replaces=have, forgets=True)
