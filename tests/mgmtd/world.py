"""mgmtds and member nodes, the real ones, over the simulated loop, network and an in-memory KV store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from fs3.clock import Clock
from fs3.identity.handshake import NodeCredentials, ServerIdentity
from fs3.identity.keys import ClusterKey
from fs3.ids import ChainId, ChainVersion, Generation, NodeId, TargetId, target_id
from fs3.kv.memory import MemoryKv, MemoryStore
from fs3.log import capturing_logger
from fs3.member.agent import Agent
from fs3.member.settings import AgentComponents, AgentSettings
from fs3.mgmtd.server import MgmtdComponents, MgmtdServer, MgmtdSettings
from fs3.mgmtd.term import Term
from fs3.rng import derived_rng
from fs3.routing import ChainInfo, LocalState, Member, NodeKind, RoutingInfo, TargetState
from fs3.rpc.client import RpcClient
from fs3.rpc.server import RpcServer
from fs3.rpc.service import Routes
from fs3.wire.mgmtd import (
    CREATE_CHAIN_TABLE,
    CreateChainTableRequest,
    CreateChainTableResponse,
    TargetReport,
)
from tests.sim.loop import SimClock, SimLoop, run_virtual
from tests.sim.network import SimInternet
from tests.sim.wires import LinkFaults

T = TypeVar("T")

KEY = ClusterKey("alpha", 1, bytes(range(32)))
FIRST_STORAGE = 11
COPY_S = 0.5


@dataclass(slots=True)
class Node:
    """One run of a storage node: an RPC server and an agent; ``adopted`` says what its service was told."""

    number: NodeId
    agent: Agent
    rpc: RpcServer
    client: RpcClient
    targets: list[TargetReport]
    adopted: list[RoutingInfo] = field(default_factory=list)

    def target(self, index: int = 0) -> TargetId:
        return self.targets[index].target

    copies: bool = True
    """A target that is SYNCING has everything a moment after each version; False: never."""

    def adopt(self, routing: RoutingInfo) -> None:
        """What a storage service does: adopts the chains of its targets, and says so and what they have."""
        self.adopted.append(routing)
        for info in routing.chains.values():
            for member in info.members:
                if member.node == self.number:
                    self._adopt_one(info, member)
        self.agent.set_targets(self.targets)

    def _adopt_one(self, info: ChainInfo, member: Member) -> None:
        is_member = member.generation == self.agent.generation
        is_complete = is_member and member.state is TargetState.SERVING
        self._tell(member.target, info, is_complete=is_complete)
        self.agent.acknowledge(info.chain, info.version)
        if is_member and member.state is TargetState.SYNCING and self.copies:
            asyncio.get_running_loop().call_later(COPY_S, self._copied, info, member.target)

    def _copied(self, info: ChainInfo, target: TargetId) -> None:
        newest = self.agent.routing.chains[info.chain]
        if newest.version == info.version:
            self._tell(target, info, is_complete=True)
            self.agent.set_targets(self.targets)

    def _tell(self, target: TargetId, info: ChainInfo, *, is_complete: bool) -> None:
        self.targets = [
            msgspec.structs.replace(
                t,
                state=LocalState.UPTODATE if is_complete else LocalState.ONLINE,
                chain=info.chain,
                chain_version=info.version if is_complete else ChainVersion(0),
            )
            if t.target == target and t.state is not LocalState.OFFLINE
            else t
            for t in self.targets
        ]

    def valid(self, chain: ChainId) -> bool:
        """Whether it may serve the chain at the version that it knows."""
        info = self.agent.routing.chains.get(chain)
        return info is not None and self.agent.lease_valid(chain, info.version)


class World:
    """Everything that runs; made inside the loop."""

    def __init__(self, loop: SimLoop, seed: int) -> None:
        self.loop = loop
        self.seed = seed
        self.events: list[dict[str, object]] = []
        self.failures: list[str] = []
        self.faults = LinkFaults()
        self.net = SimInternet(loop, derived_rng(seed, "network"), self.faults)
        self.store = MemoryStore(SimClock(loop))
        self.mgmtds: dict[int, MgmtdServer] = {}
        self.kvs: dict[int, MemoryKv] = {}
        self.nodes: dict[int, Node] = {}
        self.generations: dict[int, int] = {}
        self._nonces = derived_rng(seed, "nonces")
        self.clocks: dict[str, Clock] = {}

    def nonce(self) -> bytes:
        return self._nonces.randbytes(16)

    def fail(self, name: str, error: BaseException) -> None:
        self.failures.append(f"{name}: {error!r}")

    def clock(self, host: str) -> Clock:
        if host not in self.clocks:
            drift = derived_rng(self.seed, f"drift {host}").uniform(-0.009, 0.009)
            self.clocks[host] = SimClock(self.loop, drift=drift)
        return self.clocks[host]

    def log(self, **fields: object) -> Any:
        return capturing_logger(self.events).bind(**fields)

    def told(self, event: str) -> list[dict[str, object]]:
        """The events of a kind."""
        return [e for e in self.events if e.get("event") == event]

    async def start_mgmtd(self, number: int) -> MgmtdServer:
        host = f"m{number}"
        kv = self.kvs[number] = MemoryKv(self.store)
        server = MgmtdServer(
            MgmtdSettings(
                node=NodeId(number),
                host=host,
                address=f"{host}:9000",
                beacon_address=f"{host}:9001",
                seeds=("m1:9000", "m2:9000"),
            ),
            MgmtdComponents(
                clock=self.clock(host),
                rng=derived_rng(self.seed, host),
                kv=kv,
                network=self.net.host(host),
                key=KEY,
                make_nonce=self.nonce,
                log=self.log(host=host),
                fail=self.fail,
            ),
        )
        await server.start()
        self.mgmtds[number] = server
        return server

    async def start_node(
        self,
        number: int,
        *,
        target_count: int = 2,
        zone: str = "",
        kind: NodeKind = NodeKind.STORAGE,
        change: Callable[[TargetReport], TargetReport] = lambda report: report,
    ) -> Node:
        host = f"s{number}"
        generation = Generation(self.generations.get(number, 0) + 1)
        self.generations[number] = generation
        network, node = self.net.host(host), NodeId(number)
        rng = derived_rng(self.seed, f"{host} {generation}")
        client = RpcClient(
            NodeCredentials(KEY, node, generation),
            network,
            rng=rng,
            make_nonce=self.nonce,
            on_failure=self.fail,
        )
        agent = Agent(
            AgentSettings(
                node=node,
                kind=kind,
                host=host,
                seeds=("m1:9000", "m2:9000"),
                beacon_address=f"{host}:7001",
                zone=zone,
            ),
            AgentComponents(
                clock=self.clock(host),
                rng=rng,
                network=network,
                caller=client,
                key=KEY,
                log=self.log(host=host),
                fail=self.fail,
            ),
            generation,
        )
        rpc, address = await self._listen(agent, node, generation, host)
        targets = _targets(number, target_count, change)
        found = self.nodes[number] = Node(node, agent, rpc, client, targets)
        agent.set_targets(targets)
        agent.subscribe(found.adopt)
        await agent.start(address)
        return found

    async def _listen(
        self, agent: Agent, node: NodeId, generation: Generation, host: str
    ) -> tuple[RpcServer, str]:
        routes = Routes()
        agent.add_routes(routes)
        rpc = RpcServer(
            routes,
            ServerIdentity(KEY, node, generation, lambda uid: 0),
            self.net.host(host),
            make_nonce=self.nonce,
            on_bug=lambda name, request, error: self.fail(name, error),
        )
        (address,) = await rpc.start([f"{host}:7000"])
        return rpc, address

    async def kill_node(self, number: int, *, silent: bool = False) -> None:
        """SIGKILL: its sockets are gone at once, nothing is said; what is left of the process is removed."""
        node = self.nodes.pop(number)
        self.net.crash(f"s{number}", silent=silent)
        await self._stop(node)

    async def stop_node(self, number: int) -> None:
        await self._stop(self.nodes.pop(number))

    async def _stop(self, node: Node) -> None:
        await node.agent.stop()
        await node.client.aclose()
        await node.rpc.aclose()

    async def kill_mgmtd(self, number: int) -> None:
        server = self.mgmtds.pop(number)
        await self.kvs[number].aclose()
        self.net.crash(f"m{number}")
        await server.stop()

    def primary(self) -> MgmtdServer | None:
        """The mgmtd that acts as primary; at most one does."""
        found = [m for m in self.mgmtds.values() if m.services and m.services.primary_term()]
        assert len(found) <= 1, [m.settings.node for m in found]
        return found[0] if found else None

    def term(self) -> Term:
        primary = self.primary()
        assert primary is not None and primary.services is not None and primary.services.term is not None
        return primary.services.term

    async def until(self, condition: Callable[[], bool], within_s: float, what: str) -> float:
        """Wait for something to become true; returns how long it took."""
        began_s = self.loop.time()
        while not condition():
            took_s = self.loop.time() - began_s
            assert took_s < within_s, f"not within {within_s} s: {what}; {self.events[-8:]}"
            await asyncio.sleep(0.01)
        return self.loop.time() - began_s

    async def cluster(self, node_count: int = 5, replication: int = 3, target_count: int = 2) -> None:
        """One mgmtd, some nodes, a chain table, and every chain served by all its members."""
        await self.start_mgmtd(1)
        for i in range(node_count):
            await self.start_node(FIRST_STORAGE + i, target_count=target_count)
        answer = await self.make_table(replication, node_count * target_count)
        assert answer.chain_count == node_count * target_count // replication
        await self.until(self.all_serve, 5.0, "every member of every chain has a lease")

    async def make_table(self, replication: int, targets: int) -> CreateChainTableResponse:
        node = next(iter(self.nodes.values()))
        request = CreateChainTableRequest(replication=replication, wait_for_targets=targets)
        return await node.agent.mgmtd.call(CREATE_CHAIN_TABLE, request, timeout_s=10.0)

    def all_serve(self) -> bool:
        """Every member of every chain is there, in the record's generation, and may serve."""
        chains = next(iter(self.nodes.values())).agent.routing.chains
        return bool(chains) and all(
            m.node in self.nodes
            and m.state is TargetState.SERVING
            and self.nodes[m.node].agent.generation == m.generation
            and self.nodes[m.node].valid(chain)
            for chain, info in chains.items()
            for m in info.members
        )

    async def close(self) -> None:
        for number in list(self.nodes):
            await self.stop_node(number)
        for number in list(self.mgmtds):
            await self.mgmtds.pop(number).stop()
        for kv in self.kvs.values():
            await kv.aclose()
        assert not self.failures, self.failures


def _targets(number: int, count: int, change: Callable[[TargetReport], TargetReport]) -> list[TargetReport]:
    """What a node reports of its targets; ``change`` says what is wrong with them."""
    return [
        change(
            TargetReport(
                target=target_id(NodeId(number), i),
                state=LocalState.UPTODATE,
                store_id=f"{number}/{i}".encode().ljust(16, b"."),
                clean=True,
            )
        )
        for i in range(count)
    ]


def run_world(scenario: Callable[[World], Coroutine[Any, Any, T]], seed: int = 1) -> T:
    """Run a scenario in a world of its own, under virtual time."""
    loop = SimLoop()

    async def main() -> T:
        world = World(loop, seed)
        try:
            return await scenario(world)
        finally:
            await world.close()

    return run_virtual(main(), loop)


def other_store(report: TargetReport) -> TargetReport:
    """The target's disk was replaced."""
    return msgspec.structs.replace(report, store_id=b"another store id")


def not_clean(report: TargetReport) -> TargetReport:
    """A check failed when it was opened."""
    return msgspec.structs.replace(report, clean=False)
