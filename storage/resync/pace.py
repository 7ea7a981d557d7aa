"""How fast resync may go: a bucket of bytes that foreground work empties, too. PURE."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_SHARE = 1 / 16
"""Of the limit that resync always gets: a chain that never heals is worse than a slow one."""
BURST_S = 0.25
"""What was not used is kept for this long."""
WINDOW_S = 0.5
"""Foreground work is measured over at least this long."""


@dataclass(frozen=True, slots=True)
class ResyncSettings:
    """What an operator says of it."""

    rate_bytes_s: int = 256 << 20
    """Most that this node sends to all its receivers, what clients read and write of it taken off."""


RESYNC = ResyncSettings()


class Pace:
    """Times are seconds of any one clock."""

    def __init__(self, limit_bytes_s: float) -> None:
        assert limit_bytes_s > 0, limit_bytes_s
        self._limit_bytes_s = limit_bytes_s
        self._free_s = 0.0
        """When what was taken so far is paid for."""
        self._seen: tuple[float, float] | None = None
        self.rate_bytes_s = limit_bytes_s
        """Allowed now."""

    def note_foreground(self, total_bytes: float, now_s: float) -> None:
        """Bytes that clients have read and written so far, in all."""
        if self._seen is None:
            self._seen = (total_bytes, now_s)
        before_bytes, before_s = self._seen
        if now_s - before_s < WINDOW_S:
            return
        load_bytes_s = max(0.0, (total_bytes - before_bytes) / (now_s - before_s))
        self.rate_bytes_s = max(self._limit_bytes_s * LEAST_SHARE, self._limit_bytes_s - load_bytes_s)
        self._seen = (total_bytes, now_s)

    def take(self, size_bytes: int, now_s: float) -> float:
        """Take so many bytes out of the bucket; the seconds to wait before they are sent."""
        self._free_s = max(self._free_s, now_s - BURST_S)
        wait_s = max(0.0, self._free_s - now_s)
        self._free_s += size_bytes / self.rate_bytes_s
        return wait_s
