"""Each mistake is noticed by its tests and walks; in CI a tenth of them, another one with each commit."""

from __future__ import annotations

import pytest

from .judging import Verdict, jobs_of, run_job
from .table import MISTAKES


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_a_mistake_is_noticed(name: str) -> None:
    results = [(job.label, run_job(job, name)) for job in jobs_of(MISTAKES[name], seeds=0)]
    assert any(result.verdict is Verdict.CAUGHT for _, result in results), results
    assert all(result.verdict is not Verdict.UNSEEN for _, result in results), results
