"""Readers that do what our client would not: stick to one replica and to old routing, or read relaxed.

Only such a reader shows that a replica that was left out serves no more (``chain_model`` D). What it is
answered must fit into the chunk's history as anybody's read; what it is refused is its own fault.
"""

from __future__ import annotations

import asyncio

from fs3.client.open_files import OpenFile
from fs3.client.plan import Piece
from fs3.client.receiving import ReadSink
from fs3.errors import Fs3Error, InternalError, StaleFile
from fs3.ids import ChunkId
from fs3.routing import ChainInfo, RoutingInfo
from fs3.wire.storage import READ, ReadItem, ReadRequest, ReadResponse

from .blocks import BLOCK_BYTES, BLOCKS, values_of
from .cluster import World
from .seen import LINEARIZABLE, RelaxedRead, Seen
from .workload import SHARED, Burst

ATTEMPT_S = 2.0
OLD_ROUTING_S = (0.3, 6.0)
"""How long it goes on with a picture of the chains."""
RELAXED_SHARE = 0.25
PAUSE_S = (0.0, 0.06)


class _Sink(ReadSink[OpenFile]):
    """Keeps the update version that the answer names."""

    version = 0

    def received(self, response: ReadResponse) -> None:
        super().received(response)
        self.version = max((result.update_version for result in response.results), default=0)


class PinnedReader:
    """Reads the chunks of the bursts from one place in their chains."""

    def __init__(self, world: World, index: int, seen: Seen) -> None:
        self._world = world
        self._loop = world.loop
        self._core = world.clients[index].core
        self._fs = world.clients[index]
        self._seen = seen
        self._rng = world.rng(f"pinned{index}")
        self._name = f"pinned{index}"
        self._files: dict[str, OpenFile] = {}
        self._routing = RoutingInfo()
        self._until_s = 0.0

    async def run(self, schedule: list[Burst], read_count: int) -> None:
        """So many reads in each burst."""
        start_s = self._loop.time()
        for path in SHARED:
            file = await self._fs.open(path, "rb")
            assert file.open_file is not None
            self._files[path] = file.open_file
        for burst in schedule:
            await asyncio.sleep(max(0.0, start_s + burst.at_s - self._loop.time()))
            place = self._rng.randrange(self._world.shape.replication)
            for _ in range(read_count):
                await self._read(burst, place)
                await asyncio.sleep(self._rng.uniform(*PAUSE_S))

    def _picture(self) -> RoutingInfo:
        """The routing that it believes in."""
        now_s = self._loop.time()
        if now_s > self._until_s:
            self._until_s = now_s + self._rng.uniform(*OLD_ROUTING_S)
            self._routing = self._core.components.routing.routing
        return self._routing

    async def _read(self, burst: Burst, place: int) -> None:
        path, number = burst.target
        file = self._files[path]
        routing = self._picture()
        chain = file.chains[number % len(file.chains)]
        info = routing.chains.get(chain)
        if info is None:
            return
        member = info.members[place % len(info.members)]
        address = routing.address_of(member.target)
        if address is None:
            return
        relaxed = self._rng.random() < RELAXED_SHARE
        start_s = self._loop.time()
        self._seen.did("relaxed read" if relaxed else "pinned read")
        try:
            values, version = await self._ask(file, info, address, number, relaxed=relaxed)
        except InternalError as error:
            self._seen.wrong(LINEARIZABLE, f"{self._name} at {address}: {error!r}")
        except StaleFile:
            await self._core.files.refresh(file, 60.0)
            self._seen.shares.pinned_reads["of an old epoch"] += 1
        except Fs3Error as error:
            self._seen.shares.pinned_reads[f"refused: {type(error).__name__}"] += 1
        else:
            is_old = info.version != self._core.components.routing.routing.chains[chain].version
            kind = "relaxed" if relaxed else "answered under an older version" if is_old else "answered"
            self._seen.shares.pinned_reads[kind] += 1
            self._note(burst, values, (start_s, self._loop.time()), version, address, relaxed=relaxed)

    async def _ask(
        self, file: OpenFile, info: ChainInfo, address: str, number: int, *, relaxed: bool
    ) -> tuple[tuple[int, ...], int]:
        session, view = file.session, memoryview(bytearray(BLOCKS * BLOCK_BYTES))
        await session.capabilities.present(address, (file.capability,), ATTEMPT_S)
        chunk = ChunkId(file.inode, number)
        item = ReadItem(info.chain, info.version, chunk, 0, len(view), file.capability)
        sink = _Sink([Piece(file, info.chain, chunk, 0, len(view), view)])
        request = ReadRequest(session=session.id, items=(item,), relaxed=relaxed)
        try:
            await self._core.components.caller.call(address, READ, request, timeout_s=ATTEMPT_S, sink=sink)
            if sink.failed:
                raise sink.failed[0]
        except Fs3Error:
            session.capabilities.forget(address, file.capability)
            raise
        values = values_of(view, number, 0, BLOCKS)
        if isinstance(values, str):
            raise InternalError(values)
        return values, sink.version

    def _note(
        self,
        burst: Burst,
        values: tuple[int, ...],
        times_s: tuple[float, float],
        version: int,
        address: str,
        *,
        relaxed: bool,
    ) -> None:
        history = self._seen.histories[burst.target]
        if relaxed:
            self._seen.relaxed += [
                RelaxedRead(history, block, value, *times_s) for block, value in enumerate(values)
            ]
            return
        op = history.begin("read", self._name, times_s[0], 0, values)
        op.ended(times_s[1])
        op.version, op.where = version, address
