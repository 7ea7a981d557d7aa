"""What a target remembers beside chunks: requests (exactly once), epochs, ended sessions, counters.

Reads go to the index each time (2 µs); every change is durable when its call returns. Source: design 4.5,
4.6, 4.9.
"""

from __future__ import annotations

from collections.abc import Sequence

from fs3.ids import ChainVersion, ChunkId, ClientSessionId, Epoch, InodeId

from .core import StoreCore
from .format import (
    CHAIN_VERSION,
    DEDUP,
    EPOCH,
    SESSION,
    after,
    chain_version_key,
    chain_version_of,
    dedup_key,
    epoch_key,
    pack_dedup,
    pack_epoch,
    pack_number,
    session_key,
    session_of,
    unpack_dedup,
    unpack_epoch,
    unpack_number,
)
from .index import Batch
from .recover import records
from .versions import DedupRecord, EpochRecord

CHANNELS_MAX = 0xFFFF


class Ledger:
    """See the module. Methods as in ``ChunkStore``."""

    def __init__(self, core: StoreCore) -> None:
        self._core = core

    # -- requests

    def dedup(self, session: ClientSessionId, channel: int) -> DedupRecord | None:
        """The record of a channel."""
        key = dedup_key(session, channel)
        value = self._core.index.get(key)
        return unpack_dedup(key, value) if value is not None else None

    def dedup_records(self, behind: tuple[ClientSessionId, int] | None, limit: int) -> list[DedupRecord]:
        """A page of the table."""
        start = dedup_key(*behind) + b"\0" if behind is not None else DEDUP
        page = self._core.index.page(start, after(DEDUP), limit)
        return [unpack_dedup(key, value) for key, value in page]

    def merge_dedup(self, new: Sequence[DedupRecord]) -> None:
        """The greater sequence of a channel wins; what an ended session had is not wanted."""
        with self._core.writer:
            batch, best = Batch(), dict[bytes, int]()
            for record in new:
                if self.session_ended(record.session):
                    continue
                key = dedup_key(record.session, record.channel)
                if key not in best:
                    present = self.dedup(record.session, record.channel)
                    best[key] = present.sequence if present is not None else -1
                if record.sequence > best[key]:
                    best[key] = record.sequence
                    batch.put(key, pack_dedup(key, record))
            self._core.apply(batch)

    def drop_dedup(self, batch: Batch) -> None:
        """Add the removal of the whole table to a batch."""
        for key, _ in records(self._core.index, DEDUP):
            batch.delete(key)

    # -- epochs

    def epoch(self, inode: InodeId) -> Epoch:
        """The epoch of a file, 0 if none was set."""
        record = self.epoch_record(inode)
        return record.epoch if record is not None else Epoch(0)

    def epoch_record(self, inode: InodeId) -> EpochRecord | None:
        """The epoch of a file and when it was raised."""
        key = epoch_key(inode)
        value = self._core.index.get(key)
        return unpack_epoch(key, value) if value is not None else None

    def set_epochs(self, new: Sequence[EpochRecord]) -> None:
        """Raise epochs; lower ones change nothing. An equal one takes the later time: whoever raises it once
        more relies on it from now on, and it must not go by its first time."""
        with self._core.writer:
            batch, best = Batch(), dict[InodeId, tuple[int, int]]()
            for record in new:
                if record.inode not in best:
                    present = self.epoch_record(record.inode)
                    best[record.inode] = (present.epoch, present.raised_ms) if present is not None else (0, 0)
                if (record.epoch, record.raised_ms) > best[record.inode] and record.epoch:
                    best[record.inode] = (record.epoch, record.raised_ms)
                    key = epoch_key(record.inode)
                    batch.put(key, pack_epoch(key, record))
            self._core.apply(batch)

    def epochs(self, behind: InodeId | None, limit: int) -> list[EpochRecord]:
        """A page of the epochs."""
        start = epoch_key(behind) + b"\0" if behind is not None else EPOCH
        page = self._core.index.page(start, after(EPOCH), limit)
        return [unpack_epoch(key, value) for key, value in page]

    def drop_epochs(self, old: Sequence[EpochRecord]) -> None:
        """Forget epochs that are still exactly these."""
        with self._core.writer:
            batch = Batch()
            for record in old:
                key = epoch_key(record.inode)
                if self._core.index.get(key) == pack_epoch(key, record):
                    batch.delete(key)
            self._core.apply(batch)

    # -- sessions

    def session_ended(self, session: ClientSessionId) -> bool:
        """Whether the end of a session was recorded."""
        return self._core.index.get(session_key(session)) is not None

    def session_ended_ms(self, session: ClientSessionId) -> int | None:
        """Cluster time of a session's end; None: no end was recorded."""
        key = session_key(session)
        value = self._core.index.get(key)
        return unpack_number(key, value) if value is not None else None

    def end_sessions(self, ends: Sequence[tuple[ClientSessionId, int]]) -> None:
        """Record (session, cluster time of its end in ms); the dedup records of these sessions go."""
        with self._core.writer:
            batch = Batch()
            for session, ended_ms in ends:
                key = session_key(session)
                if self._core.index.get(key) is None:
                    batch.put(key, pack_number(key, ended_ms))
                first, last = dedup_key(session, 0), dedup_key(session, CHANNELS_MAX)
                for found, _ in self._core.index.page(first, last + b"\0", CHANNELS_MAX + 1):
                    batch.delete(found)
            self._core.apply(batch)

    def ended_sessions(self, behind: ClientSessionId | None, limit: int) -> list[tuple[ClientSessionId, int]]:
        """A page of (session, cluster time of its end in ms)."""
        start = session_key(behind) + b"\0" if behind is not None else SESSION
        page = self._core.index.page(start, after(SESSION), limit)
        return [(session_of(key), unpack_number(key, value)) for key, value in page]

    def drop_sessions(self, sessions: Sequence[ClientSessionId]) -> None:
        """Forget ends."""
        with self._core.writer:
            batch = Batch()
            for session in sessions:
                batch.delete(session_key(session))
            self._core.apply(batch)

    # -- counters

    def raise_floor(self, number_floor: int, dropped_change: int) -> None:
        """Take the maximum with these."""
        with self._core.writer:
            self._raise(number_floor, dropped_change)
            batch = Batch()
            self._core.put_counters(batch)
            self._core.apply(batch)

    def _raise(self, number_floor: int, dropped_change: int) -> None:
        counters = self._core.counters
        with self._core.lock:
            counters.number_floor = max(counters.number_floor, number_floor)
            counters.dropped_change = max(counters.dropped_change, dropped_change)

    def drop_tombstones(self, chunks: Sequence[tuple[ChunkId, int, int]], batch: Batch) -> None:
        """Add to a batch that counters are above these dropped (chunk, number, change)."""
        for _, number, change in chunks:
            self._raise(number, change)
        self._core.put_counters(batch)

    def note_chain_version(self, version: ChainVersion, change: int | None) -> int:
        """Note a change sequence (None: that of now) for a chain version, or return the one noted before."""
        with self._core.writer:
            noted = self.chain_version_note(version)
            if noted is not None:
                return noted
            key = chain_version_key(version)
            if change is None:
                with self._core.lock:
                    change = self._core.counters.change
            batch = Batch()
            batch.put(key, pack_number(key, change))
            self._core.put_counters(batch)
            self._core.apply(batch)
            return change

    def chain_version_note(self, version: ChainVersion) -> int | None:
        """The change sequence that was noted."""
        key = chain_version_key(version)
        value = self._core.index.get(key)
        return unpack_number(key, value) if value is not None else None

    def newest_note(self) -> tuple[ChainVersion, int] | None:
        """The highest chain version that was noted, and its change sequence."""
        for key, value in self._core.index.page(CHAIN_VERSION, after(CHAIN_VERSION), 1, reverse=True):
            return chain_version_of(key), unpack_number(key, value)
        return None

    def drop_notes(self, batch: Batch, above: ChainVersion) -> None:
        """Add to a batch that the notes of all later chain versions go."""
        start = chain_version_key(above) + b"\0"
        for key, _ in records(self._core.index, CHAIN_VERSION):
            if key >= start:
                batch.delete(key)
