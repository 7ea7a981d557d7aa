"""Sums over many seeds, as text and as ``build/sim/report.json``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .outcome import Judged
from .seen import Shares

JUDGED_SEEDS_MIN = 2_000
"""With so many seeds a fault or a branch that never came makes the run fail: the generator is too tame."""
READ_SHARE_MIN = 0.20
OVERLAP_SHARE_MIN = 0.30


@dataclass(slots=True)
class Report:
    """What a run came to."""

    fault_names: Iterable[str]
    branch_names: Iterable[str]
    seeds: list[int] = field(default_factory=list)
    bad: list[Judged] = field(default_factory=list)
    shares: Shares = field(default_factory=Shares)
    faults: Counter[str] = field(default_factory=Counter)
    branches: Counter[str] = field(default_factory=Counter)
    simulated_s: float = 0.0
    least_operations: int = 1 << 62
    least_simulated_s: float = float("inf")
    cpu_s: float = 0.0
    took_s: float = 0.0
    coverage: dict[str, float] = field(default_factory=dict)

    def add(self, judged: Judged) -> None:
        """One more seed."""
        outcome = judged.outcome
        self.seeds.append(outcome.seed)
        self.cpu_s += judged.cpu_s
        self.shares.add(outcome.shares)
        self.faults.update(dict(outcome.faults))
        self.branches.update(dict(outcome.branches))
        self.simulated_s += outcome.simulated_s
        if judged.is_bad:
            self.bad.append(judged)
        else:
            self.least_operations = min(self.least_operations, outcome.shares.operations.total())
            self.least_simulated_s = min(self.least_simulated_s, outcome.simulated_s)

    @property
    def never(self) -> list[str]:
        """Faults that never struck, branches that were never taken."""
        faults = [f"fault: {name}" for name in self.fault_names if not self.faults[name]]
        return faults + [f"branch: {name}" for name in self.branch_names if not self.branches[name]]

    @property
    def read_shares(self) -> dict[str, float]:
        """Of pieces read from whole chains: what each place in the chain gave."""
        total = self.shares.reads_at.total()
        return {place: count / total for place, count in sorted(self.shares.reads_at.items())}

    @property
    def overlap_share(self) -> float:
        """Of operations on shared chunks: those that overlapped another one on the same chunk."""
        return self.shares.overlapping / max(1, self.shares.chunk_operations)

    @property
    def too_tame(self) -> list[str]:
        """What the workload should have done and did not."""
        found = [
            f"{place} of chains gave {share:.0%} of the reads"
            for place, share in self.read_shares.items()
            if share < READ_SHARE_MIN
        ]
        if self.shares.chunk_operations and self.overlap_share < OVERLAP_SHARE_MIN:
            found.append(f"only {self.overlap_share:.0%} of the operations on chunks overlapped another one")
        return found

    @property
    def has_failed(self) -> bool:
        """Whether the run's exit code is 1."""
        is_judged = len(self.seeds) >= JUDGED_SEEDS_MIN
        return bool(self.bad) or (is_judged and bool(self.never or self.too_tame))

    def lines(self) -> list[str]:
        """For people."""
        count, shares = len(self.seeds), self.shares
        found = [
            f"{count} seeds in {self.took_s:.1f} s ({count / max(self.took_s, 0.001):.2f} seeds/s, "
            f"{self.cpu_s / max(count, 1):.2f} s of CPU each): {len(self.bad)} bad",
            f"{shares.operations.total()} operations of clients (at least {self.least_operations} a seed), "
            f"{self.simulated_s:.0f} simulated s (at least {self.least_simulated_s:.0f} a seed)",
            *_table("operations", shares.operations),
            f"{self.overlap_share:.1%} of {shares.chunk_operations} operations on shared chunks overlapped "
            "another one on the same chunk",
            "reads given by " + ", ".join(f"{p} {s:.1%}" for p, s in self.read_shares.items()),
            *_table("readers that stick to a replica and to old routing", shares.pinned_reads),
            *_table("faults that struck", self.faults),
            *_table("rare branches taken", self.branches),
        ]
        found += [f"too tame: {text}" for text in self.too_tame]
        found += [f"never in {count} seeds: {name}" for name in self.never]
        found += [f"line coverage of {name}: {share:.1%}" for name, share in self.coverage.items()]
        return found

    def write(self, path: Path) -> None:
        """For programs."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "seeds": len(self.seeds),
            "first_seed": min(self.seeds, default=0),
            "bad": {
                str(one.outcome.seed): [str(problem) for problem in one.outcome.problems] for one in self.bad
            },
            "took_s": round(self.took_s, 1),
            "seeds_per_s": round(len(self.seeds) / max(self.took_s, 0.001), 3),
            "cpu_s_per_seed": round(self.cpu_s / max(len(self.seeds), 1), 3),
            "operations": dict(sorted(self.shares.operations.items())),
            "operations_total": self.shares.operations.total(),
            "simulated_s": round(self.simulated_s),
            "overlap_share": round(self.overlap_share, 4),
            "read_shares": {place: round(share, 4) for place, share in self.read_shares.items()},
            "pinned_reads": dict(sorted(self.shares.pinned_reads.items())),
            "faults": dict(sorted(self.faults.items())),
            "branches": dict(sorted(self.branches.items())),
            "never": self.never,
            "too_tame": self.too_tame,
            "coverage": {name: round(share, 4) for name, share in self.coverage.items()},
        }
        path.write_text(json.dumps(content, indent=1) + "\n")


def _table(title: str, counts: Counter[str]) -> list[str]:
    return [f"{title}:", *(f"{count:10} × {name}" for name, count in sorted(counts.items()))]


def bad_lines(judged: Judged) -> list[str]:
    """What is to be said of a seed that failed."""
    outcome = judged.outcome
    return [
        f"seed {outcome.seed} is bad; again: python -m tests.sim --seed {outcome.seed}",
        *(f"  {problem}" for problem in outcome.problems),
        *(f"    {line}" for line in judged.story),
    ]
