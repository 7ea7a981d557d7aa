"""Half-open ranges of keys: ``begin <= key < end``. PURE.

``RangeSet`` is what own clears, conflict windows and unreadable spans are kept in.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

KeyRange = tuple[bytes, bytes]

USER_KEYS_END = b"\xff"
"""Keys from here on belong to the stores themselves (FoundationDB's system keys, the owner's records)."""


def key_after(key: bytes) -> bytes:
    """The smallest key greater than ``key``."""
    return key + b"\0"


def prefix_end(prefix: bytes) -> bytes:
    """The smallest key greater than every key that starts with ``prefix`` (which holds a byte below 0xff)."""
    stripped = prefix.rstrip(b"\xff")
    assert stripped, f"no key follows all keys with prefix {prefix!r}"
    return stripped[:-1] + bytes((stripped[-1] + 1,))


class RangeSet:
    """A set of keys made of ranges; kept sorted, disjoint and merged.

    Cost: an insertion moves the list of what follows, a question is a binary search.
    """

    __slots__ = ("_begins", "_ends")

    def __init__(self) -> None:
        self._begins: list[bytes] = []
        self._ends: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._begins)

    def __iter__(self) -> Iterator[KeyRange]:
        return iter(zip(self._begins, self._ends, strict=True))

    def add(self, begin: bytes, end: bytes) -> None:
        """Add ``[begin, end)``; an empty range adds nothing."""
        if begin >= end:
            return
        # All ranges that touch the new one are replaced by their union with it.
        first = bisect_left(self._ends, begin)
        last = bisect_right(self._begins, end)
        if first < last:
            begin = min(begin, self._begins[first])
            end = max(end, self._ends[last - 1])
        self._begins[first:last] = [begin]
        self._ends[first:last] = [end]

    def __contains__(self, key: bytes) -> bool:
        index = bisect_right(self._begins, key) - 1
        return index >= 0 and key < self._ends[index]

    def overlaps(self, begin: bytes, end: bytes) -> bool:
        """Whether any key of ``[begin, end)`` is in the set."""
        if begin >= end:
            return False
        index = bisect_right(self._ends, begin)
        return index < len(self._begins) and self._begins[index] < end

    def gaps(self, begin: bytes, end: bytes) -> list[KeyRange]:
        """The parts of ``[begin, end)`` that are not in the set, in order."""
        found: list[KeyRange] = []
        index = bisect_right(self._ends, begin)
        while begin < end and index < len(self._begins) and self._begins[index] < end:
            if begin < self._begins[index]:
                found.append((begin, self._begins[index]))
            begin = self._ends[index]
            index += 1
        if begin < end:
            found.append((begin, end))
        return found
