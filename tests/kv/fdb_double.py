"""A double of FoundationDB's binding: exactly the calls that ``fs3/kv/fdb.py`` makes, over the memory engine.

Futures are ready at once or later, in turn; what is later becomes so on another thread, as in the binding.
Errors are injected by code: ``read_errors`` and ``commit_errors`` are used up one a call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fs3.errors import (
    Busy,
    Fs3Error,
    InvalidRequest,
    TransactionConflict,
    TransactionTooOld,
    Unavailable,
)
from fs3.kv.memory import MemoryKv, MemoryStore
from fs3.kv.mutations import fill_stamp
from fs3.kv.transaction import AtomicOp, Transaction

T = TypeVar("T")
PAGE_PAIRS = 100
"""Pairs in one answer of a range read, so that tests meet the paging."""
NEVER = -1


class DoubleError(Exception):
    """``fdb.FDBError``."""

    def __init__(self, code: int) -> None:
        super().__init__(f"error of the double ({code})")
        self.code = code


_CODES: dict[type[Fs3Error], int] = {
    TransactionTooOld: 1007,
    TransactionConflict: 1020,
    InvalidRequest: 2101,
    Busy: 1032,
    Unavailable: 1101,
}


def now(work: Coroutine[Any, Any, T]) -> T:
    """Run what does not suspend; errors become the binding's."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except Fs3Error as error:
        raise DoubleError(_CODES[type(error)]) from error
    work.close()
    raise AssertionError("the memory engine waited")


class DoubleFuture:
    """A future that ``settle`` makes ready."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Any], None]] = []
        self._ready = False
        self._result: Any = None
        self._error: DoubleError | None = None
        self.on_cancel: Callable[[], None] = lambda: None

    def settle(self, result: Any = None, error: DoubleError | None = None) -> None:
        with self._lock:
            if self._ready:
                return
            self._ready, self._result, self._error = True, result, error
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def is_ready(self) -> bool:
        return self._ready

    def on_ready(self, callback: Callable[[Any], None]) -> None:
        with self._lock:
            if not self._ready:
                self._callbacks.append(callback)
                return
        callback(self)

    def wait(self) -> Any:
        assert self._ready, "the double does not block"
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> None:
        self.on_cancel()
        self.settle(error=DoubleError(1101))


class Holder:
    """``fdb.Value`` and ``fdb.Key`` after ``wait``."""

    def __init__(self, value: bytes | None) -> None:
        self.value = value


class Pair:
    """``fdb.KeyValue``."""

    def __init__(self, key: bytes, value: bytes) -> None:
        self.key = key
        self.value = value


class KeySelector:
    """``fdb.KeySelector``, the one kind that is used."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    @classmethod
    def first_greater_or_equal(cls, key: bytes) -> KeySelector:
        return cls(key)


class Options:
    """``transaction.options``."""

    def __init__(self) -> None:
        self.timeout_ms = 0
        self.size_limit_bytes = 0

    def set_timeout(self, milliseconds: int) -> None:
        self.timeout_ms = milliseconds

    def set_size_limit(self, size_bytes: int) -> None:
        self.size_limit_bytes = size_bytes


class Double:
    """``Binding``, with the store and the scripts of errors."""

    FDBError: type[Exception] = DoubleError
    KeySelector: Any = KeySelector

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.read_errors: list[int] = []
        self.commit_errors: list[int] = []
        """NEVER: the commit is applied and 1021 comes back; any other code: it is not applied."""
        self.watch_errors: list[int] = []
        self._futures = 0

    def open(self, cluster_file: str) -> DoubleDatabase:
        return DoubleDatabase(self)

    def answer(self, work: Callable[[], Any]) -> DoubleFuture:
        """Future of ``work``, which is done now; every second one shows it later, from another thread."""
        self._futures += 1
        future = DoubleFuture()
        try:
            result, error = work(), None
        except DoubleError as failure:
            result, error = None, failure
        if self._futures % 2:
            future.settle(result, error)
        else:
            threading.Thread(target=future.settle, args=(result, error)).start()
        return future


class DoubleDatabase:
    """``fdb.Database``."""

    def __init__(self, double: Double) -> None:
        self._double = double
        self._kv = MemoryKv(double.store)

    def create_transaction(self) -> DoubleTransaction:
        return DoubleTransaction(self._double, self._kv)


class DoubleReads:
    """``fdb.impl.TransactionRead``."""

    def __init__(self, double: Double, owner: DoubleTransaction, *, snapshot: bool) -> None:
        self._double = double
        self._owner = owner
        self._snapshot = snapshot

    def _reads(self) -> Any:
        if self._double.read_errors:
            raise DoubleError(self._double.read_errors.pop(0))
        self._owner.check_usable()
        inner = self._owner.inner
        return inner.snapshot if self._snapshot else inner

    def get(self, key: bytes) -> DoubleFuture:
        return self._double.answer(lambda: Holder(now(self._reads().get(key))))

    def _get_range(
        self, begin: Any, end: Any, limit: int, streaming_mode: int, iteration: int, reverse: bool
    ) -> DoubleFuture:
        assert streaming_mode == -2 and iteration > 0, (streaming_mode, iteration)
        page = min(limit, PAGE_PAIRS) if limit else PAGE_PAIRS

        def read() -> tuple[list[Pair], int, int]:
            found = now(self._reads().range(begin.key, end.key, limit=page, reverse=reverse))
            return [Pair(key, value) for key, value in found], len(found), len(found) == page

        return self._double.answer(read)


class DoubleTransaction(DoubleReads):
    """``fdb.Transaction``."""

    def __init__(self, double: Double, kv: MemoryKv) -> None:
        super().__init__(double, self, snapshot=False)
        self.inner: Transaction = kv.transaction()
        self.options = Options()
        self.snapshot = DoubleReads(double, self, snapshot=True)
        self._kv = kv
        self._cancelled = False
        self._watches: list[tuple[bytes, DoubleFuture]] = []
        self._stamps: list[DoubleFuture] = []

    def check_usable(self) -> None:
        if self._cancelled:
            raise DoubleError(1025)

    def get_read_version(self) -> DoubleFuture:
        return self._double.answer(lambda: now(self._reads().read_version()))

    def set(self, key: bytes, value: bytes) -> None:
        self.inner.set(key, value)

    def clear(self, key: bytes) -> None:
        self.inner.clear(key)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        self.inner.clear_range(begin, end)

    def add(self, key: bytes, operand: bytes) -> None:
        self.inner.atomic(AtomicOp.ADD, key, operand)

    def max(self, key: bytes, operand: bytes) -> None:
        self.inner.atomic(AtomicOp.MAX, key, operand)

    def min(self, key: bytes, operand: bytes) -> None:
        self.inner.atomic(AtomicOp.MIN, key, operand)

    def byte_max(self, key: bytes, operand: bytes) -> None:
        self.inner.atomic(AtomicOp.BYTE_MAX, key, operand)

    def compare_and_clear(self, key: bytes, operand: bytes) -> None:
        self.inner.atomic(AtomicOp.COMPARE_AND_CLEAR, key, operand)

    def set_versionstamped_key(self, template: bytes, value: bytes) -> None:
        prefix, suffix = _parts(template)
        self.inner.set_versionstamped_key(prefix, suffix, value)

    def set_versionstamped_value(self, key: bytes, template: bytes) -> None:
        prefix, suffix = _parts(template)
        self.inner.set_versionstamped_value(key, prefix, suffix)

    def add_read_conflict_range(self, begin: bytes, end: bytes) -> None:
        self.inner.add_read_conflict_range(begin, end)

    def add_write_conflict_range(self, begin: bytes, end: bytes) -> None:
        self.inner.add_write_conflict_range(begin, end)

    def watch(self, key: bytes) -> DoubleFuture:
        future = DoubleFuture()
        self._watches.append((key, future))
        return future

    def get_versionstamp(self) -> DoubleFuture:
        future = DoubleFuture()
        self._stamps.append(future)
        return future

    def commit(self) -> DoubleFuture:
        assert self.options.timeout_ms > 0 and self.options.size_limit_bytes > 0
        return self._double.answer(self._commit)

    def _commit(self) -> None:
        self.check_usable()
        injected = self._double.commit_errors.pop(0) if self._double.commit_errors else 0
        try:
            if injected not in (0, NEVER):
                raise DoubleError(injected)
            stamp = now(self.inner.commit())
        except DoubleError as error:
            for future in self._stamps:
                future.settle(error=error)
            raise
        for future in self._stamps:
            future.settle(Holder(stamp))
        for key, future in self._watches:
            self._arm(key, future)
        if injected == NEVER:
            raise DoubleError(1021)

    def _arm(self, key: bytes, future: DoubleFuture) -> None:
        if self._double.watch_errors:
            future.settle(error=DoubleError(self._double.watch_errors.pop(0)))
            return
        seen = self._double.store.value_at(key, self._double.store.version)
        inner: Any = now(self._kv.watch(key, seen))

        def changed(done: Any) -> None:
            if not done.cancelled():
                future.settle()

        inner.add_done_callback(changed)
        future.on_cancel = inner.cancel

    def cancel(self) -> None:
        self._cancelled = True
        self.inner.cancel()


def _parts(template: bytes) -> tuple[bytes, bytes]:
    at = int.from_bytes(template[-4:], "little")
    filled = fill_stamp(template, b"\0" * 10)
    return filled[:at], filled[at + 10 :]
