"""Sets of times that do not fit together are refused, each for its reason (design 2.10)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fs3.member.timing import TIMING, Timing

BAD: dict[str, dict[str, float]] = {
    "clock_rate_error must lie between": {"clock_rate_error": 0.0},
    "clock_loss_s must not be negative": {"clock_loss_s": -0.1},
    "a slow holder's lease_s must end": {"grant_factor": 1.0, "grant_margin_s": 0.0},
    "repeat_s must be shorter than beacon_s": {"repeat_s": 0.6},
    "lease_s must outlast two periods": {"beacon_s": 0.7},
    "rpc_after_s must leave time": {"rpc_after_s": 1.1},
    "primary_margin_s must cover": {"primary_margin_s": 0.0},
    "primary_s must outlast three renewals": {"renew_s": 1.0},
    "silence_s must be longer than a grant": {"silence_s": 2.0},
    "no_lease_s must be longer than a lease": {"no_lease_s": 1.5},
    "hint_s must be longer than beacon_s": {"hint_s": 0.5},
    "link_probe_s must lie between": {"link_probe_s": 0.4},
    "link_broken_s must outlast": {"link_broken_s": 1.5},
    "copy_stall_s must be no shorter": {"copy_stall_s": 2.0},
    "slow_s must be longer than two reports": {"slow_s": 6.0},
    "link_quarantine_s must be long enough": {"link_quarantine_s": 2.0},
}


def test_what_production_runs_with_fits() -> None:
    assert TIMING.problem() is None


@pytest.mark.parametrize("reason", BAD)
def test_what_does_not_fit_is_refused(reason: str) -> None:
    problem = replace(TIMING, **BAD[reason]).problem()
    assert problem is not None and problem.startswith(reason), problem


def test_every_rule_has_its_bad_set() -> None:
    texts = [text for _, text in Timing().rules()]
    assert all(any(text.startswith(reason) for reason in BAD) for text in texts), texts
    assert len(texts) == len(BAD)
