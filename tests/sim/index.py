"""The chunk store's index in memory, on a ``SimDisk``: it fails and forgets as the one of production does."""

from __future__ import annotations

import errno
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping

from fs3.errors import fs_error
from fs3.rng import Rng
from fs3.storage.engine.index import Batch, Index
from fs3.storage.engine.logged_index import LoggedIndex
from fs3.storage.engine.overlay import hidden_count, merge_page

from .disk import SimDisk

LOG_BYTES = 1 << 18


class SimIndex:
    """``Index``: a durable batch is there whole after a power cut or not at all; what waits is lost.

    The power may go before a durable batch (it never was) or after it (it is there, and nobody was told).
    """

    def __init__(self, disk: SimDisk, path: str) -> None:
        disk.make_directory(path)
        self._disk = disk
        self._records = disk.indexes.setdefault(path, {})
        self._keys = sorted(self._records)
        self._waiting: dict[bytes, bytes | None] = {}
        self._path = path
        self.is_full = False
        """Durable batches fail with ENOSPC."""

    def get(self, key: bytes) -> bytes | None:
        return self._waiting[key] if key in self._waiting else self._records.get(key)

    def page(
        self, start: bytes, end: bytes, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]
        if reverse:
            keys.reverse()
        above = [(key, value) for key, value in self._waiting.items() if start <= key < end]
        del keys[limit + hidden_count(above) :]
        return merge_page(((key, self._records[key]) for key in keys), above, limit, reverse=reverse)

    def apply(self, batch: Batch, *, durable: bool) -> None:
        if not durable:
            self._waiting.update(batch.changes)
            return
        self._disk.step("index")
        if self.is_full:
            raise fs_error(errno.ENOSPC, "the disk is full", self._path)
        for key, value in (*self._waiting.items(), *batch.changes):
            self._change(key, value)
        self._waiting = {}
        self._disk.step("index_answer")

    def _change(self, key: bytes, value: bytes | None) -> None:
        if value is not None:
            if key not in self._records:
                insort(self._keys, key)
            self._records[key] = value
        elif self._records.pop(key, None) is not None:
            self._keys.remove(key)

    def flush(self) -> None:
        if self._waiting:
            self.apply(Batch(), durable=True)

    def close(self) -> None:
        if self._disk.failure is None:
            self.flush()


class SimRecords:
    """``Records``: what lies below a log, with the faults of a ``SimIndex``."""

    def __init__(self, disk: SimDisk, path: str) -> None:
        self.index = SimIndex(disk, path)

    def get(self, key: bytes) -> bytes | None:
        return self.index.get(key)

    def page(
        self, start: bytes, end: bytes, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        return self.index.page(start, end, limit, reverse=reverse)

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        batch = Batch()
        batch.changes = list(changes.items())
        self.index.apply(batch, durable=True)

    def close(self) -> None:
        pass


def logged_opener(disk: SimDisk, rng: Rng) -> Callable[[str], Index]:
    """The same behind a log, as in production; one so short that it begins anew again and again."""
    return lambda path: LoggedIndex(SimRecords(disk, path), disk, path, rng, LOG_BYTES)


def sim_opener(disk: SimDisk) -> Callable[[str], Index]:
    """What opens the indexes of stores on this disk."""
    return lambda path: SimIndex(disk, path)
