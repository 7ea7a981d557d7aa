"""A chunk store in memory with the promises of the real one, crashes included.

Stages are durable when ``stage`` is called (the world decides when that is); commit marks only with the next
stage. ``crash`` gives the store as the disk would have it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from crc32c import crc32c

from fs3.errors import Fs3Error
from fs3.ids import ChunkId, ClientSessionId, Epoch, InodeId
from fs3.storage.effects import EpochRaise, SessionEnd
from fs3.storage.engine.versions import ChunkState, DedupRecord, PendingInfo
from fs3.wire.chunk import Identity, Update, UpdateKind, VersionInfo


@dataclass
class Records:
    committed: dict[ChunkId, VersionInfo] = field(default_factory=dict)
    pending: dict[ChunkId, PendingInfo] = field(default_factory=dict)
    content: dict[tuple[ChunkId, Identity], bytes] = field(default_factory=dict)
    dedup: dict[tuple[ClientSessionId, int], DedupRecord] = field(default_factory=dict)
    epochs: dict[InodeId, Epoch] = field(default_factory=dict)
    ended: dict[ClientSessionId, None] = field(default_factory=dict)


class ModelStore:
    number_floor = 0

    def __init__(self, records: Records | None = None) -> None:
        self.now = records or Records()
        self._disk = copy.deepcopy(self.now)
        self.change = 0

    def crash(self) -> ModelStore:
        """The store that is found after a crash."""
        return ModelStore(self._disk)

    def versions(self, chunk: ChunkId) -> ChunkState:
        return ChunkState(self.now.committed.get(chunk), self.now.pending.get(chunk))

    def pendings(self) -> list[tuple[ChunkId, PendingInfo]]:
        return sorted(self.now.pending.items(), key=lambda item: item[0])

    def dedup(self, session: ClientSessionId, channel: int) -> DedupRecord | None:
        return self.now.dedup.get((session, channel))

    def epoch(self, inode: InodeId) -> Epoch:
        return self.now.epochs.get(inode, Epoch(0))

    def session_ended(self, session: ClientSessionId) -> bool:
        return session in self.now.ended

    def bytes_of(self, chunk: ChunkId, identity: Identity | None) -> bytes:
        return self.now.content[chunk, identity] if identity is not None else b""

    def stage(
        self, update: Update, payload: bytes, dedup: DedupRecord | None
    ) -> tuple[VersionInfo | None, Fs3Error | None]:
        chunk = update.chunk
        held = self.now.pending.get(chunk)
        if held is not None and held.version.identity == update.identity:
            return held.version, None
        base = self.now.committed.get(chunk)
        content = _applied(self.bytes_of(chunk, base.identity if base else None), update, payload)
        version = VersionInfo(
            identity=update.identity,
            length_bytes=len(content),
            sums=(crc32c(content),) if content else (),
            removed=update.kind is UpdateKind.REMOVE,
        )
        self.change += 1
        self.now.pending[chunk] = PendingInfo(version, update, self.change)
        self.now.content[chunk, update.identity] = content
        if dedup is not None:
            self.now.dedup[dedup.session, dedup.channel] = dedup
        self._sync()
        return version, None

    def commit(self, chunk: ChunkId, identity: Identity) -> bool:
        held = self.now.pending.get(chunk)
        if held is not None and held.version.identity == identity:
            del self.now.pending[chunk]
            self.now.committed[chunk] = held.version
            return True
        present = self.now.committed.get(chunk)
        return present is not None and present.identity == identity

    def record(self, decree: EpochRaise | SessionEnd) -> None:
        match decree:
            case EpochRaise(inode, epoch):
                self.now.epochs[inode] = max(epoch, self.epoch(inode))
            case SessionEnd(session):
                self.now.ended[session] = None
                for key in [key for key in self.now.dedup if key[0] == session]:
                    del self.now.dedup[key]
        self._sync()

    def drop_pendings(self) -> None:
        self.now.pending.clear()
        self.now.dedup.clear()
        self._sync()

    def _sync(self) -> None:
        self._disk = copy.deepcopy(self.now)


def _applied(old: bytes, update: Update, payload: bytes) -> bytes:
    match update.kind:
        case UpdateKind.WRITE:
            start, end = update.offset_bytes, update.offset_bytes + update.length_bytes
            return old[:start].ljust(start, b"\0") + payload + old[end:]
        case UpdateKind.TRUNCATE:
            return old[: update.length_bytes].ljust(update.length_bytes, b"\0")
        case UpdateKind.REMOVE:
            return b""
        case UpdateKind.REPLACE:
            return payload
