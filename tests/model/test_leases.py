"""The lease model's walks: the machines as they are hold every rule; machines with one mistake do not."""

from __future__ import annotations

from collections import Counter

import pytest

from fs3.mgmtd.chain_machine import Rule

from .lease_model import Broken
from .lease_walk import FOCI, MUTANTS, Walk

SAMPLE = 20
RULES = [rule.value for rule in Rule if rule not in (Rule.REPAIR, Rule.YIELD)]
"""Nobody repairs, and no copying stands still, in these walks."""
MUTANT_WALKS_MAX = 60


def test_walks_hold_every_rule() -> None:
    counts: Counter[str] = Counter()
    for seed in range(SAMPLE):
        counts.update(Walk(seed, focus=FOCI[seed % len(FOCI)]).run().counts)
    # a model in which nothing happens would hold as well
    assert min(counts[name] for name in ("valid", "two_versions", "restarts", *RULES)) > 0
    assert counts["takeovers"] > SAMPLE


def test_a_walk_is_determined_by_its_seed() -> None:
    assert Walk(5, walk_s=15.0).run().counts == Walk(5, walk_s=15.0).run().counts


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("focus", FOCI)
def test_many_walks_hold_every_rule(focus: str) -> None:
    for seed in range(1000, 1150):
        Walk(seed, focus=focus).run()


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_mistake_is_found(mutant: str) -> None:
    _assert_found(mutant)


def _assert_found(mutant: str, walks_max: int = MUTANT_WALKS_MAX) -> None:
    machines, focus = MUTANTS[mutant]
    for seed in range(walks_max):
        try:
            Walk(seed, machines, focus=focus).run()
        except Broken:
            return
    pytest.fail(f"{mutant}: {walks_max} walks have not found it")
