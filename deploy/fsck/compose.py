"""Runs a check with the settings of a meta service: its KV store, its cluster key, its mgmtds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fs3.clock import SystemClock
from fs3.errors import Fs3Error
from fs3.identity.handshake import NodeCredentials
from fs3.identity.key_file import system_nonce
from fs3.ids import Generation, NodeId
from fs3.kv.open import open_kv
from fs3.log import silent_logger
from fs3.meta.allocate import Placement
from fs3.meta.fsck.check import Check, CheckParts, State
from fs3.meta.fsck.findings import Finding
from fs3.meta.fsck.mend import Mender
from fs3.meta.fsck.replicas import RpcLister
from fs3.meta.fsck.walk import Walk
from fs3.rng import system_rng
from fs3.rpc.client import RpcClient
from fs3.rpc.network import SystemNetwork
from fs3.stubs.mgmtd import MgmtdStub, RoutingCache
from fs3.stubs.storage import ChainCaller, StorageStub
from fs3.tasks import TaskScope

from ..compose_meta import MetaDaemonSettings
from ..node_parts import cluster_key

ROUTING_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Mended:
    """What became of one finding."""

    finding: Finding
    done: str
    """Empty: it was left alone."""
    problem: str = ""
    """Why its repair did not come to an end."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator asked for."""

    repair: bool
    data: bool
    """Read all bytes of all replicas."""
    patience_s: float


async def check(
    settings: MetaDaemonSettings, wanted: Wanted, state: State, save: Callable[[State], None]
) -> tuple[State, list[Mended]]:
    """Check the cluster and repair what was found, if that is wanted.

    Fs3Error: the KV store or the cluster cannot be reached; the state keeps how far it came.
    """

    def failed(name: str, error: BaseException) -> None:
        raise RuntimeError(f"{name} failed") from error

    clock, rng = SystemClock(), system_rng()
    key = cluster_key(settings.cluster_key)
    kv = open_kv(settings.kv, clock=clock)
    credentials = NodeCredentials(key, NodeId(0), Generation(0))
    client = RpcClient(credentials, SystemNetwork(), rng=rng, make_nonce=system_nonce, on_failure=failed)
    scope = TaskScope("fsck", failed)
    try:
        routing = RoutingCache(MgmtdStub(client, settings.mgmtd, clock, rng), rng, silent_logger())
        routing.start(scope)
        await routing.wait_version(1, ROUTING_TIMEOUT_S)
        caller = ChainCaller(routing, client, clock, rng)
        placement = Placement(lambda: routing.routing, rng)
        walk = Walk(kv, clock, rng)
        whole = Check(
            CheckParts(
                walk=walk,
                lister=RpcLister(caller, routing, verify=wanted.data, mend=wanted.data and wanted.repair),
                placement=placement,
                all_chains=placement.all_chains,
                clock=clock,
                scope=scope,
                save=save,
                patience_s=wanted.patience_s,
            ),
            state,
        )
        state = await whole.run()
        stub = StorageStub(caller, routing, client, clock, scope)
        mender = Mender(walk, stub, clock.wall_ns)
        return state, await _mend(mender, state.findings) if wanted.repair else []
    finally:
        await scope.aclose()
        await client.aclose()
        await kv.aclose()


async def _mend(mender: Mender, findings: list[Finding]) -> list[Mended]:
    await mender.look_up(findings)
    mended: list[Mended] = []
    for finding in findings:
        try:
            mended.append(Mended(finding, await mender.mend(finding)))
        except Fs3Error as error:
            mended.append(Mended(finding, "", str(error)))
    return mended
