"""One connection of the bulk plane at the server: a thread that reads a request, answers it, and goes on.

A payload is received into a pooled page-aligned buffer; answers are sent from files and buffers. Handlers
that can answer in a thread do so here; others run on the event loop while this thread waits, and sends what
they give it.

**When a block may be reused** (design 4.1). sendfile puts references to the file's pages on the wire: until
the peer has *read* them, a change of the block changes what it gets. ``Reply.released`` is called when both
are so:

* SIOCOUTQ is 0: the bytes have left this host's socket;
* the peer has said that it has read them: by its next request on this connection (a client has one call at
  a time on each), or by a RECEIPT frame when it has none. On the loopback interface and between network
  name spaces, acknowledged pages lie in the receiver's queue by reference still: SIOCOUTQ alone says
  nothing there.

Or the connection is gone, with SO_LINGER 0, so that no unsent byte refers to a page. A connection that holds
blocks for ``held_s`` is reset. Nothing here delays the next request.
"""

from __future__ import annotations

import asyncio
import fcntl
import queue
import struct
import termios
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from ..errors import Busy, Fs3Error, InternalError, InvalidRequest
from ..tasks import TaskScope
from .blocking import FrameSocket, PeerClosed, Stalled
from .buffers import BufferPool
from .dispatch import (
    DECODE_ERRORS,
    OnBug,
    Row,
    as_coroutine,
    as_reply,
    error_message,
    response_message,
)
from .framing import HANDSHAKE_BYTES_MAX, Flag, Frame, FrameError, Kind, encode_frame
from .running import HandlerRun
from .service import FileRegion, PeerIdentity, Reply

PARTS_MAX = 2048
"""Parts of one answer that wait to be sent."""
RELEASE_COUNT = 16
"""Held answers at which a busy connection looks whether it can release some (a system call each time)."""
HELD = int(Flag.HELD)


Answer = tuple[Kind, Reply[Any] | Exception]
"""A part (PART), or what a handler on the event loop came to (RESPONSE, ERROR): it has ended then."""


@dataclass(frozen=True, slots=True)
class BulkServerSettings:
    """Bounds of the bulk plane of one process."""

    connections_max: int = 256
    """One thread each, which sleeps in the kernel when there is nothing to do."""
    payloads_max: int = 8
    """Payloads of requests in flight, of each rank (design 5.3)."""
    payload_bytes_max: int = 64 << 20
    payload_s: float = 2.0
    """A payload that takes longer, plus its length at the least rate, ends the connection."""
    answer_s: float = 30.0
    """An answer that has not left this long after it first had to wait ends the connection."""
    rate_min_bytes_s: int = 8 << 20
    held_s: float = 30.0
    """Blocks that a peer has not read by then: the connection is reset (design 4.1)."""
    tick_s: float = 1.0
    """How often a connection that holds blocks looks whether it can release them."""
    idle_s: float = 600.0
    peer_check_s: float = 0.1
    """How often a thread that waits for a handler looks whether its peer is still there."""


class BulkParts(Protocol):
    """What a connection needs of its server."""

    settings: BulkServerSettings
    rows: dict[int, Row]
    on_bug: OnBug
    loop: asyncio.AbstractEventLoop
    now_s: Callable[[], float]
    call_s_max: float
    is_stopping: bool

    @property
    def scope(self) -> TaskScope: ...

    def pool_of(self, rank: int) -> BufferPool: ...

    def count(self, name: str) -> None:
        """Add one to a counter of ``ServerCounters``. Thread-safe."""
        ...

    def served(self, received_bytes: int, sent_bytes: int) -> None:
        """A request has been answered. Thread-safe."""
        ...

    def ended(self, connection: BulkConnection) -> None: ...


class BulkCall:
    """One request under way (``service.Call``)."""

    __slots__ = (
        "_connection",
        "_thread",
        "answers",
        "connection_state",
        "deadline_s",
        "number",
        "payload",
        "peer",
        "request_id",
        "row",
    )

    def __init__(
        self,
        connection: BulkConnection,
        frame: Frame,
        row: Row,
        deadline_s: float,
        payload: memoryview | None,
    ) -> None:
        self._connection = connection
        self._thread, self.peer = threading.get_ident(), connection.peer
        self.connection_state = connection.state_of_peer
        self.request_id = frame.request
        self.deadline_s = deadline_s
        self.payload = payload
        self.number = frame.call
        self.row = row
        self.answers: queue.SimpleQueue[Answer | None]
        """From the event loop to the connection's thread: parts, then one that is none, or None: the handler
        has ended without an answer. Each wakes the thread, so the end is not told apart. Made when needed."""

    def peer_has_gone(self) -> bool:
        """See ``service.ThreadedCall``."""
        return self._connection.peer_has_gone()

    def send_part(self, reply: Reply[Any]) -> None:
        """See ``service.Call``."""
        if threading.get_ident() == self._thread:
            self._connection.send_reply(Kind.PART, self, reply)
        elif self.answers.qsize() < PARTS_MAX:
            self.answers.put((Kind.PART, reply))
        else:
            raise Busy(f"more than {PARTS_MAX} parts wait to be sent")


class BulkConnection:
    """See the module's text."""

    def __init__(self, server: BulkParts, sock: FrameSocket, peer: PeerIdentity, welcome: bytes) -> None:
        self._server = server
        self._socket = sock
        self.peer = peer
        self._welcome = welcome
        self.state_of_peer: dict[str, Any] = {}
        self._held: deque[tuple[Callable[[], None], float]] = deque()  # (released, since)
        self._acknowledged = 0  # of the held ones: the peer has read them
        self.is_busy = False
        """A request is under way."""
        self.thread = threading.Thread(target=self._run, name="fs3-bulk-server", daemon=True)

    def shut(self) -> None:
        """End the connection, from any thread."""
        self._socket.shut()

    def peer_has_gone(self) -> bool:
        """The peer has closed its end while a request of its is under way."""
        if has_gone := self._socket.has_ended():
            self._server.count("cancelled")
        return has_gone

    def _run(self) -> None:
        try:
            self._socket.send_within(self._server.settings.answer_s)
            self._socket.send(self._welcome)
            while not self._server.is_stopping:
                frame = self._next()
                if frame is None:
                    break
                self._acknowledged = len(self._held)
                if frame.kind == Kind.REQUEST:
                    if self._acknowledged >= RELEASE_COUNT:
                        self._release()
                    self._serve(frame)
                else:  # RECEIPT, or a newer client's
                    self._socket.skip_payload(frame.payload_bytes)
                    self._release()
        except FrameError as error:
            self._server.count("bad_frames")
            self._farewell(InvalidRequest(str(error)))
        except Stalled:
            self._server.count("stalled")
        except PeerClosed:
            pass
        finally:
            if self._held:
                self._socket.reset()  # what is unsent must not refer to blocks that are free then
            else:
                self._socket.close()
            while self._held:
                self._held.popleft()[0]()
            self._server.ended(self)

    def _farewell(self, error: Fs3Error) -> None:
        try:
            self._socket.send_within(1.0)
            self._socket.send(encode_frame(Kind.ERROR, error_message(error)))
        except (PeerClosed, Stalled):
            pass

    # --- blocks that the kernel or the peer still refers to ---

    def _release(self) -> None:
        if self._acknowledged and _unsent_bytes(self._socket) == 0:
            for _ in range(self._acknowledged):
                self._held.popleft()[0]()
            self._acknowledged = 0

    # --- requests ---

    def _next(self) -> Frame | None:
        """The next frame; None when the connection has been idle for long. Stalled: blocks held too long.

        Wakes now and then while blocks are held, to see whether they can be released or have been held for
        too long.
        """
        settings = self._server.settings
        idle_s = 0.0
        while True:
            # a plain wait: when it ends without a byte, look around and wait again
            self._socket.receive_by(0.0, settings.tick_s if self._held else settings.idle_s)
            try:
                return self._socket.read(self._bounds)
            except Stalled:
                if not self._socket.is_between_frames:
                    raise
            now_s = self._server.now_s()
            self._release()
            if self._held and now_s > self._held[0][1] + settings.held_s:
                raise Stalled(f"blocks held for more than {settings.held_s} s")
            idle_s = idle_s or now_s
            if not self._held and now_s > idle_s + settings.idle_s / 2:
                return None

    def _bounds(self, kind: int, method: int) -> tuple[int, int]:
        row = self._server.rows.get(method) if kind == Kind.REQUEST else None
        if row is None:
            return HANDSHAKE_BYTES_MAX, 0
        payload_max = min(row.method.payload_bytes_max, self._server.settings.payload_bytes_max)
        return row.method.request_bytes_max, payload_max

    def _serve(self, frame: Frame) -> None:
        server = self._server
        row = server.rows.get(frame.method)
        if row is None or frame.oversize:
            self._socket.skip_payload(frame.payload_bytes)
            what = f"payload of {frame.payload_bytes} bytes is too long" if row else "unknown method"
            server.count("bad_requests")
            self._send_error(frame, InvalidRequest(f"method {frame.method}: {what}"))
            return
        longest_s = server.call_s_max
        left_s = min(frame.deadline_ms / 1000, longest_s) if frame.deadline_ms else longest_s
        deadline_s = server.now_s() + left_s
        self.is_busy = True
        try:
            if frame.payload_bytes:
                self._serve_payload(frame, row, deadline_s, left_s)
            else:
                self._answer(BulkCall(self, frame, row, deadline_s, None), frame)
        finally:
            self.is_busy = False
            server.served(*self._socket.take_counts())

    def _serve_payload(self, frame: Frame, row: Row, deadline_s: float, left_s: float) -> None:
        server = self._server
        pool = server.pool_of(row.rank_of(frame.message))
        buffer = pool.take(left_s)
        if buffer is None:
            self._socket.skip_payload(frame.payload_bytes)
            server.count("busy")
            self._send_error(frame, Busy("no buffer for the payload came free in time"))
            return
        try:
            payload = memoryview(buffer)[: frame.payload_bytes]
            self._receive(payload)
            self._answer(BulkCall(self, frame, row, deadline_s, payload), frame)
        finally:
            pool.give(buffer, frame.payload_bytes)

    def _receive(self, payload: memoryview) -> None:
        settings = self._server.settings
        longest_s = settings.payload_s + payload.nbytes / settings.rate_min_bytes_s
        self._socket.receive_by(self._server.now_s() + longest_s, longest_s)
        self._socket.read_payload([payload])

    def _answer(self, call: BulkCall, frame: Frame) -> None:
        row = call.row
        try:
            request = row.decode(frame.message)
        except DECODE_ERRORS as error:
            self._server.count("bad_requests")
            self._send_error(frame, InvalidRequest(f"{row.method.name}: {error}"))
            return
        result: Any = None
        if row.in_thread is not None:
            try:
                result = row.in_thread(call, request)
            except (PeerClosed, Stalled, FrameError):
                raise  # in the middle of a part: the connection is over
            except Exception as error:  # dispatch: whatever a handler raises is answered
                self._fail(call, error)
                return
        if result is None:
            self._on_loop(call, request)
        else:
            self._finish(call, as_reply(result))

    def _on_loop(self, call: BulkCall, request: Any) -> None:
        """Have the handler run on the event loop; send what it answers, cancel it when the peer has gone."""
        call.answers = queue.SimpleQueue()  # bounded by PARTS_MAX
        run = _LoopRun(self._server, call, request)
        self._server.loop.call_soon_threadsafe(run.begin)
        is_gone = False
        while True:
            try:
                answer = call.answers.get(timeout=self._server.settings.peer_check_s)
            except queue.Empty:
                if not is_gone and self._socket.has_ended():
                    is_gone = True
                    self._server.count("cancelled")
                    self._server.loop.call_soon_threadsafe(run.give_up)
                continue
            if answer is None or answer[0] is not Kind.PART:
                break  # the handler has ended: only now may its payload's buffer be used again
            if is_gone:
                _drop(answer)
            else:
                self._send_or_give_up(run, call, answer)
        if is_gone:
            _drop(answer)
            raise PeerClosed("peer closed while its request was handled")
        if answer is not None:
            self._conclude(call, answer[1])

    def _conclude(self, call: BulkCall, outcome: Reply[Any] | Exception) -> None:
        if isinstance(outcome, Exception):
            self._fail(call, outcome)
        else:
            self._finish(call, outcome)

    def _send_or_give_up(self, run: _LoopRun, call: BulkCall, part: Answer) -> None:
        assert isinstance(part[1], Reply), part
        try:
            self.send_reply(Kind.PART, call, part[1])
        except (PeerClosed, Stalled, FrameError):
            self._server.loop.call_soon_threadsafe(run.give_up)
            while (answer := call.answers.get()) is not None:
                _drop(answer)
                if answer[0] is not Kind.PART:
                    break
            raise

    # --- answers ---

    def _finish(self, call: BulkCall, reply: Reply[Any]) -> None:
        try:
            message = response_message(call.row, reply.response)
        except Exception as error:  # dispatch: a handler's response that is none
            if reply.released is not None:
                reply.released()
            self._fail(call, error)
            return
        self._send(Kind.RESPONSE, call, reply, message)
        call.row.ok_count += 1

    def send_reply(self, kind: Kind, call: BulkCall, reply: Reply[Any]) -> None:
        """Send a part of an answer, in the connection's thread."""
        self._send(kind, call, reply, response_message(call.row, reply.response))

    def _send(self, kind: Kind, call: BulkCall, reply: Reply[Any], message: bytes) -> None:
        payload, released = reply.payload, reply.released
        size = 0
        holds = False
        for piece in payload:
            if isinstance(piece, FileRegion):
                size += piece.length_bytes
                holds = released is not None
            else:
                size += memoryview(piece).nbytes
        frame = encode_frame(
            kind,
            message,
            method=call.row.method.number,
            flags=HELD if holds else 0,
            call=call.number,
            payload_bytes=size,
        )
        if holds and released is not None:
            self._held.append((released, self._server.now_s()))
        try:
            self._socket.send(frame, payload)
        finally:
            if not holds and released is not None:
                released()  # buffers were copied into the socket

    def _fail(self, call: BulkCall, error: Exception) -> None:
        call.row.error_count += 1
        if not isinstance(error, Fs3Error):
            self._server.count("bugs")
            self._server.on_bug(call.row.method.name, call.request_id, error)
            error = InternalError(
                f"{call.row.method.name}: {type(error).__name__} (request {call.request_id})"
            )
        number = call.row.method.number
        self._socket.send(encode_frame(Kind.ERROR, error_message(error), method=number, call=call.number))

    def _send_error(self, frame: Frame, error: Fs3Error) -> None:
        self._socket.send(
            encode_frame(Kind.ERROR, error_message(error), method=frame.method, call=frame.call)
        )


class _LoopRun:
    """A handler on the event loop whose answers go to a thread."""

    def __init__(self, server: BulkParts, call: BulkCall, request: Any) -> None:
        self._server = server
        self._call = call
        self._request = request
        self._run: HandlerRun | None = None
        self._is_unwanted = False
        self._outcome: Answer | None = None

    def begin(self) -> None:
        call = self._call
        if self._is_unwanted:
            self._end()
            return
        try:
            result = call.row.handler(call, self._request)
            if isinstance(result, msgspec.Struct | Reply):
                self._reply(as_reply(result))
            else:
                self._run = HandlerRun(
                    call.row,
                    as_coroutine(result),
                    call.deadline_s,
                    call.request_id,
                    self._reply,
                    self._fail,
                )
                if not self._run.step(self._server.scope, self._end):
                    return
        except Exception as error:  # dispatch: whatever a handler raises is answered
            self._fail(error)
        self._end()

    def _reply(self, reply: Reply[Any]) -> None:
        self._outcome = (Kind.RESPONSE, reply)

    def _fail(self, error: Exception) -> None:
        self._outcome = (Kind.ERROR, error)

    def _end(self) -> None:
        """The handler has ended, and uses its payload no more."""
        self._call.answers.put(self._outcome)

    def give_up(self) -> None:
        self._is_unwanted = True
        if self._run is not None:
            self._run.give_up()


def _drop(answer: Answer | None) -> None:
    """Nobody reads it: what it holds is free."""
    if answer is not None and isinstance(answer[1], Reply) and answer[1].released is not None:
        answer[1].released()


def _unsent_bytes(sock: FrameSocket) -> int:
    """SIOCOUTQ: bytes that the peer's kernel has not acknowledged."""
    answer = fcntl.ioctl(sock.sock, termios.TIOCOUTQ, bytes(4))
    return int(struct.unpack("@i", answer)[0])
