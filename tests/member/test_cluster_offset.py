"""Cluster time at a node, and what it tells of the node's own clock."""

from __future__ import annotations

import pytest

from fs3.member.cluster_offset import ClusterOffset
from fs3.member.lost_time import COMPARED_S
from fs3.member.timing import TIMING

TRIP_S = 0.01
PERIOD_S = 0.5


def lost_at(moments: list[float], lost_from_s: float, lost_s: float, terms: list[int] | None = None) -> float:
    """The most that is noticed when answers come at these moments (of the primary's clock) and the own clock
    stands still for ``lost_s`` from ``lost_from_s`` on."""
    offset, found = ClusterOffset(TIMING), 0.0
    for number, at_s in enumerate(moments):
        own_s = at_s - min(lost_s, max(0.0, at_s - lost_from_s))
        term = terms[number] if terms is not None else 1
        found = max(found, offset.lost_s(term, int(at_s * 1000), own_s - TRIP_S, own_s + TRIP_S))
    return found


def every_period(until_s: float) -> list[float]:
    """Moments of answers as beacons bring them."""
    return [number * PERIOD_S for number in range(int(until_s / PERIOD_S))]


@pytest.mark.parametrize("lost_from_s", [number / 4 for number in range(4, 100)])
def test_a_sudden_loss_is_noticed_whenever_it_happens(lost_from_s: float) -> None:
    assert lost_at(every_period(40), lost_from_s, 0.2) > TIMING.clock_loss_s
    frozen = [at for at in every_period(60) if not lost_from_s <= at < lost_from_s + 5]
    assert lost_at(frozen, lost_from_s, 5.0) > 4.5


def test_a_late_answer_of_the_term_before_does_not_hide_a_loss() -> None:
    moments = [1.0, 1.5, 2.0, 2.2, 2.5, 3.0]
    assert lost_at(moments, 2.1, 0.3, terms=[1, 2, 2, 1, 2, 2]) > TIMING.clock_loss_s


def test_a_clock_within_its_rate_is_never_blamed() -> None:
    for rate in (0.991, 1.009):
        offset = ClusterOffset(TIMING)
        for number in range(1000):
            at_s = number * PERIOD_S
            lost_s = offset.lost_s(1, int(at_s * 1.009 * 1000), at_s * rate - TRIP_S, at_s * rate + TRIP_S)
            assert lost_s <= 0, (rate, number)


def test_answers_that_overtake_each_other_are_no_loss() -> None:
    offset = ClusterOffset(TIMING)
    for at_s, received_s in ((1.0, 1.1), (2.0, 4.0), (3.0, 3.1), (2.5, 5.0), (5.5, 5.6), (1.5, 5.7)):
        assert offset.lost_s(1, int(at_s * 1000), at_s - TRIP_S, received_s) <= 0


def test_primaries_of_two_terms_are_not_compared() -> None:
    moments = [1.0, 1.5, 2.0, 2.5]
    assert lost_at(moments, 1.6, 0.3, [1, 1, 2, 2]) <= TIMING.clock_loss_s
    assert COMPARED_S > 2 * PERIOD_S
