"""A client in virtual time: the real client over the real metadata operations and doubles of storage nodes.

``StorageDouble`` keeps chunks as the real chains do, as far as a client can tell: capabilities, chain
versions, epochs, one record a channel. Its nodes can be slow, silent, dead, stale, or give wrong bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from crc32c import crc32c

from fs3.client.core import ClientCore
from fs3.client.filesystem import AsyncFileSystem
from fs3.client.plan import sum_cuts
from fs3.client.settings import ClientSettings, Components
from fs3.errors import (
    Busy,
    CapabilityExpired,
    CorruptData,
    Fs3Error,
    InvalidRequest,
    MaybeApplied,
    StaleRouting,
    Unavailable,
    to_wire,
)
from fs3.ids import (
    ChainId,
    ChainTableId,
    ChainVersion,
    ChunkId,
    ClientSessionId,
    Generation,
    NodeId,
    UpdateVersion,
    node_of_target,
    target_id,
)
from fs3.layout import Layout
from fs3.rng import derived_rng
from fs3.routing import (
    ChainInfo,
    ChainTable,
    Member,
    NodeInfo,
    NodeKind,
    RoutingInfo,
    TargetState,
)
from fs3.rpc.service import PeerIdentity
from fs3.tasks import TaskScope
from fs3.wire.chunk import Identity, UpdateResult, WriterTag
from fs3.wire.meta import META
from fs3.wire.storage import (
    PRESENT,
    READ,
    WRITE,
    PresentRequest,
    PresentResponse,
    ReadItem,
    ReadRequest,
    ReadResponse,
    ReadResult,
    WriteRequest,
    WriteResponse,
)
from tests.meta.world import ROOT_PEER, World
from tests.sim.loop import run_virtual

T = TypeVar("T")
STORAGE_NODES = 5
CHAIN_COUNT = 10
REPLICATION = 3
META_NODES = (101, 102)
PART_ITEMS = 3
"""Items of one part of an answer: small, so that answers have several."""


def address_of(node: int) -> str:
    return f"node{node}:1"


def picture(version: int = 1, chain_version: int = 1) -> RoutingInfo:
    """Ten chains of three over five storage nodes, two metadata services."""
    nodes = {}
    for number in range(1, STORAGE_NODES + 1):
        nodes[NodeId(number)] = _node(number, NodeKind.STORAGE)
    for number in META_NODES:
        nodes[NodeId(number)] = _node(number, NodeKind.META)
    chains = {}
    for number in range(1, CHAIN_COUNT + 1):
        members = tuple(
            Member(
                target=target_id(NodeId((number + i) % STORAGE_NODES + 1), number),
                state=TargetState.SERVING,
                generation=Generation(1),
            )
            for i in range(REPLICATION)
        )
        chain = ChainId(number)
        chains[chain] = ChainInfo(chain=chain, version=ChainVersion(chain_version), members=members)
    table = ChainTable(table=ChainTableId(1), version=1, chains=tuple(chains), replication=REPLICATION)
    return RoutingInfo(version=version, cluster_id="test", nodes=nodes, chains=chains, tables=(table,))


def _node(number: int, kind: NodeKind) -> NodeInfo:
    return NodeInfo(
        node=NodeId(number), kind=kind, generation=Generation(1), host="h", address=address_of(number)
    )


@dataclass
class Behaviour:
    """How a node misbehaves."""

    delay_s: float = 0.001
    is_dead: bool = False
    """Refuses connections; calls under way break off."""
    is_silent: bool = False
    """Takes requests and never answers."""
    corrupt_reads: int = 0
    """So many items are sent with a flipped byte."""
    stale_reads: int = 0
    stale_writes: int = 0
    lost_answers: int = 0
    """So many writes (or metadata operations) are done and their answers lost."""
    refuse_writes: list[Fs3Error] = field(default_factory=list)
    refuse_reads: list[Fs3Error] = field(default_factory=list)
    """Of single items."""
    refuse_presents: list[Fs3Error] = field(default_factory=list)
    dead_after_parts: int = -1
    """Breaks off after so many parts of an answer."""


class StorageDouble:
    """All storage nodes."""

    def __init__(self, world: ClientWorld) -> None:
        self._world = world
        self._chunks: dict[ChunkId, bytearray] = {}
        self._records: dict[tuple[ChainId, ClientSessionId, int], tuple[int, UpdateResult]] = {}
        self._presented: dict[tuple[str, ClientSessionId, int], bytes] = {}
        self.applied: list[ChunkId] = []
        self.reads: list[tuple[str, int]] = []
        """(address, number of items) of every read."""
        self.presents: list[str] = []

    def forget_capabilities(self, address: str) -> None:
        """The node was restarted."""
        self._presented = {key: data for key, data in self._presented.items() if key[0] != address}

    def present(self, address: str, request: PresentRequest) -> PresentResponse:
        refused = self._world.behaviour(address).refuse_presents
        if refused:
            raise refused.pop(0)
        self._presented[address, request.session, request.number] = request.capability
        self.presents.append(address)
        return PresentResponse()

    def _check(self, address: str, session: ClientSessionId, number: int, item_chain: ChainId) -> None:
        if (address, session, number) not in self._presented:
            raise CapabilityExpired(f"capability {number} is not known at {address}")
        info = self._world.routing.chains[item_chain]
        if all(address_of(node_of_target(m.target)) != address for m in info.members):
            raise StaleRouting(f"{address} has no target of chain {item_chain}")

    def content(self, chunk: ChunkId) -> bytearray:
        """The bytes of a chunk, cut where the chains were told to cut them."""
        length = self._world.meta.chains.chunks.get(chunk.inode, {}).get(chunk.chunk_index, 0)
        data = self._chunks.setdefault(chunk, bytearray())
        del data[length:]
        data.extend(bytes(length - len(data)))
        return data

    def read_item(self, address: str, session: ClientSessionId, item: ReadItem) -> tuple[ReadResult, bytes]:
        """One item's result and bytes."""
        behaviour = self._world.behaviour(address)
        try:
            self._check(address, session, item.capability, item.chain)
            if behaviour.stale_reads:
                behaviour.stale_reads -= 1
                raise StaleRouting("told to be stale")
            if behaviour.refuse_reads:
                raise behaviour.refuse_reads.pop(0)
            if item.chain_version != self._world.routing.chains[item.chain].version:
                raise StaleRouting("another chain version")
        except Fs3Error as error:
            code, _, message, _ = to_wire(error)
            return ReadResult(code=code, message=message), b""
        data = bytes(self.content(item.chunk)[item.offset_bytes : item.offset_bytes + item.length_bytes])
        sums = tuple(crc32c(data[start:end]) for start, end in sum_cuts(item.offset_bytes, len(data)))
        if behaviour.corrupt_reads and data:
            behaviour.corrupt_reads -= 1
            data = bytes([data[0] ^ 1]) + data[1:]
        return ReadResult(length_bytes=len(data), sums=sums), data

    def write(self, address: str, request: WriteRequest, payload: bytes) -> WriteResponse:
        behaviour = self._world.behaviour(address)
        if behaviour.refuse_writes:
            raise behaviour.refuse_writes.pop(0)
        self._check(address, request.session, request.capability, request.chain)
        info = self._world.routing.chains[request.chain]
        if behaviour.stale_writes or request.chain_version != info.version:
            behaviour.stale_writes = max(0, behaviour.stale_writes - 1)
            raise StaleRouting("another chain version")
        if address != address_of(node_of_target(info.serving[0].target)):
            raise StaleRouting(f"{address} is not the head of chain {request.chain}")
        sums = tuple(
            crc32c(payload[start:end]) for start, end in sum_cuts(request.offset_bytes, len(payload))
        )
        if sums != request.sums or len(payload) != request.length_bytes:
            raise CorruptData("the payload does not match its sums")
        key = (request.chain, request.session, request.channel)
        sequence, result = self._records.get(key, (0, None))
        if request.sequence < sequence:
            raise InvalidRequest(f"channel is at {sequence}, {request.sequence} is over")
        if request.sequence == sequence and result is not None:
            return WriteResponse(result=result)
        return WriteResponse(result=self._apply(request, payload))

    def _apply(self, request: WriteRequest, payload: bytes) -> UpdateResult:
        chunk = request.chunk
        data = self.content(chunk)
        layout = Layout(chunk_size_bytes=request.chunk_size_bytes)
        position = chunk.chunk_index * request.chunk_size_bytes + request.offset_bytes
        chains = self._world.meta.chains
        chains.write(
            chunk.inode, layout, (request.chain,), position, len(payload), request.epoch, request.session
        )
        data.extend(bytes(max(0, request.offset_bytes - len(data))))
        data[request.offset_bytes : request.offset_bytes + len(payload)] = payload
        self.applied.append(chunk)
        writer = WriterTag(request.session, request.channel, request.sequence)
        identity = Identity(request.chain_version, UpdateVersion(len(self.applied)), writer)
        result = UpdateResult(identity=identity, length_bytes=len(data))
        self._records[request.chain, request.session, request.channel] = (request.sequence, result)
        return result


class ClientWorld:
    """Metadata service, storage double, routing and caller at once."""

    def __init__(self, settings: ClientSettings | None = None, peer: PeerIdentity = ROOT_PEER) -> None:
        self.meta = World()
        self.loop = self.meta.loop
        self.clock = self.meta.clock
        self.peer = peer
        self.routing = picture()
        self.next_routing: RoutingInfo | None = None
        """What the next refresh finds."""
        self.meta.routing = self.routing
        self.refreshes = 0
        self.behaviours: dict[str, Behaviour] = {}
        self.storage = StorageDouble(self)
        self.settings = settings or ClientSettings()
        self.calls: list[tuple[str, str]] = []
        """(address, method) of every call."""
        self.failures: list[str] = []
        self._meta_methods = dict.fromkeys(META.methods)

    def behaviour(self, address: str) -> Behaviour:
        return self.behaviours.setdefault(address, Behaviour())

    def node(self, number: int) -> Behaviour:
        """The behaviour of a node."""
        return self.behaviour(address_of(number))

    def revive(self) -> None:
        """Every node is there again."""
        for behaviour in self.behaviours.values():
            behaviour.is_dead = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end under virtual time, with a root directory that everybody may write."""
        result = self.meta.run(work)
        assert not self.failures, self.failures
        return result

    def filesystem(self, name: str = "client") -> AsyncFileSystem:
        """A client of its own."""
        nonces = derived_rng(1, f"{name} nonces")
        components = Components(
            caller=self,
            routing=self,
            clock=self.clock,
            rng=derived_rng(1, name),
            make_nonce=lambda: nonces.randbytes(16),
            host="here",
        )
        scope = TaskScope(name, lambda task, error: self.failures.append(f"{task}: {error!r}"))
        return AsyncFileSystem(ClientCore(components, self.settings, scope))

    async def refresh(self) -> None:
        """See ``RoutingSource``."""
        self.refreshes += 1
        if self.next_routing is not None:
            self.routing = self.meta.routing = self.next_routing

    def count(self, method: str) -> int:
        """How often a method was called."""
        return sum(1 for _, name in self.calls if name == method)

    async def call(
        self,
        address: str,
        method: Any,
        request: Any,
        *,
        timeout_s: float,
        payload: Sequence[Any] = (),
        sink: Any = None,
        bulk: bool = False,
        request_id: int = 0,
    ) -> Any:
        """See ``fs3.rpc.service.Caller``; the request goes through its wire form."""
        behaviour = self.behaviour(address)
        self.calls.append((address, method.name))
        if behaviour.is_dead:
            raise Unavailable(f"{address} refuses")
        sent = msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=method.request)
        data = b"".join(bytes(piece) for piece in payload)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(behaviour.delay_s)
                if behaviour.is_silent:
                    await asyncio.sleep(timeout_s * 2)
                if behaviour.is_dead:
                    raise MaybeApplied(f"{address}: connection lost")
                answer = await self._answer(address, method, sent, data, sink)
        except TimeoutError as error:
            raise MaybeApplied(f"{method.name} to {address}: no answer in time") from error
        if behaviour.lost_answers and method in (WRITE, *self._meta_methods):
            behaviour.lost_answers -= 1
            raise MaybeApplied(f"{address}: connection lost")
        return answer

    async def _answer(self, address: str, method: Any, request: Any, payload: bytes, sink: Any) -> Any:
        if method in self._meta_methods:
            return await self.meta.call(self.peer, method, request)
        if method is PRESENT:
            return self.storage.present(address, request)
        if method is READ:
            return await self._read(address, request, sink)
        assert method is WRITE, method
        return self.storage.write(address, request, payload)

    async def _read(self, address: str, request: ReadRequest, sink: Any) -> ReadResponse:
        self.storage.reads.append((address, len(request.items)))
        behaviour = self.behaviour(address)
        starts = range(0, len(request.items), PART_ITEMS)
        response = ReadResponse(first=0, results=())
        for number, start in enumerate(starts):
            if number == behaviour.dead_after_parts:
                raise MaybeApplied(f"{address}: connection lost")
            found = [
                self.storage.read_item(address, request.session, item)
                for item in request.items[start : start + PART_ITEMS]
            ]
            response = ReadResponse(first=start, results=tuple(result for result, _ in found))
            data = memoryview(b"".join(piece for _, piece in found))
            at = 0
            for room in sink.buffers(response):
                room[:] = data[at : at + len(room)]
                at += len(room)
            assert at == len(data), (at, len(data))
            sink.received(response)
            await asyncio.sleep(0)
        return response


__all__ = ["Busy", "ClientWorld", "StorageDouble", "address_of", "picture", "run_virtual"]
