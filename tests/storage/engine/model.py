"""A chunk store as a dict: what the real one must be like, byte for byte."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from fs3.ids import ChunkId, ClientSessionId, Epoch, InodeId
from fs3.rng import Rng
from fs3.storage.engine.allocate import Block
from fs3.storage.engine.store import ChunkStore
from fs3.storage.engine.versions import DedupRecord, EpochRecord, Extent, StageItem
from fs3.wire.chunk import Identity, UpdateKind

from .shop import KIB, chunk, content, identity, remove, truncate, write


@dataclass
class Version:
    """A version: ``data`` None for a tombstone."""

    identity: Identity
    data: bytes | None


@dataclass
class Chunk:
    """Both versions of a chunk."""

    committed: Version | None = None
    pending: Version | None = None


@dataclass
class Model:
    """Everything that a store keeps."""

    chunks: dict[ChunkId, Chunk] = field(default_factory=dict)
    dedup: dict[tuple[int, int], DedupRecord] = field(default_factory=dict)
    epochs: dict[InodeId, EpochRecord] = field(default_factory=dict)
    ended: dict[ClientSessionId, int] = field(default_factory=dict)

    def copy(self) -> Model:
        """A state to go back to."""
        return copy.deepcopy(self)

    def stage(self, item: StageItem) -> None:
        """As ``ChunkStore.stage`` of a good item."""
        found = self.chunks.setdefault(item.update.chunk, Chunk())
        old = b""
        if found.committed is not None and found.committed.data is not None:
            old = found.committed.data
        found.pending = Version(item.update.identity, updated(old, item))
        if item.dedup is not None:
            self.dedup[item.dedup.session, item.dedup.channel] = item.dedup

    def commit(self, where: ChunkId) -> None:
        """As ``ChunkStore.commit`` of the pending version."""
        found = self.chunks[where]
        assert found.pending is not None
        found.committed, found.pending = found.pending, None

    def drop_pendings(self) -> None:
        """As ``ChunkStore.drop_pendings``."""
        for found in self.chunks.values():
            found.pending = None
        self.dedup = {}

    def drop_tombstone(self, where: ChunkId) -> None:
        """As ``ChunkStore.drop_tombstones`` of one that may go."""
        del self.chunks[where]

    def end_session(self, session: ClientSessionId, cluster_ms: int) -> None:
        """As ``ChunkStore.end_sessions``."""
        self.ended.setdefault(session, cluster_ms)
        self.dedup = {key: record for key, record in self.dedup.items() if key[0] != session}

    def next_number(self, where: ChunkId) -> int:
        """The number that a head would give."""
        found = self.chunks.get(where, Chunk())
        return found.committed.identity.update_version + 1 if found.committed is not None else 1

    def extent(self, inode: InodeId, which: str) -> Extent | None:
        """As ``ChunkStore.file_extent``."""
        for where in sorted(self.chunks, reverse=True):
            version: Version | None = getattr(self.chunks[where], which)
            if where.inode == inode and version is not None and version.data:
                return Extent(where.chunk_index, len(version.data))
        return None


def updated(old: bytes, item: StageItem) -> bytes | None:
    """The content after an update."""
    update, payload = item.update, bytes(item.payload)
    match update.kind:
        case UpdateKind.REMOVE:
            return None
        case UpdateKind.REPLACE:
            return payload
        case UpdateKind.TRUNCATE:
            return old[: update.length_bytes].ljust(update.length_bytes, b"\0")
        case UpdateKind.WRITE:
            if not payload:
                return old
            start, end = update.offset_bytes, update.offset_bytes + len(payload)
            return old[:start].ljust(start, b"\0") + payload + old[end:]


def check_same(store: ChunkStore, model: Model) -> None:
    """The store is what the model is, in every way that can be asked."""
    listed = dict(store.list_chunks(limit=1000))
    known = {where: one for where, one in model.chunks.items() if one.committed or one.pending}
    assert sorted(listed) == sorted(known)
    for where, one in known.items():
        state = store.versions(where)
        assert listed[where] == state
        assert (state.committed and state.committed.identity) == (one.committed and one.committed.identity)
        assert (state.pending and state.pending.version.identity) == (one.pending and one.pending.identity)
        for version in (one.committed, one.pending):
            if version is not None:
                assert content(store, where, version.identity) == version.data, where
    assert [where for where, _ in store.pendings()] == sorted(w for w, one in known.items() if one.pending)
    assert store.dedup_records(limit=1000) == [model.dedup[key] for key in sorted(model.dedup)]
    assert store.epochs() == [model.epochs[inode] for inode in sorted(model.epochs)]
    assert store.ended_sessions() == sorted(model.ended.items())
    for inode in sorted({where.inode for where in known}):
        extent = store.file_extent(inode)
        assert extent.committed == model.extent(inode, "committed")
        assert extent.pending == model.extent(inode, "pending")
    check_space(store)


def check_space(store: ChunkStore) -> None:
    """No block is lost and none is used twice."""
    core = store._core
    blocks: dict[Block | None, None] = {}
    for where, _ in store.list_chunks(limit=1000):
        entry = core.entry(where)
        versions = [entry.committed, entry.pending.version if entry.pending is not None else None]
        mine = {version.block: None for version in versions if version is not None and version.block}
        for block in mine:
            assert block not in blocks, (where, block)
            blocks[block] = None
    waiting = sum(block.size_bytes for block in core.freed)
    used = sum(block.size_bytes for block in blocks if block is not None)
    space = store.space()
    assert space.used_bytes == used + waiting
    assert space.used_bytes + space.resting_bytes <= space.prepared_bytes <= space.capacity_bytes
    assert space.chunk_count == sum(
        state.committed is not None and not state.committed.removed
        for _, state in store.list_chunks(limit=1000)
    )


_SIZES = (0, 1, 100, 4096, 5000, 64 * KIB, 64 * KIB + 1, 130 * KIB)


def random_item(rng: Rng, model: Model, where: ChunkId, tag: int) -> StageItem:
    """An update of a chunk as a head might make it."""
    which = identity(model.next_number(where), tag)
    found = model.chunks.get(where, Chunk()).committed
    length_bytes = len(found.data or b"") if found is not None else 0
    kind = rng.choice("wwwwartx")
    size_bytes = rng.choice(_SIZES)
    match kind:
        case "t":
            return truncate(where, which, rng.choice((0, length_bytes // 2, length_bytes, size_bytes)))
        case "x":
            return remove(where, which)
        case "r":
            return write(where, which, rng.randbytes(size_bytes), kind=UpdateKind.REPLACE)
        case "a":
            return write(where, which, rng.randbytes(size_bytes), length_bytes, with_dedup=True)
        case _:
            offset_bytes = rng.choice((0, length_bytes // 2, length_bytes + 10, 4096, 100 * KIB))
            return write(where, which, rng.randbytes(size_bytes), offset_bytes, with_dedup=True)


def random_chunk(rng: Rng) -> ChunkId:
    """One of few chunks of two files."""
    return chunk(rng.randrange(3), 5 + rng.randrange(2))


def epoch_record(inode: InodeId, epoch: int) -> EpochRecord:
    """An epoch."""
    return EpochRecord(inode, Epoch(epoch), epoch * 10)
