"""What a seed came to. Imports nothing of the product but names, so that who only counts needs no servers."""

from __future__ import annotations

from dataclasses import dataclass, field

from .seen import NO_BUG, Problem, Shares

Counts = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a seed came to; two runs of a seed have equal ones."""

    seed: int
    problems: tuple[Problem, ...] = ()
    trace: str = ""
    simulated_s: float = 0.0
    shares: Shares = field(default_factory=Shares)
    faults: Counts = ()
    branches: Counts = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """An outcome, what it took, and what is to be told if it is bad."""

    outcome: Outcome
    cpu_s: float = 0.0
    story: tuple[str, ...] = ()

    @property
    def is_bad(self) -> bool:
        return bool(self.outcome.problems)


def broken_off(seed: int, text: str) -> Judged:
    """A seed that did not come to its end."""
    return Judged(Outcome(seed, (Problem(NO_BUG, text),)))
