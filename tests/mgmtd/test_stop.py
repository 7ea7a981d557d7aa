"""A mgmtd that stops in order, and what becomes of those who talk to it."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import msgspec
import pytest

from fs3.errors import InternalError, MaybeApplied, Unavailable
from fs3.ids import NodeId
from fs3.mgmtd.store import Change
from fs3.stubs.mgmtd import MgmtdStub
from tests.sim.loop import SimLoop, run_virtual

from .world import World


def test_a_change_under_way_at_a_stop_is_in_doubt_and_no_bug() -> None:
    loop = SimLoop()

    async def main() -> None:
        world = World(loop, 1)
        server = await world.start_mgmtd(1)
        await asyncio.sleep(1)
        await world.start_node(5)
        await asyncio.sleep(1)
        services, term = server.services, world.term()
        assert services is not None
        own = term.routing.nodes[NodeId(5)]
        change = Change(nodes=(msgspec.structs.replace(own, zone="moved"),))
        with patch.object(world.kvs[1], "commit", _never):
            writing = asyncio.create_task(services.write(term, lambda at: change))
            await asyncio.sleep(0.1)
            await server.stop()
        with pytest.raises(MaybeApplied, match="stopped"):
            await writing
        with pytest.raises(Unavailable, match="stops"):
            await services.write(term, lambda at: change)
        await world.stop_node(5)
        assert not world.failures and not world.told("handler failed")

    run_virtual(main(), loop)


async def _never(*_: object) -> bytes:
    await asyncio.sleep(1e6)
    raise AssertionError


def test_a_bug_of_the_primary_ends_neither_nodes_nor_standbys() -> None:
    loop = SimLoop()

    async def main() -> None:
        world = World(loop, 2)
        for number in (1, 2):
            await world.start_mgmtd(number)
        await world.start_node(5)
        await asyncio.sleep(2)
        real = MgmtdStub.call

        async def broken(*_: object, **__: object) -> object:
            raise InternalError("report: KeyError (request 0)")

        with patch.object(MgmtdStub, "call", broken), patch.object(MgmtdStub, "get_routing", broken):
            await asyncio.sleep(10)
        assert MgmtdStub.call is real and not world.failures
        before = len(world.told("report refused"))
        assert before
        await asyncio.sleep(10)
        assert len(world.told("report refused")) == before and world.nodes[5].agent.routing.version
        await world.stop_node(5)
        for server in world.mgmtds.values():
            await server.stop()

    run_virtual(main(), loop)
