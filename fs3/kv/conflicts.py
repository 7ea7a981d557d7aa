"""The conflict window: what was written in the last seconds, asked "has anything here changed since?". PURE.

Commits come in batches; a batch has one version. For points the newest version is kept by key. For ranges
each batch is asked, newest first, down to the read version: most transactions read a version that is a few
batches old, so this is a few binary searches, and at the very most one for each batch of the window.

Invariant: every write with a version above ``floor`` is remembered; a read version below it cannot be
judged, and is *too old*.

Source: design 1 (Embedded LMDB).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence

from .ranges import KeyRange, RangeSet

WINDOW_S = 5.0
"""As long as FoundationDB remembers."""


class _Batch:
    """The writes of one version."""

    __slots__ = ("_ordered", "at_s", "keys", "ranges", "version")

    def __init__(self, version: int, at_s: float) -> None:
        self.version = version
        self.at_s = at_s
        self.keys: dict[bytes, None] = {}
        self.ranges = RangeSet()
        self._ordered: list[bytes] | None = None  # built when a range is first asked about

    def add_key(self, key: bytes) -> None:
        if self._ordered is not None and key not in self.keys:
            insort(self._ordered, key)
        self.keys[key] = None

    def touches(self, begin: bytes, end: bytes) -> bool:
        if self.ranges.overlaps(begin, end):
            return True
        if self._ordered is None:
            self._ordered = sorted(self.keys)
        index = bisect_left(self._ordered, begin)
        return index < len(self._ordered) and self._ordered[index] < end


class ConflictWindow:
    """Writes by version, forgotten after ``window_s``."""

    def __init__(self, floor: int, window_s: float = WINDOW_S) -> None:
        self.floor = floor
        """Read versions below this are too old. At the start: the version of the store's last commit."""
        self._window_s = window_s
        self._batches: deque[_Batch] = deque()
        self._with_ranges: deque[_Batch] = deque()
        self._last: dict[bytes, int] = {}

    def __len__(self) -> int:
        """Keys remembered (points only)."""
        return len(self._last)

    def open_batch(self, version: int, now_s: float) -> None:
        """Writes that are added from now on have this version; forgets what has become too old."""
        newest = self._batches[-1].version if self._batches else self.floor
        assert version > newest, (version, newest)
        self.expire(now_s)
        self._batches.append(_Batch(version, now_s))

    def add(self, keys: Iterable[bytes], ranges: Iterable[KeyRange]) -> None:
        """Writes of one commit of the open batch."""
        batch = self._batches[-1]
        for key in keys:
            batch.add_key(key)
            self._last[key] = batch.version
        for begin, end in ranges:
            batch.ranges.add(begin, end)
        if batch.ranges and (not self._with_ranges or self._with_ranges[-1] is not batch):
            self._with_ranges.append(batch)

    def abandon_batch(self) -> None:
        """Take back an open batch that nothing was added to."""
        batch = self._batches.pop()
        assert not batch.keys and not batch.ranges, batch.version

    def conflicts(self, read_version: int, keys: Sequence[bytes], ranges: Sequence[KeyRange]) -> bool:
        """Whether anything of ``keys`` and ``ranges`` was written after ``read_version`` (>= floor)."""
        assert read_version >= self.floor, (read_version, self.floor)
        last = self._last
        for key in keys:
            if last.get(key, 0) > read_version:
                return True
        for batch in reversed(self._with_ranges):
            if batch.version <= read_version:
                break
            if any(key in batch.ranges for key in keys):
                return True
        if ranges:
            for batch in reversed(self._batches):
                if batch.version <= read_version:
                    break
                if any(batch.touches(begin, end) for begin, end in ranges):
                    return True
        return False

    def expire(self, now_s: float) -> None:
        """Forget batches older than the window and raise the floor over them."""
        batches, last = self._batches, self._last
        while batches and batches[0].at_s < now_s - self._window_s:
            batch = batches.popleft()
            self.floor = batch.version
            for key in batch.keys:
                if last[key] == batch.version:
                    del last[key]
            if self._with_ranges and self._with_ranges[0] is batch:
                self._with_ranges.popleft()
