"""Engine ``fdb://CLUSTERFILE``: FoundationDB through its official binding.

The binding's own transactions do everything (own writes, conflicts, limits); this file turns its futures
into awaits and its error codes into ours. The binding is seen through ``Binding``, the few calls that are
used, so that a double of exactly these passes the same tests.

The binding calls back on its network thread; nothing but ``call_soon_threadsafe`` happens there. It and its
C library are loaded when a store is opened, not before: neither is needed for anything else.

Source: design 1 (FoundationDB). Error codes: FoundationDB's documentation, "Error codes".
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

from ..errors import (
    Busy,
    Fs3Error,
    InternalError,
    InvalidRequest,
    MaybeApplied,
    TransactionConflict,
    TransactionTooOld,
    Unavailable,
)
from .mutations import (
    STAMP_BYTES,
    check_key,
    check_range,
    check_value,
    fill_stamp,
    stamped_template,
)
from .ranges import key_after
from .transaction import AtomicOp, KvLimits, ReadTransaction, Transaction

API_VERSION = 710
FDB_LIMITS = KvLimits()
WANT_ALL = -2
"""Streaming mode: as much as fits into one answer."""

CONFLICT = 1020
UNKNOWN_RESULT = 1021
TIMED_OUT = 1031
CANCELLED = (1025, 1101)
"""transaction_cancelled, operation_cancelled."""
CLUSTER_CHANGED = 1039
_MAYBE_AT_COMMIT = (UNKNOWN_RESULT, TIMED_OUT, CLUSTER_CHANGED, *CANCELLED)

_ERRORS: dict[int, type[Fs3Error]] = {
    1004: Unavailable,  # timed_out (internal)
    1007: TransactionTooOld,
    1009: TransactionTooOld,  # future_version: the read version is ahead of a lagging server
    CONFLICT: TransactionConflict,
    1032: Busy,  # too_many_watches
    1036: InvalidRequest,  # accessed_unreadable
    1037: Unavailable,  # process_behind
    1038: Unavailable,  # database_locked
    1042: Busy,  # commit_proxy_memory_limit_exceeded
    1051: Busy,  # batch_transaction_throttled
    1078: Busy,  # grv_proxy_memory_limit_exceeded
    1213: Busy,  # tag_throttled
    2004: InvalidRequest,  # key_outside_legal_range
    2005: InvalidRequest,  # inverted_range
    2101: InvalidRequest,  # transaction_too_large
    2102: InvalidRequest,  # key_too_large
    2103: InvalidRequest,  # value_too_large
}


class BindingError(Protocol):
    """What the binding raises."""

    code: int


class BindingFuture(Protocol):
    """The binding's future."""

    def is_ready(self) -> bool: ...

    def on_ready(self, callback: Callable[[Any], None]) -> None:
        """Called once, on any thread, perhaps at once."""
        ...

    def wait(self) -> Any:
        """The result of a ready future; raises the binding's error."""
        ...

    def cancel(self) -> None: ...


class BindingReads(Protocol):
    """A transaction's reads, or those of its ``snapshot``."""

    def get(self, key: bytes) -> BindingFuture: ...

    def _get_range(
        self, begin: Any, end: Any, limit: int, streaming_mode: int, iteration: int, reverse: bool
    ) -> BindingFuture:
        """One answer's worth of pairs: ``(pairs, count, more)``. The public call blocks its thread."""
        ...


class BindingTransaction(BindingReads, Protocol):
    """The binding's transaction; atomic operations go through ``_atomic_operation``'s named wrappers."""

    options: Any

    @property
    def snapshot(self) -> BindingReads: ...

    def get_read_version(self) -> BindingFuture: ...

    def set(self, key: bytes, value: bytes) -> None: ...

    def clear(self, key: bytes) -> None: ...

    def clear_range(self, begin: bytes, end: bytes) -> None: ...

    def add(self, key: bytes, operand: bytes) -> None: ...

    def max(self, key: bytes, operand: bytes) -> None: ...

    def min(self, key: bytes, operand: bytes) -> None: ...

    def byte_max(self, key: bytes, operand: bytes) -> None: ...

    def compare_and_clear(self, key: bytes, operand: bytes) -> None: ...

    def set_versionstamped_key(self, template: bytes, value: bytes) -> None: ...

    def set_versionstamped_value(self, key: bytes, template: bytes) -> None: ...

    def add_read_conflict_range(self, begin: bytes, end: bytes) -> None: ...

    def add_write_conflict_range(self, begin: bytes, end: bytes) -> None: ...

    def watch(self, key: bytes) -> BindingFuture: ...

    def commit(self) -> BindingFuture: ...

    def get_versionstamp(self) -> BindingFuture: ...

    def cancel(self) -> None: ...


class BindingDatabase(Protocol):
    """The binding's database."""

    def create_transaction(self) -> BindingTransaction: ...


class Binding(Protocol):
    """The module ``fdb`` after ``api_version``."""

    FDBError: type[Exception]
    KeySelector: Any

    def open(self, cluster_file: str) -> BindingDatabase: ...


def load_binding() -> Binding:
    """The real one; Unavailable says what has to be installed."""
    try:
        ctypes.CDLL("libfdb_c.so")
    except OSError as error:
        raise Unavailable(
            "fdb:// needs FoundationDB's client library (libfdb_c.so, package foundationdb-clients of the "
            f"version that the cluster runs): {error}"
        ) from error
    try:
        import fdb
    except ImportError as error:
        raise Unavailable(
            "fdb:// needs the Python package foundationdb: pip install 'fs3-filesystem[fdb]'"
        ) from error
    try:
        fdb.api_version(API_VERSION)
    except RuntimeError as error:
        raise Unavailable(f"FoundationDB's binding and its client library do not match: {error}") from error
    return cast(Binding, fdb)


def open_fdb(cluster_file: Path, *, binding: Binding | None = None) -> FdbKv:
    """Open a cluster; it is first talked to by a transaction. Unavailable when something is not installed."""
    binding = binding or load_binding()
    if not cluster_file.is_file():
        raise Unavailable(f"no FoundationDB cluster file {cluster_file}")
    try:
        return FdbKv(binding, binding.open(str(cluster_file)))
    except binding.FDBError as error:
        raise Unavailable(f"FoundationDB cluster file {cluster_file}: {error}") from error


def error_of(code: int, text: str, *, committing: bool) -> Fs3Error:
    """Our error for one of FoundationDB's; what could have been applied is MaybeApplied."""
    message = f"{text} (FoundationDB {code})"
    if committing and code in _MAYBE_AT_COMMIT:
        return MaybeApplied(message)
    if code in (*CANCELLED, TIMED_OUT, UNKNOWN_RESULT, CLUSTER_CHANGED):
        return Unavailable(message)
    kind = _ERRORS.get(code)
    if kind is not None:
        return kind(message)
    if committing:
        return MaybeApplied(message)  # not one that we know to leave nothing behind
    return Unavailable(message) if code < 2000 else InternalError(message)


class FdbKv:
    """``Kv`` (see there)."""

    def __init__(self, binding: Binding, database: BindingDatabase, limits: KvLimits = FDB_LIMITS) -> None:
        self.binding = binding
        self.limits = limits
        self._database = database
        self._watches: dict[asyncio.Future[None], None] = {}
        self._closed = False

    def transaction(self) -> Transaction:
        return FdbAttempt(self, self.create())

    def create(self) -> BindingTransaction:
        """A transaction of the binding that does not wait for ever and stays small."""
        txn = self._database.create_transaction()
        txn.options.set_timeout(int(self.limits.transaction_s * 1000))
        txn.options.set_size_limit(self.limits.transaction_bytes)
        return txn

    def check_open(self) -> None:
        """Unavailable after ``aclose``."""
        if self._closed:
            raise Unavailable("the store was closed")

    async def finish(self, future: BindingFuture, *, committing: bool = False) -> Any:
        """Wait for a future of the binding; its result, or our error."""
        try:
            if not future.is_ready():
                await _ready(future)
            return future.wait()
        except self.binding.FDBError as error:
            self.fail(error, committing=committing)

    def fail(self, error: Exception, *, committing: bool = False) -> NoReturn:
        """Raise our error for one of the binding's."""
        raise error_of(cast(BindingError, error).code, str(error), committing=committing) from error

    async def watch(self, key: bytes, seen: bytes | None) -> Awaitable[None]:
        self.check_open()
        check_key(self.limits, key)
        txn = self.create()
        try:
            value = (await self.finish(txn.snapshot.get(key))).value
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if value != seen:
                txn.cancel()
                changed.set_result(None)
                return changed
            fired = txn.watch(key)
            await self.finish(txn.commit())  # a watch is in force from the commit on
        except BaseException:
            txn.cancel()
            raise
        self._watches[changed] = None
        changed.add_done_callback(lambda future: self._watch_done(future, fired))
        _call_when_ready(fired, lambda: self._watch_fired(changed, fired))
        return changed

    def _watch_fired(self, changed: asyncio.Future[None], fired: BindingFuture) -> None:
        if changed.done():
            return
        try:
            fired.wait()
        except self.binding.FDBError as error:
            if cast(BindingError, error).code == 1032:
                changed.set_exception(Busy(str(error)))
                return
            # Whatever ended it, the caller looks again, and meets there what is wrong.
        changed.set_result(None)

    def _watch_done(self, changed: asyncio.Future[None], fired: BindingFuture) -> None:
        self._watches.pop(changed, None)
        if not fired.is_ready():
            fired.cancel()

    async def aclose(self) -> None:
        self._closed = True
        for changed in list(self._watches):
            if not changed.done():
                changed.set_exception(Unavailable("the store was closed"))
                changed.exception()  # nobody may be waiting: then it is not worth a warning


def _call_when_ready(future: BindingFuture, act: Callable[[], None]) -> None:
    """Run ``act`` in the running event loop once ``future`` is ready, on whatever thread that shows."""
    loop = asyncio.get_running_loop()

    def ready(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(act)

    future.on_ready(ready)


async def _ready(future: BindingFuture) -> None:
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    _call_when_ready(future, wake)
    try:
        await waiter
    except asyncio.CancelledError:
        future.cancel()
        raise


class FdbReads:
    """Reads of a transaction, or of its snapshot."""

    def __init__(self, kv: FdbKv, txn: BindingTransaction, reads: BindingReads) -> None:
        self._kv = kv
        self._txn = txn
        self._reads = reads

    async def get(self, key: bytes) -> bytes | None:
        self._kv.check_open()
        check_key(self._kv.limits, key)
        found = await self._kv.finish(self._reads.get(key))
        return cast("bytes | None", found.value)

    async def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        self._kv.check_open()
        check_range(self._kv.limits, begin, end)
        found: list[tuple[bytes, bytes]] = []
        selector = self._kv.binding.KeySelector.first_greater_or_equal
        iteration = 0
        while begin < end:
            iteration += 1
            left = limit - len(found) if limit else 0
            page = self._reads._get_range(selector(begin), selector(end), left, WANT_ALL, iteration, reverse)
            pairs, _, more = cast("tuple[Sequence[Any], int, int]", await self._kv.finish(page))
            found += [(pair.key, pair.value) for pair in pairs]
            if not more or not pairs or len(found) == limit:
                break
            begin, end = (begin, found[-1][0]) if reverse else (key_after(found[-1][0]), end)
        return found

    async def read_version(self) -> int:
        self._kv.check_open()
        return cast(int, await self._kv.finish(self._txn.get_read_version()))


class FdbAttempt(FdbReads):
    """``Transaction`` (see there)."""

    def __init__(self, kv: FdbKv, txn: BindingTransaction) -> None:
        super().__init__(kv, txn, txn)
        self._wrote = False
        self._done = False

    @property
    def snapshot(self) -> ReadTransaction:
        return FdbReads(self._kv, self._txn, self._txn.snapshot)

    def set(self, key: bytes, value: bytes) -> None:
        check_key(self._kv.limits, key)
        check_value(self._kv.limits, value)
        self._wrote = True
        self._txn.set(key, value)

    def clear(self, key: bytes) -> None:
        check_key(self._kv.limits, key)
        self._wrote = True
        self._txn.clear(key)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        check_range(self._kv.limits, begin, end)
        if begin < end:
            self._wrote = True
            self._txn.clear_range(begin, end)

    def atomic(self, op: AtomicOp, key: bytes, operand: bytes) -> None:
        check_key(self._kv.limits, key)
        check_value(self._kv.limits, operand)
        self._wrote = True
        calls = {
            AtomicOp.ADD: self._txn.add,
            AtomicOp.MAX: self._txn.max,
            AtomicOp.MIN: self._txn.min,
            AtomicOp.BYTE_MAX: self._txn.byte_max,
            AtomicOp.COMPARE_AND_CLEAR: self._txn.compare_and_clear,
        }
        calls[op](key, operand)

    def set_versionstamped_key(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        template = stamped_template(prefix, suffix)
        check_key(self._kv.limits, fill_stamp(template, bytes(STAMP_BYTES)))
        check_value(self._kv.limits, value)
        self._wrote = True
        self._txn.set_versionstamped_key(template, value)

    def set_versionstamped_value(self, key: bytes, prefix: bytes, suffix: bytes) -> None:
        template = stamped_template(prefix, suffix)
        check_key(self._kv.limits, key)
        check_value(self._kv.limits, fill_stamp(template, bytes(STAMP_BYTES)))
        self._wrote = True
        self._txn.set_versionstamped_value(key, template)

    def add_read_conflict_key(self, key: bytes) -> None:
        check_key(self._kv.limits, key)
        self._txn.add_read_conflict_range(key, key_after(key))

    def add_read_conflict_range(self, begin: bytes, end: bytes) -> None:
        check_range(self._kv.limits, begin, end)
        if begin < end:
            self._txn.add_read_conflict_range(begin, end)

    def add_write_conflict_key(self, key: bytes) -> None:
        check_key(self._kv.limits, key)
        self._wrote = True
        self._txn.add_write_conflict_range(key, key_after(key))

    def add_write_conflict_range(self, begin: bytes, end: bytes) -> None:
        check_range(self._kv.limits, begin, end)
        if begin < end:
            self._wrote = True
            self._txn.add_write_conflict_range(begin, end)

    async def commit(self) -> bytes | None:
        assert not self._done, "transaction committed or cancelled before"
        if not self._wrote:
            self.cancel()
            return None
        self._kv.check_open()
        self._done = True
        stamp = self._txn.get_versionstamp()  # has to be asked for before the commit
        await self._kv.finish(self._txn.commit(), committing=True)
        found = await self._kv.finish(stamp, committing=True)
        return cast(bytes, found.value)

    def cancel(self) -> None:
        # After a commit was asked for, cancelling could turn a sure outcome into a doubtful one.
        if not self._done:
            self._done = True
            self._txn.cancel()
