"""Buffered writes over a snapshot: what a reader sees that has written and not yet committed. PURE.

Used in two places: by a transaction that reads its own writes, and by the resolver, which folds a whole
batch of commits into one final state. A key is in one of these states:

* known: its value (or absence) is decided here, the snapshot does not matter;
* deferred: atomic operations wait for the snapshot's value;
* unreadable: the value holds a stamp that only the commit will give (reading it is an error, as in
  FoundationDB: 1036);
* untouched: as in the snapshot, or absent if inside a cleared range.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from ..errors import InvalidRequest
from .mutations import STAMP_BYTES, Kind, Mutation, apply_atomic, fill_stamp
from .ranges import RangeSet, key_after

BaseGet = Callable[[bytes], bytes | None]
BaseScan = Callable[[bytes, bytes, bool], Iterator[tuple[bytes, bytes]]]
"""(begin, end, reverse) → pairs in order (descending if reverse)."""


class Deferred:
    """Atomic operations that wait for the snapshot's value.

    Never inside a cleared range: a clear takes deferred operations away, and after it the value is known.
    """

    __slots__ = ("operations",)

    def __init__(self) -> None:
        self.operations: list[tuple[int, bytes]] = []

    def on(self, value: bytes | None) -> bytes | None:
        """The value after all operations."""
        for kind, operand in self.operations:
            value = apply_atomic(kind, value, operand)
        return value


class _Unreadable:
    """Only the commit knows the value."""


class _Untouched:
    """Nothing was written here."""


UNREADABLE = _Unreadable()
UNTOUCHED = _Untouched()

State = bytes | None | Deferred | _Unreadable
"""State of a key that was written: bytes or None are known."""


class WriteOverlay:
    """Writes in the order of their calls, folded."""

    __slots__ = ("_order", "cleared", "points", "unreadable")

    def __init__(self) -> None:
        self.points: dict[bytes, State] = {}
        """Keys written one by one; they lie over ``cleared``."""
        self.cleared = RangeSet()
        self.unreadable = RangeSet()
        """Where a key with an open stamp may come to lie."""
        self._order: list[bytes] | None = []  # sorted keys of points, None when it must be made anew

    def __bool__(self) -> bool:
        return bool(self.points or self.cleared or self.unreadable)

    def set(self, key: bytes, value: bytes | None) -> None:
        """The value of ``key`` is known from now on; None: absent."""
        if key not in self.points:
            self._order = None
        self.points[key] = value

    def clear_range(self, begin: bytes, end: bytes) -> None:
        """No key of the range is present from now on."""
        order = self._sorted()
        low, high = bisect_left(order, begin), bisect_left(order, end)
        for key in order[low:high]:
            del self.points[key]
        del order[low:high]
        self.cleared.add(begin, end)

    def atomic(self, kind: int, key: bytes, operand: bytes) -> None:
        """One atomic operation."""
        state = self.state(key)
        if isinstance(state, _Unreadable):
            return
        if isinstance(state, bytes) or state is None:
            self.set(key, apply_atomic(kind, state, operand))
            return
        if isinstance(state, _Untouched):
            state = Deferred()
            self._order = None
            self.points[key] = state
        state.operations.append((kind, operand))

    def stamp_value(self, key: bytes) -> None:
        """The value will hold a stamp."""
        if key not in self.points:
            self._order = None
        self.points[key] = UNREADABLE

    def stamp_key(self, template: bytes, lowest_stamp: bytes) -> None:
        """A key with a stamp above ``lowest_stamp`` will be written."""
        begin = fill_stamp(template, lowest_stamp)
        self.unreadable.add(begin, key_after(fill_stamp(template, b"\xff" * STAMP_BYTES)))

    def state(self, key: bytes) -> State | _Untouched:
        """What is known about ``key`` without the snapshot."""
        if key in self.points:
            return self.points[key]
        return None if key in self.cleared else UNTOUCHED

    def needs_base(self, key: bytes) -> bool:
        """Whether reading ``key`` looks at the snapshot (and so takes a conflict)."""
        return isinstance(self.state(key), (Deferred, _Untouched))

    def get(self, key: bytes, base: BaseGet) -> bytes | None:
        """The value as the writer sees it; InvalidRequest where only the commit knows."""
        if self.unreadable and key in self.unreadable:
            raise InvalidRequest(f"key {key[:32]!r} may get a versionstamp from this transaction")
        state = self.state(key)
        if isinstance(state, _Untouched):
            return base(key)
        return self._value(key, state, base)

    def _value(self, key: bytes, state: State, base: BaseGet) -> bytes | None:
        if isinstance(state, _Unreadable):
            raise InvalidRequest(f"value of {key[:32]!r} gets its versionstamp at commit")
        if isinstance(state, Deferred):
            return state.on(base(key))
        return state

    def scan(
        self, begin: bytes, end: bytes, reverse: bool, base_get: BaseGet, base_scan: BaseScan
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of the range as the writer sees them, in order."""
        if self.unreadable.overlaps(begin, end):
            raise InvalidRequest(f"range from {begin[:32]!r} may get a versionstamp from this transaction")
        order = self._sorted()
        own = order[bisect_left(order, begin) : bisect_left(order, end)]
        if reverse:
            own.reverse()
        index = 0
        for key, value in self._untouched(begin, end, reverse, base_scan):
            while index < len(own) and ((own[index] > key) if reverse else (own[index] < key)):
                yield from self._own(own[index], base_get)
                index += 1
            if index < len(own) and own[index] == key:
                continue  # comes with the own ones, next round
            yield key, value
        for key in own[index:]:
            yield from self._own(key, base_get)

    def _own(self, key: bytes, base: BaseGet) -> Iterator[tuple[bytes, bytes]]:
        value = self._value(key, self.points[key], base)
        if value is not None:
            yield key, value

    def _untouched(
        self, begin: bytes, end: bytes, reverse: bool, scan: BaseScan
    ) -> Iterator[tuple[bytes, bytes]]:
        gaps = self.cleared.gaps(begin, end)
        for low, high in reversed(gaps) if reverse else gaps:
            yield from scan(low, high, reverse)

    def _sorted(self) -> list[bytes]:
        if self._order is None:
            self._order = sorted(self.points)
        return self._order


def fold(overlay: WriteOverlay, mutation: Mutation, stamp: bytes) -> None:
    """Apply a mutation whose stamp is known."""
    kind, key, value = mutation
    if kind == Kind.SET:
        overlay.set(key, value)
    elif kind == Kind.CLEAR:
        overlay.set(key, None)
    elif kind == Kind.CLEAR_RANGE:
        overlay.clear_range(key, value)
    elif kind == Kind.STAMPED_KEY:
        overlay.set(fill_stamp(key, stamp), value)
    elif kind == Kind.STAMPED_VALUE:
        overlay.set(key, fill_stamp(value, stamp))
    else:
        overlay.atomic(kind, key, value)
