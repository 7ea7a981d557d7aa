"""Stores for tests: on a simulated disk, or on a real one; and updates as a head would make them."""

from __future__ import annotations

from dataclasses import dataclass, field

from crc32c import crc32c

from fs3.ids import ChainVersion, ChunkId, ClientSessionId, InodeId, TargetId, UpdateVersion
from fs3.rng import Rng
from fs3.storage.disk import OsDisk
from fs3.storage.engine.logged_index import LoggedIndex, index_opener
from fs3.storage.engine.plan import sum_pieces
from fs3.storage.engine.store import ChunkStore
from fs3.storage.engine.versions import DedupRecord, EngineParts, EngineSettings, StageItem
from fs3.wire.chunk import Identity, Update, UpdateKind, UpdateResult, WriterTag

from ...sim.disk import SimDisk
from ...sim.index import SimRecords, sim_opener

TARGET = TargetId(0x10001)
KIB = 1024
MIB = 1024 * 1024
SMALL = EngineSettings(group_bytes=MIB, file_bytes=64 * MIB)


@dataclass
class HandClock:
    """A clock that is moved by hand."""

    now_s: float = 1000.0

    def boot_s(self) -> float:
        return self.now_s

    def wall_ns(self) -> int:
        return int(self.now_s * 1e9)


@dataclass
class SimShop:
    """A store on a simulated disk."""

    disk: SimDisk = field(default_factory=lambda: SimDisk(Rng(1)))
    clock: HandClock = field(default_factory=HandClock)
    settings: EngineSettings = SMALL
    log_bytes: int = 0
    """With a real log of this size in front of simulated records; 0: a simulated index."""

    @property
    def parts(self) -> EngineParts:
        opener = self._open_logged if self.log_bytes else sim_opener(self.disk)
        return EngineParts(self.disk, opener, self.clock)

    def _open_logged(self, path: str) -> LoggedIndex:
        return LoggedIndex(SimRecords(self.disk, path), self.disk, path, Rng(3), self.log_bytes)

    def create(self) -> ChunkStore:
        return ChunkStore.create("/t", TARGET, 77, self.parts, self.settings)

    def open(self) -> ChunkStore:
        return ChunkStore.open("/t", TARGET, self.parts, self.settings)


def os_parts(clock: HandClock) -> EngineParts:
    """Parts on the real disk, with LMDB."""
    disk = OsDisk()
    return EngineParts(disk, index_opener(disk, Rng(1)), clock)


def chunk(number: int, inode: int = 5) -> ChunkId:
    """A chunk of a file."""
    return ChunkId(InodeId(inode), number)


def identity(number: int, sequence: int = 1, *, session: int = 99, chain: int = 1) -> Identity:
    """An identity."""
    writer = WriterTag(ClientSessionId(session), 3, sequence)
    return Identity(ChainVersion(chain), UpdateVersion(number), writer)


def pattern(length_bytes: int, seed: int = 0) -> bytes:
    """Bytes that differ from place to place and seed to seed."""
    return Rng(seed).randbytes(length_bytes)


def sums_of(content: bytes, offset_bytes: int = 0) -> tuple[int, ...]:
    """The sums of bytes that lie at an offset of a chunk."""
    pieces = sum_pieces(offset_bytes, len(content))
    return tuple(crc32c(content[low - offset_bytes : high - offset_bytes]) for low, high in pieces)


def write(
    where: ChunkId,
    which: Identity,
    data: bytes,
    offset_bytes: int = 0,
    *,
    kind: UpdateKind = UpdateKind.WRITE,
    from_client: bool = False,
    replaces: Identity | None = None,
    with_dedup: bool = False,
) -> StageItem:
    """A WRITE or REPLACE."""
    update = Update(
        chunk=where,
        identity=which,
        kind=kind,
        offset_bytes=offset_bytes,
        length_bytes=len(data),
        sums=sums_of(data, offset_bytes),
        chunk_size_bytes=64 * MIB,
    )
    dedup = dedup_of(where, which, offset_bytes + len(data)) if with_dedup else None
    return StageItem(update, memoryview(data), dedup, from_client=from_client, replaces=replaces)


def dedup_of(where: ChunkId, which: Identity, length_bytes: int) -> DedupRecord:
    """The record of the writer that an identity names."""
    writer = which.writer
    result = UpdateResult(identity=which, length_bytes=length_bytes)
    return DedupRecord(writer.session, writer.channel, writer.sequence, where, result)


def truncate(where: ChunkId, which: Identity, length_bytes: int) -> StageItem:
    """A TRUNCATE."""
    update = Update(chunk=where, identity=which, kind=UpdateKind.TRUNCATE, length_bytes=length_bytes)
    return StageItem(update, memoryview(b""))


def remove(where: ChunkId, which: Identity) -> StageItem:
    """A REMOVE."""
    return StageItem(Update(chunk=where, identity=which, kind=UpdateKind.REMOVE), memoryview(b""))


def apply(store: ChunkStore, item: StageItem) -> None:
    """Stage and commit."""
    (outcome,) = store.stage([item])
    assert outcome.error is None, outcome
    assert store.commit(item.update.chunk, item.update.identity)


def content(store: ChunkStore, where: ChunkId, which: Identity | None = None) -> bytes | None:
    """All bytes of a version, checked against its sums; None if there is none."""
    handle = store.read(where, which, 0, 64 * MIB)
    try:
        if handle.version is None:
            return None
        data = bytearray()
        for region in handle.regions:
            buffer = memoryview(bytearray(region.length_bytes))
            region.file.pread(buffer, region.offset_bytes)
            data += buffer
        assert sums_of(bytes(data)) == handle.version.sums == handle.sums, where
        assert len(data) == handle.version.length_bytes
        return bytes(data)
    finally:
        handle.release()
