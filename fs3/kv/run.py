"""The driver of transactions: runs a body until it has committed, or says why not.

A body may run several times, so it has no effect but its transaction; what is to be told to others it
returns, and the caller tells it after ``run`` has returned.

Source: design 3.1; style 1.1 (one driver owns retry, deadline and commit).
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from ..clock import Clock
from ..errors import DeadlineExceeded, MaybeApplied, Retryable
from ..rng import Rng
from .transaction import Kv, Transaction

T = TypeVar("T")
Body = Callable[[Transaction], Awaitable[T]]


class OnMaybeApplied(enum.Enum):
    """What to do when the answer of a commit is lost."""

    RAISE = "raise"
    """Tell the caller."""
    RETRY = "retry"
    """Run the body again: it recognises by itself that it has happened, or does no harm twice."""


@dataclass(frozen=True, slots=True)
class RetryPace:
    """Pauses between attempts: uniform in 0 … ``first_s * 2**attempt``, at most ``max_s``."""

    first_s: float = 0.001
    max_s: float = 0.2


@dataclass(slots=True)
class RunStats:
    """Plain counters; a daemon makes metrics of them."""

    attempts: int = 0
    commits: int = 0
    retries: int = 0
    unknown_results: int = 0
    given_up: int = 0


PACE = RetryPace()


async def run(
    kv: Kv,
    body: Body[T],
    *,
    clock: Clock,
    rng: Rng,
    deadline_s: float,
    on_maybe_applied: OnMaybeApplied = OnMaybeApplied.RAISE,
    pace: RetryPace = PACE,
    stats: RunStats | None = None,
) -> T:
    """Run ``body`` in transactions until one commits; returns what the committed run of the body returned.

    ``deadline_s``: by ``clock.boot_s()``. Retryable errors of body or commit (conflict, too old, busy,
    unavailable) start the body again until then. Any other error of the body ends it, nothing is applied.

    Raises DeadlineExceeded (nothing was applied; the last error is its cause); MaybeApplied (the commit's
    answer was lost or did not come in time; with RETRY: in the last attempt, or in an earlier one and no
    later attempt came to an end); InvalidRequest.
    """
    stats = stats or RunStats()
    doubt: MaybeApplied | None = None
    attempt = 0
    while True:
        stats.attempts += 1
        txn = kv.transaction()
        try:
            result = await _attempt(txn, body, clock, deadline_s)
            stats.commits += 1
            return result
        except Retryable as error:
            failure: Retryable | MaybeApplied = error
        except MaybeApplied as error:
            stats.unknown_results += 1
            if on_maybe_applied is OnMaybeApplied.RAISE:
                raise
            failure = doubt = error
        finally:
            txn.cancel()
        pause_s = rng.random() * min(pace.max_s, pace.first_s * 2 ** min(attempt, 30))
        attempt += 1
        if clock.boot_s() + pause_s >= deadline_s:
            stats.given_up += 1
            if doubt is not None:
                raise MaybeApplied(f"{doubt}; then for {attempt} attempts: {failure}") from failure
            raise DeadlineExceeded(f"gave up after {attempt} attempts: {failure}") from failure
        stats.retries += 1
        await asyncio.sleep(pause_s)


async def _attempt(txn: Transaction, body: Body[T], clock: Clock, deadline_s: float) -> T:
    """One attempt, its waits bounded by the deadline."""
    left_s = deadline_s - clock.boot_s()
    if left_s <= 0:
        raise DeadlineExceeded("the deadline has passed")
    committing = False
    try:
        async with _bounded(left_s):
            result = await body(txn)
            committing = True
            await txn.commit()
            return result
    except TimeoutError as error:
        if committing:
            raise MaybeApplied("the deadline passed before the commit was answered") from error
        raise DeadlineExceeded("the deadline passed while reading") from error


def _bounded(left_s: float) -> AbstractAsyncContextManager[object]:
    """A time-out where there is a task to interrupt.

    A handler that is driven outside of any task has none, and needs none: its reads do not wait, and the
    engine bounds the commit itself.
    """
    return asyncio.timeout(left_s) if asyncio.current_task() is not None else nullcontext()
