"""What reads count for."""

from __future__ import annotations

from fs3.ids import TargetId
from fs3.metrics import Metrics
from fs3.storage.read_counts import READ_COST_BYTES, ReadCounts
from fs3.storage.resync.pace import LEAST_SHARE, RESYNC, Pace


def test_small_reads_are_load_beyond_their_bytes() -> None:
    counts = ReadCounts(Metrics())
    counts.read_bytes(TargetId(1)).value += 4096 * 10
    counts.ok.value += 10
    assert counts.total_bytes() == 4096 * 10
    assert counts.load_bytes() == (4096 + READ_COST_BYTES) * 10


def test_resync_gives_way_to_many_small_reads() -> None:
    counts, pace = ReadCounts(Metrics()), Pace(RESYNC.rate_bytes_s)
    pace.note_foreground(counts.load_bytes(), 1.0)
    counts.read_bytes(TargetId(1)).value += 4096 * 5000
    counts.ok.value += 5000
    pace.note_foreground(counts.load_bytes(), 2.0)
    assert pace.rate_bytes_s == RESYNC.rate_bytes_s * LEAST_SHARE
