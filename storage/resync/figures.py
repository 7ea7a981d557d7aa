"""What is seen of resync: metrics of one process, and what each job has done."""

from __future__ import annotations

from dataclasses import dataclass

from fs3.metrics import Metrics


class ResyncCounts:
    """Pre-bound counters of one storage process."""

    def __init__(self, metrics: Metrics) -> None:
        self.sent = metrics.counter("fs3_storage_resync_sent_bytes_total")
        self.received = metrics.counter("fs3_storage_resync_received_bytes_total")
        name = "fs3_storage_resync_chunks_total"
        self.compared = metrics.counter(name, outcome="compared")
        self.copied = metrics.counter(name, outcome="copied")
        self.removed = metrics.counter(name, outcome="removed")
        self.failures = metrics.counter("fs3_storage_resync_failures_total")
        self.finished = metrics.counter("fs3_storage_resync_finished_total")


@dataclass(slots=True)
class Progress:
    """Of one job, for operators."""

    started_s: float
    total_bytes: int
    """Content of the source's chunks when the job began."""
    passed_bytes: int = 0
    """Of those that were looked at."""
    sent_bytes: int = 0
    copied_count: int = 0
    removed_count: int = 0
    step_count: int = 0
    """Pages that are done."""
    reason: str = ""
    """Of the last failure; empty when things go on."""

    def left_bytes(self) -> int:
        """Content not looked at yet: at most this is to be sent."""
        return max(0, self.total_bytes - self.passed_bytes)

    def eta_s(self, now_s: float) -> float:
        """Seconds until all is looked at, at the pace so far; 0: done, or nothing is known yet."""
        spent_s = now_s - self.started_s
        return self.left_bytes() * spent_s / self.passed_bytes if self.passed_bytes else 0.0
