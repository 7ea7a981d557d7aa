"""Pages of chunk records, of either side. Blocks: in a lane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fs3.ids import ChunkId
from fs3.wire.storage import RESYNC_RECORDS_MAX, ResyncRecord

from ..engine.store import ChunkStore
from .plan import record_of

LOOK_MAX = 4096
"""Records looked at for one page: a few milliseconds."""
_STEP = 512


@dataclass(frozen=True, slots=True)
class OwnPage:
    """Chunks of the source that are to be compared."""

    chunks: tuple[ChunkId, ...]
    through: ChunkId | None
    """Everything up to here was looked at; None: everything."""
    passed_bytes: int
    """Content of all chunks looked at, compared or not."""


def own_page(store: ChunkStore, after: ChunkId | None, base: int) -> OwnPage:
    """The next chunks changed behind the change sequence ``base``, and those that have a pending version."""
    chunks: list[ChunkId] = []
    looked, passed_bytes = 0, 0
    while looked < LOOK_MAX:
        page = store.list_chunks(after, _STEP)
        for chunk, state in page:
            passed_bytes += state.committed.length_bytes if state.committed is not None else 0
            if state.change > base or state.pending is not None:
                chunks.append(chunk)
            after = chunk
            if len(chunks) == RESYNC_RECORDS_MAX:
                return OwnPage(tuple(chunks), after, passed_bytes)
        looked += len(page)
        if len(page) < _STEP:
            return OwnPage(tuple(chunks), None, passed_bytes)
    return OwnPage(tuple(chunks), after, passed_bytes)


def receiver_page(
    store: ChunkStore,
    asked: Sequence[ChunkId],
    after: ChunkId | None,
    through: ChunkId | None,
    base: int,
) -> tuple[tuple[ResyncRecord, ...], ChunkId | None]:
    """Records of the chunks asked for and of those in ``(after, through]`` changed behind ``base``; and how
    far that goes."""
    found: dict[ChunkId, ResyncRecord] = {}
    end = _look(store, found, after, through, base)
    for chunk in asked:
        if end is None or chunk <= end:
            found[chunk] = record_of(chunk, store.versions(chunk))
    return tuple(found[chunk] for chunk in sorted(found)), end


def _look(
    store: ChunkStore,
    found: dict[ChunkId, ResyncRecord],
    after: ChunkId | None,
    through: ChunkId | None,
    base: int,
) -> ChunkId | None:
    looked = 0
    while looked < LOOK_MAX:
        page = store.list_chunks(after, _STEP)
        for chunk, state in page:
            if through is not None and chunk > through:
                return through
            after = chunk
            if state.change > base and state.committed is not None:
                found[chunk] = record_of(chunk, state)
            if len(found) == RESYNC_RECORDS_MAX:
                return after
        looked += len(page)
        if len(page) < _STEP:
            return through
    return after
