"""Calls to mgmtd, and the routing picture that a process keeps.

``MgmtdStub`` finds the primary among the seeds and calls it; a lost primary is looked for again within
100 ms. ``RoutingCache`` holds the newest ``RoutingInfo``: a follower asks the primary for newer routing and
waits there for it (that is the push, design 2.5), ``refresh`` asks at once, ``learn`` takes a chain record
from a peer.

Source: design 2.4, 2.5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from ..clock import Clock
from ..errors import (
    DeadlineExceeded,
    Fs3Error,
    InternalError,
    MaybeApplied,
    Retryable,
    Unavailable,
)
from ..log import Logger
from ..rng import Rng
from ..routing import ChainInfo, RoutingDelta, RoutingInfo, apply_delta, with_chain
from ..rpc.service import Caller, Method
from ..tasks import TaskScope
from ..wire.mgmtd import GET_ROUTING, GetRoutingRequest, GetRoutingResponse
from .primary_search import PrimarySearch, pause_after_s

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

CALL_TIMEOUT_S = 2.0
"""Longest wait for one answer of a mgmtd; then another one is asked."""
REFRESH_TIMEOUT_S = 2.0
SUBSCRIBERS_MAX = 64


class MgmtdStub:
    """Calls the primary. ``seeds``: RPC addresses of some mgmtds; others are learnt from routing."""

    def __init__(self, caller: Caller, seeds: Sequence[str], clock: Clock, rng: Rng) -> None:
        self._caller = caller
        self._clock = clock
        self._rng = rng
        self.primary = PrimarySearch(caller, seeds, clock, rng)

    async def call(self, method: Method[Q, R], request: Q, *, timeout_s: float, idempotent: bool = True) -> R:
        """Call the primary until it answers or the time is over.

        ``idempotent``: the request may happen twice. Raises what the primary answered; DeadlineExceeded;
        MaybeApplied (it was sent, and no answer came).
        """
        deadline_s = self._clock.boot_s() + timeout_s
        doubt: MaybeApplied | None = None
        last: Fs3Error = Unavailable("no time to try")
        failures = 0
        while (left_s := deadline_s - self._clock.boot_s()) > 0:
            address = ""
            try:
                address = await self.primary.find(left_s, waits=True)
                wait_s = min(CALL_TIMEOUT_S, deadline_s - self._clock.boot_s())
                return await self._caller.call(address, method, request, timeout_s=max(0.001, wait_s))
            except MaybeApplied as error:
                if not idempotent:
                    raise
                doubt = last = error
            except Retryable as error:
                last = error
            if address:
                self.primary.lost(address)
                failures += 1
                await asyncio.sleep(min(pause_after_s(failures, self._rng), max(0.0, left_s)))
        text = f"{method.name}: no primary mgmtd answered: {last}"
        raise (MaybeApplied if doubt is not None else DeadlineExceeded)(text) from last

    async def get_routing(self, known_version: int, wait_s: float) -> GetRoutingResponse:
        """Newer routing from the primary, which may wait ``wait_s`` for it.

        Raises Retryable or MaybeApplied when none of the mgmtds is a primary that answers; with ``wait_s`` 0
        at once, if that was found out a moment ago.
        """
        address = await self.primary.find(CALL_TIMEOUT_S, waits=wait_s > 0)
        request = GetRoutingRequest(known_version=known_version, wait_ms=int(wait_s * 1000))
        try:
            answer = await self._caller.call(address, GET_ROUTING, request, timeout_s=wait_s + CALL_TIMEOUT_S)
        except (Retryable, MaybeApplied):
            self.primary.lost(address)
            raise
        if not answer.is_primary:
            self.primary.lost(address)
            if answer.primary_address not in ("", address):
                self.primary.found(answer.primary_address)
            raise Unavailable(f"{address} is no primary any more")
        return answer


class RoutingCache:
    """The newest routing of this process. ``start`` begins to follow the primary."""

    def __init__(self, stub: MgmtdStub, rng: Rng, log: Logger, *, wait_s: float = 5.0) -> None:
        self._stub = stub
        self._rng = rng
        self._log = log
        self._wait_s = wait_s
        self._routing = RoutingInfo()
        self._subscribers: list[Callable[[RoutingInfo], None]] = []
        self._time_learners: list[Callable[[int], None]] = []
        self._changed = asyncio.Event()
        self._fetch: asyncio.Task[None] | None = None
        self._scope: TaskScope | None = None

    @property
    def routing(self) -> RoutingInfo:
        """The newest picture; version 0: none yet."""
        return self._routing

    def subscribe(self, adopt: Callable[[RoutingInfo], None]) -> None:
        """Call ``adopt`` with each newer picture; subscribers are called in order."""
        assert len(self._subscribers) < SUBSCRIBERS_MAX
        self._subscribers.append(adopt)

    def on_cluster_time(self, learn: Callable[[int], None]) -> None:
        """Call ``learn`` with the cluster time (ms) of each answer of the primary."""
        self._time_learners.append(learn)

    def start(self, scope: TaskScope) -> None:
        """Follow the primary until the scope ends."""
        self._scope = scope
        scope.spawn("follow routing", self._follow())

    async def refresh(self) -> None:
        """Ask for newer routing now; calls at the same time share one fetch. Retryable, MaybeApplied."""
        if self._scope is None:
            raise Unavailable("the routing cache is not started")
        if self._fetch is None:
            self._fetch = self._scope.start("fetch routing", self._fetch_once(0.0))
            self._fetch.add_done_callback(self._fetched)
        fetch = self._fetch
        await asyncio.wait((fetch,), timeout=REFRESH_TIMEOUT_S)
        if not fetch.done():
            raise DeadlineExceeded("no mgmtd answered in time")
        if fetch.cancelled():
            raise Unavailable("the routing cache is stopped")
        fetch.result()

    def learn(self, info: ChainInfo) -> None:
        """Take a chain record from a peer, if it is newer: it was persisted before it was published."""
        self._publish(with_chain(self._routing, info))

    async def wait_version(self, version: int, timeout_s: float) -> RoutingInfo:
        """The picture once it has reached ``version``; DeadlineExceeded."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._routing.version < version:
                    await self._changed.wait()
        except TimeoutError as error:
            raise DeadlineExceeded(f"routing did not reach version {version}") from error
        return self._routing

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetch = None
        if not task.cancelled():
            task.exception()  # whoever waits has it; if all gave up, nobody needs it

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                await self._fetch_once(self._wait_s)
                failures = 0
            except (Retryable, MaybeApplied, InternalError) as error:  # a bug there must not end us here
                self._log.debug("routing not reached", reason=str(error))
                failures += 1
                await asyncio.sleep(pause_after_s(failures, self._rng))

    async def _fetch_once(self, wait_s: float) -> None:
        answer = await self._stub.get_routing(self._routing.version, wait_s)
        if answer.delta is not None and not self._apply(answer.delta):
            answer = await self._stub.get_routing(0, 0.0)
            if answer.delta is not None:
                self._apply(answer.delta)
        for learn in self._time_learners:
            learn(answer.cluster_time_ms)

    def _apply(self, delta: RoutingDelta) -> bool:
        """False: the delta starts at another version than ours, a full picture is needed."""
        if delta.version <= self._routing.version:
            return True  # two fetches crossed
        newer = apply_delta(self._routing, delta)
        if newer is None:
            return False
        self._publish(newer)
        return True

    def _publish(self, newer: RoutingInfo) -> None:
        if newer is self._routing:
            return
        self._routing = newer
        self._stub.primary.learn(newer)
        for adopt in self._subscribers:
            adopt(newer)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
