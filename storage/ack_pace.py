"""How long a target lately took to make updates durable; mgmtd compares it with its peers. PURE.

A disk that hangs ends nothing: the group that is on its way counts with the time that it has waited already.
"""

from __future__ import annotations

import statistics
from collections import deque

WINDOW_S = 10.0
KEPT_MAX = 64


class AckPace:
    """Of one target. Not for several threads at a time."""

    def __init__(self) -> None:
        self._done: deque[tuple[float, float]] = deque(maxlen=KEPT_MAX)
        """(when a group was durable, how long it took)."""
        self._began_s: float | None = None

    def began(self, now_s: float) -> None:
        """A group of updates goes to the disk."""
        self._began_s = now_s

    def ended(self, now_s: float) -> None:
        """The group is durable, or failed."""
        if self._began_s is not None:
            self._done.append((now_s, now_s - self._began_s))
            self._began_s = None

    def recent_us(self, now_s: float) -> int:
        """The median over the last 10 s, or the age of what is on its way if that is more; 0: nothing was."""
        times_s = [took_s for ended_s, took_s in self._done if now_s - ended_s <= WINDOW_S]
        median_s = statistics.median(times_s) if times_s else 0.0
        waiting_s = now_s - self._began_s if self._began_s is not None else 0.0
        return int(max(median_s, waiting_s) * 1_000_000)
