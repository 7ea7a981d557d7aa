"""A node's share of cluster time, and what it learns of its own clock's rate. PURE.

Cluster time is the primary's monotonic count. An answer that was made at cluster time T and is received at
own time r proves that cluster time is at least T at r: the node keeps the greatest T - r as its offset and
counts on alone when no answers come. So its time never goes back and lags by one trip at most.

The same answers tell when the own clock stands still: between two of them the primary's count cannot
advance by more than what the own clock measured from the sending of the first request to the receipt of the
second answer, but for the rates. Each answer is compared with the one before it (a sudden loss) and with one
that lies up to ``COMPARED_S`` back (one that adds up). Only answers of one primary's term are compared: a new
primary starts at a bound that lies ahead.

Source: design 2.2 (a clock that loses more than 100 ms), 7 (cluster time).
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import Unavailable
from .timing import Timing

COMPARED_S = 10.0
"""How far back an answer may lie that later ones are compared with: the longer, the more the rates hide."""


class _Answer(NamedTuple):
    """The primary's count, and when the request that it answered was sent."""

    sent_s: float
    cluster_ms: int


class ClusterOffset:
    """Cluster time at one node."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._offset_ms: float | None = None
        self._term = -1
        self._first: _Answer | None = None
        self._last: _Answer | None = None

    def now_ms(self, now_s: float) -> int:
        """Cluster time; Unavailable before the first answer of a primary."""
        if self._offset_ms is None:
            raise Unavailable("cluster time is not known yet: no mgmtd has answered since the start")
        return int(now_s * 1000 + self._offset_ms)

    @property
    def is_known(self) -> bool:
        """Whether a primary has answered since the start."""
        return self._offset_ms is not None

    def learn(self, cluster_ms: int, received_s: float) -> None:
        """Cluster time was ``cluster_ms`` at some moment before ``received_s``."""
        offset_ms = cluster_ms - received_s * 1000
        if self._offset_ms is None or offset_ms > self._offset_ms:
            self._offset_ms = offset_ms

    def lost_s(self, term: int, cluster_ms: int, sent_s: float, received_s: float) -> float:
        """How much the own clock has certainly lost since an earlier answer of this term; ≤ 0: nothing.

        ``sent_s`` and ``received_s``: of the request that was answered, and of the answer.
        """
        answer = _Answer(sent_s, cluster_ms)
        if term != self._term:
            self._term, self._first, self._last = term, answer, answer
            return 0.0
        assert self._first is not None and self._last is not None, term
        lost_s = max(self._lost_since_s(old, cluster_ms, received_s) for old in (self._first, self._last))
        if cluster_ms > self._last.cluster_ms:
            self._last = answer
        if received_s - self._first.sent_s > COMPARED_S:
            self._first = self._last
        return lost_s

    def _lost_since_s(self, old: _Answer, cluster_ms: int, received_s: float) -> float:
        primary_s = (cluster_ms - old.cluster_ms - 1) / 1000
        rates = (1 + self._timing.clock_rate_error) / (1 - self._timing.clock_rate_error)
        return primary_s - (received_s - old.sent_s) * rates
