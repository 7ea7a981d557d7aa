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

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping
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


@dataclass(frozen=True, slots=True)
class _Report:
    """A node's newest."""

    generation: Generation
    at_s: float
    times_us: dict[TargetId, int]
    """Of those that have something to say."""


class Slowness:
    """What one term knows of how fast targets are."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._reports: dict[NodeId, _Report] = {}
        self._since: dict[TargetId, float] = {}
        self._barred: dict[TargetId, tuple[Generation, float]] = {}
        self._judge_from_s = -math.inf
        self.slow: frozenset[TargetId] = frozenset()
        """As of the last judgement."""

    def on_report(
        self, node: NodeId, generation: Generation, targets: Iterable[TargetReport], now_s: float
    ) -> None:
        """A generation of a node reported its targets."""
        times_us = {t.target: t.acknowledge_us for t in targets if t.acknowledge_us > 0}
        self._reports[node] = _Report(generation, now_s, times_us)
        for target in [t for t in self._since if node_of_target(t) == node]:
            if times_us.get(target, 0) < SLOW_MIN_US:
                del self._since[target]

    def judge(self, now_s: float) -> frozenset[TargetId]:
        """Look at all targets, if it is time; returns those that are slow and were not the last time."""
        if now_s < self._judge_from_s:
            return frozenset()
        self._judge_from_s = now_s + self._timing.report_s  # nothing new is said earlier
        stale_s = now_s - 3 * self._timing.report_s
        self._reports = {n: r for n, r in self._reports.items() if r.at_s >= stale_s}
        behind = self._behind()
        self._since = {target: self._since.get(target, now_s) for target in behind}
        slow = frozenset(t for t, since_s in self._since.items() if now_s - since_s >= self._timing.slow_s)
        self._barred.update((t, (behind[t], now_s + BARRED_S)) for t in slow)
        new, self.slow = slow - self.slow, slow
        return new

    def _behind(self) -> dict[TargetId, Generation]:
        """Targets that are far slower than their peers now, and their generation."""
        median = _median_of_others({node: r.times_us.values() for node, r in self._reports.items()})
        found: dict[TargetId, Generation] = {}
        for node, report in self._reports.items():
            for target, time_us in report.times_us.items():
                others_us = median(node) if time_us >= SLOW_MIN_US else None
                if others_us is not None and time_us >= SLOW_FACTOR * others_us:
                    found[target] = report.generation
        return found

    def is_barred(self, target: TargetId, generation: Generation, now_s: float) -> bool:
        """Whether it may not be taken back yet, if it is out."""
        then, until_s = self._barred.get(target, (Generation(0), 0.0))
        return then == generation and now_s < until_s


def _median_of_others(times_us: Mapping[NodeId, Collection[int]]) -> Callable[[NodeId], float | None]:
    """The median over all targets but those of one node; None: too few have said something.

    Worked out for those who ask only: mostly nobody is slow enough to be compared.
    """
    by_time: list[tuple[int, NodeId]] = []
    found: dict[NodeId, float | None] = {}

    def median(node: NodeId) -> float | None:
        if not by_time:
            by_time.extend(sorted((time_us, one) for one, times in times_us.items() for time_us in times))
        if node not in found:
            others = [time_us for time_us, other in by_time if other != node]
            found[node] = statistics.median(others) if len(others) >= PEERS_MIN else None
        return found[node]

    return median
