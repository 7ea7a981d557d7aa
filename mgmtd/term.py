"""The primary's picture during one term: routing, who lives, grants, reports, cluster time.

Changed in one place each: routing by ``Writer``, the living by ``Hearing`` and reports, grants by
``Hearing``. Made from the store when a term begins, dropped when it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fs3.ids import ChainId, Generation, NodeId, TargetId, node_of_target
from fs3.member.timing import Timing
from fs3.routing import ChainInfo, NodeInfo, NodeKind
from fs3.wire.mgmtd import TargetReport

from .chain_watch import ChainWatch
from .cluster_time import ClusterClock
from .grants import PrimaryGrants
from .lease import LeaseRecord
from .liveness import Liveness, Verdict
from .routing_log import Changed, RoutingLog
from .slowness import Slowness
from .store import Change, Loaded, TargetRecord, changed_routing
from .waiters import Waiters


@dataclass(slots=True)
class NodeReport:
    """The newest report of a node's generation."""

    generation: Generation
    sequence: int
    version: str
    broken_links: tuple[NodeId, ...]
    targets: tuple[TargetReport, ...]


class Term:
    """Everything that one run as primary knows. ``began_s``: after the store had confirmed the take-over."""

    def __init__(
        self,
        record: LeaseRecord,
        loaded: Loaded,
        began_s: float,
        timing: Timing,
        new_nonce: Callable[[], bytes],
    ) -> None:
        self.record = record
        self.began_s = began_s
        self.timing = timing
        self.routing = loaded.routing
        self.targets: dict[TargetId, TargetRecord] = loaded.targets
        self.store_changes: dict[NodeId, int] = {}
        """How often records of a node's targets have changed."""
        self.chain_of: dict[TargetId, ChainId] = {}
        """The chain of each target that is in one; a target stays in its chain."""
        self._note_members(loaded.routing.chains.values())
        self.log = RoutingLog(loaded.routing.version)
        self.grants = PrimaryGrants(began_s, timing)
        self.liveness = Liveness(began_s, timing, new_nonce)
        self.slowness = Slowness(timing)
        self.chains = ChainWatch()
        self.clock = ClusterClock(loaded.cluster_time_bound_ms, began_s)
        self.reports: dict[NodeId, NodeReport] = {}
        self.verdicts: dict[NodeId, Verdict] = {}
        """As of the last pass."""
        self.change_count = 0
        self.is_over = False
        self.changed = Waiters()
        """Who waits until routing changes or the term ends."""
        for node in loaded.routing.nodes.values():
            if node.node != record.holder:
                self.liveness.register(node.node, node.generation, began_s, heard=False)

    # --- routing ---

    def publish(self, change: Change) -> None:
        """A change is in the store: it is routing now, and whoever waits is told."""
        self.routing = changed_routing(self.routing, change)
        for record in change.targets:
            self.targets[record.target] = record
            node = node_of_target(record.target)
            self.store_changes[node] = self.store_changes.get(node, 0) + 1
        self._note_members(change.chains)
        self.log.note(
            Changed(
                nodes=tuple(n.node for n in change.nodes),
                chains=tuple(c.chain for c in change.chains),
                tables=tuple((t.table, t.version) for t in change.tables),
                uids=tuple(uid for uid, _ in change.key_generations),
            )
        )
        self.change_count += 1
        self.changed.wake()

    def _note_members(self, chains: Iterable[ChainInfo]) -> None:
        self.chain_of.update((member.target, info.chain) for info in chains for member in info.members)

    def end(self) -> None:
        """This process is not the primary of this term any more."""
        self.is_over = True
        self.changed.wake()

    # --- queries ---

    def report_of(self, target: TargetId) -> TargetReport | None:
        """What the target's node last said of it, in its present generation."""
        report = self.reports.get(node_of_target(target))
        if report is None:
            return None
        return next((t for t in report.targets if t.target == target), None)

    def grant_until_s(self, node: NodeId, generation: Generation) -> float:
        """When the last grant to a run is over, for any chain."""
        return self.grants.until_s(node, generation, ChainId(0))

    def verdict(self, info: NodeInfo, now_s: float) -> Verdict:
        """What to think of a registered node now; the primary itself lives."""
        if info.node == self.record.holder:
            return Verdict.ALIVE
        verdict = self.liveness.verdict(info.node, self.grant_until_s(info.node, info.generation), now_s)
        if info.kind is NodeKind.MGMTD and verdict is Verdict.SILENT:
            return Verdict.ALIVE  # a standby sends reports only
        return verdict

    def standing(self, info: ChainInfo) -> str:
        """ "serving", "degraded" (not every member serves and is well) or "unavailable" (nobody does)."""
        well = [
            self.verdicts.get(m.node) is Verdict.ALIVE
            and (node := self.routing.nodes.get(m.node)) is not None
            and node.generation == m.generation
            and not m.joining
            for m in info.serving
        ]
        if not any(well):
            return "unavailable"
        return "serving" if all(well) and len(well) == len(info.members) else "degraded"
