"""Pages of what goes before chunks: epochs, ended sessions, channels. Blocks: in a lane.

Each gives the message (None: there is nothing to send) and the key to go on behind (None: that was all).
"""

from __future__ import annotations

from typing import Any

from fs3.wire.storage import (
    RESYNC_RECORDS_MAX,
    ResyncChannel,
    ResyncEpoch,
    ResyncFrom,
    ResyncRecordsRequest,
    ResyncSession,
)

from ..dedup import Found, find
from ..engine.store import ChunkStore
from ..engine.versions import DedupRecord

Page = tuple[ResyncRecordsRequest | None, Any]


def epochs_page(store: ChunkStore, source: ResyncFrom, after: Any) -> Page:
    """Of the files' epochs."""
    page = store.epochs(after, RESYNC_RECORDS_MAX)
    if not page:
        return None, None
    epochs = tuple(ResyncEpoch(record.inode, record.epoch, record.raised_ms) for record in page)
    return ResyncRecordsRequest(source=source, epochs=epochs), _behind(len(page), page[-1].inode)


def sessions_page(store: ChunkStore, source: ResyncFrom, after: Any) -> Page:
    """Of the client sessions that are over."""
    page = store.ended_sessions(after, RESYNC_RECORDS_MAX)
    if not page:
        return None, None
    sessions = tuple(ResyncSession(session, ended_ms) for session, ended_ms in page)
    return ResyncRecordsRequest(source=source, sessions=sessions), _behind(len(page), page[-1][0])


def channels_page(store: ChunkStore, source: ResyncFrom, after: Any) -> Page:
    """Of the channels' last requests, those whose version is committed: the record of a pending one travels
    with that version (``chain_model`` V5)."""
    page = store.dedup_records(after, RESYNC_RECORDS_MAX)
    channels = tuple(
        ResyncChannel(r.session, r.channel, r.sequence, r.chunk, r.result)
        for r in page
        if _is_committed(store, r)
    )
    behind = _behind(len(page), (page[-1].session, page[-1].channel)) if page else None
    return ResyncRecordsRequest(source=source, channels=channels) if channels else None, behind


def _is_committed(store: ChunkStore, record: DedupRecord) -> bool:
    state = store.versions(record.chunk)
    pending = state.pending.version if state.pending is not None else None
    found = find(record.result.identity, state.committed, pending, store.number_floor)
    return found is Found.COMMITTED


def _behind(count: int, last: Any) -> Any:
    return last if count == RESYNC_RECORDS_MAX else None
