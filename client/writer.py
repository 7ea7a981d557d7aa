"""Writing chunks: each piece to the head of its chain, once, however often it has to be sent.

A request has a channel and a number of its own and keeps both over all its tries, so a chain applies it once.
At most ``writes_in_flight_max`` are under way in a process; updates of one chunk of a file go one after the
other, so that what was written later is what stays. Sums are computed once.

A write that met StaleFile (the file was cut since) is sent again under the new epoch: nothing of it was
applied under the old one.

Source: design 4.5 (exactly once), 4.9 (epoch), 5.3, 6.2.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fs3.errors import (
    CapabilityExpired,
    CorruptData,
    MaybeApplied,
    Retryable,
    SessionLost,
    StaleFile,
)
from fs3.ids import ChainId, ChunkId
from fs3.routing import ChainInfo
from fs3.rpc.service import Buffer
from fs3.stubs.storage import ChainCaller
from fs3.tasks import TaskScope, end_tasks, outcome_of, time_limit
from fs3.wire.chunk import UpdateKind
from fs3.wire.storage import WRITE, WriteRequest

from .channels import Channel, Channels
from .open_files import SAME_TRIES, FileTable, OpenFile, stale_pause_s
from .outgoing import cut_buffers, piece_sums
from .plan import BULK_BYTES_MIN
from .session import Session
from .settings import ClientSettings, Components

CORRUPT_TRIES = 3
REFUSED_PAUSE_S = 0.01
REFUSED_PAUSE_MAX_S = 0.2
"""Between two tries to make a capability known to a head."""
STALE_TRIES = 8
"""Epochs that one write may be overtaken by."""


@dataclass(slots=True)
class WriterCounters:
    """What writers did; exported by whoever runs the client."""

    requests: int = 0
    bytes: int = 0
    stale_files: int = 0
    corrupt: int = 0


class ChannelPool:
    """Waits for a channel of the session."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, chunk: ChunkId) -> Channel:
        """A channel for a new request to ``chunk``. The caller's deadline bounds the wait."""
        while (channel := self._channels.take(chunk)) is None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            finally:
                if future in self._waiting:
                    self._waiting.remove(future)
        return channel

    def give_back(self, channel: Channel, chunk: ChunkId, *, in_doubt: bool) -> None:
        """See ``Channels.give_back``."""
        self._channels.give_back(channel, chunk, in_doubt=in_doubt)
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:  # all look again: one of them may wait for exactly this channel
            if not future.done():
                future.set_result(None)


class ChunkOrder:
    """One update at a time of each chunk, in order of arrival."""

    def __init__(self) -> None:
        self._queues: dict[ChunkId, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, chunk: ChunkId) -> AsyncIterator[None]:
        """Wait for, and hold, the turn."""
        queue = self._queues.get(chunk)
        if queue is None:
            self._queues[chunk] = deque()
        else:
            await self._wait(queue, chunk)
        try:
            yield
        finally:
            self._pass_on(chunk)

    async def _wait(self, queue: deque[asyncio.Future[None]], chunk: ChunkId) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(future)
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled():
                self._pass_on(chunk)
            else:
                queue.remove(future)
            raise

    def _pass_on(self, chunk: ChunkId) -> None:
        queue = self._queues[chunk]
        while queue:
            future = queue.popleft()
            if not future.done():
                future.set_result(None)
                return
        del self._queues[chunk]


class Writer:
    """Writes pieces for all files of one client process."""

    def __init__(
        self, components: Components, files: FileTable, settings: ClientSettings, scope: TaskScope
    ) -> None:
        self._routing = components.routing
        self._clock = components.clock
        self._files = files
        self._settings = settings
        self._scope = scope
        self._chains = ChainCaller(components.routing, components.caller, components.clock, components.rng)
        self._in_flight = asyncio.Semaphore(settings.writes_in_flight_max)
        self._order = ChunkOrder()
        self._pools: dict[int, ChannelPool] = {}
        self.counters = WriterCounters()

    async def write(
        self, file: OpenFile, offset_bytes: int, data: Sequence[Buffer], timeout_s: float
    ) -> None:
        """Write the buffers, one after the other, from ``offset_bytes`` on; returns when the chains have
        them. Pieces of several chunks are written at the same time.

        MaybeApplied: given up; parts of it may be there. ESTALE, EIO and others as ``failures`` says.
        """
        pieces = cut_buffers(data, offset_bytes, file.chunk_size_bytes)
        if len(pieces) == 1:
            await self.write_chunk(file, *pieces[0], timeout_s)
            return
        tasks = [
            self._scope.start("write", self.write_chunk(file, index, within, parts, timeout_s))
            for index, within, parts in pieces
        ]
        try:
            for task in tasks:
                await outcome_of(task)
        finally:
            await end_tasks(tasks)

    async def write_chunk(
        self, file: OpenFile, index: int, within_bytes: int, parts: Sequence[memoryview], timeout_s: float
    ) -> None:
        """Write ``parts`` into chunk ``index`` from ``within_bytes`` on."""
        deadline_s = self._clock.boot_s() + timeout_s
        chunk = ChunkId(file.inode, index)
        try:
            async with time_limit(timeout_s), self._order.turn(chunk), self._in_flight:
                await self._once(file, chunk, within_bytes, parts, deadline_s)
        except TimeoutError as error:
            raise MaybeApplied(f"write of chunk {chunk}: gave up after {timeout_s:.0f} s") from error

    async def _once(
        self,
        file: OpenFile,
        chunk: ChunkId,
        within_bytes: int,
        parts: Sequence[memoryview],
        deadline_s: float,
    ) -> None:
        session = file.session
        if session.is_lost:
            raise SessionLost(f"client session {session.id:x} is over")
        length_bytes = sum(map(len, parts))
        sums = piece_sums(parts, within_bytes)
        pool = self._pool_of(session)
        channel = await pool.take(chunk)
        in_doubt = True

        def build(info: ChainInfo) -> WriteRequest:
            return WriteRequest(
                chain=info.chain,
                chain_version=info.version,
                chunk=chunk,
                kind=UpdateKind.WRITE,
                offset_bytes=within_bytes,
                length_bytes=length_bytes,
                sums=sums,
                session=session.id,
                channel=channel.number,
                sequence=channel.sequence,
                epoch=file.epoch,
                chunk_size_bytes=file.chunk_size_bytes,
                capability=file.capability,
            )

        try:
            await self._until_done(file, chunk, build, parts, deadline_s)
            in_doubt = False
        finally:
            pool.give_back(channel, chunk, in_doubt=in_doubt)
        end_bytes = chunk.chunk_index * file.chunk_size_bytes + within_bytes + length_bytes
        file.written_end_bytes = max(file.written_end_bytes, end_bytes)
        self.counters.requests += 1
        self.counters.bytes += length_bytes

    def _pool_of(self, session: Session) -> ChannelPool:
        pool = self._pools.get(session.id)
        if pool is None:
            pool = ChannelPool(session.channels)
            self._pools = {session.id: pool}  # of sessions that are over nothing is sent any more
        return pool

    async def _until_done(
        self,
        file: OpenFile,
        chunk: ChunkId,
        build: Callable[[ChainInfo], WriteRequest],
        parts: Sequence[memoryview],
        deadline_s: float,
    ) -> None:
        """Send until the chain has it, mending what can be mended in between."""
        chain = file.chains[chunk.chunk_index % len(file.chains)]
        is_bulk = sum(map(len, parts)) > BULK_BYTES_MIN
        corrupt_count = refused_count = change_count = same_count = 0
        while True:
            left_s = deadline_s - self._clock.boot_s()
            await self._make_known(file, chain, left_s)
            try:
                await self._chains.call_head(
                    chain, WRITE, build, timeout_s=left_s, idempotent=True, payload=parts, bulk=is_bulk
                )
                return
            except CapabilityExpired:
                # The head has started again, and takes no capability before it knows the cluster's time:
                # with the mgmtd away that lasts. One that is over is refused where it is presented.
                self._forget(file, chain)
                await asyncio.sleep(min(REFUSED_PAUSE_MAX_S, REFUSED_PAUSE_S * 2.0 ** min(refused_count, 8)))
                refused_count += 1
            except CorruptData:
                self.counters.corrupt += 1
                corrupt_count += 1  # damaged on its way: the sums say so before anything is stored
                if corrupt_count >= CORRUPT_TRIES:
                    raise
            except StaleFile:
                self.counters.stale_files += 1
                epoch = file.epoch
                await self._files.refresh(file, left_s)
                if file.epoch != epoch:
                    change_count += 1
                else:
                    await asyncio.sleep(stale_pause_s(same_count))
                    same_count += 1
                if change_count >= STALE_TRIES or same_count >= SAME_TRIES:
                    raise

    def _head_address(self, chain: ChainId) -> str | None:
        routing = self._routing.routing
        info = routing.chains.get(chain)
        return routing.address_of(info.serving[0].target) if info is not None and info.serving else None

    async def _make_known(self, file: OpenFile, chain: ChainId, timeout_s: float) -> None:
        """Let the head know the capability; one that is over (cluster time leaps at each new primary) is
        got anew."""
        try:
            await self._present(file, chain, timeout_s)
        except CapabilityExpired:
            await self._files.refresh(file, timeout_s)
            await self._present(file, chain, timeout_s)

    async def _present(self, file: OpenFile, chain: ChainId, timeout_s: float) -> None:
        """Tell the head about the capability before the first write there, if it can be reached.

        CapabilityExpired: it is over, and was not renewed in time.
        """
        address = self._head_address(chain)
        if address is None or file.session.capabilities.is_presented(address, file.capability):
            return
        try:
            await file.session.capabilities.present(address, (file.capability,), timeout_s)
        except (Retryable, MaybeApplied):
            return  # the write itself will wait for the head, and be told

    def _forget(self, file: OpenFile, chain: ChainId) -> None:
        address = self._head_address(chain)
        if address is not None:
            file.session.capabilities.forget(address, file.capability)
