"""The owner's table of watches: which of them a batch fires. PURE."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable

from .resolver import Resolution

WatchId = tuple[int, int]
"""(connection, number that the client chose)."""


class WatchTable:
    """Watches by key, bounded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_key: dict[bytes, dict[WatchId, bytes | None]] = {}
        self._keys: list[bytes] = []  # sorted; for cleared ranges
        self._key_of: dict[WatchId, bytes] = {}

    def __len__(self) -> int:
        return len(self._key_of)

    def add(self, watch: WatchId, key: bytes, seen: bytes | None) -> bool:
        """Keep a watch; False when the table is full or the id is in use."""
        if len(self._key_of) >= self._limit or watch in self._key_of:
            return False
        if key not in self._by_key:
            self._by_key[key] = {}
            insort(self._keys, key)
        self._by_key[key][watch] = seen
        self._key_of[watch] = key
        return True

    def drop(self, watch: WatchId) -> None:
        """Forget a watch; unknown ones are fine."""
        key = self._key_of.pop(watch, None)
        if key is None:
            return
        del self._by_key[key][watch]
        if not self._by_key[key]:
            del self._by_key[key]
            del self._keys[bisect_left(self._keys, key)]

    def drop_connection(self, connection: int) -> None:
        """Forget all watches of a connection."""
        for watch in [watch for watch in self._key_of if watch[0] == connection]:
            self.drop(watch)

    def fired_by(self, batch: Resolution, value_of: Callable[[bytes], bytes | None]) -> list[WatchId]:
        """The watches whose value is another after ``batch``; they are forgotten.

        ``value_of`` reads the store after the batch.
        """
        if not self._key_of:
            return []
        touched = {key: None for key in batch.values if key in self._by_key}
        for begin, end in batch.cleared:
            low, high = bisect_left(self._keys, begin), bisect_left(self._keys, end)
            touched.update(dict.fromkeys(self._keys[low:high]))
        fired: list[WatchId] = []
        for key in touched:
            value = batch.values[key] if key in batch.values else value_of(key)
            fired += [watch for watch, seen in self._by_key[key].items() if seen != value]
        for watch in fired:
            self.drop(watch)
        return fired
