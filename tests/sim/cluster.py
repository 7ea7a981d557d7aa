"""A whole cluster in one process: the real servers, from their own constructors, on simulated components.

Each run of a server is a ``SimProcess`` on a host of its own: ``crash`` ends it wherever it is and ``boot``
starts the next one, on the disk and the store that the last one left.

Every host has its own network view, clock (with drift) and generators; storage hosts have disks in memory.
All chance comes from the one seed, by name. mgmtd, meta and storage services and clients share nothing but
the network and, where they do in production, the KV store.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

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
from fs3.log import Logger, SlowLog, capturing_logger
from fs3.member.timing import TIMING
from fs3.meta.server import MetaComponents, MetaServer, MetaSettings
from fs3.metrics import Metrics
from fs3.mgmtd.server import MgmtdComponents, MgmtdServer, MgmtdSettings
from fs3.rng import Rng, derived_rng
from fs3.rpc.client import RpcClient
from fs3.rpc.settings import ServerSettings
from fs3.storage.disks import NEW_DISK
from fs3.storage.lanes import InlineLanes
from fs3.storage.scrub_round import ScrubSettings
from fs3.storage.server import StorageComponents, StorageServer, StorageSettings
from fs3.stubs.mgmtd import MgmtdStub, RoutingCache
from fs3.tasks import TaskScope
from fs3.wire.mgmtd import CREATE_CHAIN_TABLE, CreateChainTableRequest

from .allowed import Allowed
from .disk import SimDisk
from .index import logged_opener, sim_opener
from .loop import SimClock, SimLoop
from .network import SimInternet
from .process import SimProcess, keep_processes
from .wires import LinkFaults

KEY = ClusterKey("simulated", 1, bytes(range(32)))
PORT = 7000
RPC = ServerSettings(small_payload_bytes_max=64 << 20)
"""There is no bulk plane in the simulated world."""
HOME, DISK = "/node", "/disk0"
FIRST_STORAGE_NODE = 101
FENCED = "agent/clock"
"""The task that fails when a node finds that its clock has lost time."""
SCRUB = ScrubSettings(every_s=10.0)
"""What takes weeks on a disk takes seconds here."""
TIMES = replace(TIMING, link_quarantine_s=5.0, copy_stall_s=10.0)
"""What would outlast a seed is shorter here."""
READY_TIMEOUT_S = 60.0
PATIENT = ClientSettings(meta_timeout_s=300.0, read_timeout_s=300.0, write_timeout_s=300.0)
"""Longer than a chain may be without a member again and again: clients see delays, no errors."""
Fail = Callable[[str, BaseException], None]


@dataclass(frozen=True, slots=True)
class WorldShape:
    """How many of what."""

    mgmtd_count: int = 3
    meta_count: int = 2
    storage_count: int = 5
    targets_per_node_count: int = 3
    """With five nodes: five chains, each over three of them."""
    replication: int = 3
    client_count: int = 3


class Told(list[dict[str, object]]):
    """What servers have told; ``look`` sees each event at once."""

    def __init__(self, look: Callable[[dict[str, object]], None]) -> None:
        super().__init__()
        self._look = look

    def append(self, event: dict[str, object]) -> None:
        super().append(event)
        self._look(event)


class World(Allowed):
    """Everything that runs under one seed. Make it inside the loop; ``start``, use, ``stop``."""

    def __init__(self, seed: int, shape: WorldShape, faults: LinkFaults, kv_rates: FaultRates) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        self.loop = loop
        self.seed = seed
        self.shape = shape
        self.net = SimInternet(loop, self.rng("network"), faults)
        self.store = MemoryStore(SimClock(loop))
        self.scope = TaskScope("world", self.failed)
        self.kv_rates = kv_rates
        self.events: list[dict[str, object]] = Told(self.told)
        self.failures: list[str] = []
        self.mgmtds: dict[str, MgmtdServer] = {}
        self.metas: dict[str, MetaServer] = {}
        self.storages: dict[str, StorageServer] = {}
        self.disks: dict[str, SimDisk] = {}
        """Storage host -> the disk of its targets, with the index on it."""
        self.homes: dict[str, SimDisk] = {}
        """Storage host -> the disk of the node's own directory."""
        self.processes: dict[str, SimProcess] = {}
        self.clients: list[AsyncFileSystem] = []
        self._clocks: dict[str, SimClock] = {}
        self.disk_delay_s: dict[str, float] = {}
        """Host -> how much longer each call to its disk takes."""
        self._client_parts: list[tuple[RpcClient, TaskScope]] = []
        self._doors: dict[str, tuple[MemoryKv, RandomFaults]] = {}
        self._runs: dict[str, int] = {}
        self._dead: list[tuple[SimProcess, MemoryKv | None]] = []
        self._has_logs = self.rng("indexes").random() < 0.5
        self._without_store: dict[str, None] = {}
        self._silences = self.rng("silences")
        keep_processes(loop)

    def rng(self, name: str) -> Rng:
        """The generator of a consumer."""
        return derived_rng(self.seed, name)

    def clock(self, host: str) -> SimClock:
        """A host's clock: within ±0.9 % of the loop's."""
        if host not in self._clocks:
            rng = self.rng(f"{host}/clock/{self._runs.get(host, 0)}")
            self._clocks[host] = SimClock(
                self.loop, drift=rng.uniform(-0.009, 0.009), offset_s=rng.uniform(1, 1e6)
            )
        return self._clocks[host]

    def failed(self, name: str, error: BaseException) -> None:
        """A background task ended with a bug."""
        self.failures.append(f"{name}: {error!r}")

    def told(self, event: dict[str, object]) -> None:
        """No bug; and a target goes out of use for a disk that was made to fail or spoiled bytes only."""
        if event["event"] in ("bug", "handler failed"):
            self.failures.append(f"{event['host']}: {event['method']}: {event['exc_info']!r}")
        if event["event"] == "target offline":
            host, reason = str(event["host"]), str(event["reason"])
            if not self.may_go_offline(host, reason):
                self.failures.append(f"{host}, target {event['target']} went offline: {reason}")

    def nonces(self, host: str) -> Callable[[], bytes]:
        """Unpredictable to nobody: bytes of the seed."""
        rng = self.rng(f"{host}/nonces")
        return lambda: rng.randbytes(16)

    def log(self, host: str) -> Logger:
        """What the servers of a host tell, kept in ``events``."""
        return capturing_logger(self.events).bind(host=host)

    def set_kv_rates(self, rates: FaultRates) -> None:
        """How often the store fails, for all who use it from now on."""
        self.kv_rates = rates
        for _, faults in self._doors.values():
            faults.rates = rates

    # -- servers

    @property
    def mgmtd_hosts(self) -> list[str]:
        """Where the mgmtds run; one of them is primary."""
        return [f"mgmtd{i}" for i in range(self.shape.mgmtd_count)]

    @property
    def mgmtd_addresses(self) -> tuple[str, ...]:
        """What everybody is told to begin with."""
        return tuple(f"{host}:{PORT}" for host in self.mgmtd_hosts)

    @property
    def meta_hosts(self) -> list[str]:
        """Where metadata services run."""
        return [f"meta{i}" for i in range(self.shape.meta_count)]

    @property
    def storage_hosts(self) -> list[str]:
        """Where storage nodes run."""
        return [f"storage{i}" for i in range(self.shape.storage_count)]

    @property
    def client_hosts(self) -> list[str]:
        """Where clients run."""
        return [f"client{i}" for i in range(self.shape.client_count)]

    async def start(self) -> None:
        """Start everything; returns when the file system can be used."""
        for host in (*self.mgmtd_hosts, *self.storage_hosts, *self.meta_hosts):
            await self.boot(host)
        await self._create_table()
        for host in self.client_hosts:
            client, rpc, scope = await self.make_client(host)
            self.clients.append(client)
            self._client_parts.append((rpc, scope))
        await self._retried(lambda: self.clients[0].makedirs("/work", exist_ok=True))

    async def boot(self, host: str) -> None:
        """Start a host's server, again while it cannot start or is killed at it, as a supervisor does."""
        await self._bury()
        deadline_s = self.loop.time() + READY_TIMEOUT_S
        while True:
            process = self.processes[host] = SimProcess(host)
            start = process.start(self.scope, self._make(host, process).start())
            await asyncio.wait([start])
            if not process.is_dead:
                error = start.exception()
                if error is None:
                    return
                if self.loop.time() > deadline_s or not isinstance(error, Retryable | MaybeApplied):
                    raise AssertionError(f"{host} does not start") from error
                self.crash(host)
            await self._bury()
            await asyncio.sleep(0.1)

    def crash(self, host: str, *, power: bool = False) -> None:
        """Kill a host's server where it is; with ``power`` the machine forgets what is not synced."""
        process = self.processes.pop(host)
        self.net.crash(host, silent=power and self._silences.random() < 0.5)
        door = self._doors.pop(host, None)
        if door is not None:
            door[1].cut = True
        for disks in (self.disks, self.homes):
            if host in disks:
                disks[host] = disks[host].after_power_cut() if power else disks[host].after_kill()
        if power:
            self._clocks.pop(host, None)  # it counts from the machine's start
        process.kill()
        self._dead.append((process, door[0] if door is not None else None))

    async def stop(self, host: str) -> None:
        """Stop a host's server in order, as a supervisor does: it may say goodbye. If its disk is too slow
        for that, it is killed."""
        process = self.processes[host]
        servers: dict[str, Server] = {**self.mgmtds, **self.metas, **self.storages}
        stopping = process.start(self.scope, servers[host].stop())
        await asyncio.wait([stopping])
        error = None if stopping.cancelled() else stopping.exception()
        if error is not None and host not in self.disk_delay_s:
            raise AssertionError(f"{host} does not stop") from error
        self.crash(host)

    async def _bury(self) -> None:
        while self._dead:
            process, kv = self._dead.pop()
            if kv is not None:
                await kv.aclose()
            await process.reap()

    async def stop_clients(self) -> None:
        """All clients close."""
        for client, (rpc, scope) in zip(self.clients, self._client_parts, strict=True):
            await client.close()
            await scope.aclose()
            await rpc.aclose()

    async def stop_servers(self) -> None:
        """Clean stop of everything else."""
        await self._bury()
        servers: list[Server] = [*self.metas.values(), *self.storages.values(), *self.mgmtds.values()]
        for server in servers:
            await server.stop()
        await self.scope.aclose()

    def set_store_away(self, hosts: list[str], is_away: bool) -> None:
        """Whether the KV store cannot be reached from these hosts."""
        for host in hosts:
            if is_away:
                self._without_store[host] = None
            else:
                self._without_store.pop(host, None)
            if host in self._doors:
                self._doors[host][1].cut = is_away

    def fill(self, host: str, free_bytes: int) -> None:
        """Something else takes the space of a host's disk: clients may be told ENOSPC from now on."""
        self.full[host] = None
        self.full_until_s = math.inf
        self.disks[host].fill(free_bytes)

    def make_room(self, host: str) -> None:
        """The space is given back."""
        del self.full[host]
        self.disks[host].make_room()
        if not self.full:
            self.full_until_s = self.loop.time()

    def replace_disk(self, host: str) -> None:
        """An operator gives a host that is down an empty disk, and says that it is new."""
        assert host not in self.processes, host
        disk = self.disks[host] = SimDisk(self.rng(f"{host}/disk/{self._runs[host]}"))
        disk.make_directory(DISK)
        disk.open(f"{DISK}/{NEW_DISK}", create=True)
        disk.sync_directory(DISK)

    def calm(self) -> None:
        """No faults any more."""
        self.net.heal()
        self.set_kv_rates(FaultRates())

    def _make(self, host: str, process: SimProcess) -> Server:
        """The next run of a host's server."""
        self._runs[host] = run = self._runs.get(host, 0) + 1
        kind, number = host.rstrip("0123456789"), int(host.lstrip("abcdefghijklmnopqrstuvwxyz"))

        def fail(name: str, error: BaseException) -> None:
            if name == FENCED and host in self.may_fence:
                self.fenced[host] = None
            elif not process.is_dead:
                self.failed(f"{host}, run {run}: {name}", error)

        name = f"{host}/{run}"
        if kind == "mgmtd":
            self.mgmtds[host] = mgmtd = self._make_mgmtd(host, name, number, fail)
            return mgmtd
        if kind == "meta":
            self.metas[host] = meta = self._make_meta(host, name, number, fail)
            return meta
        self.storages[host] = storage = self._make_storage(host, name, fail)
        return storage

    def _open_kv(self, host: str, run: str) -> MemoryKv:
        """A process's access to the store, with faults of its own."""
        faults = RandomFaults(self.rng(f"{run}/kv"), self.kv_rates)
        faults.cut = host in self._without_store
        kv = MemoryKv(self.store, faults=faults)
        self._doors[host] = kv, faults
        return kv

    def _make_mgmtd(self, host: str, run: str, number: int, fail: Fail) -> MgmtdServer:
        return MgmtdServer(
            MgmtdSettings(
                node=NodeId(1 + number),
                host=host,
                address=f"{host}:{PORT}",
                beacon_address=f"{host}:{PORT}",
                seeds=self.mgmtd_addresses,
                timing=TIMES,
            ),
            MgmtdComponents(
                clock=self.clock(host),
                rng=self.rng(run),
                kv=self._open_kv(host, run),
                network=self.net.host(host),
                key=KEY,
                make_nonce=self.nonces(run),
                log=self.log(host),
                fail=fail,
            ),
        )

    def _make_meta(self, host: str, run: str, number: int, fail: Fail) -> MetaServer:
        log = self.log(host)
        return MetaServer(
            MetaSettings(
                NodeId(11 + number),
                (f"{host}:{PORT}",),
                self.mgmtd_addresses,
                host=host,
                beacon_address=f"{host}:{PORT}",
            ),
            MetaComponents(
                clock=self.clock(host),
                rng=self.rng(run),
                kv=self._open_kv(host, run),
                network=self.net.host(host),
                key=KEY,
                log=log,
                metrics=Metrics(),
                slow=SlowLog(log, self.clock(host), 1e9),
                make_nonce=self.nonces(run),
                fail=fail,
            ),
        )

    def storage_host(self, node: NodeId) -> str:
        """Where a storage node runs."""
        return f"storage{node - FIRST_STORAGE_NODE}"

    def _node_of(self, host: str) -> NodeId:
        return NodeId(FIRST_STORAGE_NODE + int(host.removeprefix("storage")))

    def _make_storage(self, host: str, run: str, fail: Fail) -> StorageServer:
        home = self.homes.setdefault(host, SimDisk(self.rng(f"{host}/home")))
        disk = self.disks.setdefault(host, SimDisk(self.rng(f"{host}/disk")))
        delays = self.rng(f"{run}/lanes")
        return StorageServer(
            StorageSettings(
                self._node_of(host),
                HOME,
                (DISK,),
                (f"{host}:{PORT}",),
                self.mgmtd_addresses,
                targets_per_disk_count=self.shape.targets_per_node_count,
                host=host,
                beacon_address=f"{host}:{PORT}",
                scrub=SCRUB,
            ),
            StorageComponents(
                clock=self.clock(host),
                rng=self.rng(run),
                network=self.net.host(host),
                key=KEY,
                log=self.log(host),
                metrics=Metrics(),
                lanes=InlineLanes(lambda: delays.uniform(0.0001, 0.002) + self.disk_delay_s.get(host, 0.0)),
                open_disk=lambda path: home if path == HOME else disk,
                open_index=lambda _: (
                    logged_opener(disk, self.rng(f"{run}/log")) if self._has_logs else sim_opener(disk)
                ),
                make_nonce=self.nonces(run),
                fail=fail,
                rpc=RPC,
            ),
        )

    # -- clients

    def rpc(self, host: str, credentials: Credentials) -> RpcClient:
        """A caller on ``host``, which its maker closes."""
        return RpcClient(
            credentials,
            self.net.host(host),
            rng=self.rng(f"{host}/rpc"),
            make_nonce=self.nonces(f"{host}/rpc"),
            on_failure=self.failed,
        )

    async def _create_table(self) -> None:
        rpc = self.rpc("operator", NodeCredentials(KEY, NodeId(0), Generation(0)))
        request = CreateChainTableRequest(
            replication=self.shape.replication,
            wait_for_targets=self.shape.storage_count * self.shape.targets_per_node_count,
        )
        stub = MgmtdStub(rpc, self.mgmtd_addresses, self.clock("operator"), self.rng("operator"))
        await self._retried(lambda: stub.call(CREATE_CHAIN_TABLE, request, timeout_s=5))
        await rpc.aclose()

    def primary(self) -> str | None:
        """The host whose mgmtd acts as primary now; None: there is none."""
        for host in self.mgmtd_hosts:
            if host in self.processes and self.mgmtds[host].health()["role"] == "primary":
                return host
        return None

    async def make_client(self, host: str) -> tuple[AsyncFileSystem, RpcClient, TaskScope]:
        """A client, and what has to be closed after it."""
        claims = TokenClaims(cluster=KEY.cluster, key_id=KEY.key_id, uid=0, gid=0, is_admin=True)
        rpc = self.rpc(host, UserCredentials(make_token(KEY, claims)))
        scope = TaskScope(host, self.failed)
        rng, clock = self.rng(host), self.clock(host)
        cache = RoutingCache(
            MgmtdStub(rpc, self.mgmtd_addresses, clock, rng), rng, capturing_logger(self.events)
        )
        cache.start(scope)
        await self._retried(lambda: cache.wait_version(1, 5))
        components = Components(
            caller=rpc, routing=cache, clock=clock, rng=rng, make_nonce=self.nonces(host), host=host
        )
        return AsyncFileSystem(ClientCore(components, PATIENT, scope)), rpc, scope

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
