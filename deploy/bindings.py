"""The embedded store's counters as metrics; its two sides count in small dataclasses and know no metric."""

from __future__ import annotations

from collections.abc import Callable

from fs3.kv.owner import Owner
from fs3.kv.owner_link import LinkStats
from fs3.metrics import Metrics, Rows

OWNER: Rows = {
    "commits": ("fs3_kv_owner_commits_total", {"verdict": "committed"}),
    "conflicts": ("fs3_kv_owner_commits_total", {"verdict": "conflict"}),
    "too_old": ("fs3_kv_owner_commits_total", {"verdict": "too_old"}),
    "invalid": ("fs3_kv_owner_commits_total", {"verdict": "invalid"}),
    "batches": ("fs3_kv_owner_batches_total", {}),
    "batch_s": ("fs3_kv_owner_batch_seconds_total", {}),
    "batch_max_s": ("fs3_kv_owner_batch_max_seconds", {}),
    "refused_batches": ("fs3_kv_owner_refused_batches_total", {}),
    "watches_fired": ("fs3_kv_owner_fired_watches_total", {}),
    "readers_reclaimed": ("fs3_kv_owner_reclaimed_readers_total", {}),
    "connections_refused": ("fs3_kv_owner_refused_connections_total", {}),
    "bad_frames": ("fs3_kv_owner_bad_frames_total", {}),
}
LINK: Rows = {
    "connects": ("fs3_kv_connects_total", {}),
    "losses": ("fs3_kv_losses_total", {}),
    "commits": ("fs3_kv_commits_total", {}),
    "unknown_results": ("fs3_kv_unknown_results_total", {}),
    "timeouts": ("fs3_kv_timeouts_total", {}),
}


def export_owner(metrics: Metrics, owner: Owner) -> None:
    """Export the counters of the store's owner, and what it holds now."""
    metrics.computed_fields(owner.stats, OWNER)
    metrics.computed("fs3_kv_owner_connections", _of_health(owner, "connections"))
    metrics.computed("fs3_kv_owner_watches", _of_health(owner, "watches"))


def export_link(metrics: Metrics, stats: LinkStats) -> None:
    """Export the counters of a process's connection to the store's owner."""
    metrics.computed_fields(stats, LINK)


def _of_health(owner: Owner, key: str) -> Callable[[], float]:
    def read() -> float:
        value = owner.health()[key]
        assert isinstance(value, int), (key, value)
        return value

    return read
