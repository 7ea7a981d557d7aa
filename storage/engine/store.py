"""The chunk store of one target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from fs3.errors import InvalidRequest
from fs3.ids import ChainVersion, ChunkId, ClientSessionId, Epoch, InodeId, TargetId
from fs3.wire.chunk import Identity, VersionInfo

from ..disk import Disk
from .core import StoreCore, data_directory
from .format import (
    HEADER_KEY,
    SCRUB_KEY,
    Header,
    committed_key,
    pack_header,
    pack_scrub,
    unpack_scrub,
)
from .index import Batch
from .ledger import Ledger
from .listing import file_extent, info_of, list_chunks, state_of
from .pending_repair import repair_pending
from .reading import ChunkReader, HeldVersions
from .recover import Recovery, bring_up_to_date, read_header
from .scrubbing import Scrubbed, scrub_chunk
from .staging import Stager
from .versions import (
    ChunkState,
    DedupRecord,
    EngineParts,
    EngineSettings,
    EpochRecord,
    FileExtent,
    PendingInfo,
    ReadHandle,
    ScrubMark,
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
        disk = parts.disk
        disk.make_directory(data_directory(directory))
        with _locked(directory, disk):
            if disk.exists(_index_path(directory)):
                raise InvalidRequest(f"there is a chunk store in {directory} already")
            unfinished = f"{directory}/index.new"
            disk.remove_directory(unfinished)  # of an attempt that a crash ended
            index = parts.open_index(unfinished)
            try:
                batch = Batch()
                batch.put(HEADER_KEY, pack_header(Header(store_id, target, settings.file_bytes)))
                index.apply(batch, durable=True)
            finally:
                index.close()
            disk.rename(unfinished, _index_path(directory))  # from here on there is a store
            disk.sync_directory(directory)
        return cls.open(directory, target, parts, settings)

    @classmethod
    def open(
        cls, directory: str, target: TargetId, parts: EngineParts, settings: EngineSettings
    ) -> ChunkStore:
        """Open a store and check it: every record is read once (about 5 µs each).

        Raises InvalidRequest (no store there, another target's, open elsewhere), IncompatibleVersion,
        CorruptData (a record fails its sum, two versions claim one block, a data file is too short),
        DiskFailed.
        """
        disk = parts.disk
        if not disk.exists(_index_path(directory)):
            raise InvalidRequest(f"there is no chunk store in {directory}")
        with ExitStack() as undo:
            undo.enter_context(_locked(directory, disk))
            index = parts.open_index(_index_path(directory))
            undo.callback(index.close)
            header = read_header(index, directory, target)
            core = StoreCore(directory, header, index, parts, settings)
            undo.callback(core.close_files)
            bring_up_to_date(index, header)
            Recovery(core, index, parts.clock.boot_s()).run()
            return cls(core, undo.pop_all())

    def __init__(self, core: StoreCore, undo: ExitStack) -> None:
        """Use ``create`` or ``open``."""
        self._core = core
        self._undo = undo  # closes files and index, gives back the lock
        self._stager = Stager(core)
        self._reader = ChunkReader(core)
        self._ledger = Ledger(core)

    @property
    def store_id(self) -> int:
        """Given at ``create``: tells this store from one that took its place."""
        return self._core.store_id

    @property
    def target(self) -> TargetId:
        """Whose store it is."""
        return self._core.target

    def close(self) -> None:
        """Write what waits (commit marks), close files and index. Read handles must have been released."""
        with self._core.writer:
            self._undo.close()

    # -- versions

    def versions(self, chunk: ChunkId) -> ChunkState:
        """What is known of a chunk; from memory if it is hot."""
        with self._core.lock:
            entry = self._core.entry(chunk)
            return state_of(entry.committed, entry.pending)

    def pendings(self) -> list[tuple[ChunkId, PendingInfo]]:
        """Every pending version, in chunk order; from memory."""
        with self._core.lock:
            return [(chunk, info_of(pending)) for chunk, pending in sorted(self._core.pending.items())]

    def stage(self, items: Sequence[StageItem], *, cluster_ms: int = 0) -> list[StageOutcome]:
        """Durable. Make each update the pending version of its chunk: bytes, pending record, dedup record.

        One sync a data file and one durable index batch for all. An update builds on the committed version;
        a pending version of another identity is replaced; one of the same identity is answered as it is.
        ``cluster_ms`` (cluster time) is kept with tombstones. Raises DiskFailed only.
        """
        return self._stager.stage(items, cluster_ms)

    def commit(self, chunk: ChunkId, identity: Identity) -> bool:
        """Make the pending version of this identity the committed one: visible at once, on the disk before
        (or with) the next stage. True also if it was committed before; False: it is neither, or is just being
        replaced by a ``stage`` in another thread.
        """
        return self._stager.commit(chunk, identity)

    def drop_pendings(self) -> None:
        """Durable. Drop every pending version and the whole dedup table, in one transaction (design 4.6).

        Notes of chain versions above the oldest one that a dropped version was numbered under go with them:
        the others may have committed it since that version, so what changed since then is to be compared.
        """
        with self._core.writer:
            batch = Batch()
            self._ledger.drop_dedup(batch)
            dropped = [info.version.identity.chain_version for _, info in self.pendings()]
            if dropped:
                self._ledger.drop_notes(batch, min(dropped))
            self._stager.drop_pendings(batch)

    def flush(self) -> None:
        """Durable. Write commit marks that wait."""
        with self._core.writer:
            self._core.apply(Batch())

    def drop_tombstones(self, chunks: Sequence[tuple[ChunkId, Identity]]) -> None:
        """Durable. Forget removed chunks that still have this identity (others are left alone)."""
        core = self._core
        with core.writer:
            found = self._stager.tombstones(chunks)
            if not found:
                return
            batch = Batch()
            for chunk, _, _ in found:
                batch.delete(committed_key(chunk))
            self._ledger.drop_tombstones(found, batch)
            core.apply(batch)
            with core.lock:
                for chunk, _, _ in found:
                    core.cache.drop(chunk)

    # -- reading

    def read(
        self, chunk: ChunkId, identity: Identity | None, offset_bytes: int, length_bytes: int
    ) -> ReadHandle:
        """A range of the committed version (``identity`` None) or of exactly the named one.

        Whole 64 KiB blocks cost no disk access here. Ragged ends are read for their sum, and their blocks
        verified the first time: that may wait for the disk. Raises Busy (that identity is neither committed
        nor pending any more), CorruptData (bad sum or unreadable), DiskFailed.
        """
        return self._reader.read(chunk, identity, offset_bytes, length_bytes)

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
        return self._reader.read_into(chunk, identity, offset_bytes, buffer, wait=wait)

    def hold_committed(self, chunks: Sequence[ChunkId]) -> HeldVersions | None:
        """The committed versions of many chunks, to read small ranges of; ``release`` them afterwards.

        None, and nothing is held, when one of the chunks has a pending version, or no content.
        """
        return self._reader.hold_committed(chunks)

    def verify_range(
        self, chunk: ChunkId, identity: Identity | None, offset_bytes: int, length_bytes: int
    ) -> list[int]:
        """Read the 64 KiB blocks around a range of a version again and return the numbers of those that fail
        their sum, whatever is known of them. Waits. Raises Busy as ``read``, DiskFailed.
        """
        return self._reader.verify_range(chunk, identity, offset_bytes, length_bytes)

    def verify_chunk(self, chunk: ChunkId) -> list[int]:
        """Read a chunk's versions and return the numbers of the 64 KiB blocks that fail (scrub). Waits."""
        return self._reader.verify_chunk(chunk)

    def scrub_chunk(self, chunk: ChunkId, scratch: memoryview) -> Scrubbed:
        """Read a chunk's versions from the disk itself, around the page cache, and compare them with their
        sums. ``scratch``: ``PIECE_BYTES`` of page-aligned memory. Waits. Raises DiskFailed.
        """
        return scrub_chunk(self._core, chunk, scratch)

    def scrub_mark(self) -> ScrubMark:
        """How far the scrub was when it was last noted."""
        value = self._core.index.get(SCRUB_KEY)
        return unpack_scrub(value) if value is not None else ScrubMark()

    def note_scrub(self, mark: ScrubMark) -> None:
        """Keep how far the scrub is: on the disk with the next durable change, or at ``close``. A crash may
        lose it: then some chunks are looked at once more."""
        batch = Batch()
        batch.put(SCRUB_KEY, pack_scrub(mark))
        self._core.index.apply(batch, durable=False)

    def repair(self, chunk: ChunkId, version: VersionInfo, payload: memoryview) -> bool:
        """Durable. Give a version new bytes, fetched from the chain and verified by the caller.

        ``version`` has the identity that is repaired; of the committed one its sums replace the stored ones.
        False: that identity is neither pending nor committed (any more), or it is the committed one, and a
        pending version shares its block: repair that first. Raises FsError ENOSPC, DiskFailed.
        """
        put_high = self._stager.put_high
        return repair_pending(self._core, chunk, version, payload, put_high) or self._stager.repair(
            chunk, version, payload
        )

    # -- exactly once, epochs, sessions

    def dedup(self, session: ClientSessionId, channel: int) -> DedupRecord | None:
        """The record of a channel."""
        return self._ledger.dedup(session, channel)

    def dedup_records(
        self, after: tuple[ClientSessionId, int] | None = None, limit: int = 256
    ) -> list[DedupRecord]:
        """A page of the table in order of (session, channel)."""
        return self._ledger.dedup_records(after, limit)

    def merge_dedup(self, records: Sequence[DedupRecord]) -> None:
        """Durable. Take records over from a resync source; the greater sequence of a channel wins, and those
        of sessions that have ended here are left out."""
        self._ledger.merge_dedup(records)

    def epoch(self, inode: InodeId) -> Epoch:
        """The file's epoch here; 0 if none was set."""
        return self._ledger.epoch(inode)

    def epoch_record(self, inode: InodeId) -> EpochRecord | None:
        """The same with the time of its raise; None if none was set."""
        return self._ledger.epoch_record(inode)

    def set_epochs(self, records: Sequence[EpochRecord]) -> None:
        """Durable. Raise epochs; a lower one than present is ignored, an equal one takes the later time."""
        self._ledger.set_epochs(records)

    def epochs(self, after: InodeId | None = None, limit: int = 1024) -> list[EpochRecord]:
        """A page of the epochs in order of inode."""
        return self._ledger.epochs(after, limit)

    def drop_epochs(self, records: Sequence[EpochRecord]) -> None:
        """Durable. Forget epochs that are still exactly these."""
        self._ledger.drop_epochs(records)

    def session_ended(self, session: ClientSessionId) -> bool:
        """Whether the end of this client session was recorded."""
        return self._ledger.session_ended(session)

    def session_ended_ms(self, session: ClientSessionId) -> int | None:
        """Cluster time of that end; None: none was recorded."""
        return self._ledger.session_ended_ms(session)

    def end_sessions(self, sessions: Sequence[ClientSessionId], *, cluster_ms: int) -> None:
        """Durable. Record that client sessions are over, and forget their dedup records."""
        self._ledger.end_sessions([(session, cluster_ms) for session in sessions])

    def merge_sessions(self, ends: Sequence[tuple[ClientSessionId, int]]) -> None:
        """Durable. The same with each session's own cluster time of its end in ms."""
        self._ledger.end_sessions(ends)

    def ended_sessions(
        self, after: ClientSessionId | None = None, limit: int = 1024
    ) -> list[tuple[ClientSessionId, int]]:
        """A page of (session, cluster time of its end in ms)."""
        return self._ledger.ended_sessions(after, limit)

    def drop_sessions(self, sessions: Sequence[ClientSessionId]) -> None:
        """Durable. Forget that these ended (their retention is over)."""
        self._ledger.drop_sessions(sessions)

    # -- listing and counters

    def list_chunks(
        self, after: ChunkId | None = None, limit: int = 1024, *, inode: InodeId | None = None
    ) -> list[tuple[ChunkId, ChunkState]]:
        """A page of all chunks (tombstones too) behind ``after``, in order; or those of ``inode``."""
        return list_chunks(self._core, after, limit, inode)

    def file_extent(self, inode: InodeId) -> FileExtent:
        """The last chunk of a file that has bytes here, committed and pending."""
        return file_extent(self._core, inode)

    @property
    def change(self) -> int:
        """Change sequence: grows with each stage, commit and removal; never goes back, also over a crash."""
        return self._core.counters.change

    @property
    def number_floor(self) -> int:
        """A chunk without a record gets numbers above this one (tombstones were dropped; design 4.9)."""
        return self._core.counters.number_floor

    @property
    def dropped_change(self) -> int:
        """Highest change sequence among the dropped tombstones (design 4.9)."""
        return self._core.counters.dropped_change

    def raise_floor(self, number_floor: int, dropped_change: int = 0) -> None:
        """Durable. Take the maximum with a resync source's counters."""
        self._ledger.raise_floor(number_floor, dropped_change)

    def note_chain_version(self, version: ChainVersion, change: int | None = None) -> int:
        """Durable. Note the change sequence (None: of now) at which this chain version was adopted; the first
        call for a version counts."""
        return self._ledger.note_chain_version(version, change)

    def chain_version_note(self, version: ChainVersion) -> int | None:
        """The change sequence noted for a chain version; None: compare in full."""
        return self._ledger.chain_version_note(version)

    def newest_note(self) -> tuple[ChainVersion, int] | None:
        """The highest chain version noted, and its change sequence; None: none is."""
        return self._ledger.newest_note()

    def space(self) -> SpaceInfo:
        """Bytes used and left."""
        core = self._core
        capacity_bytes = core.capacity_bytes()
        with core.lock:
            allocator = core.allocator
            return SpaceInfo(
                capacity_bytes=capacity_bytes,
                prepared_bytes=allocator.prepared_bytes,
                used_bytes=allocator.used_bytes,
                resting_bytes=allocator.resting_bytes,
                chunk_count=core.chunk_count,
            )


def _lock_path(directory: str) -> str:
    return f"{directory}/lock"


def _index_path(directory: str) -> str:
    return f"{directory}/index"


@contextmanager
def _locked(directory: str, disk: Disk) -> Iterator[None]:
    """Holds the store's lock: two users of it would destroy each other's blocks."""
    if not disk.lock(_lock_path(directory)):
        raise InvalidRequest(f"the chunk store in {directory} is open elsewhere")
    try:
        yield
    finally:
        disk.unlock(_lock_path(directory))
