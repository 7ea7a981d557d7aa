"""Links between nodes that are broken, although both ends are otherwise well. PURE: time is an argument.

Nodes name in their beacons whom they cannot reach. A link counts as broken when one of its ends has named
the other for ``link_broken_s`` on end, during which the primary regarded both as alive. From then on it is
watched: until it has held for ``link_quarantine_s``, neither end enters a chain that the other one is in.

What follows is decided for each chain by itself (``loser``): the end with more broken links goes, then the
successor; at most one member a chain, and never the last one in force. A node that all others fail to reach
thus leaves all its chains, and of two nodes with one bad cable each chain keeps the one that comes first.

Source: design 2.3.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from fs3.ids import NodeId
from fs3.member.timing import Timing
from fs3.routing import ChainInfo, Member, TargetState

Link = tuple[NodeId, NodeId]
"""Two nodes, the lower id first."""


class Links:
    """What one term knows of links."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._named: dict[NodeId, dict[NodeId, float]] = {}
        """Whom each node names as out of reach, and since when: both ends have been alive from then on."""
        self._watched: dict[Link, float] = {}
        """Links that were broken, and when they last were."""
        self.broken: frozenset[Link] = frozenset()
        """As of the last judgement."""

    def on_beacon(self, node: NodeId, unreachable: Iterable[NodeId], now_s: float) -> None:
        """A node says whom it cannot reach: of whom it said so before, since then."""
        before = self._named.pop(node, {})
        if named := {peer: before.get(peer, now_s) for peer in unreachable if peer != node}:
            self._named[node] = named

    def forget(self, node: NodeId) -> None:
        """A new generation of a node has said nothing yet."""
        self._named.pop(node, None)

    def judge(self, is_alive: Callable[[NodeId], bool], now_s: float) -> tuple[list[Link], list[Link]]:
        """Look at all links; returns those that broke, and those that have held.

        ``is_alive``: the present verdict. While an end is not alive, the count does not begin.
        """
        timing = self._timing
        broken: dict[Link, None] = {}
        for node, named in self._named.items():
            for peer, since_s in named.items():
                if not (is_alive(node) and is_alive(peer)):
                    named[peer] = now_s
                elif now_s - since_s >= timing.link_broken_s:
                    broken[link(node, peer)] = None
        new = [one for one in broken if one not in self._watched]
        self._watched.update(dict.fromkeys(broken, now_s))
        held = [one for one, last_s in self._watched.items() if now_s - last_s >= timing.link_quarantine_s]
        for one in held:
            del self._watched[one]
        self.broken = frozenset(broken)
        return new, held

    def next_change_s(self, now_s: float) -> float:
        """When a judgement can differ by time alone."""
        due = [s + self._timing.link_broken_s for named in self._named.values() for s in named.values()]
        due += [s + self._timing.link_quarantine_s for s in self._watched.values()]
        return min((moment for moment in due if moment > now_s), default=math.inf)

    @property
    def has_any(self) -> bool:
        """Some link is broken, or is being watched."""
        return bool(self._watched)

    def broken_counts(self) -> Counter[NodeId]:
        """How many broken links each node has."""
        return Counter(node for one in self.broken for node in one)

    def watched_between(self, node: NodeId, others: Iterable[NodeId]) -> Link | None:
        """A link between a node and one of the others that has not held long enough."""
        return next((one for other in others if (one := link(node, other)) in self._watched), None)


def link(one: NodeId, other: NodeId) -> Link:
    """The link between two nodes."""
    return (one, other) if one < other else (other, one)


def loser(info: ChainInfo, broken: frozenset[Link], counts: Counter[NodeId]) -> tuple[Member, Link] | None:
    """The member that a chain is to lose for a broken link, and which link that is; None: nobody."""
    in_force = [m for m in info.serving if not m.joining]
    found = None
    for _, member, between in _ends(info, broken, counts):
        if not (member.state is TargetState.SERVING and in_force == [member]):
            found = member, between  # the later, the worse
    return found


def _ends(
    info: ChainInfo, broken: frozenset[Link], counts: Counter[NodeId]
) -> Iterator[tuple[tuple[int, int], Member, Link]]:
    """Both ends of each broken link of a chain, those that had better stay first."""
    users = [m for m in info.members if m.state in (TargetState.SERVING, TargetState.SYNCING)]
    found = []
    for place, later in enumerate(users):
        for earlier in users[:place]:
            if (one := link(earlier.node, later.node)) in broken:
                found.append(((counts[earlier.node], users.index(earlier)), earlier, one))
                found.append(((counts[later.node], place), later, one))
    return iter(sorted(found, key=lambda end: end[0]))
