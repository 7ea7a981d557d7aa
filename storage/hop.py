"""A hop: one update's passage through a member of its chain, in the thread that received it (design 5.3).

The thread of a bulk connection receives the bytes, asks the replica, makes them durable with others'
(``Committer``), sends them on, and answers; no other thread takes part as long as nothing unusual happens.
What concerns it comes into its mailbox, since events of other requests may bring it: its turn to lead the
next group to the disk, its bytes to be forwarded, its answer. Everything else that the replica wants done is
done on the event loop.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from typing import NamedTuple, Protocol

from fs3.errors import Fs3Error, Unavailable

from .effects import Done, Forward
from .held import HeldBytes

PEER_CHECK_S = 0.1
"""How often a thread that waits looks whether its peer is still there."""


class Outcome(NamedTuple):
    """What a request came to; ``done`` is None with an error."""

    done: Done | None
    error: Fs3Error | None


def resolve(waiting: asyncio.Future[Done | None], outcome: Outcome) -> None:
    """On the event loop: tell a request that waits there."""
    if waiting.done():
        return  # whoever waited has gone
    if outcome.error is None:
        waiting.set_result(outcome.done)
    else:
        waiting.set_exception(outcome.error)


async def failed(error: Exception) -> None:
    """The task that brings a thread's bug to the owner of the target's tasks."""
    raise error


class HopWork(Protocol):
    """What the thread is asked to do meanwhile (``TargetRunner``)."""

    def lead_group(self) -> None:
        """Make the next group of updates durable."""
        ...

    def forward_here(self, effect: Forward) -> None:
        """Send a pending version on and wait for the answer; raises nothing that belongs to the request."""
        ...

    def give_up(self, hop: Hop) -> None:
        """Nobody waits for the answer any more."""
        ...


Message = Outcome | tuple[int, Forward] | str


class Hop(HeldBytes):
    """The mailbox of the thread, and the bytes that it received."""

    def __init__(self, view: memoryview) -> None:
        super().__init__(view, lambda: self._mail.put("unused"))
        self._mail: queue.SimpleQueue[Message] = queue.SimpleQueue()  # one of each, a forward a chain version

    def lead(self) -> None:
        """From any thread: it is this thread's turn to lead a group."""
        self._mail.put("lead")

    def forward(self, effect: Forward) -> None:
        """From any thread: its bytes are to be sent on, and not where they may be on their way to."""
        self.use()
        self._mail.put((self.supersede(), effect))

    def settle(self, outcome: Outcome) -> None:
        """From any thread: the request is answered."""
        self._mail.put(outcome)
        self.answered()

    def run(self, work: HopWork, peer_has_gone: Callable[[], bool]) -> Done:
        """In the thread: do what comes, until there is an answer and nobody uses the bytes any more.

        Raises what the request was refused with. Bounded as the request is: the replica answers it at its
        deadline, the disk and a forward have limits of their own.
        """
        outcome: Outcome | None = None
        while outcome is None or self.is_used:
            try:
                message = self._mail.get(timeout=PEER_CHECK_S)
            except queue.Empty:
                if outcome is None and peer_has_gone():
                    outcome = Outcome(None, Unavailable("the caller has gone"))
                    work.give_up(self)
                continue
            if isinstance(message, Outcome):  # a tuple as well
                outcome = outcome or message
            elif isinstance(message, tuple):
                self._send, effect = message
                work.forward_here(effect)
            elif message == "lead":
                work.lead_group()
        if outcome.error is not None:
            raise outcome.error
        assert outcome.done is not None, outcome
        return outcome.done
