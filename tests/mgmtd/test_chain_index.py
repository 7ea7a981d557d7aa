"""The index finds the chains that are not whole, as looking at all of them would, and looks at few."""

from __future__ import annotations

import itertools

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fs3.ids import ChainId, ChainVersion, Generation, NodeId, TargetId, node_of_target, target_id
from fs3.member.timing import TIMING
from fs3.mgmtd.chain_index import ChainIndex
from fs3.mgmtd.lease import LeaseRecord
from fs3.mgmtd.liveness import Verdict
from fs3.mgmtd.store import Change, Loaded, TargetRecord
from fs3.mgmtd.term import NodeReport, Term
from fs3.routing import ChainInfo, LocalState, Member, NodeInfo, NodeKind, RoutingInfo, TargetState
from fs3.wire.mgmtd import TargetReport

NODES = 5
CHAINS = tuple(itertools.combinations(range(1, NODES + 1), 3))
"""One chain for each three nodes."""


def _target(node: int, chain: int) -> TargetId:
    return target_id(NodeId(node), chain)


class Scene:
    """A term in which everything is well, and events."""

    def __init__(self) -> None:
        chains: dict[ChainId, ChainInfo] = {}
        targets: dict[TargetId, TargetRecord] = {}
        for number, nodes in enumerate(CHAINS):
            members = tuple(
                Member(target=_target(n, number), state=TargetState.SERVING, generation=Generation(1))
                for n in nodes
            )
            chain = ChainId(number)
            chains[chain] = ChainInfo(chain=chain, version=ChainVersion(1), members=members)
            targets.update((m.target, TargetRecord(target=m.target, store_id=b"s")) for m in members)
        infos = {NodeId(n): self._info(n, 1) for n in range(1, NODES + 1)}
        routing = RoutingInfo(version=1, nodes=infos, chains=chains)
        record = LeaseRecord(holder=NodeId(99), generation=Generation(1), start=1, renewal=1)
        self.term = Term(record, Loaded(routing, targets), 0.0, TIMING, lambda: bytes(16))
        self.unfit: set[TargetId] = set()
        self.index = ChainIndex()
        for n in range(1, NODES + 1):
            self.report(n)
            self.term.verdicts[NodeId(n)] = Verdict.ALIVE

    def _info(self, node: int, generation: int) -> NodeInfo:
        return NodeInfo(
            node=NodeId(node),
            kind=NodeKind.STORAGE,
            generation=Generation(generation),
            host="h",
            address="h:1",
        )

    # --- events ---

    def report(self, node: int, bad: int | None = None, generation: int = 1, store: bytes = b"s") -> None:
        """A node reports its targets, the one in chain ``bad`` as offline."""
        reports = tuple(
            TargetReport(
                target=_target(node, chain),
                state=LocalState.OFFLINE if chain == bad else LocalState.UPTODATE,
                store_id=store,
                clean=True,
            )
            for chain, nodes in enumerate(CHAINS)
            if node in nodes
        )
        self.term.reports[NodeId(node)] = NodeReport(Generation(generation), 1, "", (), reports)

    def strike(self, kind: int, node: int, chain: int) -> None:
        """One of the things that a chain's being whole depends on."""
        term, number = self.term, NodeId(node)
        match kind:
            case 0:
                is_alive = term.verdicts[number] is Verdict.ALIVE
                term.verdicts[number] = Verdict.DEAD if is_alive else Verdict.ALIVE
            case 1:
                self.report(node, bad=chain)
            case 2:
                self.report(node)
            case 3:
                generation = term.routing.nodes[number].generation + 1
                term.publish(Change(nodes=(self._info(node, generation),)))
            case 4:
                self.report(node, generation=term.routing.nodes[number].generation, store=b"another")
            case 5:
                self.unfit ^= {_target(CHAINS[chain][0], chain)}
            case 6:
                self._change_record(chain)
            case _:
                found = term.targets[_target(CHAINS[chain][1], chain)]
                store_id = b"another" if found.store_id == b"s" else b"s"
                term.publish(Change(targets=(msgspec.structs.replace(found, store_id=store_id),)))

    def _change_record(self, chain: int) -> None:
        """A member leaves, or comes back in its node's present generation."""
        info = self.term.routing.chains[ChainId(chain)]
        first, *others = info.members
        is_in = first.state is TargetState.SERVING
        generation = self.term.routing.nodes[first.node].generation
        state = TargetState.OFFLINE if is_in else TargetState.SERVING
        changed = msgspec.structs.replace(first, state=state, generation=generation)
        version = ChainVersion(info.version + 1)
        members = (changed, *others)
        self.term.publish(Change(chains=(msgspec.structs.replace(info, version=version, members=members),)))

    # --- what is expected ---

    def found(self) -> list[ChainId]:
        return self.index.open_chains(self.term, frozenset(self.unfit))

    def expected(self) -> list[ChainId]:
        """Every chain, looked at as if nothing were known of before."""
        return [
            c for c, info in self.term.routing.chains.items() if not all(map(self._is_fine, info.members))
        ]

    def _is_fine(self, member: Member) -> bool:
        term, node = self.term, node_of_target(member.target)
        report = term.reports[node]
        found = next(t for t in report.targets if t.target == member.target)
        return (
            member.state is TargetState.SERVING
            and member.target not in self.unfit
            and term.verdicts[node] is Verdict.ALIVE
            and report.generation == term.routing.nodes[node].generation == member.generation
            and found.state is not LocalState.OFFLINE
            and found.store_id == term.targets[member.target].store_id
        )


EVENTS = st.tuples(st.integers(0, 7), st.integers(1, NODES), st.integers(0, len(CHAINS) - 1))


@given(st.lists(st.lists(EVENTS, min_size=1, max_size=3), max_size=20))
def test_it_finds_what_looking_at_all_chains_finds(passes: list[list[tuple[int, int, int]]]) -> None:
    scene = Scene()
    assert scene.found() == scene.expected() == []
    for events in passes:
        for event in events:
            scene.strike(*event)
        assert scene.found() == scene.expected()


def test_it_looks_at_the_chains_of_the_node_that_something_happened_to() -> None:
    scene = Scene()
    scene.found()
    looked_at = scene.index.looked_at_count
    scene.found()
    scene.report(2)  # the same as before
    scene.found()
    assert scene.index.looked_at_count == looked_at
    scene.term.verdicts[NodeId(2)] = Verdict.DEAD
    assert scene.found() == [c for c, nodes in enumerate(CHAINS) if 2 in nodes]
    assert scene.index.looked_at_count == looked_at + sum(2 in nodes for nodes in CHAINS)
