"""mgmtd's methods over the wire: who may call what, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fs3.errors import Busy, InvalidRequest, MaybeApplied, Unauthenticated
from fs3.identity.handshake import UserCredentials
from fs3.identity.token import UserToken, parse_token
from fs3.rng import derived_rng
from fs3.routing import NodeKind
from fs3.rpc.client import RpcClient
from fs3.wire.mgmtd import (
    CREATE_CHAIN_TABLE,
    GET_ROUTING,
    ISSUE_TOKEN,
    REPORT,
    REVOKE,
    STATUS,
    CreateChainTableRequest,
    GetRoutingRequest,
    IssueTokenRequest,
    ReportRequest,
    RevokeRequest,
    StatusRequest,
)

from .world import World, run_world

MGMTD = "m1:9000"


@asynccontextmanager
async def user(world: World, token: UserToken) -> AsyncIterator[RpcClient]:
    client = RpcClient(
        UserCredentials(token),
        world.net.host("u1"),
        rng=derived_rng(world.seed, "user"),
        make_nonce=world.nonce,
        on_failure=world.fail,
    )
    try:
        yield client
    finally:
        await client.aclose()


async def token_of(world: World, uid: int, *, is_admin: bool = False) -> UserToken:
    request = IssueTokenRequest(uid=uid, gid=uid, is_admin=is_admin)
    answer = await world.nodes[11].client.call(MGMTD, ISSUE_TOKEN, request, timeout_s=2)
    return parse_token(answer.token)


def test_a_user_administers_nothing() -> None:
    async def scenario(world: World) -> None:
        await world.cluster()
        report = ReportRequest(
            node=world.nodes[11].number,
            kind=NodeKind.STORAGE,
            generation=world.nodes[11].agent.generation,
            sequence=1 << 40,
            host="h",
            address="evil:1",
        )
        async with user(world, await token_of(world, 1000)) as client:
            with pytest.raises(Unauthenticated):
                await client.call(MGMTD, REPORT, report, timeout_s=2)
            with pytest.raises(Unauthenticated):
                await client.call(MGMTD, REVOKE, RevokeRequest(uid=1), timeout_s=2)
            with pytest.raises(Unauthenticated):
                await client.call(MGMTD, ISSUE_TOKEN, IssueTokenRequest(uid=0, gid=0), timeout_s=2)
            request = CreateChainTableRequest(replication=1)
            with pytest.raises(Unauthenticated):
                await client.call(MGMTD, CREATE_CHAIN_TABLE, request, timeout_s=2)
            answer = await client.call(MGMTD, GET_ROUTING, GetRoutingRequest(), timeout_s=2)
            assert answer.delta is not None and len(answer.delta.chains) == 3

    run_world(scenario)


def test_revoke_cuts_the_user_and_reaches_every_node() -> None:
    async def scenario(world: World) -> None:
        await world.cluster()
        async with user(world, await token_of(world, 1000)) as client:
            await client.call(MGMTD, STATUS, StatusRequest(), timeout_s=2)
            answer = await world.nodes[11].client.call(MGMTD, REVOKE, RevokeRequest(uid=1000), timeout_s=2)
            assert answer.key_generation == 1
            with pytest.raises((Unauthenticated, MaybeApplied)):  # sent before the cut was noticed
                await client.call(MGMTD, STATUS, StatusRequest(), timeout_s=2)
            with pytest.raises(Unauthenticated):
                await client.call(MGMTD, STATUS, StatusRequest(), timeout_s=2)
        await asyncio.sleep(1.0)
        for node in world.nodes.values():
            assert node.agent.routing.key_generations == {1000: 1}
        async with user(world, await token_of(world, 1000)) as client:  # a new token is good again
            await client.call(MGMTD, STATUS, StatusRequest(), timeout_s=2)

    run_world(scenario)


def test_a_table_is_made_once() -> None:
    async def scenario(world: World) -> None:
        await world.cluster()
        again = await world.make_table(3, 10)
        assert (again.table_version, again.chain_count) == (1, 3)
        with pytest.raises(InvalidRequest, match="has replication 3"):
            await world.make_table(2, 10)
        client = world.nodes[11].client
        request = CreateChainTableRequest(replication=3, wait_for_targets=99)
        with pytest.raises(Busy, match="10 of 99"):
            await client.call(MGMTD, CREATE_CHAIN_TABLE, request, timeout_s=2)
        for number in (16, 17, 18):
            await world.start_node(number)
        grown = await world.make_table(3, 16)
        assert grown.table_version == 2 and grown.chain_count == 5

    run_world(scenario)


def test_status_tells_who_lives() -> None:
    async def scenario(world: World) -> None:
        await world.cluster()
        await world.kill_node(12)
        await asyncio.sleep(7.0)
        status = await world.nodes[11].client.call(MGMTD, STATUS, StatusRequest(), timeout_s=2)
        states = {n.node: n.state for n in status.nodes}
        assert states[world.nodes[11].number] == "alive"
        assert [n for n, state in states.items() if state == "dead"] == [12]
        assert status.degraded_chain_count > 0 and status.unavailable_chain_count == 0
        assert status.member_count == len(status.members) > 0
        assert {(m.target >> 16, m.state, m.why) for m in status.members} == {
            (12, "offline", "its node is dead")
        }

    run_world(scenario)
