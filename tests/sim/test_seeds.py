"""Seeds of the simulated world: real servers under all that ``trouble`` and ``LinkFaults`` do, each twice."""

from __future__ import annotations

import pytest

from .outcome import Outcome
from .scenario import BRIEF, WHOLE, Size, run_seed

BRIEF_SEEDS = range(2)
MANY_SEEDS = range(100)


def judge(seed: int, size: Size) -> Outcome:
    """Run a seed twice: nothing may be wrong, and both runs must be the same to the last byte."""
    first, second = run_seed(seed, size=size), run_seed(seed, size=size)
    assert not first.problems, "\n".join((f"seed {seed}:", *map(str, first.problems)))
    assert first == second, f"seed {seed} has two histories"
    return first


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", BRIEF_SEEDS)
def test_a_brief_seed(seed: int) -> None:
    outcome = judge(seed, BRIEF)
    assert outcome.shares.operations.total() > 100, outcome


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("start", range(MANY_SEEDS.start, MANY_SEEDS.stop, 5))
def test_five_seeds(start: int) -> None:
    for seed in range(start, start + 5):
        outcome = judge(seed, WHOLE)
        assert outcome.shares.operations.total() >= 500 and outcome.simulated_s >= 60, outcome
