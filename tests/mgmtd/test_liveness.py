"""``Liveness``: evidence of death stops new grants, shortens the verdict, and ends no lease."""

from __future__ import annotations

from itertools import count

from fs3.ids import Generation, NodeId
from fs3.member.beacon import Beacon
from fs3.member.timing import TIMING
from fs3.mgmtd.liveness import Hearing, Liveness, Verdict

NODE, RUN = NodeId(11), Generation(3)
BEACON = Beacon(routing_version=1, clock_ms=0)


def alive(at_s: float) -> Liveness:
    """One node, heard at that time."""
    numbers = count(1)
    found = Liveness(0.0, TIMING, lambda: next(numbers).to_bytes(16, "big"))
    assert found.register(NODE, RUN, at_s, heard=True)
    assert beacon(found, 1, at_s) is Hearing.COUNTED
    return found


def beacon(found: Liveness, sequence: int, at_s: float, nonce: bytes | None = None) -> Hearing:
    """A beacon with the nonce that the node was last given, or with an older one."""
    return found.on_beacon(NODE, RUN, sequence, nonce or found.lives[NODE].nonce, BEACON, at_s)


def test_a_suspected_node_is_granted_nothing_until_a_newer_beacon() -> None:
    found = alive(10.0)
    before = found.lives[NODE].nonce
    assert found.may_grant(NODE)
    assert found.on_evidence(NODE, RUN, "reset", 10.1)
    assert not found.may_grant(NODE)
    assert beacon(found, 2, 10.2, before) is Hearing.NONCE, "made before the evidence"
    assert not found.may_grant(NODE)
    assert beacon(found, 3, 10.3) is Hearing.COUNTED
    assert found.may_grant(NODE)


def test_evidence_ends_no_lease() -> None:
    found = alive(10.0)
    found.on_evidence(NODE, RUN, "refused", 10.1)
    assert found.verdict(NODE, 11.5, 11.4) is Verdict.SUSPECTED
    assert found.verdict(NODE, 11.5, 11.5) is Verdict.DEAD


def test_evidence_of_an_earlier_run_is_none() -> None:
    found = alive(10.0)
    assert not found.on_evidence(NODE, Generation(2), "reset", 10.1)
    assert found.may_grant(NODE)


def test_a_beacon_counts_once() -> None:
    found = alive(10.0)
    assert beacon(found, 2, 10.5) is Hearing.COUNTED
    assert beacon(found, 2, 14.0) is Hearing.DROPPED
    assert found.lives[NODE].heard_s == 10.5
