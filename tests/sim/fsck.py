"""``fs3 fsck`` on a simulated world: the real check, through real servers."""

from __future__ import annotations

from fs3.identity.handshake import NodeCredentials
from fs3.ids import Generation, InodeId, NodeId
from fs3.kv.memory import MemoryKv
from fs3.log import silent_logger
from fs3.meta.allocate import Placement
from fs3.meta.fsck.check import Check, CheckParts, State
from fs3.meta.fsck.replicas import RpcLister
from fs3.meta.fsck.walk import Walk
from fs3.rpc.client import RpcClient
from fs3.stubs.mgmtd import MgmtdStub, RoutingCache
from fs3.stubs.storage import ChainCaller
from fs3.tasks import TaskScope

from .cluster import KEY, World
from .seen import FSCK, Problem


async def check(world: World, client: RpcClient) -> State:
    """A whole check of the cluster, as ``fs3 fsck`` makes it."""
    clock, rng, scope = world.clock("checker"), world.rng("checker"), TaskScope("fsck", world.failed)
    stub = MgmtdStub(client, world.mgmtd_addresses, clock, rng)
    routing = RoutingCache(stub, rng, silent_logger())
    routing.start(scope)
    await routing.wait_version(1, 10)
    placement = Placement(lambda: routing.routing, rng)
    parts = CheckParts(
        walk=Walk(MemoryKv(world.store), clock, rng),
        lister=RpcLister(ChainCaller(routing, client, clock, rng), routing, verify=True, mend=False),
        placement=placement,
        all_chains=placement.all_chains,
        clock=clock,
        scope=scope,
        save=lambda state: None,
    )
    try:
        return await Check(parts, State()).run()
    finally:
        await scope.aclose()


async def complaints(world: World) -> list[Problem]:
    """What a check finds in a world at rest; notices are none."""
    client = world.rpc("checker", NodeCredentials(KEY, NodeId(0), Generation(0)))
    try:
        state = await check(world, client)
    finally:
        await client.aclose()
    found = [
        Problem(FSCK, str(finding), inode=InodeId(finding.inode))
        for finding in state.findings
        if not finding.is_notice
    ]
    return found + [Problem(FSCK, f"not checked: {text}") for text in state.problems]
