"""Which entries of a queue have not changed for a while, by one's own clock. PURE.

The queue is looked at in pages, lap after lap; an entry that a whole lap has not shown is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence

from fs3.ids import InodeId

Entry = tuple[InodeId, bytes]


class Aged:
    """Remembers since when each entry has looked as it does."""

    def __init__(self, age_s: float, page: int) -> None:
        self._age_s = age_s
        self._page = page
        self._seen: dict[InodeId, tuple[bytes, float]] = {}
        self._lap: dict[InodeId, tuple[bytes, float]] = {}
        self.after: InodeId | None = None
        """Where the next page begins: behind this entry; None: at the start."""

    def old(self, entries: Sequence[Entry], now_s: float) -> list[Entry]:
        """Take in the page behind ``after``; returns those of it that have been the same for ``age_s``."""
        found: list[Entry] = []
        for inode, value in entries:
            before = self._seen.get(inode)
            since_s = before[1] if before is not None and before[0] == value else now_s
            self._lap[inode] = (value, since_s)
            if now_s - since_s >= self._age_s:
                found.append((inode, value))
        if len(entries) >= self._page:
            self.after = entries[-1][0]
        else:
            self._seen, self._lap, self.after = self._lap, {}, None
        return found
