"""``NodeLeases``: each rule of design 2.2 by itself; and what a look at it costs nobody."""

from __future__ import annotations

from fs3.ids import ChainId, ChainVersion, Generation, NodeId, target_id
from fs3.member.beacon import Answer, Grant
from fs3.member.lease import NodeLeases
from fs3.member.timing import TIMING
from fs3.routing import ChainInfo, Member, TargetState

CHAIN = ChainId(1)
READY_S = 10.0


def record(version: int, *nodes: int, generations: dict[int, int] | None = None) -> ChainInfo:
    """A chain with these nodes serving, in generation 1 unless said otherwise."""
    return ChainInfo(
        chain=CHAIN,
        version=ChainVersion(version),
        members=tuple(
            Member(
                target=target_id(NodeId(n), 0),
                state=TargetState.SERVING,
                generation=Generation((generations or {}).get(n, 1)),
            )
            for n in nodes
        ),
    )


def leases(info: ChainInfo, *, routing_version: int = 1) -> NodeLeases:
    """Those of node 1, started at 0, with a record adopted."""
    found = NodeLeases(NodeId(1), Generation(1), 0.0, TIMING)
    found.adopt({CHAIN: info}, routing_version, 0.0)
    return found


def grant(sequence: int, *, routing_version: int = 1, uncovered: tuple[ChainId, ...] = ()) -> Grant:
    return Grant(
        echo_generation=Generation(1),
        echo_sequence=sequence,
        granted=True,
        nonce=bytes(16),
        term=1,
        routing_version=routing_version,
        uncovered=uncovered,
    )


def granted_by(found: NodeLeases, peer: int, sequence: int, version: int, sent_s: float) -> None:
    found.sent_ask(NodeId(peer), sequence, sent_s)
    pairs = ((CHAIN, ChainVersion(version)),)
    answer = Answer(echo_generation=Generation(1), echo_sequence=sequence, granted=pairs)
    assert found.on_answer(NodeId(peer), Generation(1), answer, sent_s + 0.01)


def is_valid(found: NodeLeases, at_s: float, version: int = 1) -> bool:
    return found.valid(CHAIN, ChainVersion(version), at_s)


def test_the_primary_lease_counts_from_its_sending() -> None:
    found = leases(record(1, 1, 2, 3))
    found.sent_beacon(NodeId(9), 1, READY_S)
    assert found.on_grant(NodeId(9), grant(1), READY_S + 1.2) == READY_S
    assert is_valid(found, READY_S + 1.49)
    assert not is_valid(found, READY_S + 1.5)
    assert found.on_grant(NodeId(9), grant(1), READY_S + 1.2) is None  # answered before


def test_nothing_before_the_start_wait() -> None:
    found = leases(record(1, 1, 2, 3))
    found.sent_beacon(NodeId(9), 1, 0.5)
    found.on_grant(NodeId(9), grant(1), 0.6)
    assert not is_valid(found, 1.57)
    assert is_valid(found, 1.59)
    asked = ((CHAIN, ChainVersion(1)),)
    assert not found.answer(NodeId(2), Generation(1), 1, asked, {}, 1.5).granted
    assert found.answer(NodeId(2), Generation(1), 2, asked, {}, 1.6).granted


def test_every_other_member_has_to_grant() -> None:
    found = leases(record(1, 1, 2, 3))
    granted_by(found, 2, 1, 1, READY_S)
    assert not is_valid(found, READY_S + 0.1)
    granted_by(found, 3, 2, 1, READY_S + 0.2)
    assert is_valid(found, READY_S + 1.49)
    assert not is_valid(found, READY_S + 1.51)  # the earlier of the two is over


def test_peers_leases_do_not_carry_over_to_a_new_version() -> None:
    found = leases(record(1, 1, 2))
    granted_by(found, 2, 1, 1, READY_S)
    assert is_valid(found, READY_S + 0.1)
    found.adopt({CHAIN: record(2, 1, 2, generations={2: 2})}, 2, READY_S + 0.2)
    assert not is_valid(found, READY_S + 0.3) and not is_valid(found, READY_S + 0.3, 2)


def test_a_single_serving_member_hangs_on_the_primary() -> None:
    info = record(1, 1, 2)
    alone = replace_state(info, 2)
    found = leases(alone)
    assert not is_valid(found, READY_S)
    found.sent_beacon(NodeId(9), 1, READY_S)
    found.on_grant(NodeId(9), grant(1), READY_S)
    assert is_valid(found, READY_S)


def replace_state(info: ChainInfo, node: int) -> ChainInfo:
    """The record in which a node's target is out of service."""
    members = tuple(
        Member(target=m.target, state=TargetState.OFFLINE, generation=m.generation) if m.node == node else m
        for m in info.members
    )
    return ChainInfo(chain=info.chain, version=info.version, members=members)


def test_a_chain_of_one_target_needs_none() -> None:
    found = leases(record(1, 1))
    assert not is_valid(found, 1.0)
    assert is_valid(found, 1e9)
    found.fence()
    assert not is_valid(found, 1e9)


def test_own_grants_to_those_left_out_are_waited_for() -> None:
    found = leases(record(1, 1, 2, 3))
    asked = ((CHAIN, ChainVersion(1)),)
    assert found.answer(NodeId(2), Generation(1), 1, asked, {}, READY_S).granted == asked
    found.sent_beacon(NodeId(9), 1, READY_S + 0.4)
    found.on_grant(NodeId(9), grant(1), READY_S + 0.4)
    found.adopt({CHAIN: record(2, 1, 2, 3, generations={2: 2})}, 2, READY_S + 0.5)
    over_s = READY_S + TIMING.grant_s
    assert not found.may_acknowledge(CHAIN, ChainVersion(2), over_s - 0.01)
    assert not is_valid(found, over_s - 0.01, 2)
    assert found.may_acknowledge(CHAIN, ChainVersion(2), over_s)
    assert is_valid(found, over_s, 2)


def test_a_grant_waits_for_its_routing() -> None:
    found = leases(record(1, 1, 2, 3))
    found.sent_beacon(NodeId(9), 1, READY_S)
    found.on_grant(NodeId(9), grant(1, routing_version=2), READY_S)
    assert not is_valid(found, READY_S + 0.1)
    found.adopt({}, 2, READY_S + 0.2)
    assert is_valid(found, READY_S + 0.2)


def test_a_grant_leaves_out_what_it_does_not_cover() -> None:
    found = leases(record(1, 1, 2, 3))
    found.sent_beacon(NodeId(9), 1, READY_S)
    found.on_grant(NodeId(9), grant(1), READY_S)
    found.sent_beacon(NodeId(9), 2, READY_S + 0.5)
    found.on_grant(NodeId(9), grant(2, uncovered=(CHAIN,)), READY_S + 0.5)
    assert is_valid(found, READY_S + 1.49)  # the earlier lease runs on
    assert not is_valid(found, READY_S + 1.51)


def test_asked_at_another_version() -> None:
    found = leases(record(3, 1, 2, 3))
    older = found.answer(NodeId(2), Generation(1), 1, ((CHAIN, ChainVersion(2)),), {}, READY_S)
    assert [info.version for info in older.newer] == [3] and not older.granted
    newer = found.answer(NodeId(2), Generation(1), 2, ((CHAIN, ChainVersion(4)),), {}, READY_S)
    assert newer.wanted == (CHAIN,) and not newer.granted


def test_another_generation_is_no_member() -> None:
    found = leases(record(1, 1, 2, 3))
    asked = ((CHAIN, ChainVersion(1)),)
    assert not found.answer(NodeId(2), Generation(2), 1, asked, {}, READY_S).granted
    stranger = leases(record(1, 1, 2, 3, generations={1: 2}))
    stranger.sent_beacon(NodeId(9), 1, READY_S)
    stranger.on_grant(NodeId(9), grant(1), READY_S)
    assert not is_valid(stranger, READY_S)


def joining(version: int, *nodes: int) -> ChainInfo:
    """A record whose last node joins."""
    info = record(version, *nodes)
    last = info.members[-1]
    joiner = Member(target=last.target, state=last.state, generation=last.generation, joining=True)
    return ChainInfo(chain=info.chain, version=info.version, members=(*info.members[:-1], joiner))


def test_a_joiner_does_not_serve_by_the_primarys_word() -> None:
    """The primary names it in a newer record when all others have acknowledged it; or they say so."""
    found = leases(joining(2, 2, 3, 1))
    found.sent_beacon(NodeId(9), 1, READY_S)
    found.on_grant(NodeId(9), grant(1), READY_S)
    assert not is_valid(found, READY_S + 0.1, 2)
    granted_by(found, 2, 2, 2, READY_S + 0.2)
    assert not is_valid(found, READY_S + 0.3, 2)
    granted_by(found, 3, 3, 2, READY_S + 0.4)
    assert is_valid(found, READY_S + 0.5, 2)


def test_a_joiner_is_granted_what_is_acknowledged() -> None:
    found = leases(joining(2, 1, 2, 3))
    asked, version = ((CHAIN, ChainVersion(2)),), ChainVersion(2)
    for acknowledged in ({}, {CHAIN: ChainVersion(1)}):
        assert not found.answer(NodeId(3), Generation(1), 1, asked, acknowledged, READY_S).granted
    assert found.answer(NodeId(2), Generation(1), 2, asked, {}, READY_S).granted == asked
    assert found.answer(NodeId(3), Generation(1), 3, asked, {CHAIN: version}, READY_S).granted == asked


def test_nothing_is_lent_to_whoever_is_to_leave() -> None:
    found = leases(record(1, 1, 2, 3))
    asked, two = ((CHAIN, ChainVersion(1)),), target_id(NodeId(2), 0)

    def is_granted(peer: int, at_s: float) -> bool:
        return bool(found.answer(NodeId(peer), Generation(1), 1, asked, {}, at_s).granted)

    assert is_granted(2, READY_S) and found.unlent(READY_S) == ()
    found.stop_lending((two,), READY_S + 1)
    assert not is_granted(2, READY_S + 1) and is_granted(3, READY_S + 1)
    assert found.unlent(READY_S + TIMING.grant_s - 0.01) == ()  # its last lease runs
    found.stop_lending((two,), READY_S + 1.2)
    assert found.unlent(READY_S + TIMING.grant_s + 0.01) == (two,)
    later_s = READY_S + 1.2 + TIMING.lease_s  # the primary has not said so again: it may be away
    assert is_granted(2, later_s) and found.unlent(later_s) == ()
    found.stop_lending((), later_s)
    assert is_granted(2, later_s)
