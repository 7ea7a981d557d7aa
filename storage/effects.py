"""What a replica is asked and what it wants done: the words between ``replica.py`` and its runner. PURE.

Requests from outside are named by *tickets*, work that the runner does by *tokens*; both are numbers that
are never used twice. Every ticket is answered exactly once (``Answer`` or ``Fail``) unless it is cancelled.
Effects are performed in their order and before the next event is handed in.

All are ``msgspec`` structs: a frozen dataclass takes ten times as long to make, and an update takes a dozen.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from fs3.errors import Fs3Error
from fs3.ids import ChainVersion, ChunkId, ClientSessionId, Epoch, InodeId, TargetId, UpdateVersion
from fs3.routing import Member
from fs3.wire.chunk import Identity, Update, UpdateKind, VersionInfo, WriterTag

from .engine.versions import ChunkState, DedupRecord, PendingInfo

Ticket = int
Token = int


class Payload(Protocol):
    """Bytes of an update that somebody else owns; the machine only passes it on."""

    @property
    def view(self) -> memoryview:
        """The bytes."""
        ...


class StoreView(Protocol):
    """What the machine reads of the chunk store: nothing here waits."""

    @property
    def number_floor(self) -> int: ...
    def versions(self, chunk: ChunkId) -> ChunkState: ...
    def pendings(self) -> list[tuple[ChunkId, PendingInfo]]: ...
    def dedup(self, session: ClientSessionId, channel: int) -> DedupRecord | None: ...
    def epoch(self, inode: InodeId) -> Epoch: ...
    def session_ended(self, session: ClientSessionId) -> bool: ...


class WriteAsk(msgspec.Struct, frozen=True):
    """An update that has no identity yet: a client's, or the head's own (``HEAD_SESSION``)."""

    chunk: ChunkId
    chain_version: ChainVersion
    kind: UpdateKind
    offset_bytes: int
    length_bytes: int
    sums: tuple[int, ...]
    writer: WriterTag
    epoch: Epoch
    chunk_size_bytes: int


class Resynced(msgspec.Struct, frozen=True):
    """An update that brings what is committed at the predecessor already (design 4.6)."""

    replaces: Identity | None = None
    """The version whose place it takes whatever the numbers are."""
    forgets: bool = False
    """A REMOVE of exactly ``replaces``: the predecessor knows nothing of the chunk."""


class UpdateAsk(msgspec.Struct, frozen=True):
    """A numbered update from the predecessor, under the chain version that it has now."""

    update: Update
    chain_version: ChainVersion
    sender: TargetId
    resync: Resynced | None = None
    """None: a live one."""


class EpochRaise(msgspec.Struct, frozen=True):
    """No update of ``inode`` numbered under an older epoch than ``epoch`` may appear any more (4.9)."""

    inode: InodeId
    epoch: Epoch


class SessionEnd(msgspec.Struct, frozen=True):
    """Updates of a client session are refused from now on (4.5)."""

    session: ClientSessionId


Decree = EpochRaise | SessionEnd
"""What is made durable on every member, hop by hop, beside the updates of chunks."""


class Stage(msgspec.Struct, frozen=True):
    """Make the update durable as the chunk's pending version; then ``on_staged``."""

    token: Token
    update: Update
    payload: Payload | None
    dedup: DedupRecord | None
    from_client: bool
    replaces: Identity | None = None
    """As in ``StageItem``."""


class Forward(msgspec.Struct, frozen=True):
    """Send a pending version to a member, gated with ``version``; then ``on_forwarded`` or ``…_failed``."""

    token: Token
    member: Member
    version: ChainVersion
    update: Update
    """As staged; its sums are there only while ``payload`` is."""
    stored: VersionInfo
    """The pending version, from which the bytes are read when ``payload`` is None."""
    payload: Payload | None
    whole: bool
    """Send the whole chunk as a REPLACE, whatever the update was: the receiver lacks what it builds on."""


class Commit(msgspec.Struct, frozen=True):
    """Make the pending version the committed one: visible before the next event."""

    chunk: ChunkId
    identity: Identity


class Mend(msgspec.Struct, frozen=True):
    """Give a committed version the predecessor's bytes (divergence: the predecessor wins)."""

    update: Update
    """REPLACE with the identity that is committed here."""
    payload: Payload | None


class Verify(msgspec.Struct, frozen=True):
    """Bytes differ under one identity: count it, check the own blocks; then ``on_verified``."""

    chunk: ChunkId
    identity: Identity


class Repair(msgspec.Struct, frozen=True):
    """Own bytes of the committed version fail their sums: fetch them from another member."""

    chunk: ChunkId
    identity: Identity


class Record(msgspec.Struct, frozen=True):
    """Make a decree durable here; then ``on_recorded``."""

    token: Token
    decree: Decree


class PassOn(msgspec.Struct, frozen=True):
    """Send a decree to the successor; then ``on_passed`` or ``on_pass_failed``."""

    token: Token
    member: Member
    version: ChainVersion
    decree: Decree


class Done(msgspec.Struct, frozen=True):
    """The answer to a ticket of ``on_write`` or ``on_update``."""

    identity: Identity
    length_bytes: int
    content_sum: int


class Answer(msgspec.Struct, frozen=True):
    """A ticket's work is done. ``done`` is None for tickets that only waited (settle, decrees)."""

    ticket: Ticket
    done: Done | None = None
    replayed: bool = False


class Fail(msgspec.Struct, frozen=True):
    """A ticket's work was refused, or given up."""

    ticket: Ticket
    error: Fs3Error


class Adopt(msgspec.Struct, frozen=True):
    """A chain version is in force here: note the change sequence, then acknowledge it (2.2, 4.6)."""

    version: ChainVersion


class DropPendings(msgspec.Struct, frozen=True):
    """Entering SYNCING: drop pendings and dedup table durably; then ``on_pendings_dropped`` (4.6)."""

    version: ChainVersion


class GoOffline(msgspec.Struct, frozen=True):
    """An invariant does not hold: the target must not be used any more."""

    reason: str


Effect = (
    Stage
    | Forward
    | Commit
    | Mend
    | Verify
    | Repair
    | Record
    | PassOn
    | Answer
    | Fail
    | Adopt
    | DropPendings
    | GoOffline
)


def next_number(committed: VersionInfo | None, number_floor: int) -> UpdateVersion:
    """The number of the next version: numbers go on after tombstones, and after dropped ones (4.9)."""
    last = committed.identity.update_version if committed is not None else number_floor
    return UpdateVersion(last + 1)
