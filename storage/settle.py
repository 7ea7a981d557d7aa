"""Requests that wait until what is pending now is resolved. PURE.

A new last serving member settles what it brought along before it answers about a chunk (design 4.4); the
head settles a file's pendings before it tells where the file ends (design 3.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fs3.errors import Busy, DeadlineExceeded, Fs3Error
from fs3.ids import ChunkId

from .effects import Answer, Effect, Fail, Ticket

SETTLES_MAX = 4096
"""Requests that wait at one target."""


@dataclass(slots=True)
class _Settle:
    deadline_s: float
    left: dict[ChunkId, None]


class Settles:
    """Those who wait, by ticket."""

    def __init__(self) -> None:
        self._waiting: dict[Ticket, _Settle] = {}

    def start(self, ticket: Ticket, pending: Sequence[ChunkId], deadline_s: float) -> list[Effect]:
        """Answer the ticket when each of these chunks has been resolved once."""
        if not pending:
            return [Answer(ticket)]
        if len(self._waiting) >= SETTLES_MAX:
            return [Fail(ticket, Busy(f"{SETTLES_MAX} requests wait for pending versions"))]
        self._waiting[ticket] = _Settle(deadline_s, dict.fromkeys(pending))
        return []

    def __len__(self) -> int:
        return len(self._waiting)

    def on_resolved(self, chunk: ChunkId) -> list[Effect]:
        """A pending version of ``chunk`` was committed."""
        effects: list[Effect] = []
        for ticket, settle in list(self._waiting.items()):
            settle.left.pop(chunk, None)
            if not settle.left:
                del self._waiting[ticket]
                effects.append(Answer(ticket))
        return effects

    def on_tick(self, now_s: float) -> list[Effect]:
        """Give up what is late."""
        late = [ticket for ticket, settle in self._waiting.items() if settle.deadline_s <= now_s]
        for ticket in late:
            del self._waiting[ticket]
        return [
            Fail(ticket, DeadlineExceeded("a pending version was not resolved in time")) for ticket in late
        ]

    def on_cancelled(self, ticket: Ticket) -> None:
        """Nobody waits for this ticket."""
        self._waiting.pop(ticket, None)

    def fail_all(self, error: Fs3Error) -> list[Effect]:
        """Everybody must come again."""
        tickets = list(self._waiting)
        self._waiting.clear()
        return [Fail(ticket, error) for ticket in tickets]
