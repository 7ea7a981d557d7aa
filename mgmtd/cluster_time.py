"""Cluster time at the primary: milliseconds that never go back, over all primaries. PURE.

The primary counts on from a bound that is in the store; it never tells a time at or above the bound, and
persists a higher one (a minute ahead) well before. The next primary starts at the bound that it finds, so
it is ahead of everything that was ever told. Wall clocks are not used.

Source: design 7.
"""

from __future__ import annotations

from fs3.errors import Unavailable

AHEAD_MS = 60_000
RENEW_BELOW_MS = 30_000
"""A higher bound is persisted when less than this is left."""


class ClusterClock:
    """Cluster time of one primary's term.

    ``found_ms``: the bound in the store (0: none yet), read at ``now_s``.
    """

    def __init__(self, found_ms: int, now_s: float) -> None:
        self._start_ms = found_ms
        self._start_s = now_s
        self._bound_ms = found_ms

    def now_ms(self, now_s: float) -> int:
        """Cluster time; Unavailable while no bound ahead is persisted."""
        count_ms = self._count_ms(now_s)
        if count_ms >= self._bound_ms:
            raise Unavailable("cluster time waits for its bound in the store")
        return count_ms

    def next_bound_ms(self, now_s: float) -> int | None:
        """The bound to persist now; None: the present one suffices."""
        count_ms = self._count_ms(now_s)
        return count_ms + AHEAD_MS if self._bound_ms - count_ms < RENEW_BELOW_MS else None

    def persisted(self, bound_ms: int) -> None:
        """A bound is in the store."""
        self._bound_ms = max(self._bound_ms, bound_ms)

    def _count_ms(self, now_s: float) -> int:
        return self._start_ms + int((now_s - self._start_s) * 1000)
