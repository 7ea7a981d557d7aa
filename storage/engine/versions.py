"""The values that the chunk store takes and gives. What they share with the wire is in ``fs3.wire.chunk``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from fs3.clock import Clock
from fs3.errors import Fs3Error
from fs3.ids import ChunkId, ClientSessionId, Epoch, InodeId
from fs3.wire.chunk import Identity, Update, UpdateResult, VersionInfo

from ..disk import Disk, DiskFile
from .index import Index

REUSE_PAUSE_S = 30.0
"""After an open no block that was ever handed out is used again for this long: a send of the process
before may still lie in a socket (design 4.1; a connection that holds one longer is reset)."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Bounds of one store."""

    capacity_bytes: int = 0
    """Bytes of blocks that the store may hold; 0: what the disk has room for."""
    full_ratio: float = 0.95
    """Above this share of the capacity a client's write that makes a new chunk is refused (ENOSPC)."""
    cache_bytes: int = 32 * 1024 * 1024
    """Bound of the chunk states kept in memory (estimated)."""
    group_bytes: int = 64 * 1024 * 1024
    """Space is taken from the disk in steps of this much (at least one block)."""
    file_bytes: int = 64 * 1024 * 1024 * 1024
    """Size of a data file; fixed when the store is created, a multiple of 64 MiB."""


@dataclass(frozen=True, slots=True)
class EngineParts:
    """What the store works with: handed in, so that a simulated world can hand in its own."""

    disk: Disk
    open_index: Callable[[str], Index]
    """Opens (or makes) the index in a directory: ``index_opener`` in production."""
    clock: Clock


class PendingInfo(msgspec.Struct, frozen=True):
    """The pending version of a chunk and what it came from."""

    version: VersionInfo
    update: Update
    """As staged, without its sums: enough to send it again (its bytes are read from the pending version)."""
    change: int
    """Change sequence of the store when it was staged."""


class ChunkState(msgspec.Struct, frozen=True):
    """What the store knows of a chunk. Both are None: it never heard of it (or its tombstone is gone)."""

    committed: VersionInfo | None
    pending: PendingInfo | None
    change: int = 0
    """Change sequence of the last stage, commit or removal of this chunk; 0 if unknown."""
    removed_ms: int = 0
    """Of a tombstone: cluster time of the removal, as handed to ``stage``."""


class DedupRecord(msgspec.Struct, frozen=True):
    """The last request of one channel of one client session that this target staged (design 4.5)."""

    session: ClientSessionId
    channel: int
    sequence: int
    chunk: ChunkId
    result: UpdateResult


class StageItem(msgspec.Struct, frozen=True):
    """One update to stage. The sums of ``update`` were verified against ``payload`` when it arrived."""

    update: Update
    payload: memoryview
    """Exactly ``update.length_bytes`` for WRITE and REPLACE, else empty. Page-aligned memory is written
    without a copy when the chunk offset is a multiple of 4 KiB too."""
    dedup: DedupRecord | None = None
    from_client: bool = False
    """True at the head only: refused with ENOSPC if it makes a new chunk on a store that is nearly full.
    A forwarded update may use the rest (design 4.7)."""
    replaces: Identity | None = None
    """The committed version whose place a REPLACE may take although its number is not higher (design 4.6).
    If it names the update's own identity, and that is pending, the pending bytes are written anew."""


class StageOutcome(msgspec.Struct, frozen=True):
    """What became of one item: a version that is durable now, or an error that left the chunk as it was.

    Errors: FsError ENOSPC; CorruptData (bytes that the update builds on fail their sum: repair, then stage
    again); InvalidRequest (outside the chunk, number not above the committed one, wrong payload length).
    """

    version: VersionInfo | None
    error: Fs3Error | None = None
    already: bool = False
    """The same identity was pending before: nothing was written."""


class Region(NamedTuple):
    """Bytes in a data file, for ``os.sendfile(socket, region.file.fileno(), …)`` or ``region.file.pread``."""

    file: DiskFile
    offset_bytes: int
    length_bytes: int


class ReadHandle(Protocol):
    """Bytes of one version of a chunk that stay as they are until ``release``."""

    version: VersionInfo | None
    """None: there is no such chunk, or it was removed; then there are no bytes."""
    offset_bytes: int
    length_bytes: int
    """Bytes of the asked range that exist: shorter at the end of the content."""
    regions: tuple[Region, ...]
    sums: tuple[int, ...]
    """CRC32C of the range, cut at multiples of SUM_BLOCK_BYTES of the chunk (as ``Update.sums``). Of whole
    blocks the stored ones, not checked against the bytes here: the receiver does (design 4.2)."""

    def release(self) -> None:
        """The bytes have left the socket (or were copied); more than one call does nothing."""
        ...


class SmallRead(NamedTuple):
    """Outcome of ``ChunkStore.read_into``."""

    version: VersionInfo | None
    length_bytes: int
    sums: tuple[int, ...]


class Extent(NamedTuple):
    """The last chunk of a file that has content here."""

    chunk_index: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class FileExtent:
    """Where a file's content ends on this target."""

    committed: Extent | None
    pending: Extent | None


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """A file's epoch on this target and when it was raised (cluster time, ms)."""

    inode: InodeId
    epoch: Epoch
    raised_ms: int


@dataclass(frozen=True, slots=True)
class SpaceInfo:
    """Bytes of blocks. ``used + resting + free <= prepared <= capacity``."""

    capacity_bytes: int
    prepared_bytes: int
    """Taken from the disk."""
    used_bytes: int
    """Held by versions."""
    resting_bytes: int
    """Freed, not to be used yet: readers, sends, or the pause after an open."""
    chunk_count: int


class ScrubMark(NamedTuple):
    """How far the scrub of a store is."""

    began_ms: int = 0
    """Cluster time at which the round under way began; 0: none is."""
    ended_ms: int = 0
    """Cluster time at which the last whole round ended; 0: there was none."""
    read_bytes: int = 0
    """By this round, or, between rounds, by the last one; so are the next two."""
    chunk_count: int = 0
    """Chunks with content that were looked at."""
    bad_count: int = 0
    """Blocks found wrong."""
    after: ChunkId | None = None
    """All chunks up to here were looked at; None: none was."""
