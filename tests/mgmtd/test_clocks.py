"""A node whose clock loses time fences itself, and serves again as a new generation only (design 2.2)."""

from __future__ import annotations

import asyncio

import pytest

from fs3.member.timing import TIMING
from tests.sim.loop import SimClock

from .world import World, run_world


def clock_of(world: World, node: int) -> SimClock:
    found = world.clock(f"s{node}")
    assert isinstance(found, SimClock)
    return found


def serves_any(world: World, node: int) -> bool:
    return any(world.nodes[node].valid(chain) for chain in world.nodes[node].agent.routing.chains)


def test_a_clock_that_stands_still_fences_its_node() -> None:
    async def scenario(world: World) -> None:
        await world.cluster()
        assert serves_any(world, 13)
        clock_of(world, 13).stand_still(0.4)
        leases = world.nodes[13].agent.leases
        await world.until(lambda: leases.is_fenced, 1.5, "the next answers tell of it")
        assert not serves_any(world, 13) and not world.nodes[13].agent.health()["ok"]
        assert [e["lost_ms"] for e in world.told("fenced")] == [pytest.approx(400, abs=30)]
        assert world.failures[0].startswith("agent/clock"), world.failures  # the daemon ends by it
        world.failures.clear()
        asked = world.nodes[13].agent.counters.sent
        await asyncio.sleep(3.0)
        assert world.nodes[13].agent.counters.sent == asked  # no beacon, no ask: it is silent
        assert all(not node.agent.leases.is_fenced for n, node in world.nodes.items() if n != 13)
        await world.kill_node(13)
        await world.start_node(13)
        await world.until(world.all_serve, 12.0, "its next generation serves")

    run_world(scenario)


def test_it_grants_nothing_once_it_is_fenced() -> None:
    async def scenario(world: World) -> None:
        await world.cluster(node_count=3)
        clock_of(world, 13).stand_still(0.4)
        leases = world.nodes[13].agent.leases
        await world.until(lambda: leases.is_fenced, 1.5, "fenced")
        world.failures.clear()
        await world.kill_mgmtd(1)  # the others hang on each other's leases now, and 13's is needed
        await asyncio.sleep(2 * TIMING.grant_s)
        assert not any(serves_any(world, node) for node in (11, 12))

    run_world(scenario)


@pytest.mark.parametrize("what", ["it loses little", "the wall clock jumps", "it drifts"])
def test_what_fences_nobody(what: str) -> None:
    async def scenario(world: World) -> None:
        await world.cluster()
        clock = clock_of(world, 13)
        for number in range(20):
            if what == "the wall clock jumps":
                clock.wall_jump_ns += (-1) ** number * 3_600 * 10**9
            elif what == "it drifts":
                clock.drift(0.009 * (-1) ** number)
            elif number == 5:
                clock.stand_still(0.8 * TIMING.clock_loss_s)
            await asyncio.sleep(1.0)
            assert world.all_serve()
        assert not world.nodes[13].agent.leases.is_fenced

    run_world(scenario)


def test_peers_tell_of_lost_time_while_no_primary_is_there() -> None:
    async def scenario(world: World) -> None:
        await world.cluster()
        await world.kill_mgmtd(1)
        await asyncio.sleep(2.0)
        assert world.all_serve()  # by each other's leases
        clock_of(world, 13).stand_still(0.4)
        leases = world.nodes[13].agent.leases
        await world.until(lambda: leases.is_fenced, 1.5, "two peers tell of it")
        world.failures.clear()
        assert all(not node.agent.leases.is_fenced for n, node in world.nodes.items() if n != 13)

    run_world(scenario)
