"""Seeds of the simulated world: real servers under all that ``trouble`` and ``LinkFaults`` do, each twice."""

from __future__ import annotations

import pytest

from .scenario import Outcome, run_seed

DEFAULT_SEEDS = range(6)
MANY_SEEDS = range(6, 200)


def judge(seed: int) -> Outcome:
    """Run a seed twice: nothing may be wrong, and both runs must be the same to the last byte."""
    first, second = run_seed(seed), run_seed(seed)
    assert not first.problems, "\n".join(
        (f"seed {seed} (python -m tests.sim --seed {seed}):", *first.problems)
    )
    assert first == second, f"seed {seed} has two histories"
    return first


@pytest.mark.parametrize("seed", DEFAULT_SEEDS)
def test_a_seed(seed: int) -> None:
    outcome = judge(seed)
    assert outcome.operation_count >= 180 and outcome.read_count > 20, outcome


@pytest.mark.slow
@pytest.mark.parametrize("start", range(MANY_SEEDS.start, MANY_SEEDS.stop, 10))
def test_ten_seeds(start: int) -> None:
    for seed in range(start, min(start + 10, MANY_SEEDS.stop)):
        judge(seed)
