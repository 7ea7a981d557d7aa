"""Chunk states in memory, the least recently used forgotten first."""

from __future__ import annotations

from collections import OrderedDict

from fs3.ids import ChunkId

from .format import StoredPending, StoredVersion

_ENTRY_BYTES = 500
_VERSION_BYTES = 600
_SUM_BYTES = 40
"""Rough costs in CPython: they bound memory to the right order, no more is needed."""


class Entry:
    """What is known of one chunk."""

    __slots__ = ("committed", "pending")

    def __init__(self, committed: StoredVersion | None, pending: StoredPending | None) -> None:
        self.committed = committed
        self.pending = pending

    def cost_bytes(self) -> int:
        """Estimate of the memory it takes."""
        total = _ENTRY_BYTES
        if self.committed is not None:
            total += _VERSION_BYTES + _SUM_BYTES * len(self.committed.info.sums)
        if self.pending is not None:
            total += _VERSION_BYTES + _SUM_BYTES * len(self.pending.version.info.sums)
        return total


class StateCache:
    """At most about ``limit_bytes`` of entries; not thread-safe (the store's lock is held)."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._entries: OrderedDict[ChunkId, tuple[Entry, int]] = OrderedDict()

    def get(self, chunk: ChunkId) -> Entry | None:
        """The entry, now the most recently used."""
        found = self._entries.get(chunk)
        if found is None:
            return None
        self._entries.move_to_end(chunk)
        return found[0]

    def put(self, chunk: ChunkId, entry: Entry) -> None:
        """Keep an entry (again: its cost may have changed)."""
        cost_bytes = entry.cost_bytes()
        old = self._entries.pop(chunk, None)
        self._used_bytes += cost_bytes - (old[1] if old is not None else 0)
        self._entries[chunk] = (entry, cost_bytes)
        while self._used_bytes > self._limit_bytes and len(self._entries) > 1:
            _, (_, gone_bytes) = self._entries.popitem(last=False)
            self._used_bytes -= gone_bytes

    def drop(self, chunk: ChunkId) -> None:
        """Forget a chunk."""
        old = self._entries.pop(chunk, None)
        if old is not None:
            self._used_bytes -= old[1]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def used_bytes(self) -> int:
        """Estimated memory."""
        return self._used_bytes
