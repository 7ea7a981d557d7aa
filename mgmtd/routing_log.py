"""What changed in routing, version by version: deltas for those who know an earlier one. PURE.

Bounded: whoever knows only what has been forgotten gets the whole picture.

Source: design 2.5.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from fs3.ids import ChainId, ChainTableId, NodeId
from fs3.routing import RoutingDelta, RoutingInfo

CHANGES_MAX = 4096
ITEMS_MAX = 65_536
"""Changed records over all remembered versions: the log's memory, whatever one change contains."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What one version changed, by name."""

    nodes: tuple[NodeId, ...] = ()
    chains: tuple[ChainId, ...] = ()
    tables: tuple[tuple[ChainTableId, int], ...] = ()
    uids: tuple[int, ...] = ()

    @property
    def item_count(self) -> int:
        return len(self.nodes) + len(self.chains) + len(self.tables) + len(self.uids)


class RoutingLog:
    """The last changes, from the version after ``start_version`` on."""

    def __init__(self, start_version: int) -> None:
        self._first_known = start_version
        self._changes: deque[Changed] = deque(maxlen=CHANGES_MAX)
        self._item_count = 0

    def note(self, changed: Changed) -> None:
        """The next version exists."""
        if len(self._changes) == CHANGES_MAX:
            self._forget()
        self._changes.append(changed)
        self._item_count += changed.item_count
        while self._item_count > ITEMS_MAX:
            self._forget()

    def _forget(self) -> None:
        self._item_count -= self._changes.popleft().item_count
        self._first_known += 1

    def delta(self, routing: RoutingInfo, known_version: int) -> RoutingDelta | None:
        """From ``known_version`` to ``routing``; None: nothing newer. Full if the change is forgotten."""
        assert routing.version == self._first_known + len(self._changes), (routing.version, self._first_known)
        if known_version >= routing.version:
            return None
        if known_version < self._first_known or known_version == 0:
            return full_delta(routing)
        nodes: dict[NodeId, None] = {}
        chains: dict[ChainId, None] = {}
        tables: dict[tuple[ChainTableId, int], None] = {}
        uids: dict[int, None] = {}
        for position in range(known_version - self._first_known, len(self._changes)):
            changed = self._changes[position]
            nodes.update(dict.fromkeys(changed.nodes))
            chains.update(dict.fromkeys(changed.chains))
            tables.update(dict.fromkeys(changed.tables))
            uids.update(dict.fromkeys(changed.uids))
        return RoutingDelta(
            cluster_id=routing.cluster_id,
            base_version=known_version,
            version=routing.version,
            nodes=tuple(routing.nodes[n] for n in nodes if n in routing.nodes),
            gone_nodes=tuple(n for n in nodes if n not in routing.nodes),
            chains=tuple(routing.chains[c] for c in chains),
            tables=tuple(t for t in routing.tables if (t.table, t.version) in tables),
            key_generations=tuple((uid, routing.key_generations[uid]) for uid in uids),
        )


def full_delta(routing: RoutingInfo) -> RoutingDelta:
    """The whole picture as a delta from nothing."""
    return RoutingDelta(
        cluster_id=routing.cluster_id,
        base_version=0,
        version=routing.version,
        nodes=tuple(routing.nodes.values()),
        chains=tuple(routing.chains.values()),
        tables=routing.tables,
        key_generations=tuple(routing.key_generations.items()),
    )
