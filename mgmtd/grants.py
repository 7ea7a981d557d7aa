"""The primary's grants: to whom it answered when, and for which chains. PURE.

A grant is to one generation of a node and covers all its chains but those that are being taken out of it
(planned removal: first it stops covering, then it waits). ``until_s`` tells when a replica is certainly
without the primary's lease; nothing that leaves a replica out is written before.

A new primary knows no grant of its predecessor's: until G after its take-over every replica counts as
granted (the last of those grants was made before the take-over).

Source: design 2.2, 2.4.
"""

from __future__ import annotations

import math

from fs3.ids import ChainId, Generation, NodeId
from fs3.member.timing import Timing

Run = tuple[NodeId, Generation]


class PrimaryGrants:
    """All grants of one term, which began (the store had confirmed it) at ``began_s``."""

    def __init__(self, began_s: float, timing: Timing) -> None:
        self.floor_s = began_s + timing.grant_s
        """Nobody is left out before this."""
        self._grant_s = timing.grant_s
        self._until: dict[Run, float] = {}
        self._uncovered: dict[Run, dict[ChainId, float]] = {}

    def grant(self, node: NodeId, generation: Generation, now_s: float) -> tuple[ChainId, ...]:
        """A grant is answered now; returns the chains that it does not cover."""
        self._until[node, generation] = now_s + self._grant_s
        return tuple(self._uncovered.get((node, generation), ()))

    def stop_covering(self, node: NodeId, generation: Generation, chain: ChainId) -> None:
        """From now on grants to this run leave ``chain`` out."""
        run = (node, generation)
        self._uncovered.setdefault(run, {}).setdefault(chain, self._until.get(run, -math.inf))

    def cover(self, node: NodeId, generation: Generation, chain: ChainId) -> None:
        """Grants to this run cover ``chain`` again."""
        self._uncovered.get((node, generation), {}).pop(chain, None)

    def until_s(self, node: NodeId, generation: Generation, chain: ChainId) -> float:
        """When the last grant to this run that covers ``chain`` is over, a predecessor's included."""
        run = (node, generation)
        own_s = self._uncovered.get(run, {}).get(chain, self._until.get(run, -math.inf))
        return max(self.floor_s, own_s)

    def forget(self, keep: dict[NodeId, Generation], now_s: float) -> None:
        """Drop what is over of runs that are no node's present one."""
        for run in [r for r, end in self._until.items() if end < now_s and keep.get(r[0]) != r[1]]:
            del self._until[run]
            self._uncovered.pop(run, None)
