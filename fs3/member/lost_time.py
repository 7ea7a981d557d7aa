"""What other clocks tell of the own one: how much time it has lost. PURE.

Between two answers of another clock's that clock cannot advance by more than what the own one measured from
the sending of the first request to the receipt of the second answer, but for the rates. Each answer is
compared with the one before it (a sudden loss) and with one that lies up to ``COMPARED_S`` back (one that
adds up).

One other clock alone proves nothing: it may itself run far too fast. So a node believes the primary, which
all nodes count by, or two of its peers that agree; they are there when the primary changes or is away.

Source: design 2.2 (a clock that loses more than 100 ms).
"""

from __future__ import annotations

from typing import NamedTuple

from ..ids import Generation, NodeId
from .beacon import SentLog
from .timing import Timing

COMPARED_S = 10.0
"""How far back an answer may lie that later ones are compared with: the longer, the more the rates hide."""


class _Answer(NamedTuple):
    """The other clock's count, and when the request that it answered was sent."""

    sent_s: float
    other_ms: int


class LostTime:
    """Compared with one other clock; only answers of its newest ``run`` are (their numbers grow)."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._run = -1
        self._first: _Answer | None = None
        self._last: _Answer | None = None

    def lost_s(self, run: int, other_ms: int, sent_s: float, received_s: float) -> float:
        """How much the own clock has certainly lost since an earlier answer of this run; ≤ 0: nothing.

        ``sent_s`` and ``received_s``: of the request that was answered, and of the answer.
        """
        answer = _Answer(sent_s, other_ms)
        if run < self._run:
            return 0.0  # a late answer of the run before must not end the comparison with this one
        if run != self._run:
            self._run, self._first, self._last = run, answer, answer
            return 0.0
        assert self._first is not None and self._last is not None, run
        lost_s = self._lost_since_s(self._last, other_ms, received_s)
        if self._first is not self._last:
            lost_s = max(lost_s, self._lost_since_s(self._first, other_ms, received_s))
        if other_ms > self._last.other_ms:
            self._last = answer
        if received_s - self._first.sent_s > COMPARED_S:
            self._first = self._last
        return lost_s

    def _lost_since_s(self, old: _Answer, other_ms: int, received_s: float) -> float:
        other_s = (other_ms - old.other_ms - 1) / 1000
        rates = (1 + self._timing.clock_rate_error) / (1 - self._timing.clock_rate_error)
        return other_s - (received_s - old.sent_s) * rates


class PeerClocks:
    """Compared with the clocks of the peers that are asked for leases."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._asked: dict[NodeId, SentLog] = {}
        self._compared: dict[NodeId, LostTime] = {}
        self._losses: dict[NodeId, tuple[float, float]] = {}
        """By whose clock, when it showed, and how much."""

    def asked(self, peer: NodeId, sequence: int, now_s: float) -> None:
        """A request leaves now for a peer."""
        self._asked.setdefault(peer, SentLog()).sent(sequence, now_s)

    def lost_s(
        self, peer: NodeId, generation: Generation, sequence: int, peer_ms: int, now_s: float
    ) -> float:
        """A peer's answer. How much the own clock has lost by the word of two; 0: not too much."""
        log = self._asked.get(peer)
        sent_s = log.answered(sequence) if log is not None else None
        if sent_s is None:
            return 0.0
        compared = self._compared.setdefault(peer, LostTime(self._timing))
        lost_s = compared.lost_s(generation, peer_ms, sent_s, now_s)
        if lost_s > self._timing.clock_loss_s:
            self._losses[peer] = now_s, lost_s
        if not self._losses:
            return 0.0  # as nearly always
        agreed = sorted(lost for at_s, lost in self._losses.values() if now_s - at_s <= COMPARED_S)
        return agreed[-2] if len(agreed) >= 2 else 0.0
