"""Who is primary: the lease record in the KV store, and what each mgmtd concludes from it. PURE.

The record holds no times, so no two clocks are ever compared. A standby measures by its own clock how long
it has seen the same record; the holder measures by its own how long ago it began its last renewal that
succeeded. Since a renewal begins before the record changes, and the record changes before anybody sees it,
the holder stops before a standby can start, within the clocks' rates (``Timing.problem``).

Source: design 2.4.
"""

from __future__ import annotations

import math

import msgspec

from fs3.ids import Generation, NodeId
from fs3.member.timing import Timing


class LeaseRecord(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The record. A take-over raises ``start``, each renewal ``renewal``."""

    holder: NodeId
    generation: Generation
    start: int
    """Number of the take-over: the primary's term."""
    renewal: int
    address: str = ""
    """RPC address of the holder, for hints."""
    released: bool = False
    """The holder has stopped in order: nobody need wait for its end."""

    def same_term(self, other: LeaseRecord | None) -> bool:
        """Whether both are of one primary's run."""
        return (
            other is not None
            and (self.holder, self.generation, self.start) == (other.holder, other.generation, other.start)
        )  # fmt: skip


class PrimaryLease:
    """One mgmtd's view of the record. ``address``: its RPC address, told in the record."""

    def __init__(self, node: NodeId, generation: Generation, address: str, timing: Timing) -> None:
        self.node = node
        self.generation = generation
        self.address = address
        self.record: LeaseRecord | None = None
        """As last seen in the store, or written to it."""
        self._timing = timing
        self._seen_since_s: float | None = None
        self._held_until_s = -math.inf
        self._has_resigned = False
        self._last_renewal = 0

    def is_primary(self, now_s: float) -> bool:
        """Whether this mgmtd may act as primary now."""
        return now_s < self._held_until_s

    @property
    def is_own(self) -> bool:
        """Whether the record, as last seen, names this run."""
        record = self.record
        return record is not None and (record.holder, record.generation) == (self.node, self.generation)

    @property
    def primary_address(self) -> str:
        """Where the holder, as last seen, is; empty: nobody."""
        return self.record.address if self.record is not None else ""

    def observe(self, record: LeaseRecord | None, now_s: float) -> None:
        """The record was read; the reading had ended at ``now_s``."""
        if record != self.record or self._seen_since_s is None:
            self.record = record
            self._seen_since_s = now_s
        if not self.is_own:
            self._held_until_s = -math.inf  # somebody took over

    def next_record(self, now_s: float) -> LeaseRecord | None:
        """What to write now, on condition that the record still is the one last seen; None: wait.

        No two attempts write the same record: one whose answer was lost could otherwise be taken for the
        next, and be counted from long after others had begun to see it.
        """
        record = self.record
        if record is not None and self.is_own and self.is_primary(now_s):
            self._last_renewal = max(self._last_renewal, record.renewal) + 1
            return msgspec.structs.replace(record, renewal=self._last_renewal)
        if record is not None and not self._is_over(now_s):
            return None
        if self._seen_since_s is None:
            return None  # never looked
        start = record.start + 1 if record is not None else 1
        self._last_renewal += 1
        return LeaseRecord(
            holder=self.node,
            generation=self.generation,
            start=start,
            renewal=self._last_renewal,
            address=self.address,
        )

    def _is_over(self, now_s: float) -> bool:
        record = self.record
        if record is not None and record.released:
            return True
        return self._seen_since_s is not None and now_s - self._seen_since_s >= self._timing.primary_s

    def wrote(self, record: LeaseRecord, began_s: float, now_s: float) -> bool:
        """``record`` is in the store, written by a transaction that began at ``began_s``.

        True: this is a new term, everything is to be read afresh. What is already over when the answer
        comes was a renewal all the same; only nobody may act under it.
        """
        is_new = not record.same_term(self.record)
        self.record = record
        self._seen_since_s = now_s
        if is_new:
            self._has_resigned = False
        if not self._has_resigned:
            self._held_until_s = began_s + self._timing.primary_holds_s
        return is_new

    def release(self) -> LeaseRecord | None:
        """Act no more; the record to write so that others need not wait. None: it is not ours."""
        self.resign()
        record = self.record
        return msgspec.structs.replace(record, released=True) if record is not None and self.is_own else None

    def resign(self) -> None:
        """Act no more in this term, not even when a renewal under way succeeds; a later term is another one.

        Whoever resigns may have a change in doubt: only a new term, whose record that change does not know,
        may read the picture afresh.
        """
        self._held_until_s = -math.inf
        self._has_resigned = True
