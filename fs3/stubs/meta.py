"""Calls to the metadata service: any service serves any request, so a failed one is tried at the next.

Reads may be sent again freely. A mutation carries (session, slot, sequence) and keeps it over all its tries,
so that it is applied once however often it is sent, and whichever services it reaches (design 3.3).

``Slots`` hands out the slots of one client session: one request a slot at a time; more requests than slots
wait, bounded in number and in time.

Source: design 3, 3.3, 3.4, 8 (meta service gone: clients fail over, retried operations apply once).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from ..clock import Clock
from ..errors import (
    Busy,
    DeadlineExceeded,
    Fs3Error,
    MaybeApplied,
    Retryable,
    SessionLost,
    StaleRouting,
    Unavailable,
)
from ..ids import ClientSessionId
from ..rng import Rng
from ..routing import NodeKind
from ..rpc.service import Caller, Method
from ..tasks import time_limit
from ..wire.meta import Mutation
from .storage import RoutingSource

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

FIRST_PAUSE_S = 0.01
PAUSE_MAX_S = 0.5
ATTEMPT_TIMEOUT_S = 5.0
"""Longest wait for one service's answer; then the next one is asked."""
WAITING_MAX = 4096
"""Mutations of one session that wait for a slot; more fail with Busy."""


class Slot:
    """One slot: the number of its last request."""

    __slots__ = ("number", "sequence")

    def __init__(self, number: int) -> None:
        self.number = number
        self.sequence = 0


class Slots:
    """The slots of one client session."""

    def __init__(self, session: ClientSessionId, slot_count: int) -> None:
        assert slot_count > 0, slot_count
        self.session = session
        self._free = [Slot(number) for number in range(slot_count - 1, -1, -1)]
        self._waiting: deque[asyncio.Future[Slot]] = deque()

    @asynccontextmanager
    async def mutation(self, timeout_s: float) -> AsyncIterator[Mutation]:
        """The identity of a new request; its slot is free again afterwards.

        A request that was given up leaves its number used: the slot's next one is greater, so whatever of
        the old one still arrives is refused. DeadlineExceeded: no slot in time; Busy: too many wait.
        """
        slot = self._free.pop() if self._free else await self._wait(timeout_s)
        slot.sequence += 1
        try:
            yield Mutation(self.session, slot.number, slot.sequence)
        finally:
            self._give_back(slot)

    async def _wait(self, timeout_s: float) -> Slot:
        if len(self._waiting) >= WAITING_MAX:
            raise Busy(f"{WAITING_MAX} requests wait for a slot of session {self.session:x}")
        future: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with time_limit(timeout_s):
                return await future
        except BaseException as error:
            if future in self._waiting:
                self._waiting.remove(future)
            elif future.done() and not future.cancelled():
                self._give_back(future.result())  # it was handed over as the wait ended
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded("no slot was free in time") from error
            raise

    def _give_back(self, slot: Slot) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(slot)
                return
        self._free.append(slot)


class MetaStub:
    """Calls metadata services, one after the other, until one answers or the deadline passes."""

    def __init__(self, routing: RoutingSource, caller: Caller, clock: Clock, rng: Rng) -> None:
        self._routing = routing
        self._caller = caller
        self._clock = clock
        self._rng = rng
        self._turn = rng.randrange(1 << 16)
        """Which service is asked; stays while it answers: clients spread, each keeps its connection."""

    async def call(self, method: Method[Q, R], request: Q, *, timeout_s: float) -> R:
        """The answer to a request that may be sent more than once (a read, or a mutation with its identity).

        Raises what the service answered; DeadlineExceeded (certainly not applied) or MaybeApplied when
        none answered in time; MaybeApplied with SessionLost as its cause when an answer was lost and the
        session is over meanwhile.
        """
        deadline_s = self._clock.boot_s() + timeout_s
        doubt = False
        attempt = 0
        while True:
            failure: Fs3Error
            try:
                left_s = deadline_s - self._clock.boot_s()
                return await self._caller.call(
                    self._address(),
                    method,
                    request,
                    timeout_s=max(0.001, min(left_s, ATTEMPT_TIMEOUT_S)),
                )
            except MaybeApplied as error:
                doubt, failure = True, error
            except SessionLost as error:
                if not doubt:
                    raise
                # applied under the session while it lived, or never: its memory of requests went with it
                raise MaybeApplied(f"{method.name}: the session ended before an answer came") from error
            except (Retryable, StaleRouting) as error:
                failure = error
            self._turn += 0 if isinstance(failure, Busy) else 1
            longest_s = min(PAUSE_MAX_S, FIRST_PAUSE_S * float(1 << min(attempt, 20)))
            pause_s = (0.5 + self._rng.random() / 2) * longest_s
            attempt += 1
            if self._clock.boot_s() + pause_s >= deadline_s:
                kind = MaybeApplied if doubt else DeadlineExceeded
                raise kind(f"{method.name}: gave up after {attempt} attempts: {failure}") from failure
            await self._before_next(failure, pause_s, deadline_s)

    async def mutate(
        self, slots: Slots, method: Method[Q, R], build: Callable[[Mutation], Q], *, timeout_s: float
    ) -> R:
        """A new mutation in one of the session's slots; as ``call``."""
        deadline_s = self._clock.boot_s() + timeout_s
        async with slots.mutation(timeout_s) as mutation:
            left_s = deadline_s - self._clock.boot_s()
            return await self.call(method, build(mutation), timeout_s=left_s)

    def _address(self) -> str:
        services = self._routing.routing.alive(NodeKind.META)
        if not services:
            raise Unavailable(f"routing {self._routing.routing.version} names no metadata service")
        return services[self._turn % len(services)].address

    async def _before_next(self, failure: Fs3Error, pause_s: float, deadline_s: float) -> None:
        """Wait; and where the list of services may be old, fetch a newer one."""
        await asyncio.sleep(pause_s)
        if isinstance(failure, StaleRouting | Unavailable):
            try:
                async with asyncio.timeout(max(0.0, min(1.0, deadline_s - self._clock.boot_s()))):
                    await self._routing.refresh()
            except (TimeoutError, Retryable, MaybeApplied):
                return  # mgmtd is away: the services that we know may still answer
