"""The seam between the chunk store and an ordered store of records (design 4.1).

Keys and values are bytes, keys up to 64 bytes, ordered. All changes go through ``apply``; those of one
batch happen together or not at all, and batches in the order of their calls. A batch that is not *durable*
is visible at once and may be lost by a crash, but never when a later durable one is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol


class Batch:
    """Changes that are applied in order, as one transaction."""

    __slots__ = ("changes",)

    def __init__(self) -> None:
        self.changes: list[tuple[bytes, bytes | None]] = []
        """(key, value to put, or None to delete)."""

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key."""
        self.changes.append((key, value))

    def delete(self, key: bytes) -> None:
        """Remove a key; nothing if it is not there."""
        self.changes.append((key, None))


class Index(Protocol):
    """An ordered store of records, opened by one process."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key. Does not wait for a batch that is being applied."""
        ...

    def page(
        self, start: bytes, end: bytes, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` records, ``start <= key < end``, from the low end or (``reverse``) the high end."""
        ...

    def apply(self, batch: Batch, *, durable: bool) -> None:
        """Apply a batch; ``durable``: with all before it, on the disk when this returns.

        Raises FsError ENOSPC (nothing was applied, what waited still waits), DiskFailed (unknown what was
        applied; the index is over). A batch that is not durable raises neither.
        """
        ...

    def flush(self) -> None:
        """Make everything applied so far durable; errors as ``apply``."""
        ...

    def close(self) -> None:
        """Flush and close."""
        ...


Overlay = dict[bytes, bytes | None]
"""Changes that are visible but not in the store below yet: the newest of each key, None for deleted."""


def merge_page(
    below: Iterable[tuple[bytes, bytes]], overlay: Overlay, limit: int, *, reverse: bool
) -> list[tuple[bytes, bytes]]:
    """A page of ordered records ``below`` with an overlay on top (keys of the same range only)."""
    above = sorted(overlay, reverse=reverse)
    return list(islice(_merged(iter(below), overlay, above, reverse=reverse), limit))


def _merged(
    below: Iterator[tuple[bytes, bytes]], overlay: Overlay, above: list[bytes], *, reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    for key, value in below:
        while position < len(above) and ((above[position] > key) if reverse else (above[position] < key)):
            yield from _present(above[position], overlay)
            position += 1
        if position < len(above) and above[position] == key:
            continue  # the next round yields the newer value, or none if it is deleted
        yield key, value
    for key in above[position:]:
        yield from _present(key, overlay)


def _present(key: bytes, overlay: Overlay) -> Iterator[tuple[bytes, bytes]]:
    value = overlay[key]
    if value is not None:
        yield key, value
