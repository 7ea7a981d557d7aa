"""Whether the copying to a SYNCING member goes on, by what its source says of it. PURE.

A source counts the steps of its copying: pages compared, chunks brought. While the count stands still for
``copy_stall_s`` the copying is stalled: a chunk that no serving member has right, a receiver that takes none.
It is tried on, but somebody else who waits may have its turn (rule ``yield`` of ``chain_machine``).

Source: design 4.6.
"""

from __future__ import annotations

from dataclasses import dataclass

from fs3.ids import ChainId, Generation, TargetId
from fs3.member.timing import Timing


@dataclass(slots=True)
class _Count:
    receiver: tuple[TargetId, Generation]
    source: TargetId
    step_count: int
    since_s: float


class Copying:
    """Of all chains, as one term hears of it."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._counts: dict[ChainId, _Count] = {}

    def is_stalled(
        self,
        chain: ChainId,
        receiver: tuple[TargetId, Generation],
        source: TargetId,
        step_count: int,
        now_s: float,
    ) -> bool:
        """The source's newest count; whether it has stood still for long. Each pair of ends counts anew."""
        known = self._counts.get(chain)
        ends = (known.receiver, known.source) if known is not None else None
        if known is None or ends != (receiver, source) or known.step_count != step_count:
            known = self._counts[chain] = _Count(receiver, source, step_count, now_s)
        return now_s - known.since_s >= self._timing.copy_stall_s

    def forget(self, chain: ChainId) -> None:
        """Nobody of this chain is being copied to."""
        self._counts.pop(chain, None)
