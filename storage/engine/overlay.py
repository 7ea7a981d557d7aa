"""Changes that lie above an ordered store: visible already, not in it yet. PURE.

Ordered pages over thousands of changes must stay cheap, since a resync reads whole targets by pages while
writes go on: keys are kept in order from page to page, and a page looks at no more of them than it needs.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

Change = tuple[bytes, bytes | None]
"""Key, and the value to put, or None to delete."""

_CHANGE_BYTES = 150
"""Memory that CPython takes for a change beside its bytes; it bounds memory to the right order."""
_FEW_SHARE = 16
"""Fewer new keys than this part of all: each finds its place; more: all are sorted again."""


class Overlay:
    """The newest change of each key. Not thread-safe but for ``changes.get``."""

    __slots__ = ("_fresh", "_keys", "changes", "cost_bytes")

    def __init__(self) -> None:
        self.changes: dict[bytes, bytes | None] = {}
        self.cost_bytes = 0
        """Estimate of its memory, as if no change had replaced another."""
        self._keys: list[bytes] = []
        self._fresh: list[bytes] = []
        """Keys that are not in ``_keys`` yet."""

    def update(self, changes: Iterable[Change]) -> None:
        """Put changes on top, in order."""
        newest, fresh = self.changes, self._fresh
        cost_bytes = self.cost_bytes
        for key, value in changes:
            if key not in newest:
                fresh.append(key)
            newest[key] = value
            cost_bytes += _CHANGE_BYTES + len(key) + (len(value) if value is not None else 0)
        self.cost_bytes = cost_bytes

    def span(self, start: bytes, end: bytes, limit: int | None, *, reverse: bool) -> list[Change]:
        """The changes of ``start <= key < end`` in order, up to ``limit`` puts and the deletions between."""
        keys = self._ordered()
        low, high = bisect_left(keys, start), bisect_left(keys, end)
        found: list[Change] = []
        put_count = 0
        for position in range(high - 1, low - 1, -1) if reverse else range(low, high):
            if put_count == limit:
                break
            key = keys[position]
            value = self.changes[key]
            put_count += value is not None
            found.append((key, value))
        return found

    def _ordered(self) -> list[bytes]:
        if len(self._fresh) * _FEW_SHARE < len(self._keys):
            for key in self._fresh:
                insort(self._keys, key)
        else:
            self._keys += self._fresh
            self._keys.sort()
        self._fresh.clear()
        return self._keys


def hidden_count(above: Iterable[Change]) -> int:
    """How many records below may be missing from a page because of these changes."""
    return sum(value is None for _, value in above)


def merge_page(
    below: Iterable[tuple[bytes, bytes]], above: Iterable[Change], limit: int, *, reverse: bool
) -> list[tuple[bytes, bytes]]:
    """A page of ordered records with changes on top.

    Both come from the start of the same range in its order: of ``below`` at least the first ``limit`` +
    ``hidden_count(above)``, of ``above`` the first ``limit`` puts and what lies between, or all there are.
    """
    merged: dict[bytes, bytes | None] = dict(below)
    merged.update(above)
    page: list[tuple[bytes, bytes]] = []
    for key in sorted(merged, reverse=reverse):
        if len(page) == limit:
            break
        value = merged[key]
        if value is not None:
            page.append((key, value))
    return page
