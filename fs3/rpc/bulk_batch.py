"""Several bulk calls at once by a thread that waits anyway, past the event loop (design 5.3, [dp D]).

The calls are dealt out to a few *lanes*, one of which the waiting thread runs itself. A lane sends all its
requests, then receives the answers one after the other as they begin to arrive: meanwhile the other servers
fill their sockets. One thread copies about as fast as one core can; more lanes pay as far as there are cores.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from ..errors import Fs3Error
from .bulk_attempt import Attempt, BulkPeer
from .permits import Permits
from .thread_calls import ThreadCall


class Entry(NamedTuple):
    """A call that has its permits."""

    call: ThreadCall
    attempt: Attempt
    mine: Permits
    """Of its server."""


class Exchanging(Protocol):
    """What a lane needs of ``BulkClient``."""

    def begin(self, attempt: Attempt) -> BulkPeer: ...
    def complete(self, attempt: Attempt, peer: BulkPeer) -> Any: ...
    def end(self, attempt: Attempt, peer: BulkPeer) -> None: ...
    def give_permits(self, mine: Permits) -> None: ...


class Lane:
    """Calls that one thread makes together. When ``run`` has ended no buffer is in use."""

    def __init__(self, client: Exchanging, entries: Sequence[Entry], now_s: Callable[[], float]) -> None:
        self._client = client
        self._entries = entries
        self._now_s = now_s
        self._started_s = now_s()
        self._under_way: list[tuple[Entry, BulkPeer]] = []
        self.ended = threading.Event()
        self.failure: BaseException | None = None
        """A bug of a sink, say: for whoever waits."""

    def run(self) -> None:
        """Make the calls; each has its answer or its ``error`` afterwards, unless ``failure`` is set."""
        began = 0
        try:
            for entry in self._entries:
                began += 1
                self._begin(entry)
            while self._under_way:
                self._complete(*self._under_way.pop(self._next()))
        except BaseException as error:  # worker runner: whatever it is goes to who waits
            self.failure = error
        finally:
            for entry, peer in self._under_way:
                self._client.end(entry.attempt, peer)  # owes an answer: the connection is closed
            for entry in (*(e for e, _ in self._under_way), *self._entries[began:]):
                self._client.give_permits(entry.mine)
            self.ended.set()

    def _begin(self, entry: Entry) -> None:
        peer: BulkPeer | None = None
        try:
            peer = self._client.begin(entry.attempt)
            self._under_way.append((entry, peer))
        except Fs3Error as error:
            entry.call.error = error
        finally:
            if peer is None:
                self._client.give_permits(entry.mine)

    def _next(self) -> int:
        """Which of those under way to receive from: the first that has begun to answer."""
        if len(self._under_way) == 1:
            return 0
        poll = select.poll()
        at: dict[int, int] = {}
        for index, (_, peer) in enumerate(self._under_way):
            at[fd := peer.socket.sock.fileno()] = index
            poll.register(fd, select.POLLIN)
        left_s = self._under_way[0][0].attempt.deadline_s - self._now_s()
        ready = poll.poll(max(0, int(left_s * 1000)))
        return min((at[fd] for fd, _ in ready), default=0)  # none: they are late, and say so

    def _complete(self, entry: Entry, peer: BulkPeer) -> None:
        try:
            self._client.complete(entry.attempt, peer)
            entry.call.error = None
        except Fs3Error as error:
            entry.call.error = error
        finally:
            entry.call.took_s = self._now_s() - self._started_s
            self._client.give_permits(entry.mine)

    def abandon(self) -> None:
        """Give all calls up, from any thread: ``run`` ends soon."""
        for entry in self._entries:
            entry.attempt.abandon()


def run_lanes(lanes: Sequence[Lane], start: Callable[[Lane], None]) -> None:
    """Run the first lane here and ``start`` the others; return when all have ended. Raises their failures."""
    others = lanes[1:]
    for lane in others:
        start(lane)
    try:
        lanes[0].run()
        for lane in others:
            lane.ended.wait()  # bounded by the deadline of its calls
    finally:  # interrupted: nothing may arrive in the caller's memory later
        for lane in others:
            if not lane.ended.is_set():
                lane.abandon()
                lane.ended.wait()
    for lane in lanes:
        if lane.failure is not None:
            raise lane.failure
