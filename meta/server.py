"""A metadata service: what the process is made of, from settings and components.

``MetaServer`` is the only place of the package that joins things: store, routing, storage nodes, operations,
workers. The simulated world makes it with the same constructor as the daemon.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from fs3.clock import Clock
from fs3.identity.capability import CapabilitySigner
from fs3.identity.handshake import NodeCredentials, ServerIdentity
from fs3.identity.keys import ClusterKey
from fs3.ids import Generation, NodeId
from fs3.kv.run import OnMaybeApplied, run
from fs3.kv.schema import key_u64
from fs3.kv.transaction import Kv, Transaction
from fs3.log import Logger, SlowLog
from fs3.member.agent import Agent
from fs3.member.exported import export_agent
from fs3.member.key_generations import KeyGenerations
from fs3.member.settings import AgentComponents, AgentSettings
from fs3.member.timing import TIMING, Timing
from fs3.metrics import Metrics
from fs3.rng import Rng
from fs3.routing import NodeKind
from fs3.rpc.client import RpcClient
from fs3.rpc.exported import export_client, export_server
from fs3.rpc.network import Network
from fs3.rpc.server import RpcServer
from fs3.rpc.service import Routes
from fs3.stubs.storage import ChainCaller, StorageStub
from fs3.tasks import TaskScope, Worker

from .allocate import IdAllocator, Placement, inode_of, session_of
from .driver import Driver
from .finisher import Finisher
from .ops import OPERATIONS
from .root import make_root
from .services import REMOVAL_QUEUED, SESSION_ENDING, Event, Services
from .workers.leases import WorkLeases
from .workers.leftovers import SettlementWorker, SpillWorker, TruncateWorker
from .workers.pace import WorkerLoop
from .workers.removal import RemovalWorker
from .workers.sessions import SessionWorker
from .workers.space import SpaceWorker

START_TIMEOUT_S = 20.0
"""How long a start waits for the KV store."""
_GENERATION = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class MetaSettings:
    """What an operator says of one metadata service."""

    node: NodeId
    listen: tuple[str, ...]
    """RPC addresses; the first is the one that others are told (``host:port``; port 0: any free one)."""
    seeds: tuple[str, ...]
    """RPC addresses of some mgmtds."""
    host: str = "localhost"
    beacon_address: str = "127.0.0.1:0"
    """UDP ``host:port``."""
    local_address: str = ""
    """``unix:/path`` for clients on this host; empty: none."""
    zone: str = ""
    root_uid: int = 0
    """Owner of the root directory, when this service is the one that makes it."""
    root_gid: int = 0
    root_mode: int = 0o755


@dataclass(frozen=True, slots=True)
class MetaComponents:
    """What it works with. ``fail(name, error)``: this process has to end."""

    clock: Clock
    rng: Rng
    kv: Kv
    network: Network
    key: ClusterKey
    log: Logger
    metrics: Metrics
    slow: SlowLog
    make_nonce: Callable[[], bytes]
    fail: Callable[[str, BaseException], None]
    timing: Timing = TIMING


class MetaServer:
    """``fs3.daemon.Server``: start, stop, health."""

    def __init__(self, settings: MetaSettings, components: MetaComponents) -> None:
        self._settings = settings
        self._components = components
        self._scope = TaskScope("meta", components.fail)
        self._loops: dict[str, WorkerLoop] = {}
        self._keys = KeyGenerations()
        self.agent: Agent | None = None
        self.rpc: RpcServer | None = None
        self.client: RpcClient | None = None
        self.driver: Driver | None = None
        self.addresses: tuple[str, ...] = ()

    async def start(self) -> None:
        """Open everything; returns when it serves. Unavailable: no KV store; OSError: an address is taken."""
        settings, parts = self._settings, self._components
        generation = await self._next_generation()
        self.client = RpcClient(
            NodeCredentials(parts.key, settings.node, generation),
            parts.network,
            rng=parts.rng,
            make_nonce=parts.make_nonce,
            on_failure=parts.fail,
        )
        self.agent = agent = self._make_agent(generation, self.client)
        services = self._make_services(agent, self.client)
        finisher = Finisher(services)
        self.driver = Driver(services, finisher, parts.metrics, parts.slow)
        await make_root(
            services,
            uid=settings.root_uid,
            gid=settings.root_gid,
            mode=settings.root_mode,
            deadline_s=parts.clock.boot_s() + START_TIMEOUT_S,
        )
        routes = Routes()
        for operation in OPERATIONS:
            routes.add(operation.method, self.driver.handler(operation))
        agent.add_routes(routes)
        self.rpc = RpcServer(
            routes,
            ServerIdentity(parts.key, settings.node, generation, self._keys.least),
            parts.network,
            make_nonce=parts.make_nonce,
            on_bug=self._on_bug,
        )
        local = (settings.local_address,) if settings.local_address else ()
        export_server(parts.metrics, self.rpc.counters)
        export_client(parts.metrics, self.client.counters)
        export_agent(parts.metrics, agent)
        self.addresses = await self.rpc.start((*settings.listen, *local))
        self._keys.on_change = self.rpc.revalidate
        agent.subscribe(self._keys.adopt)
        await agent.start(self.addresses[0], settings.local_address)
        self._start_workers(services, finisher, generation)

    async def stop(self) -> None:
        """End: no new requests, those under way get a moment, then everything closes."""
        if self.rpc is not None:
            await self.rpc.aclose()
        await self._scope.aclose()  # after the requests, which wait for what runs here
        if self.agent is not None:
            await self.agent.stop()
        if self.client is not None:
            await self.client.aclose()

    def health(self) -> dict[str, object]:
        """For ``/healthz``: ok while it serves; with ``tables`` 0 it cannot create files yet."""
        if self.agent is None or not self.addresses or self.driver is None:
            return {"ok": False, "state": "starting"}
        health = self.agent.health()
        now_s = self._components.clock.boot_s()
        return health | {
            "addresses": list(self.addresses),
            "kv_seen_s_ago": round(now_s - self.driver.services.contact.last_s, 1),
            "tables": len(self.agent.routing.tables),
            "waiting_work": {name: loop.failures for name, loop in self._loops.items()},
        }

    # -- made of -------------------------------------------------------------------------------------

    def _make_agent(self, generation: Generation, client: RpcClient) -> Agent:
        settings, parts = self._settings, self._components
        return Agent(
            AgentSettings(
                node=settings.node,
                kind=NodeKind.META,
                host=settings.host,
                seeds=settings.seeds,
                beacon_address=settings.beacon_address,
                zone=settings.zone,
                timing=parts.timing,
            ),
            AgentComponents(parts.clock, parts.rng, parts.network, client, parts.key, parts.log, parts.fail),
            generation,
        )

    def _make_services(self, agent: Agent, client: RpcClient) -> Services:
        parts = self._components
        chains = StorageStub(
            ChainCaller(agent.cache, client, parts.clock, parts.rng),
            agent.cache,
            client,
            parts.clock,
            self._scope,
        )
        return Services(
            kv=parts.kv,
            clock=parts.clock,
            rng=parts.rng,
            chains=chains,
            placement=Placement(lambda: agent.routing, parts.rng),
            inode_ids=IdAllocator(parts.kv, b"inode", inode_of, parts.clock, parts.rng),
            session_ids=IdAllocator(parts.kv, b"session", session_of, parts.clock, parts.rng),
            signer=CapabilitySigner(parts.key),
            cluster_time_ms=agent.cluster_time_ms,
            publish=self._publish,
            inline_limit_bytes=parts.kv.limits.inline_limit_bytes,
        )

    def _start_workers(self, services: Services, finisher: Finisher, generation: Generation) -> None:
        leases = WorkLeases(services, self._settings.node, generation)
        removal = RemovalWorker(services, leases, self._scope)
        sessions = SessionWorker(services, leases, finisher, self._scope)
        workers: tuple[Worker, ...] = (
            removal,
            sessions,
            TruncateWorker(services, leases, finisher, self._scope),
            SettlementWorker(services, leases, finisher, self._scope),
            SpillWorker(services, leases, finisher, self._scope),
            SpaceWorker(services),
        )
        metrics = self._components.metrics
        metrics.computed("fs3_meta_removal_queue_inodes", lambda: removal.queued_count)
        metrics.computed("fs3_meta_sessions", lambda: sessions.session_count)
        for worker in workers:
            loop = self._loops[worker.name] = WorkerLoop(worker, self._components.log)
            self._scope.spawn(worker.name, loop.run())

    async def _next_generation(self) -> Generation:
        """A number greater than that of every earlier run of this node (design 2.7)."""
        parts = self._components
        key = key_u64(b"MGEN", self._settings.node)

        async def body(txn: Transaction) -> Generation:
            data = await txn.get(key)
            generation = 1 + (0 if data is None else int(_GENERATION.unpack(data)[0]))
            txn.set(key, _GENERATION.pack(generation))
            return Generation(generation)

        return await run(
            parts.kv,
            body,
            clock=parts.clock,
            rng=parts.rng,
            deadline_s=parts.clock.boot_s() + START_TIMEOUT_S,
            on_maybe_applied=OnMaybeApplied.RETRY,
        )

    # -- told ----------------------------------------------------------------------------------------

    def _publish(self, event: Event) -> None:
        worker = {REMOVAL_QUEUED: "removal", SESSION_ENDING: "sessions"}.get(event.name)
        if worker is None:
            self._components.log.info(
                event.name, inode=f"{event.inode:x}", session=f"{event.session:x}", detail=event.detail
            )
        elif worker in self._loops:
            self._loops[worker].wake()

    def _on_bug(self, method: str, request_id: int, error: BaseException) -> None:
        self._components.log.error("bug", method=method, request_id=request_id, exc_info=error)
