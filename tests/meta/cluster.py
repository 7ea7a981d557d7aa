"""Metadata services as processes of the simulated world: real servers, RPC, network.

mgmtd is played by a server with a fixed picture, the storage nodes by one server over ``FakeChains``: what
the metadata service sends to both goes over the (simulated) wire.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from fs3.identity.handshake import Credentials, NodeCredentials, ServerIdentity, UserCredentials
from fs3.identity.token import TokenClaims, make_token
from fs3.ids import ChainId, Generation, NodeId, target_id
from fs3.kv.faults import KvFaults
from fs3.kv.memory import MemoryKv, MemoryStore
from fs3.log import SlowLog, silent_logger
from fs3.meta.server import MetaComponents, MetaServer, MetaSettings
from fs3.metrics import Metrics
from fs3.rng import derived_rng
from fs3.routing import ChainInfo, Member, NodeInfo, NodeKind, RoutingDelta, TargetState
from fs3.rpc.client import RpcClient
from fs3.rpc.server import RpcServer
from fs3.rpc.service import Call, Routes
from fs3.stubs.storage import ChainCaller, StorageStub
from fs3.tasks import TaskScope
from fs3.wire import mgmtd as mgmtd_wire
from fs3.wire import storage as storage_wire
from tests.meta.fake_chains import FakeChains
from tests.meta.world import KEY, routing
from tests.sim.loop import SimClock, SimLoop
from tests.sim.network import SimInternet
from tests.sim.wires import LinkFaults

MGMTD, STORAGE = "mgmtd:1", "storage:1"
STORAGE_NODE = NodeId(50)


class Cluster:
    """A mgmtd, a storage server, and metadata services, each on a host of its own."""

    def __init__(self, meta_count: int = 2, seed: int = 1) -> None:
        self.loop = SimLoop()
        self.clock = SimClock(self.loop)
        self.rng = derived_rng(seed, "cluster")
        self.net = SimInternet(self.loop, derived_rng(seed, "net"), LinkFaults())
        self.store = MemoryStore(self.clock)
        self.chains = FakeChains()
        self.kv_faults = KvFaults()
        self.failures: list[str] = []
        self.routing_version = 1
        self.meta_nodes = {NodeId(n): f"meta{n}:1" for n in range(10, 10 + meta_count)}
        self.metas: dict[NodeId, MetaServer] = {}
        self.servers: list[RpcServer] = []
        self.clients: list[RpcClient] = []
        self.scopes: list[TaskScope] = []

    # -- life

    async def start(self) -> None:
        """Everything, until the services know routing and time."""
        await self._serve("mgmtd", MGMTD, self._mgmtd_routes())
        await self._serve("storage", STORAGE, self._storage_routes())
        for node in self.meta_nodes:
            await self.start_meta(node)
        await asyncio.sleep(1.0)

    async def start_meta(self, node: NodeId) -> MetaServer:
        """One metadata service; started again it is a new generation."""
        host, _, _ = self.meta_nodes[node].partition(":")
        server = MetaServer(
            MetaSettings(
                node=node,
                listen=(self.meta_nodes[node],),
                seeds=(MGMTD,),
                beacon_address=f"{host}:2",
                root_mode=0o777,
            ),
            MetaComponents(
                clock=self.clock,
                rng=derived_rng(int(node), "meta"),
                kv=MemoryKv(self.store, faults=self.kv_faults),
                network=self.net.host(host),
                key=KEY,
                log=silent_logger(),
                metrics=Metrics(),
                slow=SlowLog(silent_logger(), self.clock, 60.0),
                make_nonce=self._nonce,
                fail=lambda name, error: self.failures.append(f"{name}: {error!r}"),
            ),
        )
        self.metas[node] = server
        await server.start()
        return server

    async def stop(self) -> None:
        """Everything, in an order that leaves nobody calling the dead for long."""
        for scope in self.scopes:
            await scope.aclose()
        for meta in self.metas.values():
            await meta.stop()
        for client in self.clients:
            await client.aclose()
        for server in self.servers:
            await server.aclose()

    # -- callers

    def caller(self, uid: int | None = None, **more: Any) -> RpcClient:
        """A user's connections (an admin's with ``is_admin``), or a node's without ``uid``."""
        credentials: Credentials = NodeCredentials(KEY, NodeId(99), Generation(1))
        if uid is not None:
            claims = TokenClaims(
                cluster=KEY.cluster,
                key_id=KEY.key_id,
                uid=uid,
                gid=uid,
                groups=more.pop("groups", ()),
                is_admin=more.pop("is_admin", False),
                key_generation=0,
                nonce=self._nonce(),
            )
            credentials = UserCredentials(make_token(KEY, claims))
        client = RpcClient(
            credentials,
            self.net.host("client"),
            rng=self.rng,
            make_nonce=self._nonce,
            on_failure=lambda name, error: self.failures.append(f"{name}: {error!r}"),
        )
        self.clients.append(client)
        return client

    def stub(self) -> StorageStub:
        """The real stub, over the wire, to the played storage nodes."""
        client = self.caller()
        scope = TaskScope("stub", lambda name, error: self.failures.append(name))
        self.scopes.append(scope)
        chain_caller = ChainCaller(self, client, self.clock, self.rng)
        return StorageStub(chain_caller, self, client, self.clock, scope)

    @property
    def routing(self) -> Any:
        """As a ``RoutingSource``."""
        node = {
            node: NodeInfo(node=node, kind=NodeKind.META, generation=Generation(1), host="h", address=address)
            for node, address in self.meta_nodes.items()
        }
        storage = NodeInfo(
            node=STORAGE_NODE,
            kind=NodeKind.STORAGE,
            generation=Generation(1),
            host="s",
            address=STORAGE,
        )
        chains = {
            c: ChainInfo(chain=c, version=info.version, members=(self._member(c),))
            for c, info in routing().chains.items()
        }
        return msgspec.structs.replace(
            routing(), version=self.routing_version, nodes={**node, STORAGE_NODE: storage}, chains=chains
        )

    async def refresh(self) -> None:
        """As a ``RoutingSource``."""

    def _member(self, chain: ChainId) -> Member:
        return Member(
            target=target_id(STORAGE_NODE, chain), state=TargetState.SERVING, generation=Generation(1)
        )

    def _nonce(self) -> bytes:
        return self.rng.randbytes(16)

    # -- the played servers

    async def _serve(self, host: str, address: str, routes: Routes) -> None:
        server = RpcServer(
            routes,
            ServerIdentity(KEY, STORAGE_NODE, Generation(1), lambda uid: 0),
            self.net.host(host),
            make_nonce=self._nonce,
            on_bug=lambda name, request, error: self.failures.append(f"{name}: {error!r}"),
        )
        await server.start([address])
        self.servers.append(server)

    def _mgmtd_routes(self) -> Routes:
        async def get_routing(call: Call, request: Any) -> Any:
            now_ms = int(self.clock.boot_s() * 1000) + 1_000_000
            if request.known_version >= self.routing_version:
                await asyncio.sleep(min(request.wait_ms, 1000) / 1000)
                return mgmtd_wire.GetRoutingResponse(cluster_time_ms=now_ms)
            picture = self.routing
            delta = RoutingDelta(
                cluster_id=KEY.cluster,
                base_version=0,
                version=picture.version,
                nodes=tuple(picture.nodes.values()),
                chains=tuple(picture.chains.values()),
                tables=picture.tables,
            )
            return mgmtd_wire.GetRoutingResponse(delta=delta, cluster_time_ms=now_ms)

        async def report(call: Call, request: Any) -> Any:
            return mgmtd_wire.ReportResponse(routing_version=self.routing_version)

        routes = Routes()
        routes.add(mgmtd_wire.GET_ROUTING, get_routing)
        routes.add(mgmtd_wire.REPORT, report)
        return routes

    def _storage_routes(self) -> Routes:
        chains = self.chains

        async def raise_epoch(call: Call, request: Any) -> Any:
            epoch = await chains.raise_epoch(request.inode, request.epoch, (request.chain,), timeout_s=1)
            return storage_wire.RaiseEpochResponse(epoch)

        async def cut(call: Call, request: Any) -> Any:
            removed = chains.cut_chain(
                request.chain,
                request.inode,
                request.epoch,
                request.first_removed,
                request.boundary_length_bytes,
            )
            return storage_wire.CutResponse(removed_count=removed, more=False)

        async def query_length(call: Call, request: Any) -> Any:
            stored = chains.stored.get((request.chain, request.inode), {})
            last = max(stored, default=-1)
            return storage_wire.QueryLengthResponse(
                chunk_index=last,
                length_bytes=stored.get(last, 0),
                chunk_count=len(stored),
                used_bytes=sum(stored.values()),
            )

        async def end_session(call: Call, request: Any) -> Any:
            await chains.end_session(request.session, (request.chain,), timeout_s=1)
            return storage_wire.EndSessionResponse()

        async def space(call: Call, request: Any) -> Any:
            return storage_wire.SpaceResponse(chains.targets)

        routes = Routes()
        routes.add(storage_wire.RAISE_EPOCH, raise_epoch)
        routes.add(storage_wire.CUT, cut)
        routes.add(storage_wire.QUERY_LENGTH, query_length)
        routes.add(storage_wire.END_SESSION, end_session)
        routes.add(storage_wire.SPACE, space)
        return routes
