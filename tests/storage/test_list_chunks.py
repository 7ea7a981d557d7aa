"""LIST_CHUNKS on real servers in the simulated world: pages, refusals, and a whole check over it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fs3.client.filesystem import AsyncFileSystem
from fs3.errors import InvalidRequest, StaleRouting
from fs3.identity.handshake import NodeCredentials
from fs3.ids import ChainVersion, ChunkId, Generation, NodeId, TargetId
from fs3.kv.faults import FaultRates
from fs3.layout import Layout
from fs3.routing import ChainInfo
from fs3.rpc.client import RpcClient
from fs3.wire.storage import LIST_CHUNKS, ListChunksRequest, ListChunksResponse
from tests.sim.cluster import KEY, PORT, World, WorldShape
from tests.sim.fsck import check
from tests.sim.loop import SimLoop, run_virtual
from tests.sim.wires import LinkFaults

CHUNK = 64 * 1024
SHAPE = WorldShape(meta_count=1, storage_count=3, targets_per_node_count=1, replication=3, client_count=1)
DATA = bytes(range(256)) * (5 * CHUNK // 256)


def in_world(body: Callable[[World, AsyncFileSystem, RpcClient], Awaitable[None]]) -> None:
    """Run ``body`` with a file of five chunks on one chain."""

    async def work() -> None:
        world = World(1, SHAPE, LinkFaults(), FaultRates())
        await world.start()
        await world.clients[0].set_layout("/work", Layout(chunk_size_bytes=CHUNK))
        await world.clients[0].write_file("/work/f", DATA)
        client = world.rpc("checker", NodeCredentials(KEY, NodeId(0), Generation(0)))
        await body(world, world.clients[0], client)
        await client.aclose()
        await world.stop_clients()
        await world.stop_servers()
        assert world.failures == []

    run_virtual(work(), SimLoop())


def chain_of(world: World) -> ChainInfo:
    """The only chain."""
    agent = world.storages["storage0"].agent
    assert agent is not None
    (info,) = agent.routing.chains.values()
    return info


def request(info: ChainInfo, **more: object) -> ListChunksRequest:
    """The first page of the target on the first node."""
    fields: dict[str, object] = {
        "chain": info.chain, "chain_version": info.version, "target": target_on_first(info), **more,
    }  # fmt: skip
    return ListChunksRequest(**fields)  # type: ignore[arg-type]


def target_on_first(info: ChainInfo) -> TargetId:
    """Of node ``storage0``, the one with the lowest number."""
    return min(member.target for member in info.members)


async def ask(client: RpcClient, asked: ListChunksRequest) -> ListChunksResponse:
    return await client.call(f"storage0:{PORT}", LIST_CHUNKS, asked, timeout_s=5)


def test_pages_are_in_order_and_complete() -> None:
    async def body(world: World, fs: AsyncFileSystem, client: RpcClient) -> None:
        info = chain_of(world)
        whole = await ask(client, request(info, verify=True))
        assert not whole.more and [r.chunk.chunk_index for r in whole.records] == [0, 1, 2, 3, 4]
        assert all(r.length_bytes == CHUNK and r.identity and not r.bad_block_count for r in whole.records)
        found: list[ChunkId] = []
        more = True
        while more:
            page = await ask(client, request(info, limit=2, behind=found[-1] if found else None))
            found += [record.chunk for record in page.records]
            more = page.more
        assert found == [record.chunk for record in whole.records]
        await fs.remove("/work/f")

    in_world(body)


def test_what_is_not_this_replica_at_this_version_is_refused() -> None:
    async def body(world: World, _: AsyncFileSystem, client: RpcClient) -> None:
        info = chain_of(world)
        other = max(member.target for member in info.members)
        for wrong in ({"chain_version": ChainVersion(info.version + 1)}, {"target": other}, {"chain": 99}):
            with pytest.raises(StaleRouting):
                await ask(client, request(info, **wrong))
        for limit in (0, 1025):
            with pytest.raises(InvalidRequest):
                await ask(client, request(info, limit=limit))

    in_world(body)


def test_checks_while_a_client_works_find_nothing() -> None:
    async def body(world: World, fs: AsyncFileSystem, client: RpcClient) -> None:
        turns = 0

        async def work() -> None:
            nonlocal turns
            draw = world.rng("work")
            while True:
                turns += 1
                name = f"/work/{draw.randrange(6)}"
                await fs.write_file(name, DATA[: draw.choice((10, CHUNK + 1, 5 * CHUNK))])
                await fs.truncate(name, draw.choice((0, CHUNK, 2 * CHUNK + 5)))
                await fs.rename(name, f"/{draw.randrange(6)}")
                await fs.mkdir(f"/work/d{turns}")
                await fs.rename(f"/work/d{turns}", f"/e{turns}")
                await fs.rmtree(f"/e{turns}")

        working = world.scope.start("work", work())
        for _ in range(4):
            state = await check(world, client)
            assert [f for f in state.findings if not f.is_notice] == [] == state.problems
            await asyncio.sleep(0.3)
        working.cancel()
        await asyncio.wait((working,))
        assert turns > 4

    in_world(body)
