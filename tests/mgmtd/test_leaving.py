"""Whoever leaves a chain while it could still serve it: readers find a member that serves all the time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import msgspec
import pytest

from fs3.ids import ChainId, Generation, NodeId, target_id
from fs3.member.beacon import Beacon
from fs3.member.timing import TIMING
from fs3.mgmtd.leaving import Leaving
from fs3.mgmtd.liveness import Hearing, Liveness
from fs3.routing import LocalState

from .world import World, run_world

STEP_S = 0.02
ASKED_S = 0.1
"""A client that met StaleRouting asks again after this (design 2.5)."""


async def longest_gap_s(world: World, seconds: float) -> float:
    """How long, at most, no member of some chain could serve it at the version that it knows."""
    since_s: dict[ChainId, float] = {}
    longest_s = 0.0
    for _ in range(round(seconds / STEP_S)):
        await asyncio.sleep(STEP_S)
        now_s = world.loop.time()
        for chain in next(iter(world.nodes.values())).agent.routing.chains:
            if any(node.valid(chain) for node in world.nodes.values()):
                since_s.pop(chain, None)
            else:
                longest_s = max(longest_s, now_s - since_s.setdefault(chain, now_s))
    return longest_s


def cut_from_mgmtd(world: World) -> None:
    for ends in (("m1", "s12"), ("s12", "m1")):
        world.faults.cut[ends] = "all"


def unwanted(world: World) -> None:
    world.term().chains.unwanted.update(target.target for target in world.nodes[12].targets)


def disk_fails(world: World) -> None:
    node = world.nodes[12]
    node.targets = [msgspec.structs.replace(target, state=LocalState.OFFLINE) for target in node.targets]
    node.agent.set_targets(node.targets)


@pytest.mark.parametrize("strike", [cut_from_mgmtd, unwanted, disk_fails])
def test_chains_are_served_while_a_member_leaves(strike: Callable[[World], None]) -> None:
    async def scenario(world: World) -> None:
        await world.cluster()
        strike(world)
        assert await longest_gap_s(world, 8.0) <= ASKED_S
        assert {e["rule"] for e in world.told("chain changed")} == {"leave"}
        chains = world.nodes[11].agent.routing.chains.values()
        assert all(member.node != 12 for info in chains for member in info.serving)

    run_world(scenario)


ONE, TWO = target_id(NodeId(1), 0), target_id(NodeId(2), 0)
CHAIN = ChainId(7)
FIRST = Generation(1)


SEQUENCES = itertools.count(1)


def beacon_of(liveness: Liveness, number: int, *unlent: int) -> None:
    """A beacon of a node, which says to whom it lends nothing any more."""
    node = NodeId(number)
    liveness.register(node, FIRST, 1.0, heard=True)
    targets = tuple(target_id(NodeId(n), 0) for n in unlent)
    beacon = Beacon(routing_version=1, clock_ms=0, unlent=targets)
    nonce = liveness.lives[node].nonce
    assert liveness.on_beacon(node, FIRST, next(SEQUENCES), nonce, beacon, 1.0) is Hearing.COUNTED


def test_it_is_waited_for_those_who_stay_until_they_say_that_they_lend_no_more() -> None:
    nonces = iter(range(1, 100))
    liveness = Liveness(0.0, TIMING, lambda: next(nonces).to_bytes(16, "big"))
    leaving = Leaving()
    longest_s = 5.0 + 2 * TIMING.beacon_s + TIMING.grant_s
    for number in (1, 2, 3):
        beacon_of(liveness, number)

    def until_s() -> float:
        return leaving.lent_until_s(CHAIN, ONE, liveness.lives, TIMING)

    assert until_s() == 0.0 and leaving.told(NodeId(2)) == ()
    leaving.note(CHAIN, [ONE], (NodeId(2), NodeId(3)), 5.0)
    assert leaving.told(NodeId(2)) == leaving.told(NodeId(3)) == (ONE,) and leaving.told(NodeId(1)) == ()
    assert until_s() == longest_s
    leaving.note(CHAIN, [ONE], (NodeId(2), NodeId(3)), 6.0)
    assert until_s() == longest_s  # it counts from when it was first noted
    beacon_of(liveness, 2, 1)
    assert until_s() == longest_s
    leaving.note(CHAIN, [ONE], (NodeId(2),), 6.5)  # the third one is not heard any more
    assert until_s() == 0.0 and leaving.told(NodeId(3)) == ()
    leaving.note(CHAIN, [ONE, TWO], (NodeId(3),), 7.0)
    assert leaving.told(NodeId(3)) == (ONE, TWO) and until_s() == longest_s
    liveness.on_evidence(NodeId(1), FIRST, "refused", 7.0)
    assert until_s() == 0.0  # whoever is gone asks nobody
    leaving.note(CHAIN, [ONE, TWO], (), 8.0)  # nobody stays
    assert leaving.told(NodeId(3)) == () and leaving.chains_but({}) == []
