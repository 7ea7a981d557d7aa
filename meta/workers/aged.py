"""Which entries of a queue have not changed for a while, by one's own clock. PURE."""

from __future__ import annotations

from collections.abc import Iterable

from fs3.ids import InodeId


class Aged:
    """Remembers since when each entry has looked as it does."""

    def __init__(self, age_s: float) -> None:
        self._age_s = age_s
        self._seen: dict[InodeId, tuple[bytes, float]] = {}

    def old(self, entries: Iterable[tuple[InodeId, bytes]], now_s: float) -> list[tuple[InodeId, bytes]]:
        """Those that have been the same for ``age_s``; what is not listed any more is forgotten."""
        seen: dict[InodeId, tuple[bytes, float]] = {}
        found: list[tuple[InodeId, bytes]] = []
        for inode, value in entries:
            before = self._seen.get(inode)
            since_s = before[1] if before is not None and before[0] == value else now_s
            seen[inode] = (value, since_s)
            if now_s - since_s >= self._age_s:
                found.append((inode, value))
        self._seen = seen
        return found
