"""A transaction over a store that reads without waiting: memory and LMDB.

The engine (``AttemptHost``) gives a snapshot and takes the finished request; everything between, reading
one's own writes, conflict ranges, limits, age, is here, once.

The snapshot is opened by the first read and given back at commit, at cancel, or by the engine when it has
become too old. An attempt belongs to one task.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ..clock import Clock
from ..errors import TransactionTooOld
from .mutations import (
    KIND_OF_ATOMIC,
    STAMP_BYTES,
    CommitRequest,
    Kind,
    Mutation,
    check_key,
    check_range,
    check_size,
    check_value,
    fill_stamp,
    stamped_template,
    versionstamp,
)
from .overlay import WriteOverlay
from .ranges import KeyRange, key_after
from .transaction import AtomicOp, KvLimits, ReadTransaction


class Snapshot(Protocol):
    """The store as it was at one version."""

    version: int

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of a range, descending if ``reverse``; consumed before anything else is done."""
        ...

    def close(self) -> None:
        """Give it back; more than once is harmless."""
        ...


class AttemptHost(Protocol):
    """What an engine gives to its attempts."""

    limits: KvLimits
    clock: Clock

    def open_snapshot(self) -> Snapshot:
        """The newest version. Unavailable when there is no store."""
        ...

    async def commit(self, request: CommitRequest, size_bytes: int) -> bytes:
        """Commit and return the stamp; raises what ``Transaction.commit`` does."""
        ...


class Attempt:
    """``Transaction`` (see there)."""

    __slots__ = (
        "_done",
        "_host",
        "_mutations",
        "_opened_s",
        "_overlay",
        "_read_keys",
        "_read_ranges",
        "_snapshot",
        "_write_keys",
        "_write_ranges",
    )

    def __init__(self, host: AttemptHost) -> None:
        self._host = host
        self._snapshot: Snapshot | None = None
        self._opened_s = 0.0
        self._overlay = WriteOverlay()
        self._mutations: list[Mutation] = []
        self._read_keys: dict[bytes, None] = {}
        self._read_ranges: dict[KeyRange, None] = {}
        self._write_keys: list[bytes] = []
        self._write_ranges: list[KeyRange] = []
        self._done = False

    # ---- reads

    def _view(self) -> Snapshot:
        """The snapshot, opened if need be; TransactionTooOld when it is over age."""
        assert not self._done, "transaction used after commit or cancel"
        if self._snapshot is None:
            self._snapshot = self._host.open_snapshot()
            self._opened_s = self._host.clock.boot_s()
        else:
            self._check_age()
        return self._snapshot

    def _check_age(self) -> None:
        age_s = self._host.clock.boot_s() - self._opened_s
        if age_s > self._host.limits.transaction_s:
            raise TransactionTooOld(f"snapshot is {age_s:.1f} s old")

    def _get(self, key: bytes, *, conflict: bool) -> bytes | None:
        check_key(self._host.limits, key)
        view = self._view()
        if not self._mutations:  # nothing of one's own to be seen
            if conflict:
                self._read_keys[key] = None
            return view.get(key)
        if conflict and self._overlay.needs_base(key):
            self._read_keys[key] = None
        return self._overlay.get(key, view.get)

    def _range(
        self, begin: bytes, end: bytes, limit: int, *, reverse: bool, conflict: bool
    ) -> list[tuple[bytes, bytes]]:
        check_range(self._host.limits, begin, end)
        assert limit >= 0, limit
        if begin == end:
            return []
        view = self._view()
        overlay = self._overlay
        pairs = (
            overlay.scan(begin, end, reverse, view.get, view.scan)
            if self._mutations
            else view.scan(begin, end, reverse)
        )
        found: list[tuple[bytes, bytes]] = []
        if limit:
            for pair in pairs:
                found.append(pair)
                if len(found) == limit:
                    break
        else:
            found = list(pairs)
        if conflict:
            if limit and len(found) == limit:  # what lies beyond the last one was not looked at
                last = found[-1][0]
                begin, end = (last, end) if reverse else (begin, key_after(last))
            self._read_ranges[begin, end] = None
        return found

    async def get(self, key: bytes) -> bytes | None:
        return self._get(key, conflict=True)

    async def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        return self._range(begin, end, limit, reverse=reverse, conflict=True)

    async def read_version(self) -> int:
        return self._view().version

    @property
    def snapshot(self) -> ReadTransaction:
        return SnapshotReads(self)

    # ---- writes

    def _write(self, mutation: Mutation) -> None:
        assert not self._done, "transaction used after commit or cancel"
        self._mutations.append(mutation)

    def set(self, key: bytes, value: bytes) -> None:
        check_key(self._host.limits, key)
        check_value(self._host.limits, value)
        self._write((Kind.SET, key, value))
        self._overlay.set(key, value)

    def clear(self, key: bytes) -> None:
        check_key(self._host.limits, key)
        self._write((Kind.CLEAR, key, b""))
        self._overlay.set(key, None)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        check_range(self._host.limits, begin, end)
        if begin < end:
            self._write((Kind.CLEAR_RANGE, begin, end))
            self._overlay.clear_range(begin, end)

    def atomic(self, op: AtomicOp, key: bytes, operand: bytes) -> None:
        check_key(self._host.limits, key)
        check_value(self._host.limits, operand)
        kind = KIND_OF_ATOMIC[op]
        self._write((kind, key, operand))
        self._overlay.atomic(kind, key, operand)

    def set_versionstamped_key(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        template = stamped_template(prefix, suffix)
        check_key(self._host.limits, fill_stamp(template, bytes(STAMP_BYTES)))
        check_value(self._host.limits, value)
        self._write((Kind.STAMPED_KEY, template, value))
        lowest = self._snapshot.version if self._snapshot is not None else 0
        self._overlay.stamp_key(template, versionstamp(lowest, 0))

    def set_versionstamped_value(self, key: bytes, prefix: bytes, suffix: bytes) -> None:
        template = stamped_template(prefix, suffix)
        check_key(self._host.limits, key)
        check_value(self._host.limits, fill_stamp(template, bytes(STAMP_BYTES)))
        self._write((Kind.STAMPED_VALUE, key, template))
        self._overlay.stamp_value(key)

    # ---- conflicts

    def add_read_conflict_key(self, key: bytes) -> None:
        check_key(self._host.limits, key)
        self._read_keys[key] = None

    def add_read_conflict_range(self, begin: bytes, end: bytes) -> None:
        check_range(self._host.limits, begin, end)
        if begin < end:
            self._read_ranges[begin, end] = None

    def add_write_conflict_key(self, key: bytes) -> None:
        check_key(self._host.limits, key)
        self._write_keys.append(key)

    def add_write_conflict_range(self, begin: bytes, end: bytes) -> None:
        check_range(self._host.limits, begin, end)
        if begin < end:
            self._write_ranges.append((begin, end))

    # ---- end

    async def commit(self) -> bytes | None:
        assert not self._done, "transaction committed or cancelled before"
        if not (self._mutations or self._write_keys or self._write_ranges):
            self.cancel()
            return None
        read_version = 0
        if self._read_keys or self._read_ranges:
            # Conflicts without a read are judged from the newest version on.
            read_version = self._view().version
        request = CommitRequest(
            read_version,
            list(self._read_keys),
            list(self._read_ranges),
            self._mutations,
            self._write_keys,
            self._write_ranges,
        )
        self.cancel()  # no snapshot is held while the commit is waited for
        size_bytes = check_size(self._host.limits, request)
        return await self._host.commit(request, size_bytes)

    def cancel(self) -> None:
        self._done = True
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None


class SnapshotReads:
    """The reads of an attempt without conflicts."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    async def get(self, key: bytes) -> bytes | None:
        return self._attempt._get(key, conflict=False)

    async def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        return self._attempt._range(begin, end, limit, reverse=reverse, conflict=False)

    async def read_version(self) -> int:
        return await self._attempt.read_version()
