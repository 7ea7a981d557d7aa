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

BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


def _counter(name: str, unit: str, help_text: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, unit, help_text, labels)


def _gauge(name: str, unit: str, help_text: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, unit, help_text, labels)


def _latency(name: str, help_text: str, *labels: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, "seconds", help_text, labels, LATENCY_BUCKETS_S)


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
    _gauge("fs3_rpc_connections", "connections", "Connections of this server that are open now.", "plane"),
    _gauge("fs3_rpc_in_flight_calls", "calls", "Calls whose handlers wait now.", "plane"),
    _counter("fs3_rpc_accepted_connections_total", "connections", "Connections accepted.", "plane"),
    _counter(
        "fs3_rpc_refused_total", "requests", "Handshakes, connections, requests refused.", "plane", "reason"
    ),
    _counter(
        "fs3_rpc_ended_calls_total",
        "calls",
        "Calls that ended without an answer of theirs.",
        "plane",
        "reason",
    ),
    _counter("fs3_rpc_bad_frames_total", "frames", "Frames that no honest peer sends.", "plane"),
    _counter("fs3_rpc_stalled_connections_total", "connections", "Cut: answers were not taken.", "plane"),
    _counter("fs3_rpc_received_bytes_total", "bytes", "Bytes received by this server.", "plane"),
    _counter("fs3_rpc_sent_bytes_total", "bytes", "Bytes sent by this server.", "plane"),
    _gauge("fs3_rpc_client_connections", "connections", "Connections to other servers that are open now."),
    _counter("fs3_rpc_client_calls_total", "calls", "Calls made to other servers, by plane.", "plane"),
    _counter("fs3_rpc_client_connects_total", "connections", "Connections tried.", "plane", "outcome"),
    _counter("fs3_rpc_client_lost_total", "connections", "Connections lost with calls under way.", "plane"),
    _counter("fs3_rpc_client_given_up_total", "calls", "Calls cancelled or past their deadline.", "plane"),
    _counter("fs3_rpc_client_bad_frames_total", "frames", "Frames of servers that no honest one sends."),
    _counter("fs3_rpc_client_late_answers_total", "answers", "Answers to calls that had been given up."),
    _counter("fs3_rpc_client_received_bytes_total", "bytes", "Bytes of payloads received by the bulk plane."),
    _counter("fs3_rpc_client_sent_bytes_total", "bytes", "Bytes of payloads sent by the bulk plane."),
)

_KV = (
    _counter("fs3_kv_owner_commits_total", "commits", "Commits judged by the store's owner.", "verdict"),
    _counter("fs3_kv_owner_batches_total", "batches", "Write transactions of the store, each with one sync."),
    _counter("fs3_kv_owner_batch_seconds_total", "seconds", "Time spent in them, syncs included."),
    _gauge("fs3_kv_owner_batch_max_seconds", "seconds", "Longest of them since the start."),
    _counter("fs3_kv_owner_refused_batches_total", "batches", "Batches that the store or its disk refused."),
    _counter("fs3_kv_owner_refused_connections_total", "connections", "Connections refused by the owner."),
    _counter("fs3_kv_owner_bad_frames_total", "frames", "Frames that no honest client sends."),
    _counter("fs3_kv_owner_fired_watches_total", "watches", "Watches that saw a change."),
    _counter("fs3_kv_owner_reclaimed_readers_total", "readers", "Read snapshots left by dead processes."),
    _gauge("fs3_kv_owner_connections", "connections", "Processes connected to the store's owner."),
    _gauge("fs3_kv_owner_watches", "watches", "Watches in force."),
    _counter("fs3_kv_connects_total", "connections", "Connections made to the store's owner."),
    _counter("fs3_kv_losses_total", "connections", "Connections to the store's owner that were lost."),
    _counter("fs3_kv_commits_total", "commits", "Commits sent to the store."),
    _counter("fs3_kv_unknown_results_total", "commits", "Commits whose answer was lost."),
    _counter("fs3_kv_timeouts_total", "commits", "Commits without answer in time."),
)

_MEMBER = (
    _counter(
        "fs3_member_datagrams_total", "datagrams", "Beacons, lease messages and answers, by fate.", "what"
    ),
    _gauge(
        "fs3_member_lease_remaining_seconds", "seconds", "What is left of the primary's lease to this node."
    ),
    _gauge(
        "fs3_member_chains_without_lease", "chains", "Chains of this node without a lease of either kind."
    ),
    _gauge("fs3_member_routing_version", "version", "Newest routing version that this node has adopted."),
)

_MGMTD = (
    _gauge(
        "fs3_mgmtd_broken_links", "links", "Links between nodes that are well, over which nothing passes."
    ),
    _gauge("fs3_mgmtd_is_primary", "bool", "1 while this process is the primary."),
    _gauge("fs3_mgmtd_nodes", "nodes", "Registered nodes, by kind and state.", "kind", "state"),
    _counter("fs3_mgmtd_routing_changes_total", "changes", "Routing versions made by this primary."),
    _gauge("fs3_mgmtd_slow_targets", "targets", "Targets whose disk is far slower than their peers'."),
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
)

_STORAGE = (
    _counter("fs3_storage_read_bytes_total", "bytes", "Bytes of chunks sent to readers.", "target"),
    _counter(
        "fs3_storage_written_bytes_total", "bytes", "Bytes of chunks staged, own and forwarded.", "target"
    ),
    _counter("fs3_storage_reads_total", "ranges", "Ranges read, by outcome.", "outcome"),
    _counter(
        "fs3_storage_verified_reads_total",
        "ranges",
        "Ranges compared with their sums before they were sent: the reader had got wrong bytes.",
    ),
    _counter("fs3_storage_updates_total", "updates", "Updates by outcome.", "outcome"),
    _latency("fs3_storage_read_seconds", "A read request, from arrival to the last byte's hand-over."),
    _latency("fs3_storage_update_seconds", "An update at this member, successors included."),
    _latency("fs3_storage_sync_seconds", "One group of writes, data sync and index commit."),
    _batches("fs3_storage_sync_group_updates", "updates", "Updates made durable by one sync."),
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
    _counter(
        "fs3_storage_repaired_chunks_total",
        "chunks",
        "Chunks whose bytes were fetched from another replica.",
        "target",
    ),
    _counter("fs3_storage_disk_errors_total", "errors", "Failed disk calls.", "target"),
    _counter("fs3_storage_version_queries_total", "queries", "Version queries to the last serving member."),
    _counter(
        "fs3_storage_replays_total", "updates", "Answers taken from a channel's record, not from a run."
    ),
    _counter(
        "fs3_storage_dropped_records_total",
        "records",
        "Tombstones, epochs and session ends forgotten after their retention.",
        "kind",
    ),
    _counter("fs3_storage_resync_sent_bytes_total", "bytes", "Content sent to SYNCING members."),
    _counter("fs3_storage_resync_received_bytes_total", "bytes", "Content taken while SYNCING, not live."),
    _counter(
        "fs3_storage_resync_chunks_total", "chunks", "Chunks of SYNCING members, by outcome.", "outcome"
    ),
    _counter("fs3_storage_resync_failures_total", "attempts", "Steps of a resync that are tried again."),
    _counter("fs3_storage_resync_finished_total", "statements", "Members told that they have everything."),
    _gauge("fs3_storage_resync_jobs", "jobs", "SYNCING members that this node brings up to date."),
    _gauge("fs3_storage_resync_left_bytes", "bytes", "Content that they were not compared with yet."),
    _gauge(
        "fs3_storage_resync_eta_seconds", "seconds", "Until the last of them has everything, at this pace."
    ),
    _gauge("fs3_storage_resync_allowed_bytes_per_second", "bytes/s", "Most that resync may send now."),
    _counter("fs3_storage_scrub_read_bytes_total", "bytes", "Bytes compared with their sums.", "target"),
    _counter(
        "fs3_storage_scrub_bad_blocks_total", "blocks", "Blocks that a scrub found to be wrong.", "target"
    ),
    _gauge(
        "fs3_storage_scrub_unmended_chunks",
        "chunks",
        "Found wrong by the last scrub, and no serving member has the right bytes.",
        "target",
    ),
    _gauge(
        "fs3_storage_scrub_age_seconds",
        "seconds",
        "Since all chunks had been looked at; if they never were, since the scrub began.",
        "target",
    ),
)

CATALOGUE: tuple[Metric, ...] = (*_DAEMON, *_RPC, *_KV, *_MEMBER, *_MGMTD, *_META, *_STORAGE)
"""All metrics, in the order in which documents list them."""
