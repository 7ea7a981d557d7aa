"""Counters of requests: added to by the event loop and by the bulk plane's threads.

Threads may lose an addition against each other (the interpreter may switch between load and store); figures
that cost a lock on each read would be dearer than that error.
"""

from __future__ import annotations

from fs3.ids import TargetId
from fs3.metrics import Counter, Metrics

READ_COST_BYTES = 64 << 10
"""Counted for each read beside its bytes: small reads keep a node busy, and move next to nothing."""


class ReadCounts:
    """Pre-bound counters."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.ok = metrics.counter("fs3_storage_reads_total", outcome="ok")
        self.refused = metrics.counter("fs3_storage_reads_total", outcome="refused")
        self.corrupt = metrics.counter("fs3_storage_reads_total", outcome="corrupt")
        self.verified = metrics.counter("fs3_storage_verified_reads_total")
        self.queries = metrics.counter("fs3_storage_version_queries_total")
        self.read_s = metrics.histogram("fs3_storage_read_seconds")
        self.update_s = metrics.histogram("fs3_storage_update_seconds")
        self._bytes: dict[TargetId, Counter] = {}

    def read_bytes(self, target: TargetId) -> Counter:
        """Of one target."""
        found = self._bytes.get(target)
        if found is None:
            found = self._bytes[target] = self._metrics.counter(
                "fs3_storage_read_bytes_total", target=f"{target:x}"
            )
        return found

    def total_bytes(self) -> float:
        """Read from all targets."""
        return sum(counter.value for counter in self._bytes.values())

    def load_bytes(self) -> float:
        """What background work takes notice of: bytes, and what a read costs whatever its length."""
        return self.total_bytes() + READ_COST_BYTES * self.ok.value
