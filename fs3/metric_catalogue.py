"""The catalogue: every metric that any fs3 process exports, with its type, unit, labels and meaning.

Dashboards, alerts and documentation are made from this one table, so a metric that is not here cannot be
made (``Metrics`` asserts it). Naming follows Prometheus: ``fs3_<part>_<what>_<unit>``, base units (seconds,
bytes), counters end in ``_total``. Labels are few and bounded: method names, target ids, reasons; never a
path, a client or a request.

Source: design 9.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Kind(enum.Enum):
    """What may happen to a value."""

    COUNTER = "counter"
    """Only grows, from 0 at the process's start."""
    GAUGE = "gauge"
    """The present value of something."""
    HISTOGRAM = "histogram"
    """A distribution, in buckets."""


class Metric(NamedTuple):
    """One row of the catalogue."""

    name: str
    kind: Kind
    unit: str
    """``seconds``, ``bytes``, ``ratio``, or what is counted (``requests``)."""
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper ends of a histogram's buckets, in order; the last one, infinity, is implied."""


LATENCY_BUCKETS_S = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""50 µs (a stat that is answered from memory) to 10 s (a write that waits for a dead member)."""

SIZE_BUCKETS_BYTES = (512.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0, 67108864.0)

BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


def _counter(name: str, unit: str, help_text: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, unit, help_text, labels)


def _gauge(name: str, unit: str, help_text: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, unit, help_text, labels)


def _latency(name: str, help_text: str, *labels: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, "seconds", help_text, labels, LATENCY_BUCKETS_S)


def _sizes(name: str, help_text: str, *labels: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, "bytes", help_text, labels, SIZE_BUCKETS_BYTES)


def _batches(name: str, unit: str, help_text: str, *labels: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, unit, help_text, labels, BATCH_BUCKETS)


_DAEMON = (
    _gauge("fs3_daemon_info", "1", "Always 1; its labels say what runs here.", "daemon", "version"),
    _gauge("fs3_daemon_start_time_seconds", "seconds", "When the process started, in seconds since 1970."),
    _counter("fs3_daemon_slow_operations_total", "operations", "Operations above the slow threshold."),
    _counter("fs3_daemon_log_lines_lost_total", "lines", "Log lines that could not be written."),
    _counter("fs3_daemon_task_failures_total", "tasks", "Background tasks that ended with an error."),
    _gauge("fs3_daemon_loop_lag_seconds", "seconds", "How late the event loop woke up at its last check."),
)

_RPC = (
    _counter(
        "fs3_rpc_requests_total", "requests", "Requests answered, by method and outcome.", "method", "outcome"
    ),
    _latency("fs3_rpc_request_seconds", "From a request's arrival to its answer's hand-over.", "method"),
    _counter("fs3_rpc_received_bytes_total", "bytes", "Bytes received, frames and payloads."),
    _counter("fs3_rpc_sent_bytes_total", "bytes", "Bytes sent, frames and payloads."),
    _gauge("fs3_rpc_connections", "connections", "Open connections accepted by this server."),
    _gauge("fs3_rpc_in_flight_requests", "requests", "Requests taken and not answered yet."),
    _counter("fs3_rpc_refused_total", "requests", "Requests and connections refused, by reason.", "reason"),
    _counter(
        "fs3_rpc_bad_frames_total", "frames", "Frames that no honest peer sends; their connections are cut."
    ),
    _counter(
        "fs3_rpc_calls_total",
        "calls",
        "Calls made to other servers, by method and outcome.",
        "method",
        "outcome",
    ),
    _latency("fs3_rpc_call_seconds", "From a call to its answer.", "method"),
    _counter("fs3_rpc_retries_total", "calls", "Calls repeated, by the error that caused it.", "error"),
)

_KV = (
    _counter("fs3_kv_transactions_total", "transactions", "Attempts, by outcome.", "outcome"),
    _latency("fs3_kv_commit_seconds", "From a commit's request to its durable answer."),
    _counter("fs3_kv_conflicts_total", "transactions", "Commits refused for a conflict."),
    _counter("fs3_kv_too_old_total", "transactions", "Reads or commits at a version that is too old."),
    _batches("fs3_kv_batch_commits", "commits", "Commits in one write transaction of the store."),
    _latency("fs3_kv_sync_seconds", "Time of one durable write transaction of the store."),
    _gauge("fs3_kv_store_used_bytes", "bytes", "Bytes of the store that hold data."),
    _gauge("fs3_kv_clients", "connections", "Processes connected to the store's owner."),
    _gauge("fs3_kv_watches", "watches", "Watches in force."),
)

_MEMBER = (
    _counter("fs3_beacon_sent_total", "datagrams", "Beacons sent, repeats included."),
    _counter("fs3_beacon_refused_total", "datagrams", "Datagrams dropped, by reason.", "reason"),
    _gauge("fs3_lease_remaining_seconds", "seconds", "What is left of the primary's lease to this node."),
    _gauge(
        "fs3_chains_without_lease", "chains", "Chains of this node that have no valid lease of either kind."
    ),
    _gauge("fs3_routing_version", "version", "Newest routing version that this process has adopted."),
)

_MGMTD = (
    _gauge("fs3_mgmtd_is_primary", "bool", "1 while this process is the primary."),
    _gauge("fs3_mgmtd_nodes", "nodes", "Registered nodes, by kind and state.", "kind", "state"),
    _gauge("fs3_mgmtd_targets", "targets", "Targets by their public state.", "state"),
    _counter("fs3_mgmtd_routing_changes_total", "changes", "Routing versions made by this primary."),
    _counter("fs3_mgmtd_takeovers_total", "takeovers", "Times that this process became primary."),
)

_META = (
    _counter(
        "fs3_meta_operations_total", "operations", "Operations, by name and outcome.", "operation", "outcome"
    ),
    _latency("fs3_meta_operation_seconds", "An operation with all its attempts.", "operation"),
    _counter(
        "fs3_meta_attempts_total",
        "attempts",
        "Runs of operation bodies; above operations: retries.",
        "operation",
    ),
    _counter("fs3_meta_replays_total", "operations", "Answers taken from a slot's record, not from a run."),
    _gauge("fs3_meta_sessions", "sessions", "Client sessions known to this service."),
    _gauge("fs3_meta_removal_queue_inodes", "inodes", "Inodes that wait for their chunks' removal."),
    _counter("fs3_meta_capabilities_total", "capabilities", "Capabilities signed, new and renewed.", "how"),
)

_STORAGE = (
    _counter("fs3_storage_read_bytes_total", "bytes", "Bytes of chunks sent to readers.", "target"),
    _counter(
        "fs3_storage_written_bytes_total", "bytes", "Bytes of chunks staged, own and forwarded.", "target"
    ),
    _counter("fs3_storage_reads_total", "ranges", "Ranges read, by outcome.", "outcome"),
    _counter("fs3_storage_updates_total", "updates", "Updates by outcome.", "outcome"),
    _latency("fs3_storage_read_seconds", "A read request, from arrival to the last byte's hand-over."),
    _latency("fs3_storage_update_seconds", "An update at this member, successors included."),
    _latency("fs3_storage_sync_seconds", "One group of writes, data sync and index commit."),
    _batches("fs3_storage_sync_group_updates", "updates", "Updates made durable by one sync."),
    _sizes("fs3_storage_update_bytes", "Payload of an update."),
    _gauge("fs3_storage_capacity_bytes", "bytes", "Size of a target's disk share.", "target"),
    _gauge("fs3_storage_used_bytes", "bytes", "Bytes of blocks in use.", "target"),
    _gauge("fs3_storage_chunks", "chunks", "Chunks stored.", "target"),
    _gauge("fs3_storage_pending_updates", "updates", "Versions staged and not committed.", "target"),
    _gauge(
        "fs3_storage_target_online", "bool", "1 if the target's store is open and its disk is well.", "target"
    ),
    _counter(
        "fs3_storage_corrupt_blocks_total", "blocks", "Blocks whose bytes do not match their sum.", "target"
    ),
    _counter("fs3_storage_disk_errors_total", "errors", "Failed disk calls.", "target"),
    _counter("fs3_storage_version_queries_total", "queries", "Version queries to the last serving member."),
    _counter(
        "fs3_storage_replays_total", "updates", "Answers taken from a channel's record, not from a run."
    ),
)

_CLIENT = (
    _counter("fs3_client_read_bytes_total", "bytes", "Bytes returned to the application."),
    _counter("fs3_client_written_bytes_total", "bytes", "Bytes taken from the application."),
    _latency("fs3_client_read_seconds", "One read call of the application."),
    _latency("fs3_client_write_seconds", "One write call of the application."),
    _counter("fs3_client_hedges_total", "reads", "Reads sent to a second replica."),
    _counter(
        "fs3_client_corrupt_answers_total", "answers", "Answers whose sums did not match; read elsewhere."
    ),
)

CATALOGUE: tuple[Metric, ...] = (*_DAEMON, *_RPC, *_KV, *_MEMBER, *_MGMTD, *_META, *_STORAGE, *_CLIENT)
"""All metrics, in the order in which documents list them."""
