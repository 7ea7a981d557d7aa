"""Lost time by the word of peers: two have to agree, one may be wrong itself."""

from __future__ import annotations

from fs3.ids import Generation, NodeId
from fs3.member.lost_time import COMPARED_S, PeerClocks
from fs3.member.timing import TIMING

G1, G2 = Generation(1), Generation(2)
TRIP_S = 0.001


def asked(
    clocks: PeerClocks, peer: int, sequence: int, now_s: float, peer_s: float, generation: Generation = G1
) -> float:
    """One request and its answer, made when the peer's clock showed ``peer_s``."""
    clocks.asked(NodeId(peer), sequence, now_s)
    return clocks.lost_s(NodeId(peer), generation, sequence, int(peer_s * 1000), now_s + TRIP_S)


def test_two_that_agree_are_believed() -> None:
    clocks = PeerClocks(TIMING)
    for peer in (2, 3):
        assert asked(clocks, peer, 1, 10.0, 100.0) == 0.0
    assert asked(clocks, 2, 2, 10.5, 101.0) == 0.0  # half a second is missing by one clock
    lost_s = asked(clocks, 3, 2, 10.5, 100.9)
    assert TIMING.clock_loss_s < lost_s < 0.45  # by both: no more than the lesser


def test_one_that_runs_too_fast_is_not_believed() -> None:
    clocks = PeerClocks(TIMING)
    for number in range(40):
        now_s = 10.0 + number / 2
        assert asked(clocks, 2, number, now_s, 100.0 + 2 * number) == 0.0
        assert asked(clocks, 3, number, now_s, 100.0 + number / 2) == 0.0


def test_two_that_were_wrong_at_different_times_do_not_agree() -> None:
    clocks = PeerClocks(TIMING)
    for number in range(80):
        now_s = 10.0 + number / 2
        for peer, jumps_at in ((2, 4), (3, 4 + int(4 * COMPARED_S) + 4)):
            jump_s = 5.0 if number >= jumps_at else 0.0
            assert asked(clocks, peer, number, now_s, now_s + jump_s) == 0.0, (peer, number)


def test_another_generation_has_another_clock_and_strangers_none() -> None:
    clocks = PeerClocks(TIMING)
    for peer in (2, 3):
        asked(clocks, peer, 1, 10.0, 100.0)
        assert asked(clocks, peer, 2, 10.5, 900.0, G2) == 0.0
    assert clocks.lost_s(NodeId(4), G1, 1, 0, 11.0) == 0.0
    assert clocks.lost_s(NodeId(2), G1, 2, 0, 11.0) == 0.0  # answered before
