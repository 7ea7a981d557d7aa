"""Opening a store: every record is read once, its sum checked, the free map and the counters rebuilt."""

from __future__ import annotations

from collections.abc import Iterator

from fs3.errors import CorruptData, FsError, InvalidRequest
from fs3.ids import TargetId

from .allocate import CLASSES, Block
from .core import CHANGE_PAUSE, StoreCore
from .format import (
    COMMITTED,
    COUNTERS_KEY,
    FORMAT_VERSION,
    HEADER_KEY,
    PENDING,
    Header,
    after,
    chunk_of,
    high_key,
    pack_header,
    unpack_committed,
    unpack_counters,
    unpack_header,
    unpack_number,
    unpack_pending,
)
from .index import Batch, Index
from .versions import REUSE_PAUSE_S

_PAGE_RECORDS = 4096


def read_header(index: Index, directory: str, target: TargetId) -> Header:
    """The checked header of a store; InvalidRequest if there is no store, and as ``unpack_header``."""
    value = index.get(HEADER_KEY)
    if value is None:
        raise InvalidRequest(f"there is no chunk store in {directory}")
    return unpack_header(value, target)


def bring_up_to_date(index: Index, header: Header) -> None:
    """Give a store of an earlier format the present one, before its log holds anything: a program that does
    not know of the log must find out below it."""
    if header.version == FORMAT_VERSION:
        return
    batch = Batch()
    batch.put(HEADER_KEY, pack_header(header))
    try:
        index.apply(batch, durable=True)
        index.flush()
    except FsError:
        pass  # a full disk must not keep a store from being read; the next open tries again


def records(index: Index, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All records with a prefix, page by page."""
    start, end = prefix, after(prefix)
    while page := index.page(start, end, _PAGE_RECORDS):
        yield from page
        start = page[-1][0] + b"\0"


class Recovery:
    """Fills a new ``StoreCore`` from its index and files."""

    def __init__(self, core: StoreCore, index: Index, now_s: float) -> None:
        self._core = core
        self._index = index
        self._now_s = now_s
        self._change = 0

    def run(self) -> None:
        """Raises CorruptData."""
        core = self._core
        value = self._index.get(COUNTERS_KEY)
        if value is not None:
            core.counters = unpack_counters(value)
        self._change = core.counters.change
        self._read_committed()
        self._read_pending()
        core.counters.change = self._change + CHANGE_PAUSE
        high: dict[int, int] = {}
        for size_class in CLASSES:
            mark = self._index.get(high_key(size_class))
            if mark is not None:
                high[size_class] = unpack_number(high_key(size_class), mark)
        outside = core.allocator.start(high, core.load_files(), self._now_s + REUSE_PAUSE_S)
        if outside is not None:
            raise CorruptData(f"{core.directory}: a record names {outside}, which no data file has")
        self._store_change()

    def _store_change(self) -> None:
        """Else a second crash before the first durable batch would give the same change numbers again."""
        batch = Batch()
        self._core.put_counters(batch)
        try:
            self._index.apply(batch, durable=True)
        except FsError:
            pass  # a full disk must not keep a store from being read; nothing can be staged on it either

    def _read_committed(self) -> None:
        core = self._core
        for key, value in records(self._index, COMMITTED):
            stored = unpack_committed(key, value)
            self._change = max(self._change, stored.change)
            if stored.block is not None:
                self._occupy(stored.block, key)
            core.chunk_count += not stored.info.removed

    def _read_pending(self) -> None:
        core = self._core
        for key, value in records(self._index, PENDING):
            pending = unpack_pending(key, value)
            chunk = chunk_of(key)
            block = pending.version.block
            self._change = max(self._change, pending.version.change)
            core.pending[chunk] = pending
            committed = core.entry(chunk).committed
            if block is not None and (committed is None or committed.block != block):
                self._occupy(block, key)

    def _occupy(self, block: Block, key: bytes) -> None:
        if not self._core.allocator.occupy(block):
            raise CorruptData(f"{self._core.directory}: {block} belongs to {key!r} and to another chunk")
