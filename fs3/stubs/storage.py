"""Calls to the storage service: find a chain's member, follow routing, repeat what may be repeated.

``ChainCaller`` sends one request to one chain. What it does with an answer is the table of ``fs3.errors``:
StaleRouting: fetch routing and send again within 100 ms; Busy, Unavailable: again after a bounded, growing
pause; MaybeApplied: again only if the caller says that the request may happen twice; everything else is the
caller's. All of it ends at one deadline.

``StorageStub`` is what the metadata service asks of the chains of a file: every call is idempotent, goes to
all chains of the file at once (bounded), and returns only when all of them have done it.

Source: design 2.5 (retry within 100 ms), 3.5–3.7, 4.3, 4.9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from ..clock import SHORTEST_WAIT_S, Clock
from ..errors import DeadlineExceeded, Fs3Error, MaybeApplied, Retryable, StaleRouting, Unavailable
from ..ids import ChainId, ChainVersion, ClientSessionId, Epoch, InodeId
from ..layout import Layout, chunk_count
from ..rng import Rng
from ..routing import ChainInfo, Member, NodeKind, RoutingInfo
from ..rpc.service import Buffer, Caller, Method, Sink
from ..tasks import TaskScope, end_tasks, outcome_of
from ..wire.storage import (
    CUT,
    END_SESSION,
    QUERY_LENGTH,
    RAISE_EPOCH,
    SPACE,
    CutRequest,
    EndSessionRequest,
    QueryLengthRequest,
    RaiseEpochRequest,
    SpaceRequest,
    TargetSpace,
)

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)
I = TypeVar("I")  # noqa: E741  # an item of any kind
O = TypeVar("O")  # noqa: E741  # what became of it

Asked = tuple[ChainVersion, str] | None
"""Under which version of its chain which address is to be asked; None: nobody can answer."""
STALE_PAUSE_S = 0.1
"""Longest pause before a request that met StaleRouting is sent again (design 2.5)."""
FIRST_PAUSE_S = 0.01
PAUSE_MAX_S = 1.0
LOOK_S = 0.1
"""How often a call under way, or one to be repeated, looks whether somebody else is to be asked."""
CHAINS_AT_ONCE = 32
"""Requests in flight for one file: a file over 200 chains must not open 200 calls at a time."""
CALL_TIMEOUT_S = 5.0
"""Longest wait for one answer; a call that takes longer is repeated while its caller's deadline allows."""


class RoutingSource(Protocol):
    """What the callers below need of a routing cache (``fs3.stubs.mgmtd``)."""

    @property
    def routing(self) -> RoutingInfo:
        """The newest picture that this process has."""
        ...

    async def refresh(self) -> object:
        """Fetch a newer one, or return soon if there is none; calls at the same time share one fetch."""
        ...


@dataclass(frozen=True, slots=True)
class FileEnd:
    """Where the written bytes of a file end, over all its chains."""

    length_bytes: int
    chunk_count: int
    used_bytes: int


class ChainCaller:
    """Sends a request to a chain, at its present version, until it is answered or the deadline passes."""

    def __init__(self, routing: RoutingSource, caller: Caller, clock: Clock, rng: Rng) -> None:
        self._routing = routing
        self._caller = caller
        self._clock = clock
        self._rng = rng

    async def call_head(
        self,
        chain: ChainId,
        method: Method[Q, R],
        build: Callable[[ChainInfo], Q],
        *,
        timeout_s: float,
        idempotent: bool = False,
        payload: Sequence[Buffer] = (),
        bulk: bool = False,
        request_id: int = 0,
    ) -> R:
        """Call the chain's head; ``build`` makes the request for the record that it is sent under.

        ``idempotent``: the request may happen twice, or is recognised by its receiver. Raises what the
        server answered; DeadlineExceeded (nothing was applied); MaybeApplied.
        """
        return await self.call_member(
            chain,
            method,
            build,
            lambda info: info.serving[0] if info.serving else None,
            timeout_s=timeout_s,
            idempotent=idempotent,
            payload=payload,
            bulk=bulk,
            request_id=request_id,
        )

    async def call_member(
        self,
        chain: ChainId,
        method: Method[Q, R],
        build: Callable[[ChainInfo], Q],
        pick: Callable[[ChainInfo], Member | None],
        *,
        timeout_s: float,
        idempotent: bool = False,
        payload: Sequence[Buffer] = (),
        sink: Sink | None = None,
        bulk: bool = False,
        request_id: int = 0,
    ) -> R:
        """Call the member that ``pick`` chooses of the chain's record (None: nobody can answer now)."""
        deadline_s = self._clock.boot_s() + timeout_s
        doubt: MaybeApplied | None = None
        attempt = 0
        while True:
            left_s = deadline_s - self._clock.boot_s()
            asked = self._asked(chain, pick)
            try:
                info, address = self._locate(chain, pick)
                call = self._caller.call(
                    address,
                    method,
                    build(info),
                    timeout_s=max(0.001, min(left_s, CALL_TIMEOUT_S)),
                    payload=payload,
                    sink=sink,
                    bulk=bulk,
                    request_id=request_id,
                )
                return await (self._while_picked(chain, pick, address, call) if idempotent else call)
            except MaybeApplied as error:
                if not idempotent:
                    raise
                failure: Fs3Error = error
                doubt = error
            except (Retryable, StaleRouting) as error:
                failure = error
            pause_s = self._pause_s(failure, attempt)
            attempt += 1
            if self._clock.boot_s() + pause_s >= deadline_s:
                raise _given_up(chain, method.name, attempt, doubt, failure)
            await self._pause(chain, pick, asked, pause_s)
            await self._fetch_if_old(failure, deadline_s)

    async def _while_picked(
        self,
        chain: ChainId,
        pick: Callable[[ChainInfo], Member | None],
        address: str,
        call: Awaitable[R],
    ) -> R:
        """The answer to ``call``; MaybeApplied once routing says that somebody else is to be asked.

        A member that is silent leaves its chain after some seconds; whoever waited for it to the end of the
        attempt, and met it once more just before it left, would wait twice.
        """
        if asyncio.current_task() is None:
            await asyncio.sleep(0)  # a handler that has not waited yet: it is a task from here on
        loop = asyncio.get_running_loop()
        guard = asyncio.timeout(None)
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal timer
            try:
                is_picked = self._locate(chain, pick)[1] == address
            except StaleRouting:
                is_picked = True  # nobody else can answer
            if is_picked:
                timer = loop.call_later(LOOK_S, look)
            else:
                guard.reschedule(loop.time())

        timer = loop.call_later(LOOK_S, look)
        try:
            async with guard:
                return await call
        except TimeoutError as error:
            if not guard.expired():
                raise
            raise MaybeApplied(f"{address} is not to be asked any more for chain {chain}") from error
        finally:
            timer.cancel()

    def _locate(self, chain: ChainId, pick: Callable[[ChainInfo], Member | None]) -> tuple[ChainInfo, str]:
        routing = self._routing.routing
        info = routing.chains.get(chain)
        if info is None:
            raise StaleRouting(f"chain {chain} is not in routing {routing.version}")
        member = pick(info)
        if member is None:
            raise StaleRouting(f"no member of chain {chain} version {info.version} can answer")
        address = routing.address_of(member.target)
        if address is None:
            raise StaleRouting(f"node {member.node} of chain {chain} is not in routing {routing.version}")
        return info, address

    def _pause_s(self, failure: Fs3Error, attempt: int) -> float:
        longest_s = STALE_PAUSE_S if isinstance(failure, StaleRouting) else PAUSE_MAX_S
        return (0.5 + self._rng.random() / 2) * min(longest_s, FIRST_PAUSE_S * float(1 << min(attempt, 20)))

    async def _fetch_if_old(self, failure: Fs3Error, deadline_s: float) -> None:
        """Where the picture may be old, fetch a newer one, bounded by the deadline."""
        if isinstance(failure, StaleRouting | Unavailable | MaybeApplied):
            try:
                async with asyncio.timeout(max(0.0, min(CALL_TIMEOUT_S, deadline_s - self._clock.boot_s()))):
                    await self._routing.refresh()
            except (TimeoutError, Retryable, MaybeApplied):
                return  # mgmtd is away: what we know may still be right

    async def _pause(
        self, chain: ChainId, pick: Callable[[ChainInfo], Member | None], asked: Asked, pause_s: float
    ) -> None:
        """Wait so long; less if somebody else is to be asked by then, or under another version."""
        until_s = self._clock.boot_s() + pause_s
        while (left_s := until_s - self._clock.boot_s()) > 0:
            if self._asked(chain, pick) != asked:
                return
            await asyncio.sleep(min(max(left_s, SHORTEST_WAIT_S), LOOK_S))

    def _asked(self, chain: ChainId, pick: Callable[[ChainInfo], Member | None]) -> Asked:
        try:
            info, address = self._locate(chain, pick)
        except StaleRouting:
            return None
        return info.version, address


def _given_up(
    chain: ChainId, method: str, attempts: int, doubt: MaybeApplied | None, last: Fs3Error
) -> Fs3Error:
    text = f"{method} on chain {chain}: gave up after {attempts} attempts: {last}"
    error = MaybeApplied(text) if doubt is not None else DeadlineExceeded(text)
    error.__cause__ = last
    return error


class StorageStub:
    """What the metadata service asks of storage. All calls may be repeated.

    Every call raises DeadlineExceeded or MaybeApplied when a chain has not answered within ``timeout_s``
    (some chains may have done it); StaleFile when a higher epoch than the named one is in force.
    """

    def __init__(
        self, chains: ChainCaller, routing: RoutingSource, caller: Caller, clock: Clock, scope: TaskScope
    ) -> None:
        self._chains = chains
        self._routing = routing
        self._caller = caller
        self._clock = clock
        self._scope = scope

    async def raise_epoch(
        self, inode: InodeId, epoch: Epoch, chains: Sequence[ChainId], *, timeout_s: float
    ) -> Epoch:
        """Put ``epoch`` in force on every chain: no update numbered under an older one will appear (4.9).

        Returns the greatest epoch found in force: greater than ``epoch`` if somebody raised it further.
        """

        async def one(chain: ChainId) -> Epoch:
            def build(info: ChainInfo) -> RaiseEpochRequest:
                return RaiseEpochRequest(chain=chain, chain_version=info.version, inode=inode, epoch=epoch)

            answer = await self._chains.call_head(
                chain, RAISE_EPOCH, build, timeout_s=timeout_s, idempotent=True
            )
            return answer.epoch

        return max(await self._each(f"raise {inode:x}", one, chains), default=epoch)

    async def cut(
        self,
        inode: InodeId,
        layout: Layout,
        chains: Sequence[ChainId],
        length_bytes: int,
        epoch: Epoch,
        *,
        timeout_s: float,
    ) -> int:
        """Remove what lies beyond ``length_bytes``; the epoch must be in force. Returns how many chunks."""
        deadline_s = self._clock.boot_s() + timeout_s
        size = layout.chunk_size_bytes
        first_removed = chunk_count(length_bytes, size)
        within = length_bytes % size
        boundary_chain = chains[(first_removed - 1) % len(chains)] if within else None

        async def one(chain: ChainId) -> int:
            def build(info: ChainInfo) -> CutRequest:
                return CutRequest(
                    chain=chain,
                    chain_version=info.version,
                    inode=inode,
                    epoch=epoch,
                    first_removed=first_removed,
                    boundary_length_bytes=within if chain == boundary_chain else -1,
                    chunk_size_bytes=size,
                )

            removed = 0
            while True:
                left_s = deadline_s - self._clock.boot_s()
                answer = await self._chains.call_head(chain, CUT, build, timeout_s=left_s, idempotent=True)
                removed += answer.removed_count
                if not answer.more:
                    return removed

        return sum(await self._each(f"cut {inode:x}", one, chains))

    async def file_end(
        self, inode: InodeId, layout: Layout, chains: Sequence[ChainId], *, timeout_s: float
    ) -> FileEnd:
        """Where the written bytes end: the greatest end over all chains, counted after this call began."""
        size = layout.chunk_size_bytes

        async def one(chain: ChainId) -> FileEnd:
            def build(info: ChainInfo) -> QueryLengthRequest:
                return QueryLengthRequest(chain=chain, chain_version=info.version, inode=inode)

            found = await self._chains.call_head(
                chain, QUERY_LENGTH, build, timeout_s=timeout_s, idempotent=True
            )
            end = found.chunk_index * size + found.length_bytes if found.chunk_index >= 0 else 0
            return FileEnd(end, found.chunk_count, found.used_bytes)

        ends = await self._each(f"length {inode:x}", one, chains)
        return FileEnd(
            max((end.length_bytes for end in ends), default=0),
            sum(end.chunk_count for end in ends),
            sum(end.used_bytes for end in ends),
        )

    async def end_session(
        self, session: ClientSessionId, chains: Sequence[ChainId], *, timeout_s: float
    ) -> None:
        """Refuse every later update of ``session`` on these chains (design 4.5)."""

        async def one(chain: ChainId) -> None:
            def build(info: ChainInfo) -> EndSessionRequest:
                return EndSessionRequest(chain=chain, chain_version=info.version, session=session)

            await self._chains.call_head(chain, END_SESSION, build, timeout_s=timeout_s, idempotent=True)

        await self._each(f"end session {session:x}", one, chains)

    async def space(self, *, timeout_s: float) -> tuple[TargetSpace, ...]:
        """Every target's space, of the storage nodes that answer in time, by target."""
        nodes = self._routing.routing.alive(NodeKind.STORAGE)

        async def one(address: str) -> tuple[TargetSpace, ...]:
            try:
                return (await self._caller.call(address, SPACE, SpaceRequest(), timeout_s=timeout_s)).targets
            except (Retryable, MaybeApplied):
                return ()  # a node that is away has no space to offer

        answers = await self._each("space", one, [node.address for node in nodes])
        return tuple(sorted((t for answer in answers for t in answer), key=lambda t: t.target))

    async def _each(self, name: str, one: Callable[[I], Awaitable[O]], items: Sequence[I]) -> list[O]:
        return await for_each(self._scope, name, one, items, at_once=CHAINS_AT_ONCE)


async def for_each(
    scope: TaskScope, name: str, one: Callable[[I], Awaitable[O]], items: Sequence[I], *, at_once: int
) -> list[O]:
    """``one(item)`` for all items, at most ``at_once`` at a time; results in order.

    The first error cancels the rest and is raised when they have ended. MaybeApplied: ``scope`` was closed
    meanwhile; CancelledError only if the caller is cancelled.
    """
    if len(items) == 1:
        return [await one(items[0])]
    results: dict[int, O] = {}
    waiting: Iterator[tuple[int, I]] = iter(enumerate(items))

    async def lane() -> None:
        for index, item in waiting:
            results[index] = await one(item)

    lanes = [scope.start(f"{name} {i}", lane()) for i in range(min(at_once, len(items)))]
    try:
        for task in lanes:
            await outcome_of(task)
    finally:
        await end_tasks(lanes)
    return [results[index] for index in range(len(items))]
