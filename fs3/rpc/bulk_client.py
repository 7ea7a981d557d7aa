"""The bulk plane of a client: calls with large payloads, each on a connection of its own in a thread.

Payloads are received straight into the sink's buffers; a call that is given up (deadline, cancellation, a
hedge that lost) has its connection shut down, and ``call`` raises only after the thread has let go of every
buffer (``bulk_attempt``).

``call`` costs a hop to a thread and back; ``call_blocking`` does the same in the calling thread.

Source: design 5.2, 5.3; [dp D].
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from ..errors import Busy, Fs3Error, MaybeApplied, Unavailable
from ..identity.handshake import ClientHandshake, Credentials, Plane
from .blocking import FrameSocket, PeerClosed, Stalled
from .blocking_handshake import shake_hands
from .bulk_attempt import Attempt, BulkPeer
from .bulk_batch import Entry, Lane, run_lanes
from .framing import FrameError, Kind, encode_frame
from .network import Network
from .permits import Permits
from .service import Buffer, Method, Sink
from .thread_calls import ThreadCall

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

HOUSEKEEPING_S = 0.5
CLOSE_S = 2.0
STEP_S = 0.005
FRESH_S = 0.1
"""A connection used this recently is taken without a look whether the server has closed it since."""
PEERS_MAX = 16_384


@dataclass(frozen=True, slots=True)
class BulkClientSettings:
    """Bounds of the bulk plane of one client process."""

    in_flight_max: int = 8
    """Calls under way, and threads (design 5.3)."""
    in_flight_peer_max: int = 4
    """Calls under way to one address: a server that hangs leaves the others their share."""
    batch_threads_max: int = min(4, os.cpu_count() or 1)
    """Threads that make the calls of one batch, the waiting one included: one copies as fast as its core."""
    waiting_max: int = 4096
    """Calls that wait for their turn; more fail with Busy."""
    idle_connections_max: int = 64
    connect_s: float = 2.0
    """Connection and handshake."""
    idle_s: float = 60.0
    """A connection that is not used for this long is closed."""


DEFAULT = BulkClientSettings()


@dataclass(slots=True)
class BulkClientCounters:
    """Approximate: added to by threads without a lock."""

    calls: int = 0
    connected: int = 0
    failed_connects: int = 0
    lost: int = 0
    """Connections that ended within a call."""
    given_up: int = 0
    """Calls cancelled, or past their deadline, while they were under way."""
    received_bytes: int = 0
    sent_bytes: int = 0


class BulkClient:
    """See the module's text. Made within the event loop that ``call`` is used in.

    ``now_s`` is the loop's clock, readable in any thread.
    """

    def __init__(
        self,
        credentials: Credentials,
        network: Network,
        *,
        make_nonce: Callable[[], bytes],
        settings: BulkClientSettings = DEFAULT,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        assert network.has_threads, "the bulk plane needs blocking sockets"
        self._credentials = credentials
        self._network = network
        self._make_nonce = make_nonce
        self._settings = settings
        self._now_s = now_s
        self.counters = BulkClientCounters()
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._idle: dict[str, list[BulkPeer]] = {}
        self._idle_count = 0
        self._permits = Permits(settings.in_flight_max, settings.waiting_max)
        self._peer_permits: dict[str, Permits] = {}
        self._attempts: dict[Attempt, None] = {}
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()  # at most the permits
        self._threads: list[threading.Thread] = []
        self._free_threads = 0  # not spoken for by a job
        self._is_closed = False
        self._timer = self._loop.call_later(HOUSEKEEPING_S, self._keep_house)

    # --- calls ---

    async def call(
        self,
        address: str,
        method: Method[Q, R],
        request: Q,
        *,
        timeout_s: float,
        payload: Sequence[Buffer] = (),
        sink: Sink | None = None,
        request_id: int = 0,
    ) -> R:
        """See ``service.Caller.call``. NoBulkPlane: the server has none."""
        deadline_s = self._now_s() + timeout_s
        attempt = Attempt(address, method, request, payload, sink, deadline_s, request_id)
        mine = self._permits_of(address)
        if not mine.take_now():
            await mine.take(deadline_s)
        try:
            if not self._permits.take_now():
                await self._permits.take(deadline_s)
        except BaseException:
            mine.give()
            raise
        return await self._in_thread(attempt, mine)  # type: ignore[no-any-return]  # decoded as R

    def call_blocking(
        self,
        address: str,
        method: Method[Q, R],
        request: Q,
        *,
        timeout_s: float,
        payload: Sequence[Buffer] = (),
        sink: Sink | None = None,
        request_id: int = 0,
        begun: Callable[[Callable[[], object]], None] | None = None,
    ) -> R:
        """See ``service.BlockingCaller.call_blocking``. Not on the loop's own thread."""
        deadline_s = self._now_s() + timeout_s
        attempt = Attempt(address, method, request, payload, sink, deadline_s, request_id)
        if begun is not None:
            begun(attempt.abandon)
        mine = self._permits_of(address)
        if not mine.take_now():
            mine.take_blocking(timeout_s)
        try:
            if not self._permits.take_now():
                self._permits.take_blocking(deadline_s - self._now_s())
            try:
                return self._run(attempt)  # type: ignore[no-any-return]  # decoded as the method's response
            finally:
                self._permits.give()
        finally:
            mine.give()

    def call_all(self, calls: Sequence[ThreadCall], timeout_s: float) -> None:
        """Make several calls at once, in the calling thread and perhaps a few more; wait until each has its
        answer, or its ``error`` (as of ``call_blocking``). Not on the loop's own thread."""
        deadline_s = self._now_s() + timeout_s
        left = deque(calls)
        while left:
            if lanes := self._admit(left, deadline_s):
                run_lanes(lanes, self._start_lane)

    def _admit(self, left: deque[ThreadCall], deadline_s: float) -> list[Lane]:
        """Take permits for the first call, which may have to wait for them, and for all that need not; deal
        these out to as many lanes as pays."""
        admitted: list[Entry] = []
        skipped: list[ThreadCall] = []
        while left:
            call = left.popleft()
            attempt = Attempt(call.address, call.method, call.request, (), call.sink, deadline_s, 0)
            try:
                mine = self._permits_of(call.address)
                if self._permitted(mine, deadline_s, waits=not admitted):
                    admitted.append(Entry(call, attempt, mine))
                else:
                    skipped.append(call)
            except Fs3Error as error:
                call.error = error
        left.extend(skipped)
        count = min(len(admitted), self._settings.batch_threads_max)
        return [Lane(self, admitted[first::count], self._now_s) for first in range(count)]

    def _permitted(self, mine: Permits, deadline_s: float, *, waits: bool) -> bool:
        if not mine.take_now():
            if not waits:
                return False
            mine.take_blocking(deadline_s - self._now_s())
        if self._permits.take_now():
            return True
        try:
            if waits:
                self._permits.take_blocking(deadline_s - self._now_s())
                return True
        except BaseException:
            mine.give()
            raise
        mine.give()
        return False

    def _start_lane(self, lane: Lane) -> None:
        def job() -> None:
            try:
                lane.run()
            finally:
                with self._lock:
                    self._free_threads += 1

        self._submit(job)

    def give_permits(self, mine: Permits) -> None:
        """A call is over."""
        self._permits.give()
        mine.give()

    def shut(self) -> None:
        """Give up all calls, close all connections; calls that begin later fail."""
        with self._lock:
            self._is_closed = True
            attempts = list(self._attempts)
            idle = [peer for found in self._idle.values() for peer in found]
            self._idle.clear()
            self._idle_count = 0
        self._timer.cancel()
        for attempt in attempts:
            attempt.abandon()
        for peer in idle:
            peer.socket.close()

    async def aclose(self) -> None:
        """``shut``, and end all threads."""
        self.shut()
        for _ in self._threads:
            self._jobs.put(None)
        end_s = self._loop.time() + CLOSE_S
        while any(thread.is_alive() for thread in self._threads):
            if self._loop.time() > end_s:
                raise RuntimeError("threads of the bulk client did not end")
            await asyncio.sleep(STEP_S)

    def _permits_of(self, address: str) -> Permits:
        found = self._peer_permits.get(address)
        if found is not None:
            return found
        with self._lock:
            found = self._peer_permits.get(address)
            if found is None:
                settings = self._settings
                if len(self._peer_permits) >= PEERS_MAX:
                    raise Busy(f"more than {PEERS_MAX} peers")
                found = Permits(settings.in_flight_peer_max, settings.waiting_max)
                self._peer_permits[address] = found
            return found

    # --- threads ---

    async def _in_thread(self, attempt: Attempt, mine: Permits) -> Any:
        """Run an attempt in a thread, which gives the permits back when it is free again."""
        loop = self._loop
        waiting: asyncio.Future[Any] = loop.create_future()  # cancelled with whoever waits
        ended = asyncio.Event()

        def finish(result: Any, error: BaseException | None) -> None:
            ended.set()
            if waiting.done():
                return
            if error is not None:
                waiting.set_exception(error)
            else:
                waiting.set_result(result)

        def job() -> None:
            result, failure = None, None
            try:
                result = self._run(attempt)
            except BaseException as error:  # worker runner: whatever it is goes to who called
                failure = error
            with self._lock:
                self._free_threads += 1
            self._permits.give()
            mine.give()
            loop.call_soon_threadsafe(finish, result, failure)

        self._submit(job)
        try:
            return await waiting
        except asyncio.CancelledError:
            if attempt.abandon():
                await _until(ended)
            if waiting.done() and not waiting.cancelled():
                waiting.exception()  # it came at the same time, and nobody waits for it any more
            raise

    def _submit(self, job: Callable[[], None]) -> None:
        """Give a job to a thread: there are never more jobs than permits, and never more threads."""
        with self._lock:
            if self._free_threads:
                self._free_threads -= 1
            else:
                thread = threading.Thread(target=self._work, name="fs3-bulk-client", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # or a thread that rests would hold on to the caller's buffers

    # --- one call, in whatever thread ---

    def _run(self, attempt: Attempt) -> Any:
        return self.complete(attempt, self.begin(attempt))

    def begin(self, attempt: Attempt) -> BulkPeer:
        """Send the request on a connection, which is this call's until ``complete`` or ``end``."""
        peer = self._take(attempt)
        try:
            self._attempts[attempt] = None
            if self._is_closed:
                raise Unavailable("the client is closed")
            attempt.hold(peer.socket)
            self.counters.calls += 1
            attempt.send(peer, self._now_s)
        except (PeerClosed, Stalled, FrameError) as error:
            self.end(attempt, peer)
            raise self._lost(attempt, error) from error
        except BaseException:
            self.end(attempt, peer)
            raise
        return peer

    def complete(self, attempt: Attempt, peer: BulkPeer) -> Any:
        """Receive the answer on the connection that ``begin`` gave; give it back."""
        try:
            return attempt.receive(peer, self._now_s)
        except (PeerClosed, Stalled, FrameError) as error:
            raise self._lost(attempt, error) from error
        finally:
            self.end(attempt, peer)

    def end(self, attempt: Attempt, peer: BulkPeer) -> None:
        """The thread uses buffers and connection no more."""
        was_abandoned = attempt.let_go()
        self.counters.given_up += was_abandoned
        self._attempts.pop(attempt, None)
        self._give_back(peer, attempt.is_clean and not was_abandoned)

    def _lost(self, attempt: Attempt, error: Exception) -> Fs3Error:
        self.counters.lost += 1
        what = "no answer in time" if self._now_s() >= attempt.deadline_s else f"connection lost: {error}"
        text = f"{attempt.method.name} to {attempt.address}: {what} (request {attempt.request_id})"
        return MaybeApplied(text) if attempt.is_sent else Unavailable(text)

    # --- connections ---

    def _take(self, attempt: Attempt) -> BulkPeer:
        """A connection for one call: the one used last, or a new one."""
        while True:
            with self._lock:
                idle = self._idle.get(attempt.address)
                if not idle:
                    break
                peer = idle.pop()
                self._idle_count -= 1
            is_fresh = self._now_s() - peer.used_s < FRESH_S
            if is_fresh or not peer.socket.has_ended():
                return peer
            self._close(peer)
        return self._connect(attempt.address, attempt.deadline_s)

    def _give_back(self, peer: BulkPeer, is_clean: bool) -> None:
        peer.used_s = self._now_s()
        received_bytes, sent_bytes = peer.socket.take_counts()
        with self._lock:
            self.counters.received_bytes += received_bytes
            self.counters.sent_bytes += sent_bytes
            if is_clean and not self._is_closed and self._idle_count < self._settings.idle_connections_max:
                self._idle.setdefault(peer.address, []).append(peer)
                self._idle_count += 1
                return
        self._close(peer)

    def _close(self, peer: BulkPeer) -> None:
        peer.socket.close()

    def _connect(self, address: str, deadline_s: float) -> BulkPeer:
        end_s = min(deadline_s, self._now_s() + self._settings.connect_s)
        left_s = end_s - self._now_s()
        if left_s <= 0:
            raise Unavailable(f"no time left to connect to {address}")
        try:
            sock = FrameSocket(self._network.connect_blocking(address, left_s), self._now_s)
        except OSError as error:
            self.counters.failed_connects += 1
            raise Unavailable(f"cannot connect to {address}: {error}") from error
        try:
            sock.receive_by(end_s, left_s)
            sock.send_by(end_s, left_s)
            shake_hands(sock, ClientHandshake(self._credentials, self._make_nonce(), Plane.BULK))
        except (PeerClosed, Stalled, FrameError) as error:
            sock.close()
            self.counters.failed_connects += 1
            raise Unavailable(f"{address}: {error} during the handshake") from error
        except BaseException:
            sock.close()
            self.counters.failed_connects += 1
            raise
        self.counters.connected += 1
        return BulkPeer(address, sock)

    def _keep_house(self) -> None:
        """Say that answers have been read on connections that rest; close those that rest for long."""
        with self._lock:
            if self._is_closed:
                return
            idle = [peer for found in self._idle.values() for peer in found]
            now_s = self._now_s()
            old = [p for p in idle if now_s - p.used_s > self._settings.idle_s]
            for peer in old:
                self._idle[peer.address].remove(peer)
                self._idle_count -= 1
            for address in [address for address, found in self._idle.items() if not found]:
                del self._idle[address]
            for peer in idle:  # under the lock: no call takes it meanwhile; 36 bytes never wait
                if peer.owes_receipt and peer not in old:
                    _send_receipt(peer)
        for peer in old:
            self._close(peer)
        self._timer = self._loop.call_later(HOUSEKEEPING_S, self._keep_house)


def _send_receipt(peer: BulkPeer) -> None:
    peer.owes_receipt = False
    with contextlib.suppress(PeerClosed, Stalled):  # whoever uses it next will see
        peer.socket.send(encode_frame(Kind.RECEIPT))


async def _until(ended: asyncio.Event) -> None:
    """Until a thread has let go of its buffers, whatever else is cancelled meanwhile."""
    while not ended.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await ended.wait()
