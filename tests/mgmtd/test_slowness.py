"""Which targets are far slower than their peers, and what becomes of them."""

from __future__ import annotations

import msgspec

from fs3.ids import Generation, NodeId, TargetId, target_id
from fs3.member.timing import TIMING
from fs3.mgmtd.slowness import BARRED_S, SLOW_FACTOR, SLOW_MIN_US, Slowness
from fs3.routing import LocalState, TargetState
from fs3.wire.mgmtd import TargetReport

from .world import Node, World, run_world

G1, G2 = Generation(1), Generation(2)
SLOW_S = int(TIMING.slow_s)


def told(slowness: Slowness, times_us: dict[int, int], now_s: float, generation: Generation = G1) -> None:
    """One target a node says how long it takes."""
    for node, time_us in times_us.items():
        report = _report(_target(node), time_us)
        slowness.on_report(NodeId(node), generation, (report,), now_s)


def _report(target: TargetId, time_us: int) -> TargetReport:
    return TargetReport(
        target=target, state=LocalState.UPTODATE, store_id=b"", clean=True, acknowledge_us=time_us
    )


def _target(node: int) -> TargetId:
    return target_id(NodeId(node), 0)


def after(times_us: dict[int, int], seconds: int = SLOW_S) -> Slowness:
    """What is known when targets have said the same for so long."""
    slowness = Slowness(TIMING)
    for second in range(seconds + 1):
        told(slowness, times_us, float(second))
        slowness.judge(float(second))
    return slowness


def test_a_target_is_slow_after_a_while() -> None:
    times_us = {1: SLOW_FACTOR * 2000, 2: 2000, 3: 2000, 4: 100}
    assert not after(times_us, SLOW_S - 1).slow
    assert after(times_us).slow == {_target(1)}


def test_what_is_not_slow() -> None:
    assert not after({1: SLOW_FACTOR * 2000 - 1, 2: 2000, 3: 2000}).slow
    assert not after({1: SLOW_MIN_US - 1, 2: 100, 3: 100}).slow  # quick enough for anybody
    assert not after({1: 1_000_000, 2: 2000}).slow  # nobody knows who of two is as it should be
    assert not after({1: 1_000_000, 2: 1_000_000, 3: 1_000_000}).slow  # all of them


def test_a_nodes_own_targets_are_no_peers_of_it() -> None:
    """All disks of the biggest node are slow."""
    slowness = Slowness(TIMING)
    own = [target_id(NodeId(1), index) for index in range(5)]
    for second in range(SLOW_S + 1):
        told(slowness, {2: 2000, 3: 2000}, float(second))
        slowness.on_report(NodeId(1), G1, [_report(target, 1_000_000) for target in own], float(second))
        slowness.judge(float(second))
    assert slowness.slow == set(own)


def test_a_better_or_an_absent_report_begins_anew() -> None:
    for better in (2000, 0):
        slowness = after({1: 1_000_000, 2: 2000, 3: 2000}, SLOW_S - 1)
        told(slowness, {1: better}, SLOW_S - 0.5)
        slowness.judge(SLOW_S - 0.5)
        told(slowness, {1: 1_000_000}, SLOW_S + 0.0)
        assert not slowness.judge(SLOW_S + 0.0) and not slowness.slow
    silent = after({1: 1_000_000, 2: 2000, 3: 2000}, SLOW_S - 1)
    assert not silent.judge(SLOW_S + 10.0)  # said nothing for long


def test_it_is_told_once_and_barred_for_a_while_in_this_generation() -> None:
    slowness = after({1: 1_000_000, 2: 2000, 3: 2000}, SLOW_S - 1)
    told(slowness, {1: 1_000_000, 2: 2000, 3: 2000}, SLOW_S)
    assert slowness.judge(SLOW_S) == {_target(1)}
    assert slowness.judge(SLOW_S) == frozenset()
    assert slowness.is_barred(_target(1), G1, SLOW_S + BARRED_S - 1)
    assert not slowness.is_barred(_target(1), G1, SLOW_S + BARRED_S)
    assert not slowness.is_barred(_target(1), G2, SLOW_S)
    assert not slowness.is_barred(_target(2), G1, SLOW_S)


# --- nodes and a mgmtd ---


def say(node: Node, acknowledge_us: int) -> None:
    """From now on a node reports that its first target takes so long."""
    first, *others = node.targets
    node.targets = [msgspec.structs.replace(first, acknowledge_us=acknowledge_us), *others]
    node.agent.set_targets(node.targets)


def test_a_chain_goes_on_without_its_slow_target() -> None:
    async def scenario(world: World) -> None:
        await world.cluster()
        for node in world.nodes.values():
            say(node, 2_000)
        slow = world.nodes[12]
        say(slow, 2_000_000)

        def states() -> dict[TargetId, TargetState]:
            chains = world.nodes[11].agent.routing.chains.values()
            return {m.target: m.state for info in chains for m in info.members}

        took_s = await world.until(
            lambda: states()[slow.target()] is TargetState.OFFLINE, TIMING.slow_s + 15.0, "it is out"
        )
        assert took_s > TIMING.slow_s - TIMING.report_s
        assert [e["target"] for e in world.told("target is slow")] == [f"{slow.target():x}"]
        assert set(states().values()) == {TargetState.SERVING, TargetState.OFFLINE}
        assert list(states().values()).count(TargetState.OFFLINE) == 1  # its node's other target stays
        await world.kill_node(12)
        await world.start_node(12)  # repaired
        await world.until(world.all_serve, 12.0, "all serve again")

    run_world(scenario)
