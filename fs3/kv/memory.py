"""Engine ``mem://``: the same transactions in one process's memory, for tests and the simulated world.

``MemoryStore`` is the store; each client of it (a simulated node) has a ``MemoryKv`` of its own, with its
own faults. Nothing suspends but what the faults make wait, and a commit is applied in one step, so the
outcome depends only on the order of the calls.

Values are kept by version as long as a snapshot may ask for them (the conflict window), then dropped.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Awaitable, Iterator

from ..clock import Clock
from ..errors import (
    Busy,
    Fs3Error,
    InvalidRequest,
    TransactionConflict,
    TransactionTooOld,
    Unavailable,
)
from .attempt import Attempt
from .faults import KvFaults
from .mutations import CommitRequest, check_key
from .resolver import Decision, Resolver, Verdict
from .transaction import KvLimits, Transaction

MEMORY_LIMITS = KvLimits(inline_limit_bytes=16 * 1024)
WATCHES_MAX = 10_000
"""Watches of one client; the same as FoundationDB's default."""


class MemoryStore:
    """The data, its versions and the watches on it."""

    def __init__(self, clock: Clock, limits: KvLimits = MEMORY_LIMITS) -> None:
        self.clock = clock
        self.limits = limits
        self._resolver = Resolver(limits, 0, limits.transaction_s)
        self._values: dict[bytes, list[tuple[int, bytes | None]]] = {}  # oldest first, never empty
        self._keys: list[bytes] = []  # sorted; those of _values
        self._written: deque[tuple[int, bytes]] = deque()  # what may be dropped once its version is old
        self._watches: dict[bytes, dict[MemoryWatch, None]] = {}

    @property
    def version(self) -> int:
        """Version of the last commit."""
        return self._resolver.version

    @property
    def floor(self) -> int:
        """Snapshots below this version are gone."""
        self._resolver.expire(self.clock.boot_s())
        return self._resolver.floor

    def value_at(self, key: bytes, version: int) -> bytes | None:
        """The value that a snapshot at ``version`` (>= floor) sees."""
        for at, value in reversed(self._values.get(key, ())):
            if at <= version:
                return value
        return None

    def keys_between(self, begin: bytes, end: bytes) -> list[bytes]:
        """Keys of the range that have a value at some version, in order."""
        return self._keys[bisect_left(self._keys, begin) : bisect_left(self._keys, end)]

    def commit(self, request: CommitRequest) -> Decision:
        """Judge and apply one request; fires watches."""
        now = self.version
        resolution = self._resolver.resolve(
            [request], self.clock.boot_s(), lambda key: self.value_at(key, now)
        )
        if resolution.committed_count:
            for begin, end in resolution.cleared:
                for key in self.keys_between(begin, end):
                    if self.value_at(key, now) is not None and key not in resolution.values:
                        self._put(key, resolution.version, None)
            for key, value in resolution.values.items():
                self._put(key, resolution.version, value)
        self._forget()
        return resolution.decisions[0]

    def _put(self, key: bytes, version: int, value: bytes | None) -> None:
        versions = self._values.get(key)
        if versions is None:
            if value is None:
                return
            versions = self._values[key] = []
            insort(self._keys, key)
        versions.append((version, value))
        self._written.append((version, key))
        for watch in list(self._watches.get(key, ())):
            watch.look(value)

    def _forget(self) -> None:
        """Drop the values that no snapshot can ask for any more."""
        floor = self._resolver.floor
        while self._written and self._written[0][0] <= floor:
            _, key = self._written.popleft()
            versions = self._values.get(key)
            if versions is None:
                continue
            while len(versions) > 1 and versions[1][0] <= floor:
                del versions[0]
            if len(versions) == 1 and versions[0][1] is None and versions[0][0] <= floor:
                del self._values[key]
                del self._keys[bisect_left(self._keys, key)]

    def add_watch(self, watch: MemoryWatch) -> None:
        """Keep a watch until ``drop_watch``."""
        self._watches.setdefault(watch.key, {})[watch] = None

    def drop_watch(self, watch: MemoryWatch) -> None:
        """Forget a watch; unknown ones are fine."""
        waiting = self._watches.get(watch.key, {})
        waiting.pop(watch, None)
        if not waiting:
            self._watches.pop(watch.key, None)


class MemoryWatch:
    """One watch: a future that completes when the value is no longer the one seen."""

    __slots__ = ("_seen", "future", "key")

    def __init__(self, key: bytes, seen: bytes | None) -> None:
        self.key = key
        self._seen = seen
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def look(self, value: bytes | None) -> None:
        """Fire if ``value`` is another than the one seen."""
        if value != self._seen and not self.future.done():
            self.future.set_result(None)

    def fail(self, error: Fs3Error) -> None:
        """The store went away."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # nobody may be waiting: then it is not worth a warning


class MemorySnapshot:
    """A version of a memory store."""

    __slots__ = ("_store", "version")

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.version = store.version

    def _check(self) -> None:
        if self.version < self._store.floor:
            raise TransactionTooOld(f"version {self.version} is gone")

    def get(self, key: bytes) -> bytes | None:
        self._check()
        return self._store.value_at(key, self.version)

    def scan(self, begin: bytes, end: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        self._check()
        keys = self._store.keys_between(begin, end)
        for key in reversed(keys) if reverse else keys:
            value = self._store.value_at(key, self.version)
            if value is not None:
                yield key, value

    def close(self) -> None:
        pass


class MemoryKv:
    """``Kv`` (see there): one client's door to a memory store."""

    def __init__(self, store: MemoryStore, *, faults: KvFaults | None = None) -> None:
        self._store = store
        self._faults = faults or KvFaults()
        self.limits = store.limits
        self.clock = store.clock
        self._watches: dict[MemoryWatch, None] = {}
        self._closed = False

    def transaction(self) -> Transaction:
        return Attempt(self)

    def open_snapshot(self) -> MemorySnapshot:
        """For attempts."""
        self._check_open()
        self._faults.at_read()
        return MemorySnapshot(self._store)

    async def commit(self, request: CommitRequest, _size_bytes: int) -> bytes:
        """For attempts."""
        self._check_open()
        await self._faults.before_commit()
        decision = self._store.commit(request)
        if decision.verdict is not Verdict.COMMITTED:
            raise refusal(decision.verdict, decision.message)
        await self._faults.after_commit()
        return decision.stamp

    async def watch(self, key: bytes, seen: bytes | None) -> Awaitable[None]:
        self._check_open()
        check_key(self.limits, key)
        self._faults.at_read()
        if len(self._watches) >= WATCHES_MAX:
            raise Busy(f"this client has {WATCHES_MAX} watches")
        watch = MemoryWatch(key, seen)
        self._watches[watch] = None
        self._store.add_watch(watch)
        watch.future.add_done_callback(lambda _: self._drop(watch))
        watch.look(self._store.value_at(key, self._store.version))
        return watch.future

    def _drop(self, watch: MemoryWatch) -> None:
        self._watches.pop(watch, None)
        self._store.drop_watch(watch)

    async def aclose(self) -> None:
        self._closed = True
        for watch in list(self._watches):
            watch.fail(Unavailable("the store was closed"))

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store was closed")


def refusal(verdict: Verdict, message: str) -> Fs3Error:
    """The error for a verdict that is no commit."""
    kinds: dict[Verdict, type[Fs3Error]] = {
        Verdict.CONFLICT: TransactionConflict,
        Verdict.TOO_OLD: TransactionTooOld,
        Verdict.INVALID: InvalidRequest,
    }
    return kinds[verdict](message)
