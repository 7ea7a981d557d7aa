"""When the next request to somebody is due, and how long it has been silent. PURE.

Source: design 2.1 (period, repeats).
"""

from __future__ import annotations

import math

from .timing import Timing


class Pace:
    """Requests to one receiver: one a period, repeats while the last is unanswered.

    ``repeats`` False: one a period only, answered or not.
    """

    __slots__ = ("_last_sent_s", "_repeats", "_timing", "_waiting_since_s", "is_calling")

    def __init__(self, timing: Timing, *, repeats: bool = True) -> None:
        self._timing = timing
        self._repeats = repeats
        self._last_sent_s: float | None = None
        self._waiting_since_s: float | None = None
        self.is_calling = False
        """A repeat over RPC is under way."""

    def is_due(self, now_s: float) -> bool:
        """Whether to send now."""
        if self._last_sent_s is None:
            return True
        timing = self._timing
        hurried = self._repeats and 0 < self.silent_s(now_s) < timing.repeat_for_s
        period_s = timing.repeat_s if hurried else timing.beacon_s
        return now_s - self._last_sent_s >= period_s - timing.repeat_s / 4

    def earliest_s(self) -> float:
        """Before this time none is due, unless ``hurry`` is called: an answer only makes it later."""
        if self._last_sent_s is None:
            return -math.inf
        timing, since_s = self._timing, self._waiting_since_s
        repeated = self._repeats and since_s is not None and self._last_sent_s - since_s < timing.repeat_for_s
        period_s = timing.repeat_s if repeated else timing.beacon_s
        return self._last_sent_s + period_s - timing.repeat_s / 4

    def wants_rpc(self, now_s: float) -> bool:
        """Whether datagrams have been unanswered long enough to try RPC as well."""
        return not self.is_calling and self.silent_s(now_s) >= self._timing.rpc_after_s

    def sent(self, now_s: float) -> None:
        """A request leaves."""
        self._last_sent_s = now_s
        if self._waiting_since_s is None:
            self._waiting_since_s = now_s

    def answered(self) -> None:
        """An answer came."""
        self._waiting_since_s = None

    def hurry(self) -> None:
        """Send at the next occasion: there is something new to ask."""
        self._last_sent_s = None

    def silent_s(self, now_s: float) -> float:
        """How long the oldest unanswered request has waited; 0: all are answered."""
        return 0.0 if self._waiting_since_s is None else now_s - self._waiting_since_s
