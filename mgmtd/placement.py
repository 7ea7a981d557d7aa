"""Chain tables: which targets make a chain, so that load and recovery spread over all nodes. PURE.

Given are targets with node, zone and weight. A chain takes ``replication`` targets in as many zones (nodes,
if there are fewer zones than that); each target is in one chain. Of all ways to do it the plan prefers one
in which any two nodes share about the same number of chains: when a node fails, its readers and its
recovery then spread over all others (3FS calls this a balanced incomplete block design). A greedy choice is
followed by swaps that make the sum of squares of the shared counts smaller; each node is head of about its
share of chains.

What cannot be used without breaking zones stays out, the lightest first, and is named in the plan.

Source: design 2.8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fs3.errors import InvalidRequest
from fs3.ids import NodeId, TargetId, node_of_target
from fs3.rng import Rng
from fs3.wire.mgmtd import TargetSpec

SWAPS_PER_CHAIN = 60
SWAPS_MAX = 40_000


@dataclass(frozen=True, slots=True)
class Quality:
    """How even a plan is. Counts are of chains."""

    shared_min: int
    """Fewest chains that two nodes (of different zones) share."""
    shared_max: int
    heads_min: int
    heads_max: int
    peers_min: int
    """Fewest nodes that take part when a node has to be replaced."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Chains in order, head first, and what stays out."""

    chains: tuple[tuple[TargetId, ...], ...]
    unused: tuple[TargetId, ...]
    quality: Quality


def plan_chains(targets: Sequence[TargetSpec], replication: int, rng: Rng) -> Placement:
    """As many chains as zones allow. InvalidRequest: fewer nodes than ``replication``."""
    if not 1 <= replication <= 16:
        raise InvalidRequest(f"replication must lie between 1 and 16, not {replication}")
    node_count = len({node_of_target(t.target) for t in targets})
    if node_count < replication:
        raise InvalidRequest(f"replication {replication} needs as many nodes; targets are on {node_count}")
    zones = {t.target: t.zone or _own_zone(t.target) for t in targets}
    if len(set(zones.values())) < replication:
        zones = {t.target: _own_zone(t.target) for t in targets}
    pools, unused = _pools(targets, zones, replication)
    chains = _choose(pools, replication)
    _improve(chains, zones, rng)
    ordered = _with_heads(chains)
    return Placement(tuple(ordered), tuple(unused), quality_of(ordered))


def _own_zone(target: TargetId) -> str:
    return f"node {node_of_target(target)}"


def _pools(
    targets: Sequence[TargetSpec], zones: dict[TargetId, str], replication: int
) -> tuple[dict[str, list[TargetId]], list[TargetId]]:
    """Targets to use, by zone: exactly enough for the number of chains; and the rest."""
    pools: dict[str, list[TargetSpec]] = {}
    for spec in sorted(targets, key=lambda t: (-t.weight, t.target & 0xFFFF, t.target)):
        pools.setdefault(zones[spec.target], []).append(spec)
    sizes = [len(pool) for pool in pools.values()]
    count = sum(sizes) // replication
    while sum(min(size, count) for size in sizes) < count * replication:
        count -= 1  # a zone gives each chain one target at most
    used = {zone: pool[:count] for zone, pool in sorted(pools.items())}
    unused = [spec.target for pool in pools.values() for spec in pool[count:]]
    while sum(len(pool) for pool in used.values()) > count * replication:
        # the lightest goes; among equals that of the zone with most
        zone = min(used, key=lambda z: (used[z][-1].weight if used[z] else 1 << 62, -len(used[z]), z))
        unused.append(used[zone].pop().target)
    return {zone: [spec.target for spec in pool] for zone, pool in used.items()}, sorted(unused)


def _pair(one: TargetId, other: TargetId) -> tuple[NodeId, NodeId]:
    a, b = node_of_target(one), node_of_target(other)
    return (a, b) if a < b else (b, a)


def _choose(pools: dict[str, list[TargetId]], replication: int) -> list[list[TargetId]]:
    """Greedy: zones that must give to every chain that is left first, then who shares least."""
    count = sum(len(pool) for pool in pools.values()) // replication
    shared: Counter[tuple[NodeId, NodeId]] = Counter()
    chains: list[list[TargetId]] = []
    for left in range(count, 0, -1):
        chain: list[TargetId] = []
        open_zones = {zone: pool for zone, pool in pools.items() if pool}
        while len(chain) < replication:
            forced = [zone for zone, pool in open_zones.items() if len(pool) >= left]
            choice = _least_shared(forced or list(open_zones), pools, chain, shared)
            chain.append(choice[1])
            pools[choice[0]].remove(choice[1])
            del open_zones[choice[0]]
        for position, one in enumerate(chain):
            for other in chain[position + 1 :]:
                shared[_pair(one, other)] += 1
        chains.append(chain)
    return chains


def _least_shared(
    zones: list[str],
    pools: dict[str, list[TargetId]],
    chain: list[TargetId],
    shared: Counter[tuple[NodeId, NodeId]],
) -> tuple[str, TargetId]:
    best: tuple[tuple[int, int, int], str, TargetId] | None = None
    for zone in zones:
        seen: dict[NodeId, None] = {}
        for target in pools[zone]:
            node = node_of_target(target)
            if node in seen:
                continue  # targets of one node are alike
            seen[node] = None
            cost = sum(shared[_pair(target, other)] ** 2 + shared[_pair(target, other)] for other in chain)
            rank = (cost, -len(pools[zone]), int(target))
            if best is None or rank < best[0]:
                best = (rank, zone, target)
    assert best is not None, (zones, chain)
    return best[1], best[2]


def _improve(chains: list[list[TargetId]], zones: dict[TargetId, str], rng: Rng) -> None:
    """Swap members between chains while that makes the shared counts more even."""
    if len(chains) < 2 or len(chains[0]) < 2:
        return
    shared: Counter[tuple[NodeId, NodeId]] = Counter()
    for chain in chains:
        shared.update(_pair(a, b) for i, a in enumerate(chain) for b in chain[i + 1 :])
    for _ in range(min(SWAPS_MAX, SWAPS_PER_CHAIN * len(chains))):
        first, second = chains[rng.randrange(len(chains))], chains[rng.randrange(len(chains))]
        i, j = rng.randrange(len(first)), rng.randrange(len(second))
        if first is second or not _may_swap(first, i, second, j, zones):
            continue
        if _gain(first, i, second, j, shared) > 0:
            first[i], second[j] = second[j], first[i]


def _may_swap(
    first: list[TargetId], i: int, second: list[TargetId], j: int, zones: dict[TargetId, str]
) -> bool:
    one, other = first[i], second[j]
    if node_of_target(one) == node_of_target(other):
        return False
    return all(zones[other] != zones[t] for k, t in enumerate(first) if k != i) and all(
        zones[one] != zones[t] for k, t in enumerate(second) if k != j
    )


def _gain(
    first: list[TargetId],
    i: int,
    second: list[TargetId],
    j: int,
    shared: Counter[tuple[NodeId, NodeId]],
) -> int:
    """By how much a swap lowers the sum of squares; ``shared`` is left as after it only if it does."""
    one, other = first[i], second[j]
    before = [_pair(one, t) for k, t in enumerate(first) if k != i]
    before += [_pair(other, t) for k, t in enumerate(second) if k != j]
    after = [_pair(other, t) for k, t in enumerate(first) if k != i]
    after += [_pair(one, t) for k, t in enumerate(second) if k != j]
    gain = 0
    for pair in before:
        gain += 2 * shared[pair] - 1
        shared[pair] -= 1
    for pair in after:
        gain -= 2 * shared[pair] + 1
        shared[pair] += 1
    if gain <= 0:
        shared.subtract(after)
        shared.update(before)
    return gain


def _with_heads(chains: list[list[TargetId]]) -> list[tuple[TargetId, ...]]:
    """Members in such an order that each node is head, and last, about equally often."""
    heads: Counter[NodeId] = Counter()
    lasts: Counter[NodeId] = Counter()
    ordered = []
    for chain in chains:
        head = min(chain, key=lambda t: (heads[node_of_target(t)], t))
        rest = [t for t in chain if t != head]
        rest.sort(key=lambda t: (-lasts[node_of_target(t)], t))  # who was last least often comes last
        heads[node_of_target(head)] += 1
        lasts[node_of_target(rest[-1] if rest else head)] += 1
        ordered.append((head, *rest))
    return ordered


def quality_of(chains: Sequence[Sequence[TargetId]]) -> Quality:
    """How even a set of chains is, over the nodes that are in it."""
    nodes = sorted({node_of_target(t) for chain in chains for t in chain})
    shared: Counter[tuple[NodeId, NodeId]] = Counter()
    heads: Counter[NodeId] = Counter()
    for chain in chains:
        shared.update(_pair(a, b) for i, a in enumerate(chain) for b in chain[i + 1 :])
        heads[node_of_target(chain[0])] += 1
    counts = [shared[a, b] for i, a in enumerate(nodes) for b in nodes[i + 1 :]]
    peers = [sum(1 for b in nodes if shared[min(a, b), max(a, b)] and a != b) for a in nodes]
    return Quality(
        shared_min=min(counts, default=0),
        shared_max=max(counts, default=0),
        heads_min=min((heads[n] for n in nodes), default=0),
        heads_max=max((heads[n] for n in nodes), default=0),
        peers_min=min(peers, default=0),
    )
