"""What fs3 asks of a key-value store: serializable transactions as FoundationDB defines them.

A transaction reads one snapshot (its read version) and its own writes. It commits if nothing that it
*read with conflict* was written by a transaction committed after that version; ``snapshot`` reads take no
conflict, ``add_read_conflict_*`` and ``add_write_conflict_*`` add some without reading or writing. Keys
are ordered bytes; ranges are half open.

Errors, the same from every engine: ``TransactionConflict`` and ``TransactionTooOld`` (run the body again),
``MaybeApplied`` (the commit's answer was lost: it may have happened), ``Unavailable`` (nothing was
applied), ``InvalidRequest`` (larger than FoundationDB would take: see ``KvLimits``).

A transaction object is used by one task, for one attempt: after an error take a new one. ``fs3.kv.run``
does that. An engine on local memory never suspends in a read, so an operation's body runs without a task
up to its commit.

Source: design 1 (KV store).
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KvLimits:
    """What an engine takes. All engines refuse what FoundationDB would refuse."""

    key_bytes: int = 10_000
    value_bytes: int = 100_000
    transaction_bytes: int = 1_000_000
    """Keys and values written plus conflict ranges; FoundationDB takes 10 MB, fs3 never builds above 1 MB."""
    transaction_s: float = 5.0
    """Age of a read version at which it becomes too old."""
    inline_limit_bytes: int = 4096
    """Longest file content kept beside the inode (design 3.9): 16 KiB on LMDB, 4 KiB on FoundationDB."""


class AtomicOp(enum.Enum):
    """Atomic operations on little-endian integers; they read nothing and so conflict with no other write."""

    ADD = "add"
    """Wrapping addition at the operand's width; a missing value counts as zero."""
    MAX = "max"
    """Unsigned maximum; a missing value becomes the operand."""
    MIN = "min"
    """Unsigned minimum; a missing value becomes the operand."""
    BYTE_MAX = "byte_max"
    """Lexicographic maximum."""
    COMPARE_AND_CLEAR = "compare_and_clear"
    """Clear the key if its value equals the operand."""


class ReadTransaction(Protocol):
    """Reads at one read version."""

    async def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        ...

    async def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """Pairs with ``begin <= key < end`` in order (descending with ``reverse``), at most ``limit`` if > 0.

        The conflict range covers what was looked at: up to and including the last key returned when the
        limit cut it.
        """
        ...

    async def read_version(self) -> int:
        """The read version (gets one if this transaction has none yet)."""
        ...


class Transaction(ReadTransaction, Protocol):
    """Reads, writes and one commit."""

    @property
    def snapshot(self) -> ReadTransaction:
        """The same reads without read conflicts (own writes are seen)."""
        ...

    def set(self, key: bytes, value: bytes) -> None: ...

    def clear(self, key: bytes) -> None: ...

    def clear_range(self, begin: bytes, end: bytes) -> None: ...

    def atomic(self, op: AtomicOp, key: bytes, operand: bytes) -> None: ...

    def set_versionstamped_key(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        """Set ``prefix + versionstamp (10 bytes, ordered by commit) + suffix``."""
        ...

    def set_versionstamped_value(self, key: bytes, prefix: bytes, suffix: bytes) -> None:
        """Set key to ``prefix + versionstamp (10 bytes) + suffix``."""
        ...

    def add_read_conflict_key(self, key: bytes) -> None: ...

    def add_read_conflict_range(self, begin: bytes, end: bytes) -> None: ...

    def add_write_conflict_key(self, key: bytes) -> None: ...

    def add_write_conflict_range(self, begin: bytes, end: bytes) -> None: ...

    async def commit(self) -> bytes | None:
        """Commit; returns the 10-byte versionstamp, or None if nothing was written.

        Raises TransactionConflict, TransactionTooOld, MaybeApplied, Unavailable, InvalidRequest.
        """
        ...

    def cancel(self) -> None:
        """Give up what it holds (a read snapshot). Harmless after commit; called on every path."""
        ...


class Kv(Protocol):
    """An engine, opened."""

    @property
    def limits(self) -> KvLimits: ...

    def transaction(self) -> Transaction:
        """A new attempt. Never waits."""
        ...

    async def watch(self, key: bytes, seen: bytes | None) -> Awaitable[None]:
        """Completes when ``key`` no longer has the value ``seen`` (perhaps without a change: look again).

        Returns once the watch is in force; the awaitable it returns is cancelled to give it up, and raises
        Unavailable when the store goes away.
        """
        ...

    async def aclose(self) -> None: ...
