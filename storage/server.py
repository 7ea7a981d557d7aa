"""A storage node: what the process is made of, from settings and components.

The only place of the package that joins things: disks, targets, membership, RPC, operations. A simulated
world makes it with the same constructor, over its own network, disks and lanes.

Start: the generation is made durable before anything is opened; stores are opened and checked in lanes;
requests are taken; then the node reports itself. Whether a target serves is for routing and leases to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from fs3.clock import Clock
from fs3.identity.capability import CapabilitySigner
from fs3.identity.handshake import NodeCredentials, ServerIdentity
from fs3.identity.keys import ClusterKey
from fs3.ids import Generation, NodeId
from fs3.log import Logger
from fs3.member.agent import Agent
from fs3.member.exported import export_agent
from fs3.member.key_generations import KeyGenerations
from fs3.member.settings import AgentComponents, AgentSettings
from fs3.member.timing import TIMING, Timing
from fs3.metrics import Metrics
from fs3.rng import Rng
from fs3.routing import NodeKind, RoutingInfo
from fs3.rpc.client import BulkCaller, RpcClient
from fs3.rpc.exported import export_client, export_server
from fs3.rpc.network import Network
from fs3.rpc.server import BulkPlane, RpcServer
from fs3.rpc.service import Routes
from fs3.rpc.settings import ServerSettings
from fs3.tasks import TaskScope

from .access import Access
from .disk_watch import watch_disks
from .disks import NodeDirectory, OpenDisk, OpenedTarget, OpenIndex, open_targets
from .dropping import RETENTION, Dropping, RetentionSettings
from .engine.versions import EngineSettings
from .lanes import Lanes
from .node import StorageNode
from .read_counts import ReadCounts
from .resync.pace import RESYNC, ResyncSettings
from .resync.source import Resync
from .runner import TargetRunner
from .scrub import Scrub
from .scrub_round import SCRUB, ScrubSettings
from .service import add_routes
from .targets import Targets

REPORT_S = 2.0
"""How often the space in use is looked at."""
OPEN_LANE = "open"
RPC = ServerSettings()


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """What an operator says of one storage node."""

    node: NodeId
    directory: str
    """Holds the node's run number; on a disk that survives."""
    disks: tuple[str, ...]
    """One directory for each disk; their order is theirs for good."""
    listen: tuple[str, ...]
    """RPC addresses; the first is the one that others are told (``host:port``; port 0: any free one)."""
    seeds: tuple[str, ...]
    """RPC addresses of some mgmtds."""
    targets_per_disk_count: int = 1
    """Targets that a new disk is given; the same for all disks of the node, for good."""
    target_capacity_bytes: int = 0
    """Most that a target may hold; 0: what its disk has room for."""
    host: str = "localhost"
    beacon_address: str = "127.0.0.1:0"
    """UDP ``host:port``."""
    local_address: str = ""
    """``unix:/path`` for clients on this host; empty: none."""
    zone: str = ""
    retention: RetentionSettings = RETENTION
    resync: ResyncSettings = RESYNC
    scrub: ScrubSettings = SCRUB


@dataclass(frozen=True, slots=True)
class StorageComponents:
    """What it works with. ``fail(name, error)``: this process has to end."""

    clock: Clock
    rng: Rng
    network: Network
    key: ClusterKey
    log: Logger
    metrics: Metrics
    lanes: Lanes
    open_disk: OpenDisk
    """The component of a disk, by its directory (``OsDisk``)."""
    open_index: OpenIndex
    """``index_opener``: what opens the indexes of stores on a disk."""
    make_nonce: Callable[[], bytes]
    fail: Callable[[str, BaseException], None]
    bulk_server: BulkPlane | None = None
    make_bulk_client: Callable[[NodeCredentials], BulkCaller] | None = None
    timing: Timing = TIMING
    rpc: ServerSettings = RPC


class StorageServer:
    """``fs3.daemon.Server``: start, stop, health."""

    def __init__(self, settings: StorageSettings, components: StorageComponents) -> None:
        self._settings = settings
        self._components = components
        self._scope = TaskScope("storage", components.fail)
        self._home: NodeDirectory | None = None
        self.agent: Agent | None = None
        self.rpc: RpcServer | None = None
        self.client: RpcClient | None = None
        self.targets: Targets | None = None
        self.dropping: Dropping | None = None
        self.resync: Resync | None = None
        self.scrub: Scrub | None = None
        self.addresses: tuple[str, ...] = ()
        self._keys = KeyGenerations()

    async def start(self) -> None:
        """Open everything; returns when requests are taken.

        InvalidRequest, CorruptData: the node's directory is another's, in use, or damaged; OSError: an
        address is taken. Disks and targets that cannot be opened are reported, not raised.
        """
        settings, parts = self._settings, self._components
        generation, opened = await parts.lanes.run(OPEN_LANE, self._open)
        credentials = NodeCredentials(parts.key, settings.node, generation)
        make_bulk = parts.make_bulk_client
        self.client = RpcClient(
            credentials,
            parts.network,
            rng=parts.rng,
            make_nonce=parts.make_nonce,
            on_failure=parts.fail,
            bulk=make_bulk(credentials) if make_bulk is not None else None,
        )
        self.agent = agent = self._make_agent(generation, self.client)
        self.targets = Targets(opened, self._make_runner, agent, parts.log, parts.metrics)
        self.dropping = Dropping(
            agent, self.client, parts.lanes, parts.log, parts.metrics, settings.retention
        )
        counts = ReadCounts(parts.metrics)
        self._make_background(self.targets, agent, self.client, counts)
        assert self.resync is not None
        self.targets.copy_step_count = self.resync.step_count
        routes = Routes()
        add_routes(
            routes, self._make_node(self.targets, agent, self.client, self.dropping, self.resync, counts)
        )
        agent.add_routes(routes)
        self.rpc = RpcServer(
            routes,
            ServerIdentity(parts.key, settings.node, generation, self._keys.least),
            parts.network,
            make_nonce=parts.make_nonce,
            on_bug=self._on_bug,
            settings=parts.rpc,
            bulk=parts.bulk_server,
        )
        local = (settings.local_address,) if settings.local_address else ()
        export_server(parts.metrics, self.rpc.counters)
        export_client(parts.metrics, self.client.counters)
        export_agent(parts.metrics, agent)
        self.addresses = await self.rpc.start((*settings.listen, *local))
        self.targets.start()
        agent.subscribe(self._follow)
        self._keys.on_change = self.rpc.revalidate
        agent.subscribe(self._keys.adopt)
        await agent.start(self.addresses[0], settings.local_address)
        self._scope.spawn("space", self._watch_space(self.targets))
        self._scope.spawn("dropping", self.dropping.run(self.targets.online))
        assert self.scrub is not None
        disks = self.targets.by_disk()
        self.scrub.start([runners for _, _, runners in disks])
        watch_disks(disks, parts.lanes, self._scope)

    def _open(self) -> tuple[Generation, list[OpenedTarget]]:
        """In a lane: the node's directory, this run's number, the stores."""
        settings, parts = self._settings, self._components
        self._home = NodeDirectory(settings.directory, settings.node, parts.open_disk(settings.directory))
        generation = self._home.begin_run()
        opened = open_targets(
            self._home,
            settings.disks,
            settings.targets_per_disk_count,
            parts.open_disk,
            parts.open_index,
            EngineSettings(capacity_bytes=settings.target_capacity_bytes),
            parts.clock,
            lambda: parts.rng.getrandbits(64),
        )
        return generation, opened

    def _make_agent(self, generation: Generation, client: RpcClient) -> Agent:
        settings, parts = self._settings, self._components
        return Agent(
            AgentSettings(
                node=settings.node,
                kind=NodeKind.STORAGE,
                host=settings.host,
                seeds=settings.seeds,
                beacon_address=settings.beacon_address,
                zone=settings.zone,
                timing=parts.timing,
            ),
            AgentComponents(
                clock=parts.clock,
                rng=parts.rng,
                network=parts.network,
                caller=client,
                key=parts.key,
                log=parts.log,
                fail=parts.fail,
            ),
            generation,
        )

    def _make_runner(
        self, one: OpenedTarget, on_offline: Callable[[TargetRunner, str], None]
    ) -> TargetRunner:
        parts = self._components
        assert one.store is not None and self.agent is not None and self.client is not None, one
        return TargetRunner(
            one.store,
            self.agent,
            self.client,
            parts.lanes,
            self._scope,
            clock=parts.clock,
            log=parts.log,
            metrics=parts.metrics,
            on_offline=on_offline,
            now_s=parts.bulk_server.now_s if parts.bulk_server is not None else None,
            blocking=self.client,
        )

    def _make_background(self, targets: Targets, agent: Agent, client: RpcClient, counts: ReadCounts) -> None:
        """Resync and scrub, which give way to clients."""
        parts, settings = self._components, self._settings

        def foreground_bytes() -> float:
            received = self.resync.received.value if self.resync is not None else 0
            return counts.load_bytes() + sum(r.written_bytes for r in targets.online()) - received

        self.resync = Resync(
            agent,
            client,
            parts.lanes,
            self._scope,
            parts.log,
            parts.metrics,
            settings.resync,
            foreground_bytes,
        )
        self.scrub = Scrub(
            agent, parts.lanes, self._scope, parts.log, parts.metrics, settings.scrub, foreground_bytes
        )

    def _follow(self, _: RoutingInfo) -> None:
        """After ``targets``: each target has adopted what there is to adopt."""
        if self.resync is not None and self.targets is not None:
            self.resync.follow(self.targets.online())

    def _make_node(
        self,
        targets: Targets,
        agent: Agent,
        client: RpcClient,
        dropping: Dropping,
        resync: Resync,
        counts: ReadCounts,
    ) -> StorageNode:
        parts = self._components
        return StorageNode(
            node=self._settings.node,
            targets=targets,
            membership=agent,
            access=Access(CapabilitySigner(parts.key), agent),
            caller=client,
            lanes=parts.lanes,
            clock=parts.clock,
            counts=counts,
            dropping=dropping,
            resync=resync,
            sends_files=parts.network.has_threads,
        )

    async def stop(self) -> None:
        """Answer those who wait, take nothing more, write what is to be written, close."""
        if self.targets is not None:
            self.targets.stop()
        if self.client is not None:
            self.client.shut_bulk()  # threads that forward do not wait for a successor any more
        if self.rpc is not None:
            await self.rpc.aclose()
        await self._scope.aclose()
        if self.agent is not None:
            await self.agent.stop()
        if self.client is not None:
            await self.client.aclose()
        if self.targets is not None:
            await self._components.lanes.run(OPEN_LANE, self.targets.close)
        if self._home is not None:
            self._home.close()
        self._components.lanes.close()

    def health(self) -> dict[str, object]:
        """For ``/healthz``."""
        if self.agent is None or self.targets is None or self.resync is None or self.scrub is None:
            return {"ok": False}
        own = {"resync": self.resync.health(), "scrub": self.scrub.health()}
        return {**self.agent.health(), **self.targets.health(), **own}

    async def _watch_space(self, targets: Targets) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            targets.report()

    def _on_bug(self, method: str, request_id: int, error: BaseException) -> None:
        self._components.log.error("bug", method=method, request=request_id, exc_info=error)
