"""The RPC layer's counters as metrics: which field is which row of the catalogue.

The layer counts in small dataclasses and knows no metric; servers call ``export_*`` once for what they make.
The tables are complete: a test compares them with the fields, so that a new counter is not forgotten.
"""

from __future__ import annotations

from ..metrics import Metrics, Rows
from .bulk_client import BulkClientCounters
from .counters import ClientCounters, ServerCounters

SERVER: Rows = {
    "connections": ("fs3_rpc_connections", {}),
    "accepted": ("fs3_rpc_accepted_connections_total", {}),
    "refused_handshakes": ("fs3_rpc_refused_total", {"reason": "handshake"}),
    "refused_connections": ("fs3_rpc_refused_total", {"reason": "connections"}),
    "bad_frames": ("fs3_rpc_bad_frames_total", {}),
    "bad_requests": ("fs3_rpc_refused_total", {"reason": "bad_request"}),
    "busy": ("fs3_rpc_refused_total", {"reason": "busy"}),
    "cancelled": ("fs3_rpc_ended_calls_total", {"reason": "cancelled"}),
    "expired": ("fs3_rpc_ended_calls_total", {"reason": "deadline"}),
    "stalled": ("fs3_rpc_stalled_connections_total", {}),
    "bugs": ("fs3_rpc_ended_calls_total", {"reason": "bug"}),
    "in_flight": ("fs3_rpc_in_flight_calls", {}),
    "received_bytes": ("fs3_rpc_received_bytes_total", {}),
    "sent_bytes": ("fs3_rpc_sent_bytes_total", {}),
}
CLIENT: Rows = {
    "connections": ("fs3_rpc_client_connections", {}),
    "connected": ("fs3_rpc_client_connects_total", {"plane": "small", "outcome": "ok"}),
    "failed_connects": ("fs3_rpc_client_connects_total", {"plane": "small", "outcome": "failed"}),
    "lost": ("fs3_rpc_client_lost_total", {"plane": "small"}),
    "calls": ("fs3_rpc_client_calls_total", {"plane": "small"}),
    "timeouts": ("fs3_rpc_client_given_up_total", {"plane": "small"}),
    "bad_frames": ("fs3_rpc_client_bad_frames_total", {}),
    "late_answers": ("fs3_rpc_client_late_answers_total", {}),
}
BULK_CLIENT: Rows = {
    "connected": ("fs3_rpc_client_connects_total", {"plane": "bulk", "outcome": "ok"}),
    "failed_connects": ("fs3_rpc_client_connects_total", {"plane": "bulk", "outcome": "failed"}),
    "lost": ("fs3_rpc_client_lost_total", {"plane": "bulk"}),
    "calls": ("fs3_rpc_client_calls_total", {"plane": "bulk"}),
    "given_up": ("fs3_rpc_client_given_up_total", {"plane": "bulk"}),
    "received_bytes": ("fs3_rpc_client_received_bytes_total", {}),
    "sent_bytes": ("fs3_rpc_client_sent_bytes_total", {}),
}


def export_server(metrics: Metrics, counters: ServerCounters, plane: str = "small") -> None:
    """Export a server's counters; ``plane``: ``small`` or ``bulk``, each has its own."""
    metrics.computed_fields(counters, SERVER, plane=plane)


def export_client(metrics: Metrics, counters: ClientCounters) -> None:
    """Export a client's counters (small plane)."""
    metrics.computed_fields(counters, CLIENT)


def export_bulk_client(metrics: Metrics, counters: BulkClientCounters) -> None:
    """Export a client's counters of the bulk plane."""
    metrics.computed_fields(counters, BULK_CLIENT)
