"""``Liveness``: evidence of death stops new grants, shortens the verdict, and ends no lease."""

from __future__ import annotations

from itertools import count

import msgspec

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


def beacon(
    found: Liveness, sequence: int, at_s: float, nonce: bytes | None = None, lacking_s: float = 0.0
) -> Hearing:
    """A beacon with the nonce that the node was last given, or with an older one."""
    body = msgspec.structs.replace(BEACON, no_lease_ms=int(lacking_s * 1000))
    return found.on_beacon(NODE, RUN, sequence, nonce or found.lives[NODE].nonce, body, at_s)


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


def test_a_node_fails_that_is_heard_and_has_no_lease_for_long() -> None:
    found = alive(10.0)
    for at in range(1, 8):
        beacon(found, 1 + at, 10.0 + at / 2, lacking_s=at / 2)
    assert found.verdict(NODE, 99.0, 13.5) is Verdict.DEAD
    beacon(found, 9, 13.6)
    assert found.verdict(NODE, 99.0, 13.6) is Verdict.ALIVE


def test_a_lack_of_before_it_was_heard_is_not_the_nodes() -> None:
    """There was no primary who could have granted anything, or the node stood still."""
    for found, since_s in ((alive(10.0), 10.0), (alive(2.0), 10.0)):
        beacon(found, 2, 10.0, lacking_s=4.0)
        assert found.verdict(NODE, 99.0, 10.0) is Verdict.ALIVE
        for at in range(1, 7):
            beacon(found, 2 + at, 10.0 + at / 2, lacking_s=4.0 + at / 2)
        assert found.verdict(NODE, 99.0, since_s + TIMING.no_lease_s) is Verdict.ALIVE
        assert found.verdict(NODE, 99.0, since_s + TIMING.no_lease_s + 0.1) is Verdict.DEAD


def test_evidence_of_an_earlier_run_is_none() -> None:
    found = alive(10.0)
    assert not found.on_evidence(NODE, Generation(2), "reset", 10.1)
    assert found.may_grant(NODE)


def test_a_beacon_counts_once() -> None:
    found = alive(10.0)
    assert beacon(found, 2, 10.5) is Hearing.COUNTED
    assert beacon(found, 2, 14.0) is Hearing.DROPPED
    assert found.lives[NODE].heard_s == 10.5


# --- a primary that is cut off itself

OTHERS = (NodeId(12), NodeId(13))


def three(at_s: float) -> Liveness:
    """Three nodes, all heard at that time."""
    found = alive(at_s)
    for node in OTHERS:
        found.register(node, RUN, at_s, heard=True)
    return found


def heard_again(found: Liveness, node: NodeId, sequence: int, at_s: float) -> None:
    """Beacons of one node: the first one tells it the nonce, if that has changed."""
    for count_ in range(2):
        nonce = found.lives[node].nonce
        if found.on_beacon(node, RUN, sequence + count_, nonce, BEACON, at_s) is Hearing.COUNTED:
            return


def test_a_primary_that_hears_nobody_finds_nobody_dead() -> None:
    found = three(10.0)
    found.on_evidence(NODE, RUN, "no connection in time", 11.2, answered=False)
    for now_s in (12.0, 20.0, 60.0):
        assert found.verdict(NODE, 11.6, now_s) is Verdict.SUSPECTED
        assert found.verdict(OTHERS[0], 11.6, now_s) is Verdict.SILENT


def test_who_is_heard_first_again_is_not_the_only_one_that_lives() -> None:
    found = three(10.0)
    found.on_evidence(NODE, RUN, "no connection in time", 11.2, answered=False)
    heard_again(found, OTHERS[0], 5, 20.0)
    assert [found.verdict(node, 11.6, 20.0) for node in (NODE, *OTHERS)] == [Verdict.ALIVE] * 3
    for beat in range(1, 11):
        heard_again(found, OTHERS[0], 10 * beat, 20.0 + beat / 2)
        expected = Verdict.DEAD if beat == 10 else Verdict.SILENT if beat > 3 else Verdict.ALIVE
        assert [found.verdict(n, 11.6, 20.0 + beat / 2) for n in (NODE, OTHERS[1])] == [expected] * 2


def test_who_was_suspected_before_the_primary_was_cut_off_stays_so() -> None:
    found = three(10.0)
    found.on_evidence(NODE, RUN, "reset", 10.1)
    heard_again(found, OTHERS[0], 5, 10.4)
    assert found.verdict(NODE, 11.6, 12.0) is Verdict.DEAD, "whoever is deaf now has heard others since"
    heard_again(found, OTHERS[0], 9, 20.0)
    assert found.verdict(NODE, 11.6, 20.0) is Verdict.DEAD


def test_a_node_that_refuses_is_dead_whoever_is_deaf() -> None:
    """After a kill of everything but the primary, whoever comes back must not wait for those that do not."""
    found = three(10.0)
    found.on_evidence(NODE, RUN, "refused", 11.2)
    assert found.verdict(NODE, 11.6, 12.0) is Verdict.DEAD
    heard_again(found, OTHERS[0], 5, 20.0)
    assert found.verdict(NODE, 11.6, 20.0) is Verdict.DEAD


def test_a_beacon_heard_while_somebody_looked_says_more_than_what_was_found() -> None:
    found = alive(10.0)
    beacon(found, 2, 10.5)
    assert not found.on_evidence(NODE, RUN, "no connection in time", 11.0, began_s=10.0)
    assert found.on_evidence(NODE, RUN, "no connection in time", 11.6, began_s=10.6)
