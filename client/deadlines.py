"""A time limit for single calls of the blocking face, whatever the file system's settings allow.

In the asynchronous face ``asyncio.timeout`` is all that is needed: every call may be cancelled at any time.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fs3.clock import SystemClock

from .failures import TimedOut

_CLOCK = SystemClock()

_deadline_s: ContextVar[float | None] = ContextVar("fs3 deadline", default=None)
"""Of the calls of this thread (or task): boot clock."""


@contextmanager
def deadline(timeout_s: float) -> Iterator[None]:
    """Blocking calls inside, together, take at most about ``timeout_s``; within another, the earlier counts.

    ::

        with fs3.client.deadline(2.0):
            info = fs.stat("/data")

    A call that is late raises TimeoutError (ETIMEDOUT): it may have been applied, or may still be. Of a file,
    what ``write`` has taken goes on its way; a ``close`` that is late gives up what has not left yet. Other
    threads are not concerned.
    """
    ends_s = _CLOCK.boot_s() + timeout_s
    outer_s = _deadline_s.get()
    token = _deadline_s.set(ends_s if outer_s is None else min(ends_s, outer_s))
    try:
        yield
    finally:
        _deadline_s.reset(token)


def time_left_s() -> float | None:
    """Seconds to this thread's deadline, 0 once it has passed; None: there is none."""
    ends_s = _deadline_s.get()
    return None if ends_s is None else max(0.0, ends_s - _CLOCK.boot_s())


def timed_out() -> TimedOut:
    """What a call raises that is late."""
    return TimedOut(errno.ETIMEDOUT, "not done by the caller's deadline; it may have been applied")


@contextmanager
def locked(lock: threading.RLock) -> Iterator[None]:
    """Hold a lock that another thread's call may hold for long."""
    left_s = time_left_s()
    if not lock.acquire(timeout=-1 if left_s is None else left_s):
        raise timed_out()
    try:
        yield
    finally:
        lock.release()
