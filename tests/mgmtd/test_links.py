"""Broken links: whom a chain loses for one, and when its ends are together again; nodes and a mgmtd."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from fs3.ids import ChainId, ChainVersion, Generation, NodeId, target_id
from fs3.member.timing import TIMING
from fs3.mgmtd.links import Links, link, loser
from fs3.routing import ChainInfo, Member, TargetState

from .world import World, run_world

N1, N2, N3, N4 = (NodeId(n) for n in (1, 2, 3, 4))
BROKEN_S = TIMING.link_broken_s
QUARANTINE_S = TIMING.link_quarantine_s


def judged(links: Links, now_s: float, dead: Sequence[NodeId] = ()) -> frozenset[tuple[NodeId, NodeId]]:
    links.judge(lambda node: node not in dead, now_s)
    return links.broken


def test_a_link_breaks_when_it_has_been_named_long_enough() -> None:
    links = Links(TIMING)
    links.on_beacon(N1, (N2,), 10.0)
    assert not judged(links, 12.9)
    assert links.next_change_s(12.9) == 10.0 + BROKEN_S
    links.on_beacon(N1, (N2, N3), 12.9)
    assert judged(links, 13.0) == {(N1, N2)}
    links.on_beacon(N1, (N3,), 13.2)
    links.on_beacon(N1, (N2, N3), 13.7)  # it was there in between
    assert not judged(links, 15.0)


def test_an_end_that_is_not_alive_breaks_no_link() -> None:
    links = Links(TIMING)
    links.on_beacon(N1, (N2,), 10.0)
    assert not judged(links, 12.0, dead=(N2,))
    assert not judged(links, 14.9)
    assert judged(links, 15.0) == {(N1, N2)}
    links.forget(N1)  # its next generation has said nothing yet
    assert not judged(links, 15.1)


def test_a_link_is_watched_until_it_has_held() -> None:
    links = Links(TIMING)
    links.on_beacon(N2, (N1,), 0.0)
    assert links.judge(lambda _: True, BROKEN_S) == ([(N1, N2)], [])
    assert links.judge(lambda _: True, 5.0) == ([], [])
    links.on_beacon(N2, (), 6.0)
    assert not judged(links, 6.0) and links.watched_between(N1, (N3, N2)) == (N1, N2)
    assert links.watched_between(N1, (N3,)) is None
    assert links.next_change_s(6.0) == 5.0 + QUARANTINE_S
    assert links.judge(lambda _: True, 5.0 + QUARANTINE_S) == ([], [(N1, N2)])
    assert not links.has_any


def _chain(*states: TargetState, joining: int | None = None) -> ChainInfo:
    """Nodes 1, 2, … in these states."""
    members = tuple(
        Member(target=target_id(NodeId(n), 0), state=state, generation=Generation(1), joining=n == joining)
        for n, state in enumerate(states, start=1)
    )
    return ChainInfo(chain=ChainId(1), version=ChainVersion(1), members=members)


SERVING, LASTSRV, SYNCING, WAITING, OFFLINE = TargetState
THREE = _chain(SERVING, SERVING, SERVING)


@pytest.mark.parametrize(
    ("info", "pairs", "expected"),
    [
        (THREE, [(1, 3)], 3),  # the successor
        (THREE, [(1, 3), (1, 9)], 1),  # the end with more broken links, wherever they lead
        (THREE, [(1, 2), (2, 3)], 2),
        (THREE, [(1, 2), (1, 3), (2, 3)], 3),
        (THREE, [(1, 9), (8, 9)], None),  # not within the chain
        (_chain(SERVING, OFFLINE), [(1, 2)], None),  # not in use
        (_chain(SERVING, SYNCING), [(1, 2), (1, 8), (1, 9)], 2),  # never the last serving one
        (_chain(SERVING, SERVING, joining=2), [(1, 2), (1, 9)], 2),
        (_chain(SERVING, SERVING, SYNCING), [(2, 3)], 3),
        (_chain(SERVING, SERVING, SYNCING), [(2, 3), (2, 9)], 2),
    ],
)
def test_whom_a_chain_loses(info: ChainInfo, pairs: list[tuple[int, int]], expected: int | None) -> None:
    broken = frozenset(link(NodeId(a), NodeId(b)) for a, b in pairs)
    found = loser(info, broken, Counter(node for one in broken for node in one))
    assert (found[0].node if found is not None else None) == expected


# --- nodes and a mgmtd ---


def members(world: World, node: int) -> list[str]:
    """The states of a node's targets, as another node knows them."""
    other = next(n for n in world.nodes if n != node)
    chains = world.nodes[other].agent.routing.chains
    return [m.state.name for info in chains.values() for m in info.members if m.node == node]


async def _three(world: World) -> None:
    """Three nodes with two targets each, all in two chains."""
    await world.cluster(node_count=3, target_count=2)


@pytest.mark.parametrize("ways", [1, 2])
def test_connections_fail_while_datagrams_pass(ways: int) -> None:
    async def scenario(world: World) -> None:
        await _three(world)
        before = {c: info.members for c, info in world.nodes[11].agent.routing.chains.items()}
        for way in (("s11", "s13"), ("s13", "s11"))[:ways]:
            world.faults.cut[way] = "streams"

        def one_left_each() -> bool:
            chains = world.nodes[12].agent.routing.chains
            return all(
                len(info.serving) == 2 and all(world.nodes[m.node].valid(chain) for m in info.serving)
                for chain, info in chains.items()
            )

        await world.until(one_left_each, 10.0, "each chain has lost one of the two, and serves")
        chains = world.nodes[12].agent.routing.chains
        for chain, info in chains.items():
            later = [m for m in before[chain] if m.node in (11, 13)][-1]
            assert later.target not in [m.target for m in info.serving]  # the successor
        assert [e["nodes"] for e in world.told("link is broken")] == ["11 13"]
        await asyncio.sleep(QUARANTINE_S + 5.0)
        assert one_left_each()  # it has not held at all
        world.faults.cut.clear()
        took_s = await world.until(world.all_serve, QUARANTINE_S + 10.0, "all serve again")
        assert took_s > QUARANTINE_S - 5.0
        assert not world.told("node is dead")

    run_world(scenario)


def test_a_node_that_reaches_nobody_but_mgmtd_leaves_all_its_chains() -> None:
    async def scenario(world: World) -> None:
        await world.cluster()
        for other in (11, 12, 14, 15):
            world.faults.cut["s13", f"s{other}"] = world.faults.cut[f"s{other}", "s13"] = "all"
        await world.until(lambda: set(members(world, 13)) == {"OFFLINE"}, 10.0, "it is out")
        chains = world.nodes[11].agent.routing.chains.values()
        assert all(m.state is SERVING for info in chains for m in info.members if m.node != 13)

    run_world(scenario)


@pytest.mark.parametrize("trouble", ["no datagrams", "30 % loss", "a short cut"])
def test_what_breaks_no_link(trouble: str) -> None:
    async def scenario(world: World) -> None:
        await _three(world)
        if trouble == "30 % loss":
            world.faults.datagram_loss_rate = 0.3
        else:
            plane = "datagrams" if trouble == "no datagrams" else "all"
            world.faults.cut["s11", "s13"] = world.faults.cut["s13", "s11"] = plane  # type: ignore[assignment]
        await asyncio.sleep(2.5 if trouble == "a short cut" else 30.0)
        world.faults.cut.clear()
        await asyncio.sleep(5.0)
        assert not world.told("chain changed") and world.all_serve()

    run_world(scenario)


def test_a_node_that_stood_still_breaks_no_link() -> None:
    async def scenario(world: World) -> None:
        await _three(world)
        await world.kill_node(13, silent=True)
        await asyncio.sleep(2.5)
        await world.start_node(13)
        await world.until(world.all_serve, 10.0, "all serve")
        assert not world.told("link is broken")

    run_world(scenario)
