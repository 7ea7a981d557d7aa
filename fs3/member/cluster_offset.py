"""A node's share of cluster time, and what it learns of its own clock's rate. PURE.

Cluster time is the primary's monotonic count. An answer that was made at cluster time T and is received at
own time r proves that cluster time is at least T at r: the node keeps the greatest T - r as its offset and
counts on alone when no answers come. So its time never goes back and lags by one trip at most.

The same answers tell when the own clock has lost time (``lost_time``). Only answers of one primary's term are
compared: a new primary starts at a bound that lies ahead.

Source: design 7 (cluster time).
"""

from __future__ import annotations

from ..errors import Unavailable
from .lost_time import LostTime
from .timing import Timing


class ClusterOffset:
    """Cluster time at one node."""

    def __init__(self, timing: Timing) -> None:
        self._offset_ms: float | None = None
        self._lost = LostTime(timing)

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
        return self._lost.lost_s(term, cluster_ms, sent_s, received_s)
