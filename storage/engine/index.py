"""The seam between the chunk store and an ordered store of records (design 4.1).

Keys and values are bytes, ordered; keys have up to 64 bytes and are lower than ``RESERVED_KEYS``. All changes
go through ``apply``; those of one batch happen together or not at all, and batches in the order of their
calls. A batch that is not *durable* is visible at once and may be lost by a crash, but never when a later
durable one is there.

In production it is a ``LoggedIndex``: a log, and below it ``Records`` that are written to once in a while.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .overlay import Change

RESERVED_KEYS = b"\xff"
"""Keys from here on are the index's own."""


class Batch:
    """Changes that are applied in order, as one transaction."""

    __slots__ = ("changes",)

    def __init__(self) -> None:
        self.changes: list[Change] = []

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


class Records(Protocol):
    """An ordered store of records on the disk: what lies below a log."""

    def get(self, key: bytes) -> bytes | None:
        """As ``Index.get``."""
        ...

    def page(
        self, start: bytes, end: bytes, limit: int, *, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """As ``Index.page``."""
        ...

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Make all changes, or none; on the disk when this returns.

        Raises FsError ENOSPC (nothing happened), DiskFailed (unknown whether it did).
        """
        ...

    def close(self) -> None:
        """Close; there is nothing to write."""
        ...
