"""Gives a pending version right bytes again: in a block of its own, as the same version."""

from __future__ import annotations

from collections.abc import Callable

from fs3.ids import ChunkId
from fs3.wire.chunk import VersionInfo

from .allocate import Block
from .core import StoreCore
from .format import StoredPending, StoredVersion, committed_key, pack_committed, pack_pending, pending_key
from .index import Batch


def repair_pending(
    core: StoreCore,
    chunk: ChunkId,
    version: VersionInfo,
    payload: memoryview,
    put_high: Callable[[Batch, Block], None],
) -> bool:
    """Durable. False: this version is not the pending one (any more). Raises FsError ENOSPC, DiskFailed."""
    if len(payload) != version.length_bytes:
        return False
    with core.writer:
        with core.lock:
            if _pending(core, chunk, version) is None:
                return False
        block = core.written(payload)
        if not _put_in_place(core, chunk, version, block, put_high):
            return False
        core.apply_repair()
        return True


def _pending(core: StoreCore, chunk: ChunkId, version: VersionInfo) -> StoredPending | None:
    pending = core.pending.get(chunk)
    if pending is None or pending.version.info.identity != version.identity:
        return None
    return pending if pending.version.block is not None else None


def _put_in_place(
    core: StoreCore,
    chunk: ChunkId,
    version: VersionInfo,
    block: Block,
    put_high: Callable[[Batch, Block], None],
) -> bool:
    """Let ``block`` be the pending version's unless a commit came in between."""
    with core.lock:
        old = _pending(core, chunk, version)
        if old is None:
            core.allocator.give_back(block)
            return False
        entry, was = core.entry(chunk), old.version
        stored = StoredVersion(was.info, block, version.length_bytes, was.change, was.removed_ms)
        batch = Batch()
        if entry.committed is not None and entry.committed.block == was.block:
            # the block stays the committed one's, with bytes behind its end that readers may have
            entry.committed = entry.committed.with_high_water(was.high_water_bytes)
            key = committed_key(chunk)
            batch.put(key, pack_committed(key, entry.committed))
        elif was.block is not None:
            core.freed.append(was.block)
        key = pending_key(chunk)
        entry.pending = core.pending[chunk] = StoredPending(stored, old.update)
        batch.put(key, pack_pending(key, entry.pending))
        put_high(batch, block)
        core.index.apply(batch, durable=False)
        core.cache.put(chunk, entry)
        return True
