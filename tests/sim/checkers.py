"""What must hold of what clients saw and of what is left behind. Pure but for reading stores.

``linearizable`` judges a register whose written values are all different, by zones (Gibbons and Korach,
"Testing shared memories", 1997): the operations of one value form a cluster; if its first end lies before its
last start the cluster occupies that stretch (a forward zone), else all its operations overlap (a backward
zone). The history is linearizable exactly if no two forward zones overlap and no backward zone lies within a
forward one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

INITIAL = 0
"""The value before any write."""


@dataclass(slots=True)
class Cluster:
    """One value of a register: its write, and the reads that returned it."""

    write_start_s: float
    write_end_s: float
    """inf: its outcome is not known (it may still happen)."""
    ends: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Register:
    """The history of one register."""

    name: str
    clusters: dict[int, Cluster] = field(
        default_factory=lambda: {INITIAL: Cluster(-math.inf, -math.inf, [-math.inf], [-math.inf])}
    )
    read_count: int = 0

    def wrote(self, value: int, start_s: float, end_s: float) -> None:
        """A write began and ended (``end_s`` inf: unknown)."""
        assert value not in self.clusters, f"{self.name}: {value} written twice"
        self.clusters[value] = Cluster(start_s, end_s, [end_s], [start_s])

    def began(self, value: int, start_s: float) -> None:
        """A write began; until ``ended`` its outcome is unknown."""
        self.wrote(value, start_s, math.inf)

    def ended(self, value: int, end_s: float) -> None:
        """The write of ``value`` was acknowledged."""
        cluster = self.clusters[value]
        cluster.write_end_s = end_s
        cluster.ends.append(end_s)

    def read(self, value: int, start_s: float, end_s: float) -> str:
        """A read returned ``value``; returns what is impossible about it by itself, or ""."""
        self.read_count += 1
        cluster = self.clusters.get(value)
        if cluster is None:
            return f"{self.name}: read {value}, which was never written"
        if cluster.write_start_s > end_s:
            return f"{self.name}: read {value} before its write began"
        cluster.starts.append(start_s)
        cluster.ends.append(end_s)
        return ""


def linearizable(register: Register) -> str:
    """ "" if the register's history is linearizable, else what is wrong with it."""
    forward: list[tuple[float, float, int]] = []
    backward: list[tuple[float, float, int]] = []
    for value, cluster in register.clusters.items():
        if cluster.write_end_s == math.inf and len(cluster.starts) == 1:
            continue  # nobody read it: it may never have happened
        first_end, last_start = min(cluster.ends), max(cluster.starts)
        if first_end < last_start:
            forward.append((first_end, last_start, value))
        else:
            backward.append((last_start, first_end, value))
    forward.sort()
    for (_, end_s, value), (start_s, _, later) in pairwise(forward):
        if start_s < end_s:
            return f"{register.name}: {value} and {later} were each seen before and after the other"
    for start_s, end_s, value in backward:
        for low, high, around in forward:
            if low < start_s and end_s < high:
                return f"{register.name}: {around} was seen before and after {value}"
    return ""


def replicas_identical(replicas: Iterable[tuple[str, dict[object, object]]], chain: int) -> list[str]:
    """Differences between the replicas of a chain: each (name, chunk -> what is committed)."""
    found: list[str] = []
    (first_name, first), *others = replicas
    for name, content in others:
        found += [
            f"chain {chain}, {chunk}: {first_name} has {first.get(chunk)}, {name} has {content.get(chunk)}"
            for chunk in sorted(set(first) | set(content), key=str)
            if first.get(chunk) != content.get(chunk)
        ]
    return found
