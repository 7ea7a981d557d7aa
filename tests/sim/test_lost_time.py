"""What the primary's answers prove of a loss of time, as the simulator counts it."""

from __future__ import annotations

from fs3.member.cluster_offset import ClusterOffset
from fs3.member.timing import TIMING
from tests.sim.faults.clocks import CERTAIN_S, Proof

TERM = 3
MOST_S = TIMING.clock_loss_s


def answered(offset: ClusterOffset, cluster_s: float, sent_s: float, trip_s: float = 0.001) -> float:
    return offset.lost_s(TERM, round(cluster_s * 1000), sent_s, sent_s + trip_s)


def test_a_loss_is_proven_and_what_the_node_is_told_is_left_as_it_is() -> None:
    offset = ClusterOffset(TIMING)
    answered(offset, 100.0, 5.0)
    proof = Proof(offset)
    assert answered(offset, 101.0, 6.0) < MOST_S and proof.lost_s < MOST_S
    assert answered(offset, 104.0, 7.0) > CERTAIN_S  # three seconds there, one here
    assert 1.9 < proof.lost_s < 2.0


def test_late_answers_and_another_term_prove_nothing() -> None:
    offset = ClusterOffset(TIMING)
    answered(offset, 100.0, 5.0)
    proof = Proof(offset)
    answered(offset, 102.0, 6.0, trip_s=1.5)  # it may have been made at the end of its trip
    assert proof.lost_s < MOST_S
    offset.lost_s(TERM + 1, 500_000, 8.0, 8.001)
    assert proof.lost_s < MOST_S
