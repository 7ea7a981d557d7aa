"""Pages of chunks and the ends of files."""

from __future__ import annotations

from collections.abc import Callable

from fs3.ids import ChunkId, InodeId

from .core import StoreCore
from .format import (
    COMMITTED,
    PENDING,
    StoredPending,
    StoredVersion,
    after,
    chunk_of,
    unpack_committed,
    unpack_pending,
)
from .versions import ChunkState, Extent, FileExtent, PendingInfo

_TAIL_RECORDS = 16


def info_of(pending: StoredPending) -> PendingInfo:
    """A pending version as others see it."""
    return PendingInfo(pending.version.info, pending.update, pending.version.change)


def state_of(committed: StoredVersion | None, pending: StoredPending | None) -> ChunkState:
    """A chunk as others see it."""
    if pending is not None:
        info, change = info_of(pending), pending.version.change
    else:
        info, change = None, 0
    if committed is None:
        return ChunkState(None, info, change)
    return ChunkState(committed.info, info, max(change, committed.change), committed.removed_ms)


def _bounds(prefix: bytes, inode: InodeId | None) -> tuple[bytes, bytes]:
    if inode is None:
        return prefix, after(prefix)
    start = prefix + ChunkId(inode, 0).to_bytes()
    return start, prefix + ChunkId(inode, 0xFFFFFFFF).to_bytes() + b"\0"


def list_chunks(
    core: StoreCore, behind: ChunkId | None, limit: int, inode: InodeId | None
) -> list[tuple[ChunkId, ChunkState]]:
    """As ``ChunkStore.list_chunks``."""

    def page(prefix: bytes) -> list[tuple[bytes, bytes]]:
        start, end = _bounds(prefix, inode)
        if behind is not None:
            start = max(start, prefix + behind.to_bytes() + b"\0")
        return core.index.page(start, end, limit)

    # Pending ones first: one that is committed in between is then found as committed too.
    pending = {chunk_of(key): unpack_pending(key, value) for key, value in page(PENDING)}
    committed = {chunk_of(key): unpack_committed(key, value) for key, value in page(COMMITTED)}
    found: list[tuple[ChunkId, ChunkState]] = []
    for chunk in sorted({**pending, **committed})[:limit]:
        below, above = committed.get(chunk), pending.get(chunk)
        if below is not None and above is not None and below.info.identity == above.version.info.identity:
            above = None
        found.append((chunk, state_of(below, above)))
    return found


def file_extent(core: StoreCore, inode: InodeId) -> FileExtent:
    """As ``ChunkStore.file_extent``."""
    pending = _last(core, PENDING, inode, lambda key, value: unpack_pending(key, value).version)
    return FileExtent(_last(core, COMMITTED, inode, unpack_committed), pending)


def _last(
    core: StoreCore, prefix: bytes, inode: InodeId, unpack: Callable[[bytes, bytes], StoredVersion]
) -> Extent | None:
    start, end = _bounds(prefix, inode)
    while page := core.index.page(start, end, _TAIL_RECORDS, reverse=True):
        for key, value in page:
            length_bytes = unpack(key, value).info.length_bytes
            if length_bytes:
                return Extent(chunk_of(key).chunk_index, length_bytes)
            end = key
    return None
