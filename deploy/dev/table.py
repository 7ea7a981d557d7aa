"""Makes the chain table of a new cluster, and waits until its chains serve."""

from __future__ import annotations

import asyncio

from fs3.clock import SystemClock
from fs3.errors import Fs3Error, MaybeApplied, Retryable, Unavailable
from fs3.identity.handshake import NodeCredentials
from fs3.identity.key_file import system_nonce
from fs3.identity.keys import ClusterKey
from fs3.ids import Generation, NodeId
from fs3.rng import system_rng
from fs3.rpc.client import RpcClient
from fs3.rpc.network import SystemNetwork
from fs3.rpc.service import Caller
from fs3.stubs.mgmtd import MgmtdStub
from fs3.wire.mgmtd import (
    CREATE_CHAIN_TABLE,
    STATUS,
    CreateChainTableRequest,
    StatusRequest,
    StatusResponse,
)

from .plan import ClusterPlan

CALL_TIMEOUT_S = 5.0
PAUSE_S = 0.05


def create_chain_table(key: ClusterKey, plan: ClusterPlan, timeout_s: float) -> StatusResponse:
    """Make the table if there is none; returns the cluster's status once every chain serves.

    Fs3Error: what mgmtd answered last, when that did not happen within ``timeout_s``.
    """
    return asyncio.run(_create(key, plan, timeout_s))


def fetch_status(key: ClusterKey, plan: ClusterPlan, timeout_s: float) -> StatusResponse:
    """The cluster as its primary sees it. Fs3Error."""

    async def fetch() -> StatusResponse:
        client = _client(key)
        try:
            return await _status(_stub(client, plan), timeout_s)
        finally:
            await client.aclose()

    return asyncio.run(fetch())


def _client(key: ClusterKey) -> RpcClient:
    def failed(name: str, error: BaseException) -> None:
        raise RuntimeError(f"{name} failed") from error

    credentials = NodeCredentials(key, NodeId(0), Generation(0))
    return RpcClient(
        credentials, SystemNetwork(), rng=system_rng(), make_nonce=system_nonce, on_failure=failed
    )


def _stub(client: Caller, plan: ClusterPlan) -> MgmtdStub:
    return MgmtdStub(client, plan.mgmtds(), SystemClock(), system_rng())


async def _status(mgmtd: MgmtdStub, timeout_s: float) -> StatusResponse:
    status = await mgmtd.call(STATUS, StatusRequest(), timeout_s=timeout_s)
    if not status.is_primary:  # a standby knows of no chains
        mgmtd.primary.found(status.primary_address)
        raise Unavailable("the mgmtd that was asked is not the primary any more")
    return status


async def _create(key: ClusterKey, plan: ClusterPlan, timeout_s: float) -> StatusResponse:
    clock, client = SystemClock(), _client(key)
    mgmtd = _stub(client, plan)
    deadline_s = clock.boot_s() + timeout_s
    try:
        while True:
            try:
                status = await _attempt(mgmtd, plan)
                if status.serving_chain_count and not status.unavailable_chain_count:
                    return status
            except (Retryable, MaybeApplied) as error:
                if clock.boot_s() > deadline_s:
                    raise error
            if clock.boot_s() > deadline_s:
                raise Fs3Error(f"chains do not serve after {timeout_s:.0f} s")
            await asyncio.sleep(PAUSE_S)
    finally:
        await client.aclose()


async def _attempt(mgmtd: MgmtdStub, plan: ClusterPlan) -> StatusResponse:
    status = await _status(mgmtd, CALL_TIMEOUT_S)
    if status.serving_chain_count + status.degraded_chain_count + status.unavailable_chain_count == 0:
        request = CreateChainTableRequest(
            replication=plan.shape.replication,
            wait_for_targets=plan.shape.storage_count * plan.shape.targets_per_node_count,
        )
        await mgmtd.call(CREATE_CHAIN_TABLE, request, timeout_s=CALL_TIMEOUT_S, idempotent=False)
        status = await _status(mgmtd, CALL_TIMEOUT_S)
    return status
