"""Hands the plain counters of the core's layers to the metrics of a daemon.

The layers count in small dataclasses and know no metric; here stands which field is which row of the
catalogue. ``BOUND`` is complete: a test compares it with the fields, so that a new counter is not forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from fs3.kv.owner import Owner, OwnerStats
from fs3.kv.owner_link import LinkStats
from fs3.metrics import Metrics
from fs3.rpc.bulk_client import BulkClientCounters
from fs3.rpc.counters import ClientCounters, ServerCounters


class To(NamedTuple):
    """The metric that a field becomes: name and labels."""

    name: str
    labels: dict[str, str] = {}  # noqa: RUF012  # never changed


BOUND: dict[type[object], dict[str, To]] = {
    ServerCounters: {
        "connections": To("fs3_rpc_connections"),
        "accepted": To("fs3_rpc_accepted_connections_total"),
        "refused_handshakes": To("fs3_rpc_refused_total", {"reason": "handshake"}),
        "refused_connections": To("fs3_rpc_refused_total", {"reason": "connections"}),
        "bad_frames": To("fs3_rpc_bad_frames_total"),
        "bad_requests": To("fs3_rpc_refused_total", {"reason": "bad_request"}),
        "busy": To("fs3_rpc_refused_total", {"reason": "busy"}),
        "cancelled": To("fs3_rpc_ended_calls_total", {"reason": "cancelled"}),
        "expired": To("fs3_rpc_ended_calls_total", {"reason": "deadline"}),
        "stalled": To("fs3_rpc_stalled_connections_total"),
        "bugs": To("fs3_rpc_ended_calls_total", {"reason": "bug"}),
        "in_flight": To("fs3_rpc_in_flight_calls"),
        "received_bytes": To("fs3_rpc_received_bytes_total"),
        "sent_bytes": To("fs3_rpc_sent_bytes_total"),
    },
    ClientCounters: {
        "connections": To("fs3_rpc_client_connections"),
        "connected": To("fs3_rpc_client_connects_total", {"plane": "small", "outcome": "ok"}),
        "failed_connects": To("fs3_rpc_client_connects_total", {"plane": "small", "outcome": "failed"}),
        "lost": To("fs3_rpc_client_lost_total", {"plane": "small"}),
        "calls": To("fs3_rpc_client_calls_total", {"plane": "small"}),
        "timeouts": To("fs3_rpc_client_given_up_total", {"plane": "small"}),
        "bad_frames": To("fs3_rpc_client_bad_frames_total"),
        "late_answers": To("fs3_rpc_client_late_answers_total"),
    },
    BulkClientCounters: {
        "calls": To("fs3_rpc_client_calls_total", {"plane": "bulk"}),
        "connected": To("fs3_rpc_client_connects_total", {"plane": "bulk", "outcome": "ok"}),
        "failed_connects": To("fs3_rpc_client_connects_total", {"plane": "bulk", "outcome": "failed"}),
        "lost": To("fs3_rpc_client_lost_total", {"plane": "bulk"}),
        "given_up": To("fs3_rpc_client_given_up_total", {"plane": "bulk"}),
        "received_bytes": To("fs3_rpc_client_received_bytes_total"),
        "sent_bytes": To("fs3_rpc_client_sent_bytes_total"),
    },
    OwnerStats: {
        "commits": To("fs3_kv_owner_commits_total", {"verdict": "committed"}),
        "conflicts": To("fs3_kv_owner_commits_total", {"verdict": "conflict"}),
        "too_old": To("fs3_kv_owner_commits_total", {"verdict": "too_old"}),
        "invalid": To("fs3_kv_owner_commits_total", {"verdict": "invalid"}),
        "batches": To("fs3_kv_owner_batches_total"),
        "batch_s": To("fs3_kv_owner_batch_seconds_total"),
        "batch_max_s": To("fs3_kv_owner_batch_max_seconds"),
        "refused_batches": To("fs3_kv_owner_refused_batches_total"),
        "watches_fired": To("fs3_kv_owner_fired_watches_total"),
        "readers_reclaimed": To("fs3_kv_owner_reclaimed_readers_total"),
        "connections_refused": To("fs3_kv_owner_refused_connections_total"),
        "bad_frames": To("fs3_kv_owner_bad_frames_total"),
    },
    LinkStats: {
        "connects": To("fs3_kv_connects_total"),
        "losses": To("fs3_kv_losses_total"),
        "commits": To("fs3_kv_commits_total"),
        "unknown_results": To("fs3_kv_unknown_results_total"),
        "timeouts": To("fs3_kv_timeouts_total"),
    },
}
"""Of each class of counters, every field."""


def bind(metrics: Metrics, counters: object) -> None:
    """Export every field of ``counters``, read at each exposition."""
    for field, to in BOUND[type(counters)].items():
        metrics.computed(to.name, partial(getattr, counters, field), **to.labels)


def bind_owner(metrics: Metrics, owner: Owner) -> None:
    """Export the counters of the store's owner, and what it holds now."""
    bind(metrics, owner.stats)
    metrics.computed("fs3_kv_owner_connections", _of_health(owner, "connections"))
    metrics.computed("fs3_kv_owner_watches", _of_health(owner, "watches"))


def _of_health(owner: Owner, key: str) -> Callable[[], float]:
    def read() -> float:
        value = owner.health()[key]
        assert isinstance(value, int), (key, value)
        return value

    return read
