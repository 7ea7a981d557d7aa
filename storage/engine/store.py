"""The chunk store of one target."""

from __future__ import annotations

from collections.abc import Sequence

from fs3.ids import ChainVersion, ChunkId, ClientSessionId, Epoch, InodeId, TargetId
from fs3.wire.chunk import Identity, VersionInfo

from .versions import (
    ChunkState,
    DedupRecord,
    EngineParts,
    EngineSettings,
    EpochRecord,
    FileExtent,
    PendingInfo,
    ReadHandle,
    SmallRead,
    SpaceInfo,
    StageItem,
    StageOutcome,
)


class ChunkStore:
    """Chunks of one target: a committed version and at most one pending one each (design 4.1).

    Synchronous and thread-safe. Whatever writes to the disk (``stage``, ``set_epochs``, … : marked
    *durable*) blocks and is meant for one committer thread; ``versions``, ``commit``, ``dedup``, ``epoch``
    do not wait for the disk and may be called from an event loop. In a simulated world all is inline.

    After ``DiskFailed`` the store is over: nothing is retried (design 4.7). What was being staged may or
    may not be on the disk.
    """

    @classmethod
    def create(
        cls, directory: str, target: TargetId, store_id: int, parts: EngineParts, settings: EngineSettings
    ) -> ChunkStore:
        """Make an empty store in ``directory`` (made if missing) and open it. ``store_id``: u64, random, new.

        Raises InvalidRequest if there is a store already, DiskFailed.
        """
        raise NotImplementedError

    @classmethod
    def open(
        cls, directory: str, target: TargetId, parts: EngineParts, settings: EngineSettings
    ) -> ChunkStore:
        """Open a store and check it: every record is read once (about 5 µs each).

        Raises InvalidRequest (no store there, another target's, open elsewhere), IncompatibleVersion,
        CorruptData (a record fails its sum, two versions claim one block, a data file is too short),
        DiskFailed.
        """
        raise NotImplementedError

    store_id: int
    target: TargetId

    def close(self) -> None:
        """Write what waits (commit marks), close files and index. Read handles must have been released."""
        raise NotImplementedError

    # -- versions

    def versions(self, chunk: ChunkId) -> ChunkState:
        """What is known of a chunk; from memory if it is hot."""
        raise NotImplementedError

    def pendings(self) -> list[tuple[ChunkId, PendingInfo]]:
        """Every pending version, in chunk order; from memory."""
        raise NotImplementedError

    def stage(self, items: Sequence[StageItem], *, cluster_ms: int = 0) -> list[StageOutcome]:
        """Durable. Make each update the pending version of its chunk: bytes, pending record, dedup record.

        One sync a data file and one index transaction for all. An update builds on the committed version;
        a pending version of another identity is replaced; one of the same identity is answered as it is.
        ``cluster_ms`` (cluster time) is kept with tombstones. Raises DiskFailed only.
        """
        raise NotImplementedError

    def commit(self, chunk: ChunkId, identity: Identity) -> bool:
        """Make the pending version of this identity the committed one: visible at once, on the disk before
        (or with) the next stage. True also if it was committed before; False: it is neither.
        """
        raise NotImplementedError

    def drop_pendings(self) -> None:
        """Durable. Drop every pending version and the whole dedup table, in one transaction (design 4.6)."""
        raise NotImplementedError

    def flush(self) -> None:
        """Durable. Write commit marks that wait."""
        raise NotImplementedError

    def drop_tombstones(self, chunks: Sequence[tuple[ChunkId, Identity]]) -> None:
        """Durable. Forget removed chunks that still have this identity (others are left alone)."""
        raise NotImplementedError

    # -- reading

    def read(
        self, chunk: ChunkId, identity: Identity | None, offset_bytes: int, length_bytes: int
    ) -> ReadHandle:
        """A range of the committed version (``identity`` None) or of exactly the named one.

        Whole 64 KiB blocks cost no disk access here. Ragged ends are read for their sum, and their blocks
        verified the first time: that may wait for the disk. Raises Busy (that identity is neither committed
        nor pending any more), CorruptData (bad sum or unreadable), DiskFailed.
        """
        raise NotImplementedError

    def read_into(
        self,
        chunk: ChunkId,
        identity: Identity | None,
        offset_bytes: int,
        buffer: memoryview,
        *,
        wait: bool = False,
    ) -> SmallRead | None:
        """Read ``len(buffer)`` bytes into ``buffer``. None: the bytes are not in the page cache and ``wait``
        is false (ask again with ``wait=True`` from a thread that may block). Errors as ``read``.
        """
        raise NotImplementedError

    def verify_chunk(self, chunk: ChunkId) -> list[int]:
        """Read a chunk's versions and return the numbers of the 64 KiB blocks that fail (scrub). Waits."""
        raise NotImplementedError

    def repair(self, chunk: ChunkId, version: VersionInfo, payload: memoryview) -> bool:
        """Durable. Give the committed version new bytes, fetched from the chain and verified by the caller.

        ``version`` has the identity that is repaired; its sums replace the stored ones. False: that identity
        is not the committed one (any more), or a pending version shares its block: try later.
        """
        raise NotImplementedError

    # -- exactly once, epochs, sessions

    def dedup(self, session: ClientSessionId, channel: int) -> DedupRecord | None:
        """The record of a channel."""
        raise NotImplementedError

    def dedup_records(
        self, after: tuple[ClientSessionId, int] | None = None, limit: int = 256
    ) -> list[DedupRecord]:
        """A page of the table in order of (session, channel)."""
        raise NotImplementedError

    def merge_dedup(self, records: Sequence[DedupRecord]) -> None:
        """Durable. Take records over from a resync source; the greater sequence of a channel wins."""
        raise NotImplementedError

    def epoch(self, inode: InodeId) -> Epoch:
        """The file's epoch here; 0 if none was set."""
        raise NotImplementedError

    def set_epochs(self, records: Sequence[EpochRecord]) -> None:
        """Durable. Raise epochs; a lower one than present is ignored."""
        raise NotImplementedError

    def epochs(self, after: InodeId | None = None, limit: int = 1024) -> list[EpochRecord]:
        """A page of the epochs in order of inode."""
        raise NotImplementedError

    def drop_epochs(self, records: Sequence[EpochRecord]) -> None:
        """Durable. Forget epochs that are still exactly these."""
        raise NotImplementedError

    def session_ended(self, session: ClientSessionId) -> bool:
        """Whether the end of this client session was recorded."""
        raise NotImplementedError

    def end_sessions(self, sessions: Sequence[ClientSessionId], *, cluster_ms: int) -> None:
        """Durable. Record that client sessions are over, and forget their dedup records."""
        raise NotImplementedError

    def ended_sessions(
        self, after: ClientSessionId | None = None, limit: int = 1024
    ) -> list[tuple[ClientSessionId, int]]:
        """A page of (session, cluster time of its end in ms)."""
        raise NotImplementedError

    def drop_sessions(self, sessions: Sequence[ClientSessionId]) -> None:
        """Durable. Forget that these ended (their retention is over)."""
        raise NotImplementedError

    # -- listing and counters

    def list_chunks(
        self, after: ChunkId | None = None, limit: int = 1024, *, inode: InodeId | None = None
    ) -> list[tuple[ChunkId, ChunkState]]:
        """A page of all chunks (tombstones too) behind ``after``, in order; only those of ``inode`` if given."""
        raise NotImplementedError

    def file_extent(self, inode: InodeId) -> FileExtent:
        """The last chunk of a file that has bytes here, committed and pending."""
        raise NotImplementedError

    @property
    def change(self) -> int:
        """Change sequence: grows with each stage, commit and removal; never goes back, also over a crash."""
        raise NotImplementedError

    @property
    def number_floor(self) -> int:
        """A chunk without a record gets numbers above this one (tombstones were dropped; design 4.9)."""
        raise NotImplementedError

    @property
    def dropped_change(self) -> int:
        """Highest change sequence among the dropped tombstones (design 4.9)."""
        raise NotImplementedError

    def raise_floor(self, number_floor: int, dropped_change: int = 0) -> None:
        """Durable. Take the maximum with a resync source's counters."""
        raise NotImplementedError

    def note_chain_version(self, version: ChainVersion) -> int:
        """Durable. Note the change sequence at which this chain version was adopted (first call counts)."""
        raise NotImplementedError

    def chain_version_note(self, version: ChainVersion) -> int | None:
        """The change sequence noted for a chain version; None: compare in full."""
        raise NotImplementedError

    def space(self) -> SpaceInfo:
        """Bytes used and left."""
        raise NotImplementedError
