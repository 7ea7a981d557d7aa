"""Reading chunks: pieces to the best replicas, again elsewhere when one fails, hedged when one is slow.

A round groups the missing pieces by server and sends all requests at once; whatever did not arrive goes into
the next round, at other replicas. Rounds end when all is there, when an error is the caller's, or at the
deadline. What each error means for the next round:

=================================  ====================================================================
StaleRouting                       fetch routing, then again (within 100 ms)
Unavailable, MaybeApplied, Busy…   another replica, at once; after all of them failed: a pause, routing
wrong sum on arrival               once more of the same replica, which compares its bytes first; what the
                                   way did is mended so, what the disk did it answers as CorruptData
CorruptData                        another replica, which has been mended meanwhile if it is the same one;
                                   after some tries of every replica it is the answer
CapabilityExpired                  present it again, same replica; in vain: as StaleFile
StaleFile                          the caller re-reads the inode
=================================  ====================================================================

Hedge: a request that takes too long is asked of other replicas into memory of its own. If that wins, the
first call is ended (no byte of it can arrive any more) before the bytes are copied to their places.

Source: design 4.4, 6.2, 8 (a node's death stalls a read ≤ 1 s).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fs3.errors import (
    Busy,
    CapabilityExpired,
    CorruptData,
    DeadlineExceeded,
    Fs3Error,
    MaybeApplied,
    Retryable,
    StaleFile,
    StaleRouting,
    Unavailable,
)
from fs3.ids import ChainId, ChainVersion, ChunkId
from fs3.tasks import TaskScope, end_tasks, outcome_of
from fs3.wire.storage import READ, ReadItem, ReadRequest

from .byte_budget import ByteBudget
from .memory import fresh_memory
from .open_files import OpenFile
from .plan import BULK_BYTES_MIN, Batch, Piece, group
from .receiving import ReadSink, WrongSum
from .selection import HedgeBudget, Latencies, Replicas
from .session import Session
from .settings import ClientSettings, Components

ATTEMPT_TIMEOUT_S = 5.0
"""Longest wait for one request; a server that hangs that long is given up (hedges come much earlier)."""
FIRST_PAUSE_S = 0.01
PAUSE_MAX_S = 0.1
CORRUPT_TRIES = 2
"""Times that one replica may give wrong bytes: the second time it has compared them with their sums."""
CORRUPT_TRIES_MIN = 8
"""Of all replicas together: a replica that serves alone fetches right bytes from others within moments."""
DOUBTS_MAX = 1024
"""Chunks that ``Reader.doubt`` remembers; who reads beyond that finds out again."""
REFUSED_TRIES = 4
"""Times that a capability is presented again for one piece; then it is over, and got anew."""
TRIES_KEPT = 2
"""Failed addresses that are avoided, beside the last one: in a chain of three, all others."""
ONE_REPLICA_BYTES = 1 << 20
"""Of one read: so much of a chain's bytes go to one replica before the choice is made again."""
REFRESH_TIMEOUT_S = 0.5
SILENCE_LOOK_S = 0.05
"""How often a late request without a hedge looks whether its server answers others."""
TOGETHER_BYTES = 256 * 1024
"""Small pieces go to one server up to this, before others are asked as well."""
NOT_CHOSEN = ("", -1)

MENDABLE = (Retryable, MaybeApplied, StaleRouting, StaleFile, CapabilityExpired, CorruptData)
"""Errors of one request that another round, or the caller, may mend."""

FilePiece = Piece[OpenFile]
FileBatch = Batch[OpenFile]


class Failure(NamedTuple):
    """A piece that did not arrive, the server that was asked ("": none could be), and why."""

    piece: FilePiece
    address: str
    error: Fs3Error


@dataclass(slots=True)
class ReaderCounters:
    """What readers did; exported by whoever runs the client."""

    requests: int = 0
    pieces: int = 0
    bytes: int = 0
    retried_pieces: int = 0
    hedges: int = 0
    hedges_won: int = 0
    wrong_sums: int = 0
    """Pieces that came with a wrong sum, and were asked for once more of the same replica."""
    corrupt_pieces: int = 0
    """Those that were wrong then as well, or of which a replica said that its bytes are wrong."""


class Reader:
    """Reads pieces for all files of one client process."""

    def __init__(self, components: Components, settings: ClientSettings, scope: TaskScope) -> None:
        self._caller = components.caller
        self._routing = components.routing
        self._clock = components.clock
        self._rng = components.rng
        self._settings = settings
        self._scope = scope
        self.replicas = Replicas()
        self.latencies = Latencies()
        self.hedges = HedgeBudget()
        self.budget = ByteBudget(settings.bytes_in_flight_max)
        self.counters = ReaderCounters()
        self._doubts: dict[ChunkId, str] = {}

    async def read(self, session: Session, pieces: list[FilePiece], timeout_s: float) -> list[OpenFile]:
        """Fill the views of all pieces (of files of one session).

        Returns the files whose inode has to be read again before they are asked for again (StaleFile, or
        the capability is over); the pieces of all others are there. SessionLost; CorruptData: all replicas
        are wrong; DeadlineExceeded.
        """
        deadline_s = self._clock.boot_s() + timeout_s
        self.counters.pieces += len(pieces)
        if self._doubts:
            self._take_doubts(pieces)
        attempt = 0
        stale: dict[OpenFile, None] = {}
        while True:
            failures: list[Failure] = []
            try:
                batches = self.plan(pieces)
            except StaleRouting as error:
                failures = [Failure(piece, "", error) for piece in pieces]
            else:
                await self._run(session, batches, deadline_s, failures)
            stale.update((f.piece.file, None) for f in failures if _is_outdated(f))
            failures = [failure for failure in failures if failure.piece.file not in stale]
            if not failures:
                return list(stale)
            pieces = [failure.piece for failure in failures]
            worst = self._judge(session, failures)
            attempt += not all(piece.doubted for piece in pieces)
            await self._before_next(worst, attempt, deadline_s)

    # --- where to ---

    def plan(self, pieces: Iterable[FilePiece]) -> list[FileBatch]:
        """Requests for the pieces, at the best replicas. StaleRouting: a chain has none."""
        now_s = self._clock.boot_s()
        planned_bytes: dict[str, int] = {}
        serving: dict[ChainId, list[str]] = {}
        chosen: dict[ChainId, tuple[str, int]] = {}

        def choose(piece: FilePiece) -> str:
            chain = piece.chain
            address, room_bytes = chosen.get(chain, NOT_CHOSEN)
            size_bytes = piece.length_bytes
            if not piece.tries and room_bytes >= size_bytes:
                chosen[chain] = (address, room_bytes - size_bytes)
            else:
                addresses = serving.get(chain)
                if addresses is None:
                    addresses = serving[chain] = self._serving(chain)
                may_join = size_bytes < BULK_BYTES_MIN and not piece.tries
                joined = self._joined(addresses, planned_bytes, now_s) if may_join else None
                address = joined or self.replicas.choose(addresses, now_s, piece.tries, planned_bytes)
                if piece.doubted in addresses:
                    address = piece.doubted
                if not piece.tries:
                    chosen[chain] = (address, ONE_REPLICA_BYTES - size_bytes)
            planned_bytes[address] = planned_bytes.get(address, 0) + size_bytes
            return address

        return group(pieces, choose)

    def choose_small(self, chain: ChainId, planned_bytes: dict[str, int], now_s: float) -> str:
        """The server for small pieces of a chain, as ``plan`` would choose it. StaleRouting: it has none."""
        addresses = self._serving(chain)
        joined = self._joined(addresses, planned_bytes, now_s)
        return joined or self.replicas.choose(addresses, now_s, (), planned_bytes)

    def _joined(self, addresses: list[str], planned_bytes: dict[str, int], now_s: float) -> str | None:
        """A server that gets a small request anyway: a message more costs more than what is in it."""
        for address in addresses:
            if 0 < planned_bytes.get(address, 0) < TOGETHER_BYTES:
                return None if self.replicas.is_suspected(address, now_s) else address
        return None

    def _serving(self, chain: ChainId) -> list[str]:
        routing = self._routing.routing
        info = routing.chains.get(chain)
        members = info.serving if info is not None else ()
        found = [address for m in members if (address := routing.address_of(m.target)) is not None]
        if not found:
            raise StaleRouting(f"no member of chain {chain} serves in routing {routing.version}")
        return found

    # --- a round ---

    async def _run(
        self, session: Session, batches: list[FileBatch], deadline_s: float, failures: list[Failure]
    ) -> None:
        if len(batches) == 1:
            await self._one(session, batches[0], deadline_s, failures)
            return
        tasks = [
            self._scope.start("read", self._one(session, batch, deadline_s, failures)) for batch in batches
        ]
        try:
            for task in tasks:
                await outcome_of(task)
        finally:
            await end_tasks(tasks)

    async def _one(
        self, session: Session, batch: FileBatch, deadline_s: float, failures: list[Failure]
    ) -> None:
        """One request, its hedge if need be; what did not arrive is added to ``failures``."""
        sink = ReadSink(batch.pieces)
        await self.budget.take(batch.bytes)
        self.replicas.begin(batch.address, batch.bytes)
        try:
            error = await self._hedged(session, batch, sink, deadline_s)
        finally:
            self.replicas.end(batch.address, batch.bytes)
            self.budget.give(batch.bytes)
        for at in sink.missing():
            cause = sink.failed.get(at) or error or Unavailable(f"{batch.address} left a range out")
            failures.append(Failure(batch.pieces[at], batch.address, cause))

    async def _hedged(
        self, session: Session, batch: FileBatch, sink: ReadSink[OpenFile], deadline_s: float
    ) -> Fs3Error | None:
        self.hedges.earn()
        if not self._settings.hedge:
            return await self._call(session, batch, sink, deadline_s)
        started_s = self._clock.boot_s()
        first = self._scope.start("read first", self._call(session, batch, sink, deadline_s))
        second: asyncio.Task[None] | None = None
        try:
            await asyncio.wait((first,), timeout=self.latencies.hedge_after_s(batch.bytes))
            if not first.done():
                self.replicas.suspect(batch.address, self._clock.boot_s())
                if await self._may_hedge(batch.address, first, started_s):
                    hedge = self._hedge(session, batch, sink, first, deadline_s)
                    second = self._scope.start("read hedge", hedge)
                    await asyncio.wait((first, second), return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait((first,))
            if second is not None and first.cancelled():
                await outcome_of(second)  # it has won, ended the first, and now copies
                return None
            return await outcome_of(first)
        finally:
            await end_tasks([first] if second is None else [second, first])

    async def _may_hedge(self, address: str, first: asyncio.Task[Fs3Error | None], started_s: float) -> bool:
        """Whether to ask another replica: at once while the budget lasts, else when the server is silent."""
        while not first.done():
            if self.hedges.spend() or self.replicas.is_silent(address, started_s, self._clock.boot_s()):
                return True
            await asyncio.wait((first,), timeout=SILENCE_LOOK_S)
        return False

    async def _hedge(
        self,
        session: Session,
        batch: FileBatch,
        sink: ReadSink[OpenFile],
        first: asyncio.Task[Fs3Error | None],
        deadline_s: float,
    ) -> None:
        """Read what the first call has not brought from other replicas, one after the other if need be; if
        all of it comes, end the first."""
        self.counters.hedges += 1
        tried: tuple[str, ...] = (batch.address,)
        while True:
            wanted = sink.missing()
            copies = [_elsewhere(batch.pieces[at], tried) for at in wanted]
            try:
                batches = self.plan(copies)
            except StaleRouting:
                return
            asked = tuple([other.address for other in batches])
            if any(address in tried for address in asked):
                return  # there is no other replica: the first call is still there for it, and the next round
            tried += asked
            if await self._read_copies(session, batches, tried, deadline_s):
                break
        await end_tasks([first])  # from here on no byte of it can arrive
        for at, copy in zip(wanted, copies, strict=True):
            if not sink.done[at]:
                sink.views[at][:] = copy.view
                sink.done[at] = 1
        self.counters.hedges_won += 1

    async def _read_copies(
        self, session: Session, batches: list[FileBatch], tried: Sequence[str], deadline_s: float
    ) -> bool:
        """Whether all of it came; not waiting long where there are more replicas to ask."""
        for other in batches:
            sink = ReadSink(other.pieces)
            self.replicas.begin(other.address, other.bytes)
            try:
                async with asyncio.timeout(self._patience_s(other, tried)):
                    failure = await self._call(session, other, sink, deadline_s)
            except TimeoutError:
                self.replicas.suspect(other.address, self._clock.boot_s())
                return False
            finally:
                self.replicas.end(other.address, other.bytes)
            if failure is not None or sink.missing():
                self.doubt(other, sink)
                return False
        return True

    def _patience_s(self, batch: FileBatch, tried: Sequence[str]) -> float | None:
        """How long to wait for a copy; None: nobody else could be asked for it."""
        routing = self._routing.routing
        for piece in batch.pieces:
            info = routing.chains.get(piece.chain)
            members = info.serving if info is not None else ()
            if all(routing.address_of(member.target) in (None, *tried) for member in members):
                return None
        return self.latencies.hedge_after_s(batch.bytes)

    async def _call(
        self, session: Session, batch: FileBatch, sink: ReadSink[OpenFile], deadline_s: float
    ) -> Fs3Error | None:
        """Send one request. Errors that another round may mend are returned, others raised."""
        started_s = self._clock.boot_s()
        timeout_s = max(0.001, min(deadline_s - started_s, ATTEMPT_TIMEOUT_S))
        try:
            numbers = dict.fromkeys([piece.file.capability for piece in batch.pieces])
            await session.capabilities.present(batch.address, numbers, timeout_s)
            request = self.request(session, batch.pieces)
            await self._caller.call(
                batch.address, READ, request, timeout_s=timeout_s, sink=sink, bulk=batch.is_bulk
            )
        except MENDABLE as error:
            if isinstance(error, Unavailable | MaybeApplied):
                self.replicas.suspect(batch.address, self._clock.boot_s())
            return error
        self.note(batch, self._clock.boot_s() - started_s)
        return None

    def note(self, batch: FileBatch, took_s: float) -> None:
        """A request was answered."""
        self.latencies.note(batch.bytes, took_s)
        self.replicas.trust(batch.address, self._clock.boot_s())
        self.counters.requests += 1
        self.counters.bytes += batch.bytes

    def request(self, session: Session, pieces: Sequence[FilePiece]) -> ReadRequest:
        """The message for one batch. StaleRouting: a chain has gone from routing since it was planned."""
        chains = self._routing.routing.chains
        versions: dict[ChainId, ChainVersion] = {}
        items = []
        verify = False
        for piece in pieces:
            if piece.doubted:
                verify = True
            chain = piece.chain
            version = versions.get(chain)
            if version is None:
                info = chains.get(chain)
                if info is None:
                    raise StaleRouting(f"chain {chain} is not in routing any more")
                version = versions[chain] = info.version
            number = piece.file.capability
            items.append(
                ReadItem(chain, version, piece.chunk, piece.offset_bytes, piece.length_bytes, number)
            )
        return ReadRequest(session=session.id, items=tuple(items), verify=verify)

    # --- between rounds ---

    def _judge(self, session: Session, failures: list[Failure]) -> Fs3Error:
        """Note what each failure means for its piece; raises what no further round can mend. Returns the
        failure that asks for the longest pause."""
        worst = failures[0].error
        self.counters.retried_pieces += len(failures)
        for piece, address, error in failures:
            if isinstance(error, CapabilityExpired):
                session.capabilities.forget(address, piece.file.capability)
                piece.refused_count += 1
            elif isinstance(error, CorruptData):
                self._judge_corrupt(piece, address, error)
            elif not isinstance(error, Retryable | MaybeApplied | StaleRouting):
                raise error
            if not isinstance(error, CapabilityExpired):
                if not isinstance(error, WrongSum):
                    piece.doubted = ""  # else a replica that does not answer would be asked for ever
                if piece.tries[-1:] != (address,):
                    piece.tries = (*piece.tries[-TRIES_KEPT:], address)
            if isinstance(error, StaleRouting | Busy):
                worst = error
        return worst

    def _judge_corrupt(self, piece: FilePiece, address: str, error: CorruptData) -> None:
        """Doubt the replica, or, if it was in doubt already, believe that it is wrong."""
        piece.corrupt_count += 1
        if isinstance(error, WrongSum) and not piece.doubted:
            piece.doubted = address
            self.counters.wrong_sums += 1
        else:
            piece.doubted = ""
            self.counters.corrupt_pieces += 1
        if piece.corrupt_count >= max(CORRUPT_TRIES_MIN, CORRUPT_TRIES * len(self._serving(piece.chain))):
            raise error

    def doubt(self, batch: FileBatch, sink: ReadSink[OpenFile]) -> None:
        """What of a request came with a wrong sum, and whoever made it does not ask again: the next ``read``
        of these chunks asks that replica first, and has it compare its bytes. From any thread."""
        for at, error in sink.failed.items():
            if isinstance(error, WrongSum) and len(self._doubts) < DOUBTS_MAX:
                self._doubts[batch.pieces[at].chunk] = batch.address

    def _take_doubts(self, pieces: Sequence[FilePiece]) -> None:
        taken: dict[ChunkId, None] = {}
        for piece in pieces:
            address = self._doubts.get(piece.chunk, "")
            if address:  # all pieces of the chunk: nobody remembers which one was wrong
                piece.doubted, piece.tries, piece.corrupt_count = address, (address,), 1
                self.counters.wrong_sums += 1
                taken[piece.chunk] = None
        for chunk in taken:
            self._doubts.pop(chunk, None)

    async def _before_next(self, worst: Fs3Error, attempt: int, deadline_s: float) -> None:
        """Pause (not before the first other replica is tried), fetch routing where it may be old."""
        waits = attempt > 1 or isinstance(worst, StaleRouting | Busy)
        pause_s = min(PAUSE_MAX_S, FIRST_PAUSE_S * float(1 << min(attempt, 10))) if waits else 0.0
        pause_s *= 0.5 + self._rng.random() / 2
        left_s = deadline_s - self._clock.boot_s()
        if left_s <= pause_s:
            raise DeadlineExceeded(f"read: gave up after {attempt} attempts: {worst}") from worst
        if pause_s:
            await asyncio.sleep(pause_s)
        if isinstance(worst, StaleRouting) or attempt > 1:
            try:
                async with asyncio.timeout(min(REFRESH_TIMEOUT_S, left_s)):
                    await self._routing.refresh()
            except (TimeoutError, Retryable, MaybeApplied):
                return  # mgmtd is away: what we know may still be right


def _elsewhere(piece: FilePiece, not_at: Sequence[str]) -> FilePiece:
    """The same range for another replica, into memory of its own."""
    room = fresh_memory(piece.length_bytes)
    copy = Piece(piece.file, piece.chain, piece.chunk, piece.offset_bytes, piece.length_bytes, room)
    copy.tries = (*piece.tries, *not_at)
    return copy


def _is_outdated(failure: Failure) -> bool:
    """Whether what this client knows of the file is of no use any more: its epoch or its capability."""
    if isinstance(failure.error, CapabilityExpired):
        return failure.piece.refused_count >= REFUSED_TRIES
    return isinstance(failure.error, StaleFile)
