"""Storage nodes in one process, over real sockets, disks and threads; membership is a static picture.

Everything is the real ``StorageServer`` but its agent: ``StaticAgent`` answers from the picture that the
test publishes, and gives leases as the test says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fs3.clock import SystemClock
from fs3.errors import MaybeApplied, Unavailable
from fs3.identity.capability import Capability, CapabilitySigner, Rights
from fs3.identity.handshake import NodeCredentials, UserCredentials
from fs3.identity.key_file import new_cluster_key, system_nonce
from fs3.identity.token import TokenClaims, make_token
from fs3.ids import (
    ChainId,
    ChainVersion,
    ChunkId,
    ClientSessionId,
    Epoch,
    Generation,
    InodeId,
    NodeId,
    TargetId,
    target_id,
)
from fs3.log import capturing_logger
from fs3.member.correspondence import Counters
from fs3.metrics import Metrics
from fs3.rng import Rng
from fs3.routing import ChainInfo, Member, NodeInfo, NodeKind, RoutingInfo, TargetState
from fs3.rpc.bulk_client import BulkClient
from fs3.rpc.bulk_server import BulkServer
from fs3.rpc.client import RpcClient
from fs3.rpc.network import SystemNetwork
from fs3.rpc.service import Routes
from fs3.storage.disk import OsDisk
from fs3.storage.dropping import RETENTION, RetentionSettings
from fs3.storage.engine.logged_index import index_opener
from fs3.storage.lanes import ThreadLanes
from fs3.storage.resync.pace import RESYNC, ResyncSettings
from fs3.storage.scrub_round import SCRUB, ScrubSettings
from fs3.storage.server import StorageComponents, StorageServer, StorageSettings
from fs3.storage.sums import sums_of
from fs3.wire.chunk import UpdateKind
from fs3.wire.mgmtd import TargetReport
from fs3.wire.storage import (
    PRESENT,
    READ,
    WRITE,
    PresentRequest,
    ReadItem,
    ReadRequest,
    ReadResponse,
    ReadResult,
    WriteRequest,
    WriteResponse,
)

CHAIN = ChainId(1)
INODE = InodeId(77)
SESSION = ClientSessionId(100)
UID = 1000
MIB = 1 << 20
KEY = new_cluster_key("test")
FAR_MS = 10_000_000


class StaticAgent:
    """Membership out of a picture."""

    def __init__(self, cluster: StorageCluster, node: NodeId, generation: Generation) -> None:
        self.cluster = cluster
        self.node = node
        self.generation = generation
        self.has_lease = True
        self.acknowledged: list[tuple[ChainId, ChainVersion]] = []
        self.reports: tuple[TargetReport, ...] = ()
        self.callbacks: list[Callable[[RoutingInfo], None]] = []
        self.counters = Counters()

    @property
    def routing(self) -> RoutingInfo:
        return self.cluster.routing

    def subscribe(self, adopt: Callable[[RoutingInfo], None]) -> None:
        self.callbacks.append(adopt)

    def lease_valid(self, chain: ChainId, version: ChainVersion) -> bool:
        return self.has_lease and self.routing.chains[chain].version == version

    def acknowledge(self, chain: ChainId, version: ChainVersion) -> None:
        self.acknowledged.append((chain, version))

    def set_targets(self, reports: Sequence[TargetReport]) -> None:
        self.reports = tuple(reports)

    def cluster_time_ms(self) -> int:
        return self.cluster.time_ms

    def add_routes(self, routes: Routes) -> None:
        """Peers do not talk to each other about leases here."""

    async def start(self, address: str, local_address: str = "") -> None:
        self.cluster.started(self, address)

    async def stop(self) -> None:
        self.has_lease = False

    def health(self) -> dict[str, object]:
        return {"ok": True, "lease_remaining_s": 1.0, "chains_without_lease": 0}


class StaticServer(StorageServer):
    """A storage server whose agent is static."""

    def __init__(
        self, cluster: StorageCluster, settings: StorageSettings, components: StorageComponents
    ) -> None:
        super().__init__(settings, components)
        self.cluster = cluster

    def _make_agent(self, generation: Generation, client: RpcClient) -> Any:
        return StaticAgent(self.cluster, self._settings.node, generation)

    @property
    def static(self) -> StaticAgent:
        agent: Any = self.agent
        assert isinstance(agent, StaticAgent)
        return agent

    @property
    def target(self) -> Any:
        """The runner of the chain's target here."""
        assert self.targets is not None
        return self.targets.by_chain[CHAIN]


@dataclass
class StorageCluster:
    """Nodes 1 … n with one target each, all in one chain."""

    directory: Path
    routing: RoutingInfo = field(default_factory=RoutingInfo)
    time_ms: int = 1000
    servers: dict[int, StaticServer] = field(default_factory=dict)
    addresses: dict[int, str] = field(default_factory=dict)
    events: list[dict[str, object]] = field(default_factory=list)
    failures: list[tuple[str, BaseException]] = field(default_factory=list)
    with_bulk: bool = True
    start_count: int = 0
    targets_per_disk_count: int = 1
    retention: RetentionSettings = RETENTION
    resync: ResyncSettings = RESYNC
    scrub: ScrubSettings = SCRUB
    capacity_bytes: int = 512 * MIB
    """Of each target; 0: what its disk has room for."""

    def started(self, agent: StaticAgent, address: str) -> None:
        self.addresses[agent.node] = address

    def target(self, number: int) -> TargetId:
        return target_id(NodeId(number), 0)

    async def start_node(self, number: int) -> StaticServer:
        self.start_count += 1
        home = self.directory / f"node-{number}"
        settings = StorageSettings(
            node=NodeId(number),
            directory=str(home),
            disks=(str(home / "disk-0"),),
            listen=(self.addresses.get(number, "127.0.0.1:0"),),
            seeds=(),
            targets_per_disk_count=self.targets_per_disk_count,
            target_capacity_bytes=self.capacity_bytes,
            scrub=self.scrub,
            retention=self.retention,
            resync=self.resync,
        )

        def bulk_client(credentials: NodeCredentials) -> BulkClient:
            return BulkClient(credentials, SystemNetwork(), make_nonce=system_nonce)

        components = StorageComponents(
            clock=SystemClock(),
            rng=Rng(number + 1000 * self.start_count),
            network=SystemNetwork(),
            key=KEY,
            log=capturing_logger(self.events),
            metrics=Metrics(),
            lanes=ThreadLanes(),
            open_disk=lambda _: OsDisk(),
            open_index=lambda disk: index_opener(disk, Rng(number)),
            make_nonce=system_nonce,
            fail=lambda name, error: self.failures.append((name, error)),
            bulk_server=BulkServer() if self.with_bulk else None,
            make_bulk_client=bulk_client if self.with_bulk else None,
        )
        server = StaticServer(self, settings, components)
        self.servers[number] = server
        await server.start()
        return server

    async def stop_node(self, number: int) -> None:
        await self.servers.pop(number).stop()

    def publish(
        self,
        numbers: Sequence[int] | None = None,
        version: int = 0,
        states: Mapping[int, TargetState] | None = None,
    ) -> None:
        """Name the nodes' present generations in the next chain version, and tell everybody.

        ``states``: of those that do not serve; whoever is OFFLINE keeps its generation.
        """
        members = numbers if numbers is not None else sorted(self.servers)
        known = self.routing.chains.get(CHAIN)
        old = {m.target: m.generation for m in known.members} if known is not None else {}
        info = ChainInfo(
            chain=CHAIN,
            version=ChainVersion(version or (known.version + 1 if known is not None else 1)),
            members=tuple(
                Member(
                    target=self.target(n),
                    state=(states or {}).get(n, TargetState.SERVING),
                    generation=self.servers[n].static.generation
                    if n in self.servers
                    else old[self.target(n)],
                )
                for n in members
            ),
        )
        nodes = {
            NodeId(n): NodeInfo(
                node=NodeId(n),
                kind=NodeKind.STORAGE,
                generation=Generation(1),
                host="here",
                address=self.addresses[n],
            )
            for n in members
        }
        self.routing = RoutingInfo(version=self.routing.version + 1, nodes=nodes, chains={CHAIN: info})
        for server in self.servers.values():
            for adopt in server.static.callbacks:
                adopt(self.routing)

    @property
    def version(self) -> ChainVersion:
        return self.routing.chains[CHAIN].version

    async def stop(self) -> None:
        for number in sorted(self.servers):
            await self.stop_node(number)
        assert not self.failures, self.failures


@asynccontextmanager
async def storage_cluster(
    directory: Path,
    count: int = 3,
    *,
    with_bulk: bool = True,
    retention: RetentionSettings = RETENTION,
    resync: ResyncSettings = RESYNC,
) -> AsyncIterator[StorageCluster]:
    """A chain of ``count`` nodes that serves."""
    cluster = StorageCluster(directory, with_bulk=with_bulk, retention=retention, resync=resync)
    try:
        for number in range(1, count + 1):
            await cluster.start_node(number)
        cluster.publish()
        yield cluster
    finally:
        await cluster.stop()


class Parts:
    """Sink of a read: the bytes of each item."""

    def __init__(self, count: int) -> None:
        self.results: list[ReadResult | None] = [None] * count
        self.data: list[bytes] = [b""] * count
        self._buffer = memoryview(b"")

    def buffers(self, response: Any) -> Sequence[memoryview]:
        assert isinstance(response, ReadResponse)
        self._buffer = memoryview(bytearray(sum(r.length_bytes for r in response.results)))
        return (self._buffer,)

    def received(self, response: Any) -> None:
        assert isinstance(response, ReadResponse)
        at = 0
        for number, result in enumerate(response.results, response.first):
            assert self.results[number] is None, "an item was answered twice"
            self.results[number] = result
            self.data[number] = bytes(self._buffer[at : at + result.length_bytes])
            at += result.length_bytes


class User:
    """A client of the storage service, with one session and capability 1 for ``INODE``."""

    def __init__(self, cluster: StorageCluster, uid: int = UID, session: ClientSessionId = SESSION) -> None:
        token = make_token(
            KEY,
            TokenClaims(
                cluster=KEY.cluster,
                key_id=KEY.key_id,
                uid=uid,
                gid=uid,
                groups=(),
                is_admin=False,
                key_generation=0,
                nonce=system_nonce(),
            ),
        )
        self.credentials = UserCredentials(token)
        self.bulk: BulkClient | None = None
        if cluster.with_bulk:
            self.bulk = BulkClient(self.credentials, SystemNetwork(), make_nonce=system_nonce)
        self.cluster = cluster
        self.uid = uid
        self.session = session
        self.sequence = 0
        self.signer = CapabilitySigner(KEY)
        self.rpc = RpcClient(
            self.credentials,
            SystemNetwork(),
            rng=Rng(1),
            make_nonce=system_nonce,
            on_failure=lambda name, error: cluster.failures.append((name, error)),
            bulk=self.bulk,
        )

    async def close(self) -> None:
        await self.rpc.aclose()

    def capability(self, **changes: Any) -> bytes:
        values: dict[str, Any] = {
            "inode": INODE,
            "epoch": Epoch(0),
            "rights": Rights.READ | Rights.WRITE,
            "session": self.session,
            "uid": self.uid,
            "key_generation": 0,
            "expires_ms": FAR_MS,
        }
        return self.signer.sign(Capability(**(values | changes)))

    async def present(self, *numbers: int, capability: bytes | None = None, as_number: int = 1) -> None:
        for number in numbers or sorted(self.cluster.servers):
            request = PresentRequest(
                session=self.session, number=as_number, capability=capability or self.capability()
            )
            await self.rpc.call(self.cluster.addresses[number], PRESENT, request, timeout_s=5)

    def request(
        self,
        data: bytes,
        chunk: int = 0,
        offset: int = 0,
        *,
        kind: UpdateKind = UpdateKind.WRITE,
        **changes: Any,
    ) -> WriteRequest:
        self.sequence += 1
        values: dict[str, Any] = {
            "chain": CHAIN,
            "chain_version": self.cluster.version,
            "chunk": ChunkId(INODE, chunk),
            "kind": kind,
            "offset_bytes": offset,
            "length_bytes": len(data),
            "sums": sums_of(memoryview(data), offset),
            "session": self.session,
            "channel": 0,
            "sequence": self.sequence,
            "epoch": Epoch(0),
            "chunk_size_bytes": MIB,
            "capability": 1,
        }
        return WriteRequest(**(values | changes))

    async def send(
        self, request: WriteRequest, data: bytes, *, to: int = 1, timeout_s: float = 10
    ) -> WriteResponse:
        return await self.rpc.call(
            self.cluster.addresses[to],
            WRITE,
            request,
            timeout_s=timeout_s,
            payload=(data,) if data else (),
            bulk=len(data) > 65536,
        )

    async def write(self, data: bytes, chunk: int = 0, offset: int = 0, **changes: Any) -> WriteResponse:
        return await self.send(self.request(data, chunk, offset, **changes), data)

    def item(self, chunk: int, offset: int, length: int, **changes: Any) -> ReadItem:
        values: dict[str, Any] = {
            "chain": CHAIN,
            "chain_version": self.cluster.version,
            "chunk": ChunkId(INODE, chunk),
            "offset_bytes": offset,
            "length_bytes": length,
            "capability": 1,
        }
        return ReadItem(**(values | changes))

    async def read_items(
        self, items: Sequence[ReadItem], *, at: int, bulk: bool = False, **changes: Any
    ) -> Parts:
        request = ReadRequest(session=self.session, items=tuple(items), **changes)
        address = self.cluster.addresses[at]
        for left in range(4, -1, -1):
            sink = Parts(len(items))
            try:
                await self.rpc.call(address, READ, request, timeout_s=10, sink=sink, bulk=bulk)
            except (MaybeApplied, Unavailable):
                if left:
                    continue  # a kept connection to an earlier run of the node
                raise
            assert all(result is not None for result in sink.results)
            return sink
        raise AssertionError

    async def read(self, chunk: int, offset: int, length: int, *, at: int, bulk: bool = False) -> bytes:
        sink = await self.read_items([self.item(chunk, offset, length)], at=at, bulk=bulk)
        result = sink.results[0]
        assert result is not None and result.code == 0, result
        assert sums_of(memoryview(sink.data[0]), offset) == result.sums
        return sink.data[0]


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for something that happens elsewhere in the process."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # the tested code has no event for it
            await asyncio.sleep(0.005)
