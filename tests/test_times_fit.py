"""Times of different components that are safe together only (design 2.10)."""

from __future__ import annotations

from fs3.client.reader import ATTEMPT_TIMEOUT_S
from fs3.client.settings import BOUNDED
from fs3.identity.capability import CAPABILITY_MS
from fs3.member.timing import TIMING
from fs3.meta.session import LOST_AFTER_S, RENEW_EVERY_S, RENEWAL_WRITE_S
from fs3.meta.workers.leases import RENEW_S, TAKE_OVER_S
from fs3.storage.retention import BLIND_RENEWAL_MS, RETENTION_MS


def test_a_request_is_given_up_before_its_session() -> None:
    assert BOUNDED.meta_timeout_s < LOST_AFTER_S
    assert ATTEMPT_TIMEOUT_S < LOST_AFTER_S


def test_a_session_outlasts_renewals_that_are_written_seldom() -> None:
    assert 2 * (RENEWAL_WRITE_S + RENEW_EVERY_S) < LOST_AFTER_S


def test_epochs_and_tombstones_outlast_every_capability_and_session() -> None:
    assert CAPABILITY_MS + BLIND_RENEWAL_MS + LOST_AFTER_S * 1000 < RETENTION_MS


def test_work_changes_hands_after_renewals_only() -> None:
    assert 3 * RENEW_S < TAKE_OVER_S


def test_chains_lose_a_dead_node_before_requests_give_up() -> None:
    dead_s = TIMING.silence_s + 2 * TIMING.grant_s
    broken_s = TIMING.link_probe_s + TIMING.hint_s + TIMING.link_broken_s + 2 * TIMING.grant_s
    assert max(dead_s, broken_s) < 10.0 < BOUNDED.read_timeout_s
