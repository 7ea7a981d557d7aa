"""Decrees: epochs raised and client sessions ended, hop by hop down the chain. PURE.

The head marks a decree first, so that it numbers no further update against it, waits until none that it
numbered before is unresolved, makes it durable, passes it on; each member makes it durable and passes it
on; the answer comes back when all members have it (design 4.5, 4.9). A numbered update is never refused
for its epoch (``chain_model`` V4), so only the head has to wait. An epoch is made durable before the wait
(a head that dies meanwhile has lost nothing but the raise), a session's end after it: the store forgets
the session's dedup records with it, and an update that is staged later would leave one behind.

Decrees are idempotent: repeating one that is under way joins it. A change of chain version fails all of
them with StaleRouting; whoever asked asks again.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fs3.errors import Busy, DeadlineExceeded, Fs3Error, StaleRouting
from fs3.ids import ClientSessionId, Epoch, InodeId

from .effects import (
    Answer,
    Decree,
    Effect,
    EpochRaise,
    Fail,
    PassOn,
    Record,
    SessionEnd,
    StoreView,
    Ticket,
    Token,
)
from .standing import Standing

DECREES_MAX = 4096
"""Decrees under way at one target."""
WAITERS_MAX = 16
"""Requests that wait for the same decree."""


class _Step(enum.Enum):
    RECORD = 1
    SETTLE = 2
    PASS = 3


@dataclass(slots=True)
class _Spread:
    decree: Decree
    steps: list[_Step]
    token: Token = 0
    """Of the work under way; 0: none."""
    next_s: float = 0.0
    """Not passed on again before this time."""
    waiters: list[tuple[Ticket, float]] = field(default_factory=list)


def _key(decree: Decree) -> tuple[int, int]:
    match decree:
        case EpochRaise(inode, _):
            return 0, inode
        case SessionEnd(session):
            return 1, session


class Decrees:
    """The decrees under way at one target.

    ``unresolved(decree)``: whether an update that the decree outdates has been numbered here and is not
    resolved yet. ``new_token``: numbers that are used once.
    """

    def __init__(
        self,
        view: StoreView,
        unresolved: Callable[[Decree], bool],
        new_token: Callable[[], Token],
        retry_s: float,
    ) -> None:
        self._view = view
        self._unresolved = unresolved
        self._new_token = new_token
        self._retry_s = retry_s
        self._spreads: dict[tuple[int, int], _Spread] = {}
        self._by_token: dict[Token, _Spread] = {}

    def epoch(self, inode: InodeId) -> Epoch:
        """The file's epoch in force, raises under way included."""
        stored = self._view.epoch(inode)
        spread = self._spreads.get((0, inode))
        if spread is not None and isinstance(spread.decree, EpochRaise):
            return max(stored, spread.decree.epoch)
        return stored

    def session_ended(self, session: ClientSessionId) -> bool:
        """Whether a client session is over, or its end under way."""
        return (1, session) in self._spreads or self._view.session_ended(session)

    def start(
        self, ticket: Ticket, decree: Decree, standing: Standing, now_s: float, deadline_s: float
    ) -> list[Effect]:
        """Put a decree in force here and behind; the ticket is answered when all members have it."""
        key = _key(decree)
        if isinstance(decree, EpochRaise):
            decree = EpochRaise(decree.inode, max(decree.epoch, self.epoch(decree.inode)))
        spread = self._spreads.get(key)
        if spread is not None and spread.decree == decree:
            if len(spread.waiters) >= WAITERS_MAX:
                return [Fail(ticket, Busy(f"{WAITERS_MAX} requests wait for {decree} already"))]
            spread.waiters.append((ticket, deadline_s))
            return []
        effects: list[Effect] = []
        waiters: list[tuple[Ticket, float]] = []
        if spread is not None:
            waiters = spread.waiters  # a higher epoch answers those who asked for less, too
            self._remove(key, spread)
        elif len(self._spreads) >= DECREES_MAX:
            return [Fail(ticket, Busy(f"{DECREES_MAX} decrees are under way"))]
        steps = [_Step.RECORD, _Step.SETTLE, _Step.PASS]
        if isinstance(decree, SessionEnd):
            steps = [_Step.SETTLE, _Step.RECORD, _Step.PASS]
        spread = _Spread(decree, steps, waiters=[*waiters, (ticket, deadline_s)])
        self._spreads[key] = spread
        effects += self._advance(key, spread, standing, now_s)
        return effects

    def _remove(self, key: tuple[int, int], spread: _Spread) -> None:
        del self._spreads[key]
        self._by_token.pop(spread.token, None)

    def _advance(
        self, key: tuple[int, int], spread: _Spread, standing: Standing, now_s: float
    ) -> list[Effect]:
        if spread.token:
            return []
        if spread.steps and spread.steps[0] is _Step.SETTLE:
            if standing.is_head and self._unresolved(spread.decree):
                return []
            spread.steps.pop(0)
        if not spread.steps:
            return self._finish(key, spread)
        step = spread.steps[0]
        if step is _Step.RECORD:
            spread.token = self._new_token()
            self._by_token[spread.token] = spread
            return [Record(spread.token, spread.decree)]
        assert step is _Step.PASS, spread
        if standing.successor is None:
            return self._finish(key, spread)
        if now_s < spread.next_s:
            return []
        spread.token = self._new_token()
        self._by_token[spread.token] = spread
        return [PassOn(spread.token, standing.successor, standing.version, spread.decree)]

    def _finish(self, key: tuple[int, int], spread: _Spread) -> list[Effect]:
        self._remove(key, spread)
        return [Answer(ticket) for ticket, _ in spread.waiters]

    def on_step_done(self, token: Token, standing: Standing, now_s: float) -> list[Effect]:
        """A ``Record`` is durable, or a ``PassOn`` was answered."""
        spread = self._by_token.pop(token, None)
        if spread is None:
            return []  # given up, or replaced by a higher epoch
        spread.token = 0
        spread.steps.pop(0)
        return self._advance(_key(spread.decree), spread, standing, now_s)

    def on_step_failed(self, token: Token, error: Fs3Error, now_s: float) -> list[Effect]:
        """It failed: a ``PassOn`` is repeated by ``on_tick``; a ``Record`` fails those who wait."""
        spread = self._by_token.pop(token, None)
        if spread is None:
            return []
        spread.token = 0
        if spread.steps[0] is _Step.PASS:
            spread.next_s = now_s + self._retry_s
            return []
        del self._spreads[_key(spread.decree)]
        return [Fail(ticket, error) for ticket, _ in spread.waiters]

    def on_resolved(self, standing: Standing, now_s: float) -> list[Effect]:
        """An update was resolved: whoever waited for it may go on."""
        return list(self._advance_all(standing, now_s))

    def on_tick(self, standing: Standing, now_s: float) -> list[Effect]:
        """Repeat what failed; give up what nobody waits for any more."""
        effects: list[Effect] = []
        for key, spread in list(self._spreads.items()):
            late = [ticket for ticket, deadline_s in spread.waiters if deadline_s <= now_s]
            effects += [Fail(t, DeadlineExceeded("the chain did not take it in time")) for t in late]
            spread.waiters = [w for w in spread.waiters if w[1] > now_s]
            if not spread.waiters:
                self._remove(key, spread)
        return [*effects, *self._advance_all(standing, now_s)]

    def _advance_all(self, standing: Standing, now_s: float) -> Iterator[Effect]:
        for key, spread in list(self._spreads.items()):
            yield from self._advance(key, spread, standing, now_s)

    def on_cancelled(self, ticket: Ticket) -> None:
        """Nobody waits for this ticket any more; the decree itself goes on until its other waiters leave."""
        for spread in self._spreads.values():
            spread.waiters = [w for w in spread.waiters if w[0] != ticket]

    def on_adopted(self, version: int) -> list[Effect]:
        """The chain's version has changed: whoever waits must ask again under the new one."""
        tickets = [ticket for spread in self._spreads.values() for ticket, _ in spread.waiters]
        self._spreads.clear()
        self._by_token.clear()
        return [Fail(t, StaleRouting(f"the chain is at version {version} now")) for t in tickets]

    def __len__(self) -> int:
        return len(self._spreads)
