"""The chain model's walks: the machines as they are hold every rule; machines with one mistake do not."""

from __future__ import annotations

from collections import Counter

import pytest

from .chain_mutants import MUTANTS, Mutant
from .chain_walk import FOCI, ChainWalk
from .lease_model import Broken

SAMPLE = ("", "head", "lost", "join", "tail", "link")
QUICK_WALKS_MAX = 3
HAPPENS = ("valid", "two_versions", "restarts", "takeovers", "reads", "writes", "resyncs", "settled")
CHANGES = ("lost", "resume", "leave", "renew", "join", "in_force", "fall_back", "enter")
QUICK = sorted(name for name, mutant in MUTANTS.items() if mutant.walks <= QUICK_WALKS_MAX)
RARE = sorted(name for name, mutant in MUTANTS.items() if mutant.walks > QUICK_WALKS_MAX)


def test_walks_hold_every_rule() -> None:
    counts: Counter[str] = Counter()
    for seed, focus in enumerate(SAMPLE):
        counts.update(ChainWalk(seed, focus=focus).run().counts)
    # a model in which nothing happens would hold as well
    assert min(counts[name] for name in HAPPENS + CHANGES) > 0, counts


def test_a_walk_is_determined_by_its_seed() -> None:
    first, again = (ChainWalk(5, trouble_s=5.0).run() for _ in range(2))
    assert (first.counts, first.committed) == (again.counts, again.committed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("focus", FOCI)
def test_many_walks_hold_every_rule(focus: str) -> None:
    for seed in range(1000, 1100):
        ChainWalk(seed, focus=focus).run()


@pytest.mark.parametrize("mutant", QUICK)
def test_a_mistake_is_found(mutant: str) -> None:
    _assert_found(MUTANTS[mutant])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mutant", RARE)
def test_a_rare_mistake_is_found(mutant: str) -> None:
    _assert_found(MUTANTS[mutant])


def _assert_found(mutant: Mutant) -> None:
    """By the walk that found it, or, since what is drawn may have changed, by twice as many as it took."""
    for seed in (mutant.walks - 1, *range(2 * mutant.walks)):
        try:
            ChainWalk(seed, mutant.machines, focus=mutant.focus).run()
        except Broken:
            return
    pytest.fail(f"{2 * mutant.walks} walks have not found it")
