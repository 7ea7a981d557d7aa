"""A metadata service without sockets: real driver, operations, workers over ``mem://`` and fake chains."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from fs3.identity.capability import CapabilitySigner
from fs3.identity.keys import ClusterKey
from fs3.ids import (
    ChainId,
    ChainTableId,
    ChainVersion,
    ClientSessionId,
    Generation,
    InodeId,
    NodeId,
    target_id,
)
from fs3.kv.faults import ScriptedFaults
from fs3.kv.memory import MemoryKv, MemoryStore
from fs3.log import SlowLog, silent_logger
from fs3.meta.allocate import IdAllocator, Placement, inode_of, session_of
from fs3.meta.driver import Driver
from fs3.meta.finisher import Finisher
from fs3.meta.ops import OPERATIONS
from fs3.meta.root import make_root
from fs3.meta.services import Event, Services
from fs3.metrics import Metrics
from fs3.rng import derived_rng
from fs3.routing import ChainInfo, ChainTable, Member, RoutingInfo, TargetState
from fs3.rpc.service import PeerIdentity
from fs3.wire import meta as wire
from tests.meta.fake_chains import FakeChains
from tests.sim.loop import SimClock, SimLoop, run_virtual

T = TypeVar("T")
KEY = ClusterKey("test", 1, bytes(32))
CHAINS = tuple(ChainId(i) for i in range(1, 7))
ROOT_PEER = PeerIdentity(role="user", uid=0, gid=0, is_admin=True)
ALICE = PeerIdentity(role="user", uid=1000, gid=1000, groups=(50,))
BOB = PeerIdentity(role="user", uid=1001, gid=1001, groups=(50,))
BY_METHOD = {operation.method: operation for operation in OPERATIONS}
TIMEOUT_S = 10.0


def routing() -> RoutingInfo:
    """Six chains of one target each, in one table."""
    chains = {
        c: ChainInfo(
            chain=c,
            version=ChainVersion(1),
            members=(
                Member(target=target_id(NodeId(c), 1), state=TargetState.SERVING, generation=Generation(1)),
            ),
        )
        for c in CHAINS
    }
    table = ChainTable(table=ChainTableId(1), version=1, chains=CHAINS, replication=1)
    return RoutingInfo(version=1, cluster_id="test", chains=chains, tables=(table,))


class Client:
    """One client: a session, and calls that number themselves."""

    def __init__(self, world: World, peer: PeerIdentity, session: ClientSessionId) -> None:
        self.world = world
        self.peer = peer
        self.session = session
        self.sequence = 0

    def mutation(self, slot: int = 0) -> wire.Mutation:
        """The next request of a slot."""
        self.sequence += 1
        return wire.Mutation(self.session, slot, self.sequence)

    async def call(self, method: Any, request: Any, timeout_s: float = TIMEOUT_S) -> Any:
        """Run the operation as the server does, through the wire form of request and answer."""
        return await self.world.call(self.peer, method, request, timeout_s)

    async def stat(self, path: bytes, **more: Any) -> wire.Attributes:
        """Attributes of a path from the root."""
        answer = await self.call(wire.STAT, wire.StatRequest(path=wire.Path(path), **more))
        attributes: wire.Attributes = answer.attributes
        return attributes

    async def stat_inode(self, inode: InodeId) -> wire.Attributes:
        """Attributes of an inode."""
        answer = await self.call(wire.STAT, wire.StatRequest(path=wire.Path(b"", inode)))
        attributes: wire.Attributes = answer.attributes
        return attributes

    async def create(self, path: bytes, content: bytes | None = None, **more: Any) -> wire.OpenResponse:
        """Create, by default closed (mode 0)."""
        more.setdefault("mode", wire.OpenMode(0))
        request = wire.CreateRequest(path=wire.Path(path), mutation=self.mutation(), content=content, **more)
        answer: wire.OpenResponse = await self.call(wire.CREATE, request)
        return answer

    async def open(self, path: bytes, mode: wire.OpenMode, **more: Any) -> wire.OpenResponse:
        """Open an existing file."""
        request = wire.OpenRequest(path=wire.Path(path), mode=mode, mutation=self.mutation(), **more)
        answer: wire.OpenResponse = await self.call(wire.OPEN, request)
        return answer

    async def close(self, opened: wire.OpenResponse, written_end_bytes: int = 0, **more: Any) -> Any:
        """Close (or with ``keep_open`` sync) what ``open`` or ``create`` gave."""
        request = wire.CloseRequest(
            inode=opened.attributes.inode,
            mutation=self.mutation(),
            epoch=more.pop("epoch", opened.attributes.epoch),
            written_end_bytes=written_end_bytes,
            **more,
        )
        return (await self.call(wire.CLOSE, request)).attributes

    async def mkdir(self, path: bytes, **more: Any) -> wire.Attributes:
        """Make a directory."""
        request = wire.MkdirsRequest(path=wire.Path(path), mutation=self.mutation(), **more)
        attributes: wire.Attributes = (await self.call(wire.MKDIRS, request)).attributes
        return attributes

    async def remove(self, path: bytes, **more: Any) -> bool:
        """Remove a name or tree."""
        request = wire.RemoveRequest(path=wire.Path(path), mutation=self.mutation(), **more)
        return bool((await self.call(wire.REMOVE, request)).removed)

    async def rename(self, source: bytes, target: bytes, flags: int = 0) -> wire.Attributes:
        """Rename."""
        request = wire.RenameRequest(
            source=wire.Path(source),
            destination=wire.Path(target),
            mutation=self.mutation(),
            flags=wire.RenameFlags(flags),
        )
        attributes: wire.Attributes = (await self.call(wire.RENAME, request)).attributes
        return attributes

    async def setattr(self, path: bytes, **more: Any) -> wire.Attributes:
        """Change attributes."""
        request = wire.SetAttrRequest(path=wire.Path(path), mutation=self.mutation(), **more)
        attributes: wire.Attributes = (await self.call(wire.SETATTR, request)).attributes
        return attributes

    async def truncate(self, path: bytes, length_bytes: int) -> wire.Attributes:
        """Set a file's length."""
        request = wire.TruncateRequest(
            path=wire.Path(path), mutation=self.mutation(), length_bytes=length_bytes
        )
        attributes: wire.Attributes = (await self.call(wire.TRUNCATE, request)).attributes
        return attributes

    async def names(self, path: bytes, **more: Any) -> list[bytes]:
        """The names in a directory."""
        answer = await self.call(wire.LIST, wire.ListRequest(path=wire.Path(path), **more))
        return [entry.name for entry in answer.entries]

    async def spill(self, opened: wire.OpenResponse, version: int, *, finish: bool = False) -> Any:
        """Move a file out of the KV store."""
        request = wire.SpillRequest(
            inode=opened.attributes.inode,
            mutation=self.mutation(),
            content_version=version,
            finish=finish,
        )
        return await self.call(wire.SPILL, request)

    async def chunked(self, path: bytes) -> wire.OpenResponse:
        """A new file, open for writing, that lies in chunks."""
        opened = await self.create(path, mode=wire.OpenMode.READ | wire.OpenMode.WRITE)
        await self.spill(opened, 0)
        return opened

    def write(self, opened: wire.OpenResponse, offset_bytes: int, length_bytes: int) -> None:
        """Write to the chunks with the epoch that the open gave."""
        attributes = opened.attributes
        assert attributes.layout is not None
        self.world.chains.write(
            attributes.inode,
            attributes.layout,
            self.world.placement.chains_of(attributes.layout),
            offset_bytes,
            length_bytes,
            attributes.epoch,
            self.session,
        )


class World:
    """One store, one service (others can be made with ``another``), fake chains, virtual time."""

    def __init__(self, store: MemoryStore | None = None, near: World | None = None, seed: int = 1) -> None:
        self.loop: SimLoop = near.loop if near else SimLoop()
        self.clock: SimClock = near.clock if near else SimClock(self.loop)
        self.store = store or MemoryStore(self.clock)
        self.faults = ScriptedFaults()
        self.kv = MemoryKv(self.store, faults=self.faults)
        self.chains: FakeChains = near.chains if near else FakeChains()
        self.routing: RoutingInfo = near.routing if near else routing()
        self.events: list[Event] = []
        rng = derived_rng(seed, "meta")
        self.placement = Placement(lambda: self.routing, rng)
        self.metrics = Metrics()
        self.cluster_ms: int = near.cluster_ms if near else 1_000_000
        self.services = Services(
            kv=self.kv,
            clock=self.clock,
            rng=rng,
            chains=self.chains,
            placement=self.placement,
            inode_ids=IdAllocator(self.kv, b"inode", inode_of, self.clock, rng),
            session_ids=IdAllocator(self.kv, b"session", session_of, self.clock, rng),
            signer=CapabilitySigner(KEY),
            cluster_time_ms=lambda: self.cluster_ms,
            publish=self.events.append,
            inline_limit_bytes=self.kv.limits.inline_limit_bytes,
        )
        self.finisher = Finisher(self.services)
        slow = SlowLog(silent_logger(), self.clock, 60.0)
        self.driver = Driver(self.services, self.finisher, self.metrics, slow)

    def another(self, seed: int = 2) -> World:
        """A second service on the same store and chains."""
        return World(self.store, self, seed)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run under virtual time, with the root directory made before (mode 0o777)."""

        async def whole() -> T:
            await make_root(self.services, uid=0, gid=0, mode=0o777, deadline_s=self.clock.boot_s() + 5)
            return await work

        return run_virtual(whole(), self.loop)

    async def call(self, peer: PeerIdentity, method: Any, request: Any, timeout_s: float = TIMEOUT_S) -> Any:
        """Run an operation; request and answer go through their wire form."""
        sent = msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=method.request)
        answer = await self.driver.run(BY_METHOD[method], peer, sent, timeout_s)
        return msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=method.response)

    async def client(self, peer: PeerIdentity = ROOT_PEER) -> Client:
        """A new client session."""
        answer = await self.call(peer, wire.OPEN_SESSION, wire.OpenSessionRequest(host="test"))
        return Client(self, peer, answer.session)
