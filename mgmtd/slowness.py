"""Targets that are alive and far too slow: a disk that takes seconds where others take milliseconds. PURE.

Targets report how long they lately took to acknowledge an update, that is to make it durable. One that takes
``SLOW_FACTOR`` times the median of its peers (the targets of all other nodes) for ``slow_s`` on end is slow:
operators are told, and its chain does without it, if enough others serve (``chain_machine``). Every write of
a chain waits for its slowest member.

Once out of its chain it is asked for nothing, and so has no pace: it stays out for ``BARRED_S``. A new
generation of its node, after a repair for example, is given another chance at once.

Source: design 2.3.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fs3.ids import Generation, NodeId, TargetId, node_of_target
from fs3.member.timing import Timing
from fs3.wire.mgmtd import TargetReport

SLOW_FACTOR = 20
SLOW_MIN_US = 20_000
"""Faster than this nobody is slow: a median of well-cached disks is small."""
PEERS_MIN = 2
"""So many others must have said something."""
BARRED_S = 600.0
"""A target that is out stays out this long after it was last slow."""


@dataclass(slots=True)
class _Pace:
    generation: Generation
    acknowledge_us: int
    reported_s: float


class Slowness:
    """What one term knows of how fast targets are."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._paces: dict[TargetId, _Pace] = {}
        self._since: dict[TargetId, float] = {}
        self._barred: dict[TargetId, tuple[Generation, float]] = {}
        self.slow: frozenset[TargetId] = frozenset()
        """As of the last judgement."""

    def on_report(self, generation: Generation, targets: Iterable[TargetReport], now_s: float) -> None:
        """A generation of a node reported its targets."""
        for target in targets:
            if target.acknowledge_us > 0:
                self._paces[target.target] = _Pace(generation, target.acknowledge_us, now_s)
            else:
                self._paces.pop(target.target, None)

    def judge(self, now_s: float) -> frozenset[TargetId]:
        """Look at all targets; returns those that are slow and were not the last time."""
        stale_s = now_s - 3 * self._timing.report_s
        self._paces = {t: p for t, p in self._paces.items() if p.reported_s >= stale_s}
        median = _median_of_others({t: p.acknowledge_us for t, p in self._paces.items()})
        for target, pace in self._paces.items():
            others_us = median(node_of_target(target)) if pace.acknowledge_us >= SLOW_MIN_US else None
            if others_us is not None and pace.acknowledge_us >= SLOW_FACTOR * others_us:
                self._since.setdefault(target, now_s)
            else:
                self._since.pop(target, None)
        self._since = {t: since_s for t, since_s in self._since.items() if t in self._paces}
        slow = frozenset(t for t, since_s in self._since.items() if now_s - since_s >= self._timing.slow_s)
        self._barred.update((t, (self._paces[t].generation, now_s + BARRED_S)) for t in slow)
        new, self.slow = slow - self.slow, slow
        return new

    def is_barred(self, target: TargetId, generation: Generation, now_s: float) -> bool:
        """Whether it may not be taken back yet, if it is out."""
        then, until_s = self._barred.get(target, (Generation(0), 0.0))
        return then == generation and now_s < until_s


def _median_of_others(times_us: Mapping[TargetId, int]) -> Callable[[NodeId], float | None]:
    """The median over all targets but those of one node; None: too few have said something."""
    by_time = sorted((time_us, node_of_target(target)) for target, time_us in times_us.items())
    found: dict[NodeId, float | None] = {}

    def median(node: NodeId) -> float | None:
        if node not in found:
            others = [time_us for time_us, other in by_time if other != node]
            found[node] = statistics.median(others) if len(others) >= PEERS_MIN else None
        return found[node]

    return median
