"""Chain tables: what every plan keeps, and how even the plans are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.errors import InvalidRequest
from fs3.ids import NodeId, node_of_target, target_id
from fs3.mgmtd.placement import plan_chains
from fs3.rng import derived_rng
from fs3.wire.mgmtd import TargetSpec


def specs(counts: list[int], zone_count: int) -> list[TargetSpec]:
    """``counts[i]`` targets on node i + 1; zones are dealt in turn (0: every node its own)."""
    return [
        TargetSpec(target=target_id(NodeId(i + 1), n), zone=f"z{i % zone_count}" if zone_count else "")
        for i, count in enumerate(counts)
        for n in range(count)
    ]


@given(st.lists(st.integers(1, 6), min_size=3, max_size=9), st.integers(0, 4), st.integers(1, 3))
def test_every_plan_is_sound(counts: list[int], zone_count: int, replication: int) -> None:
    targets = specs(counts, zone_count)
    zones = {t.target: t.zone or str(node_of_target(t.target)) for t in targets}
    plan = plan_chains(targets, replication, derived_rng(1, "placement"))
    used = [t for chain in plan.chains for t in chain]
    assert sorted([*used, *plan.unused]) == sorted(t.target for t in targets)
    for chain in plan.chains:
        assert len({node_of_target(t) for t in chain}) == replication
        if len(set(zones.values())) >= replication:
            assert len({zones[t] for t in chain}) == replication


def test_recovery_spreads_over_all_others() -> None:
    plan = plan_chains(specs([10] * 7, 0), 3, derived_rng(1, "placement"))
    assert not plan.unused[1:]  # 70 targets: 23 chains of three, one target left
    assert plan.quality.peers_min == 6
    assert plan.quality.shared_max - plan.quality.shared_min <= 2
    assert plan.quality.heads_max - plan.quality.heads_min <= 1


def test_too_few_nodes() -> None:
    with pytest.raises(InvalidRequest, match="needs as many nodes"):
        plan_chains(specs([4, 4], 0), 3, derived_rng(1, "placement"))


def test_the_lightest_stays_out() -> None:
    targets = [*specs([1, 1, 1], 0), TargetSpec(target=target_id(NodeId(9), 0), zone="", weight=0)]
    plan = plan_chains(targets, 3, derived_rng(1, "placement"))
    assert plan.unused == (target_id(NodeId(9), 0),)
