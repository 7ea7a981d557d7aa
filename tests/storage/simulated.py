"""Storage nodes, the real ones, with a real mgmtd, in the simulated world: network, disks, lanes, power.

Nodes lose their power (what is not synced is gone or torn) and come back as new generations that mgmtd
names; links lose connections. Writers repeat each request until it is answered, readers ask any member.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from fs3.errors import Fs3Error, from_wire
from fs3.identity.capability import Capability, CapabilitySigner, Rights
from fs3.identity.handshake import UserCredentials
from fs3.identity.token import TokenClaims, make_token
from fs3.ids import ChainId, ChunkId, ClientSessionId, Epoch, Generation, InodeId, NodeId
from fs3.metrics import Metrics
from fs3.rng import derived_rng
from fs3.routing import ChainInfo, RoutingInfo
from fs3.rpc.client import RpcClient
from fs3.rpc.settings import ServerSettings
from fs3.storage.lanes import InlineLanes
from fs3.storage.runner import TargetRunner
from fs3.storage.scrub_round import SCRUB
from fs3.storage.server import StorageComponents, StorageServer, StorageSettings
from fs3.storage.sums import sums_of
from fs3.tasks import TaskScope
from fs3.wire.chunk import UpdateKind
from fs3.wire.mgmtd import CREATE_CHAIN_TABLE, CreateChainTableRequest
from fs3.wire.storage import (
    PRESENT,
    READ,
    WRITE,
    PresentRequest,
    ReadItem,
    ReadRequest,
    ReadResponse,
    WriteRequest,
)
from tests.mgmtd.world import KEY, World
from tests.sim.disk import PowerCut, SimDisk
from tests.sim.index import sim_opener
from tests.sim.loop import SimLoop, run_virtual

INODE = InodeId(4711)
UID = 1000
CHUNK_SIZE_BYTES = 65536
FIRST = 21


@dataclass
class Seen:
    """One answered operation."""

    chunk: ChunkId
    is_write: bool
    asked_s: float
    answered_s: float
    number: int
    content: bytes = b""


@dataclass
class History:
    """Everything that was answered."""

    seen: list[Seen] = field(default_factory=list)

    def check(self, contents: dict[tuple[ChunkId, int], bytes]) -> None:
        """Per chunk: order is that of versions; a version has one content."""
        for chunk in {s.chunk: None for s in self.seen}:
            operations = [s for s in self.seen if s.chunk == chunk]
            for one in operations:
                earlier = [s.number for s in operations if s.answered_s < one.asked_s]
                least = max(earlier, default=0) + one.is_write
                assert one.number >= least, (one, least)
                if not one.is_write and one.number:
                    assert contents.setdefault((chunk, one.number), one.content) == one.content, one
            written = [s.number for s in operations if s.is_write]
            assert len(written) == len(set(written)), "two requests have one version"


class _Sink:
    def __init__(self) -> None:
        self.buffer = memoryview(b"")

    def buffers(self, response: Any) -> Sequence[memoryview]:
        self.buffer = memoryview(bytearray(sum(r.length_bytes for r in response.results)))
        return (self.buffer,)

    def received(self, response: Any) -> None:
        """Checked by the reader."""


class StorageWorld(World):
    """A mgmtd and storage nodes with one target each, all in one chain."""

    def __init__(self, loop: SimLoop, seed: int) -> None:
        super().__init__(loop, seed)
        self.servers: dict[int, StorageServer] = {}
        self.disks: dict[int, SimDisk] = {}
        self.scope = TaskScope("test", self.fail)
        self.history = History()
        self.scrub = SCRUB
        self.rng = derived_rng(seed, "storage world")
        self._signer = CapabilitySigner(KEY)

    async def start_storage(self, number: int) -> StorageServer:
        host = f"s{number}"
        disk = self.disks.setdefault(number, SimDisk(derived_rng(self.seed, f"disk {number}")))
        rng = derived_rng(self.rng.getrandbits(64), f"run of {host}")
        server = StorageServer(
            StorageSettings(
                node=NodeId(number),
                directory="/node",
                disks=("/disk-0",),
                listen=(f"{host}:7000",),
                seeds=("m1:9000",),
                host=host,
                beacon_address=f"{host}:7001",
                target_capacity_bytes=64 << 20,
                scrub=self.scrub,
            ),
            StorageComponents(
                clock=self.clock(host),
                rng=rng,
                network=self.net.host(host),
                key=KEY,
                log=self.log(host=host),
                metrics=Metrics(),
                lanes=InlineLanes(lambda: rng.random() * 0.004),
                open_disk=lambda _: disk,
                open_index=lambda disk: sim_opener(disk),  # type: ignore[arg-type]  # it is a SimDisk
                make_nonce=self.nonce,
                fail=self._fail_unless_dead(disk),
                rpc=ServerSettings(small_payload_bytes_max=64 << 20),
            ),
        )
        self.servers[number] = server
        await server.start()
        return server

    def _fail_unless_dead(self, disk: SimDisk) -> Callable[[str, BaseException], None]:
        def fail(name: str, error: BaseException) -> None:
            if not isinstance(error, PowerCut):
                self.fail(name, error)

        return fail

    async def power_cut(self, number: int) -> None:
        """The machine loses its power; what is left of the process is removed."""
        server = self.servers.pop(number)
        self.net.crash(f"s{number}", silent=self.rng.random() < 0.3)
        self.disks[number] = self.disks[number].after_power_cut()
        with contextlib.suppress(PowerCut):
            await server.stop()

    def runner(self, number: int) -> TargetRunner:
        targets = self.servers[number].targets
        assert targets is not None
        (found,) = targets.by_chain.values()
        return found

    async def storage_cluster(self, count: int = 3) -> None:
        await self.start_mgmtd(1)
        for number in range(FIRST, FIRST + count):
            await self.start_storage(number)
        agent = self.servers[FIRST].agent
        assert agent is not None
        request = CreateChainTableRequest(replication=count, wait_for_targets=count)
        await agent.mgmtd.call(CREATE_CHAIN_TABLE, request, timeout_s=10.0)
        await self.until(self.chain_serves, 10.0, "the chain serves")

    def chain_serves(self) -> bool:
        """Every member may serve at the newest version."""
        infos = [i for s in self.servers.values() if s.agent for i in s.agent.routing.chains.values()]
        if not infos:
            return False
        newest = max(infos, key=lambda i: i.version)
        return all(self._serves(m.node, newest) for m in newest.members)

    def _serves(self, node: NodeId, info: ChainInfo) -> bool:
        server = self.servers.get(node)
        if server is None or server.targets is None or info.chain not in server.targets.by_chain:
            return False
        return server.targets.by_chain[info.chain].replica.gate.read_problem(info.version) is None

    def picture(self) -> RoutingInfo:
        """What some node knows: perhaps not the newest."""
        agents = [s.agent for s in self.servers.values() if s.agent is not None]
        return self.rng.choice(agents).routing if agents else RoutingInfo()

    def user(self, session: int) -> SimUser:
        return SimUser(self, ClientSessionId(session))

    async def close(self) -> None:
        await self.scope.aclose()
        for number in list(self.servers):
            await self.servers.pop(number).stop()
        await super().close()


class SimUser:
    """A client: one session, one channel."""

    def __init__(self, world: StorageWorld, session: ClientSessionId) -> None:
        self.world = world
        self.session = session
        self.sequence = 0
        self.rng = derived_rng(world.seed, f"user {session}")
        claims = TokenClaims(
            cluster=KEY.cluster, key_id=KEY.key_id, uid=UID, gid=UID, nonce=bytes([session % 256])
        )
        self.rpc = RpcClient(
            UserCredentials(make_token(KEY, claims)),
            world.net.host(f"c{session}"),
            rng=self.rng,
            make_nonce=world.nonce,
            on_failure=world.fail,
        )
        capability = Capability(
            INODE, Epoch(0), Rights.READ | Rights.WRITE, session, UID, 0, expires_ms=1 << 50
        )
        self._capability = CapabilitySigner(KEY).sign(capability)

    async def _call(self, pick: Callable[[ChainInfo], NodeId], what: Callable[[str, ChainInfo], Any]) -> Any:
        routing = self.world.picture()
        for info in routing.chains.values():
            address = routing.nodes[pick(info)].address
            present = PresentRequest(session=self.session, number=1, capability=self._capability)
            await self.rpc.call(address, PRESENT, present, timeout_s=1)
            return await what(address, info)
        return None

    async def write(self, chunk: ChunkId, kind: UpdateKind, offset: int, data: bytes) -> None:
        """One request, until it is answered."""
        self.sequence += 1
        asked_s = self.world.loop.time()

        async def what(address: str, info: ChainInfo) -> Any:
            request = WriteRequest(
                chain=info.chain,
                chain_version=info.version,
                chunk=chunk,
                kind=kind,
                offset_bytes=offset,
                length_bytes=len(data),
                sums=sums_of(memoryview(data), offset),
                session=self.session,
                channel=0,
                sequence=self.sequence,
                epoch=Epoch(0),
                chunk_size_bytes=CHUNK_SIZE_BYTES,
                capability=1,
            )
            return await self.rpc.call(address, WRITE, request, timeout_s=1.5, payload=(data,))

        answer = None
        while answer is None:
            with contextlib.suppress(Fs3Error):
                answer = await self._call(lambda info: info.serving[0].node, what)
            if answer is None:
                await asyncio.sleep(0.01 + self.rng.random() * 0.1)
        number = answer.result.identity.update_version
        assert answer.result.identity.writer.sequence == self.sequence
        self.world.history.seen.append(Seen(chunk, True, asked_s, self.world.loop.time(), number))

    async def read(self, chunk: ChunkId) -> None:
        """Ask some member once; what cannot be answered is no news."""
        asked_s = self.world.loop.time()
        sink = _Sink()

        async def what(address: str, info: ChainInfo) -> ReadResponse:
            item = ReadItem(info.chain, info.version, chunk, 0, CHUNK_SIZE_BYTES, 1)
            request = ReadRequest(session=self.session, items=(item,))
            return await self.rpc.call(address, READ, request, timeout_s=1.5, sink=sink)

        try:
            answer = await self._call(lambda info: self.rng.choice(info.serving).node, what)
        except Fs3Error:
            return
        if answer is None:
            return
        (result,) = answer.results
        if result.code:
            assert from_wire(result.code, 0, result.message, "").code != 199, result
            return
        assert sums_of(sink.buffer, 0) == result.sums
        seen = Seen(chunk, False, asked_s, self.world.loop.time(), result.update_version, bytes(sink.buffer))
        self.world.history.seen.append(seen)

    async def close(self) -> None:
        await self.rpc.aclose()


def run_storage(scenario: Callable[[StorageWorld], Coroutine[Any, Any, None]], seed: int) -> StorageWorld:
    """Run a scenario under virtual time; the world is returned for a look at its traces."""
    loop = SimLoop()

    async def main() -> StorageWorld:
        world = StorageWorld(loop, seed)
        try:
            await scenario(world)
        finally:
            await world.close()
        return world

    return run_virtual(main(), loop)


def generation_of(world: StorageWorld, number: int) -> Generation:
    """The present run of a node."""
    agent = world.servers[number].agent
    assert agent is not None
    return agent.generation


def chain_of(world: StorageWorld) -> ChainId:
    """The one chain."""
    return next(iter(world.picture().chains))
