"""When a target's chunks are looked at, and how fast. PURE.

A *round* looks at every chunk of a target once; the next one begins ``every_s`` after the last one ended. It
goes at the rate of its disk, and stands still while clients need the node, as long as it is on schedule: the
share of the chunks that were looked at is not below the share of ``every_s`` that has passed. One that is
behind goes on under load too, at its rate, which is chosen low enough for that.
"""

from __future__ import annotations

from dataclasses import dataclass

from .engine.versions import ScrubMark

LOAD_BYTES_S = 32 << 20
"""Clients that read and write more than this a second need the node."""
WINDOW_S = 0.5
"""Load is measured over at least this long."""
BURST_S = 0.25
"""What was not used of the rate is kept for this long."""


@dataclass(frozen=True, slots=True)
class ScrubSettings:
    """What an operator says of it."""

    rate_bytes_s: int = 16 << 20
    """Most that is read of one disk a second; 0: nothing is scrubbed."""
    every_s: float = 14 * 86400.0
    """From the end of a round to the start of the next, in cluster time."""


SCRUB = ScrubSettings()


def is_due(mark: ScrubMark, now_ms: int, every_s: float) -> bool:
    """Whether a round is under way or has to begin. A time that lies ahead (the cluster was made anew) does
    not count."""
    return bool(mark.began_ms) or not 0 < mark.ended_ms <= now_ms < mark.ended_ms + every_s * 1000


def is_behind(mark: ScrubMark, chunk_count: int, now_ms: int, every_s: float) -> bool:
    """Whether the round under way has looked at less of ``chunk_count`` chunks than its time allows for."""
    passed = (now_ms - mark.began_ms) / (every_s * 1000)
    return mark.chunk_count < passed * chunk_count


class Load:
    """Bytes a second that clients read and write. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._seen: tuple[float, float] | None = None
        self.bytes_s = 0.0

    def note(self, total_bytes: float, now_s: float) -> None:
        """So many in all, so far."""
        if self._seen is None:
            self._seen = (total_bytes, now_s)
        before_bytes, before_s = self._seen
        if now_s - before_s >= WINDOW_S:
            self.bytes_s = max(0.0, (total_bytes - before_bytes) / (now_s - before_s))
            self._seen = (total_bytes, now_s)

    @property
    def is_high(self) -> bool:
        """Whether clients need the node."""
        return self.bytes_s > LOAD_BYTES_S


class Bucket:
    """Bytes at a rate."""

    def __init__(self, rate_bytes_s: float) -> None:
        assert rate_bytes_s > 0, rate_bytes_s
        self._rate_bytes_s = rate_bytes_s
        self._free_s = 0.0

    def take(self, size_bytes: int, now_s: float) -> float:
        """Take so many; the seconds to wait before they are used."""
        self._free_s = max(self._free_s, now_s - BURST_S)
        wait_s = max(0.0, self._free_s - now_s)
        self._free_s += size_bytes / self._rate_bytes_s
        return wait_s
