"""A whole cluster in one process: the real servers, from their own constructors, on simulated components.

Every host has its own network view, clock (with drift) and generators; storage hosts have disks in memory.
All chance comes from the one seed, by name. mgmtd, meta and storage services and clients share nothing but
the network and, where they do in production, the KV store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from fs3.client.core import ClientCore
from fs3.client.filesystem import AsyncFileSystem
from fs3.client.settings import ClientSettings, Components
from fs3.daemon import Server
from fs3.errors import DeadlineExceeded, MaybeApplied, Retryable
from fs3.identity.handshake import Credentials, NodeCredentials, UserCredentials
from fs3.identity.keys import ClusterKey
from fs3.identity.token import TokenClaims, make_token
from fs3.ids import Generation, NodeId
from fs3.kv.faults import FaultRates, RandomFaults
from fs3.kv.memory import MemoryKv, MemoryStore
from fs3.log import SlowLog, capturing_logger
from fs3.meta.server import MetaComponents, MetaServer, MetaSettings
from fs3.metrics import Metrics
from fs3.mgmtd.server import MgmtdComponents, MgmtdServer, MgmtdSettings
from fs3.rng import Rng, derived_rng
from fs3.rpc.client import RpcClient
from fs3.rpc.settings import ServerSettings
from fs3.storage.lanes import InlineLanes
from fs3.storage.server import StorageComponents, StorageServer, StorageSettings
from fs3.stubs.mgmtd import MgmtdStub, RoutingCache
from fs3.tasks import TaskScope
from fs3.wire.mgmtd import CREATE_CHAIN_TABLE, CreateChainTableRequest

from .disk import SimDisk
from .index import sim_opener
from .loop import SimClock, SimLoop
from .network import SimInternet
from .wires import LinkFaults

KEY = ClusterKey("simulated", 1, bytes(range(32)))
PORT = 7000
RPC = ServerSettings(small_payload_bytes_max=64 << 20)
"""There is no bulk plane in the simulated world."""
READY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class WorldShape:
    """How many of what."""

    meta_count: int = 2
    storage_count: int = 3
    targets_per_node_count: int = 1
    replication: int = 3
    client_count: int = 3


@dataclass(slots=True)
class Disks:
    """The disks of one storage host; they outlive its processes."""

    rng: Rng
    by_directory: dict[str, SimDisk] = field(default_factory=dict)

    def open(self, directory: str) -> SimDisk:
        """The disk that holds ``directory``; everything of a host is on one."""
        return self.by_directory.setdefault("", SimDisk(self.rng))


class World:
    """Everything that runs under one seed. Make it inside the loop; ``start``, use, ``stop``."""

    def __init__(self, seed: int, shape: WorldShape, faults: LinkFaults, kv_rates: FaultRates) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        self.loop = loop
        self.seed = seed
        self.shape = shape
        self.net = SimInternet(loop, self.rng("network"), faults)
        self.store = MemoryStore(SimClock(loop))
        self.kv_rates = kv_rates
        self.kv_faults: list[RandomFaults] = []
        self.events: list[dict[str, object]] = []
        self.failures: list[str] = []
        self.mgmtd: MgmtdServer | None = None
        self.metas: list[MetaServer] = []
        self.storages: list[StorageServer] = []
        self.clients: list[AsyncFileSystem] = []
        self._clocks: dict[str, SimClock] = {}
        self._client_parts: list[tuple[RpcClient, TaskScope]] = []

    def rng(self, name: str) -> Rng:
        """The generator of a consumer."""
        return derived_rng(self.seed, name)

    def clock(self, host: str) -> SimClock:
        """A host's clock: within ±0.9 % of the loop's."""
        if host not in self._clocks:
            rng = self.rng(f"{host}/clock")
            self._clocks[host] = SimClock(
                self.loop, drift=rng.uniform(-0.009, 0.009), offset_s=rng.uniform(1, 1e6)
            )
        return self._clocks[host]

    def failed(self, name: str, error: BaseException) -> None:
        """A background task of some server ended with a bug."""
        self.failures.append(f"{name}: {error!r}")

    def nonces(self, host: str) -> Callable[[], bytes]:
        """Unpredictable to nobody: bytes of the seed."""
        rng = self.rng(f"{host}/nonces")
        return lambda: rng.randbytes(16)

    def kv(self, host: str) -> MemoryKv:
        """A host's access to the store, with faults of its own."""
        faults = RandomFaults(self.rng(f"{host}/kv"), self.kv_rates)
        self.kv_faults.append(faults)
        return MemoryKv(self.store, faults=faults)

    # -- servers

    async def start(self) -> None:
        """Start everything; returns when the file system can be used."""
        self.mgmtd = self._make_mgmtd()
        await self.mgmtd.start()
        self.metas = [self._make_meta(i) for i in range(self.shape.meta_count)]
        self.storages = [self._make_storage(i) for i in range(self.shape.storage_count)]
        servers: list[Server] = [*self.storages, *self.metas]
        for server in servers:
            await self._retried(server.start)
        await self._create_table()
        for i in range(self.shape.client_count):
            self.clients.append(await self._make_client(f"client{i}"))
        await self._retried(lambda: self.clients[0].makedirs("/work", exist_ok=True))

    async def stop_clients(self) -> None:
        """All clients close."""
        for client, (rpc, scope) in zip(self.clients, self._client_parts, strict=True):
            await client.close()
            await scope.aclose()
            await rpc.aclose()

    async def stop_servers(self) -> None:
        """Clean stop of everything else."""
        servers: list[Server] = [*self.metas, *self.storages]
        for server in servers:
            await server.stop()
        if self.mgmtd is not None:
            await self.mgmtd.stop()

    def calm(self) -> None:
        """No faults any more."""
        self.net.heal()
        for faults in self.kv_faults:
            faults.rates = FaultRates()

    def _make_mgmtd(self) -> MgmtdServer:
        host = "mgmtd0"
        return MgmtdServer(
            MgmtdSettings(NodeId(1), host, f"{host}:{PORT}", f"{host}:{PORT}"),
            MgmtdComponents(
                clock=self.clock(host),
                rng=self.rng(host),
                kv=self.kv(host),
                network=self.net.host(host),
                key=KEY,
                make_nonce=self.nonces(host),
                log=capturing_logger(self.events),
                fail=self.failed,
            ),
        )

    def _make_meta(self, index: int) -> MetaServer:
        host, log = f"meta{index}", capturing_logger(self.events)
        return MetaServer(
            MetaSettings(
                NodeId(11 + index),
                (f"{host}:{PORT}",),
                (f"mgmtd0:{PORT}",),
                host=host,
                beacon_address=f"{host}:{PORT}",
            ),
            MetaComponents(
                clock=self.clock(host),
                rng=self.rng(host),
                kv=self.kv(host),
                network=self.net.host(host),
                key=KEY,
                log=log,
                metrics=Metrics(),
                slow=SlowLog(log, self.clock(host), 1e9),
                make_nonce=self.nonces(host),
                fail=self.failed,
            ),
        )

    def _make_storage(self, index: int) -> StorageServer:
        host = f"storage{index}"
        disks = Disks(self.rng(f"{host}/disk"))
        delays = self.rng(f"{host}/lanes")
        return StorageServer(
            StorageSettings(
                NodeId(101 + index),
                "/node",
                ("/disk0",),
                (f"{host}:{PORT}",),
                (f"mgmtd0:{PORT}",),
                targets_per_disk_count=self.shape.targets_per_node_count,
                host=host,
                beacon_address=f"{host}:{PORT}",
            ),
            StorageComponents(
                clock=self.clock(host),
                rng=self.rng(host),
                network=self.net.host(host),
                key=KEY,
                log=capturing_logger(self.events),
                metrics=Metrics(),
                lanes=InlineLanes(lambda: delays.uniform(0.0001, 0.002)),
                open_disk=disks.open,
                open_index=lambda _: sim_opener(disks.open("")),
                make_nonce=self.nonces(host),
                fail=self.failed,
                rpc=RPC,
            ),
        )

    # -- clients

    def _rpc(self, host: str, credentials: Credentials) -> RpcClient:
        return RpcClient(
            credentials,
            self.net.host(host),
            rng=self.rng(f"{host}/rpc"),
            make_nonce=self.nonces(f"{host}/rpc"),
            on_failure=self.failed,
        )

    async def _create_table(self) -> None:
        rpc = self._rpc("operator", NodeCredentials(KEY, NodeId(0), Generation(0)))
        request = CreateChainTableRequest(
            replication=self.shape.replication,
            wait_for_targets=self.shape.storage_count * self.shape.targets_per_node_count,
        )
        address = f"mgmtd0:{PORT}"
        await self._retried(lambda: rpc.call(address, CREATE_CHAIN_TABLE, request, timeout_s=5))
        await rpc.aclose()

    async def _make_client(self, host: str) -> AsyncFileSystem:
        claims = TokenClaims(cluster=KEY.cluster, key_id=KEY.key_id, uid=0, gid=0, is_admin=True)
        rpc = self._rpc(host, UserCredentials(make_token(KEY, claims)))
        scope = TaskScope(host, self.failed)
        rng, clock = self.rng(host), self.clock(host)
        cache = RoutingCache(
            MgmtdStub(rpc, (f"mgmtd0:{PORT}",), clock, rng), rng, capturing_logger(self.events)
        )
        cache.start(scope)
        await self._retried(lambda: cache.wait_version(1, 5))
        components = Components(
            caller=rpc, routing=cache, clock=clock, rng=rng, make_nonce=self.nonces(host), host=host
        )
        self._client_parts.append((rpc, scope))
        return AsyncFileSystem(ClientCore(components, ClientSettings(), scope))

    async def _retried(self, work: Callable[[], object]) -> None:
        """Do what may fail while servers come up, until it is done."""
        deadline_s = self.loop.time() + READY_TIMEOUT_S
        while True:
            try:
                await work()  # type: ignore[misc]  # an awaitable of anything
                return
            except (Retryable, MaybeApplied) as error:
                if self.loop.time() > deadline_s:
                    raise DeadlineExceeded(f"not ready after {READY_TIMEOUT_S} s: {error}") from error
                await asyncio.sleep(0.1)
