"""The storage service's methods, bound to one process."""

from __future__ import annotations

from functools import partial

from fs3.rpc.service import RANK_MAX, Routes
from fs3.wire.storage import (
    CUT,
    DROP_EXPIRED,
    END_SESSION,
    LIST_CHUNKS,
    PRESENT,
    QUERY_LENGTH,
    QUERY_VERSION,
    RAISE_EPOCH,
    READ,
    RESYNC_BEGIN,
    RESYNC_DONE,
    RESYNC_PAGE,
    RESYNC_PUT,
    RESYNC_RECORDS,
    SPACE,
    UPDATE,
    WRITE,
)

from .node import StorageNode
from .ops.cut import cut
from .ops.decrees import end_session, raise_epoch
from .ops.drop_expired import drop_expired
from .ops.list_chunks import list_chunks
from .ops.present import present
from .ops.query_length import query_length
from .ops.query_version import query_version
from .ops.read import read, read_in_thread
from .ops.resync import resync_begin, resync_done, resync_page, resync_put, resync_records
from .ops.space import space
from .ops.update import update, update_in_thread
from .ops.write import write, write_in_thread


def add_routes(routes: Routes, node: StorageNode) -> None:
    """Register every method of ``fs3.wire.storage.STORAGE``."""
    routes.add(PRESENT, partial(present, node))
    routes.add(READ, partial(read, node), in_thread=partial(read_in_thread, node))
    routes.add(WRITE, partial(write, node), in_thread=partial(write_in_thread, node), rank=lambda _: RANK_MAX)
    routes.add(
        UPDATE,
        partial(update, node),
        in_thread=partial(update_in_thread, node),
        rank=lambda request: request.behind_count,
    )
    routes.add(QUERY_VERSION, partial(query_version, node))
    routes.add(RAISE_EPOCH, partial(raise_epoch, node))
    routes.add(CUT, partial(cut, node))
    routes.add(QUERY_LENGTH, partial(query_length, node))
    routes.add(END_SESSION, partial(end_session, node))
    routes.add(SPACE, partial(space, node))
    routes.add(DROP_EXPIRED, partial(drop_expired, node))
    routes.add(RESYNC_BEGIN, partial(resync_begin, node))
    routes.add(RESYNC_RECORDS, partial(resync_records, node))
    routes.add(RESYNC_PAGE, partial(resync_page, node))
    routes.add(RESYNC_PUT, partial(resync_put, node))
    routes.add(RESYNC_DONE, partial(resync_done, node))
    routes.add(LIST_CHUNKS, partial(list_chunks, node))
