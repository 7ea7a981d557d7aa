"""Which chains concern which nodes, and which of their targets are fine: what a pass need not look at. PURE.

A chain all of whose members serve, in force, on targets that are fine, needs nothing. Of thousands of chains
nearly all are like that, and stay so from pass to pass: an event concerns the chains of one node. So what was
found is kept, and worked out again only for nodes of which something has changed (report, verdict,
generation, stores) and for chains whose record has. It can be kept because it depends on nothing else: not on
time, nor on grants. Chains that are not whole are looked at in every pass, those at the ends of grants too.

Source: design 2.2 (the pass runs on every event).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fs3.ids import ChainId, Generation, NodeId, TargetId, node_of_target
from fs3.routing import ChainInfo, LocalState, NodeInfo, TargetState
from fs3.wire.mgmtd import TargetReport

from .liveness import Verdict

if TYPE_CHECKING:
    from .term import NodeReport, Term

Fine = Mapping[TargetId, Generation]


@dataclass(slots=True)
class _Node:
    """What is known of one node's targets, and from what it follows."""

    report: NodeReport | None = None
    info: NodeInfo | None = None
    is_alive: bool = False
    store_changes: int = -1
    targets: dict[TargetId, TargetReport] = field(default_factory=dict)
    """As reported by the generation that is in the store: only that would a new primary insist on."""
    fine: dict[TargetId, Generation] = field(default_factory=dict)
    """Targets that are heard, and have what they had; and the generation they run in."""


class ChainIndex:
    """Of one term."""

    def __init__(self) -> None:
        self._chains: Mapping[ChainId, ChainInfo] = {}
        self._of_node: dict[NodeId, dict[ChainId, None]] = {}
        self._nodes: dict[NodeId, _Node] = {}
        self._unfit: frozenset[TargetId] = frozenset()
        self._open: dict[ChainId, None] = {}
        self._looked_at_count = 0

    @property
    def looked_at_count(self) -> int:
        """Chains worked out again so far: what events cost."""
        return self._looked_at_count

    def chains_of(self, node: NodeId) -> Iterable[ChainId]:
        """Chains that name a target of a node."""
        return self._of_node.get(node, ())

    def report_of(self, target: TargetId) -> TargetReport | None:
        """What the target's node last said of it, in the generation that is in the store."""
        node = self._nodes.get(node_of_target(target))
        return node.targets.get(target) if node is not None else None

    def open_chains(self, term: Term, unfit: frozenset[TargetId]) -> list[ChainId]:
        """Chains that are not whole, by id. ``unfit``: targets that are not fine although they seem so."""
        again = dict.fromkeys(self._follow(term.routing.chains))
        changed = [node for node in term.reports if self._look_at(term, node)]
        changed += [node_of_target(target) for target in unfit ^ self._unfit]
        self._unfit = unfit
        for node in changed:
            again.update(dict.fromkeys(self.chains_of(node)))
        for chain in again:
            if self._is_whole(term.routing.chains[chain]):
                self._open.pop(chain, None)
            else:
                self._open[chain] = None
        self._looked_at_count += len(again)
        return sorted(self._open)

    def _follow(self, chains: Mapping[ChainId, ChainInfo]) -> list[ChainId]:
        """Take newer records; returns the chains that have them."""
        if chains is self._chains:
            return []
        changed = [chain for chain, info in chains.items() if self._chains.get(chain) is not info]
        for chain in changed:
            if (old := self._chains.get(chain)) is not None:
                for member in old.members:
                    self._of_node[member.node].pop(chain, None)
            for member in chains[chain].members:
                self._of_node.setdefault(member.node, {})[chain] = None
        self._chains = chains
        return changed

    def _look_at(self, term: Term, number: NodeId) -> bool:
        """Work out a node's targets again if need be; whether some are fine that were not, or no more."""
        report, info = term.reports.get(number), term.routing.nodes.get(number)
        is_alive = term.verdicts.get(number) is Verdict.ALIVE
        store_changes = term.store_changes.get(number, 0)
        node = self._nodes.setdefault(number, _Node())
        found = (node.report, node.info, node.is_alive, node.store_changes)
        if found[0] is report and found[1] is info and found[2:] == (is_alive, store_changes):
            return False
        node.report, node.info = report, info
        node.is_alive, node.store_changes = is_alive, store_changes
        is_current = report is not None and info is not None and info.generation == report.generation
        reported = report.targets if is_current and report is not None else ()
        node.targets = {target.target: target for target in reported}
        before, node.fine = node.fine, {}
        if is_alive and info is not None:
            node.fine = {t.target: info.generation for t in reported if _has_what_it_had(term, t)}
        return node.fine != before

    def _is_whole(self, info: ChainInfo) -> bool:
        """Nothing is to be done: every member serves, in force, and is fine in the record's generation."""
        for member in info.members:
            if member.state is not TargetState.SERVING or member.joining or member.target in self._unfit:
                return False
            node = self._nodes.get(member.node)
            if node is None or node.fine.get(member.target) != member.generation:
                return False
        return True


def _has_what_it_had(term: Term, target: TargetReport) -> bool:
    record = term.targets.get(target.target)
    is_sound = target.clean and target.state is not LocalState.OFFLINE
    return is_sound and record is not None and record.store_id == target.store_id
