"""What the operations of one storage process work with."""

from __future__ import annotations

from dataclasses import dataclass

from fs3.clock import Clock
from fs3.errors import StaleRouting
from fs3.ids import ChainId, NodeId
from fs3.rpc.service import Caller

from .access import Access
from .dropping import Dropping
from .lanes import Lanes
from .membership import Membership
from .read_counts import ReadCounts
from .resync.source import Resync
from .runner import TargetRunner
from .targets import Targets


@dataclass(frozen=True, slots=True)
class StorageNode:
    """Handed to every operation."""

    node: NodeId
    targets: Targets
    membership: Membership
    access: Access
    caller: Caller
    lanes: Lanes
    clock: Clock
    counts: ReadCounts
    dropping: Dropping
    resync: Resync
    sends_files: bool
    """Payloads may be regions of files (False in a simulated world: they are copied)."""

    def runner(self, chain: ChainId) -> TargetRunner:
        """The target of a chain; StaleRouting: none of this node's is in it."""
        found = self.targets.by_chain.get(chain)
        if found is None:
            raise StaleRouting(f"node {self.node} has no target of chain {chain}")
        return found
