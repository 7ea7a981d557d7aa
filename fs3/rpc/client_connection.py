"""One connection of a client to a server, small plane: handshake, then many calls at a time.

All calls of one turn of the event loop leave in one write; answers may come in any order. One timer serves
all deadlines of the connection. Giving a call up forgets it before its caller learns of it, and payloads
are copied into the caller's buffers only when they have arrived as a whole, so no late byte can land in a
buffer that has been given on (design 5.1).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import Busy, CorruptData, Fs3Error, InvalidRequest, MaybeApplied, Unavailable
from ..identity.handshake import ClientHandshake, Welcome
from ..wire.codec import decoder, encode
from .counters import ClientCounters
from .dispatch import DECODE_ERRORS, error_of
from .framing import (
    HANDSHAKE_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    Frame,
    FrameError,
    FrameParser,
    Kind,
    encode_frame,
    plain_payload,
)
from .service import Buffer, Method, Sink
from .settings import ClientSettings

NO_TIMER = float("inf")
DEADLINE_MS_MAX = (1 << 32) - 1


class Pending:
    """A call under way."""

    __slots__ = ("deadline_s", "decode", "future", "method_name", "number", "request_id", "sink")

    def __init__(
        self,
        future: asyncio.Future[Any],
        number: int,
        method: Method[Any, Any],
        sink: Sink | None,
        deadline_s: float,
        request_id: int,
    ) -> None:
        self.future = future
        self.number = number
        self.decode: Callable[[bytes], Any] = decoder(method.response)
        self.method_name = method.name
        self.sink = sink
        self.deadline_s = deadline_s
        self.request_id = request_id


def deliver(sink: Sink, response: Any, payload: memoryview | None) -> None:
    """Hand a payload that has arrived to a sink."""
    room = sink.buffers(response)
    size = payload.nbytes if payload is not None else 0
    if sum(buffer.nbytes for buffer in room) != size:
        raise CorruptData(f"answer has {size} bytes of payload, room is {[b.nbytes for b in room]}")
    at = 0
    for buffer in room:
        assert payload is not None or not buffer.nbytes
        if payload is not None:
            buffer.cast("B")[:] = payload[at : at + buffer.nbytes]
        at += buffer.nbytes
    sink.received(response)


class ClientConnection(asyncio.Protocol):
    """See the module's text. ``welcomed`` completes when calls may be made, or with what went wrong."""

    def __init__(
        self,
        address: str,
        handshake: ClientHandshake,
        settings: ClientSettings,
        counters: ClientCounters,
        on_closed: Callable[[ClientConnection], None],
    ) -> None:
        self.address = address
        self._handshake = handshake
        self._settings = settings
        self._counters = counters
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self.welcomed: asyncio.Future[Welcome] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._parser = FrameParser(_handshake_bounds, plain_payload)
        self._pending: dict[int, Pending] = {}
        self._next_call = 1
        self._out: list[bytes] = []
        self._flush_is_due = False
        self._write_is_paused = False
        self._waiting: deque[asyncio.Future[None]] = deque()  # callers that wait for room
        self._in_flight_max = 0
        self._small_payload_bytes_max = 0
        self.is_open = False
        """Further calls may be made here."""
        self._reason = "connection closed"
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = NO_TIMER
        self.used_s = self._loop.time()
        """When the last call was made or answered (loop clock)."""
        self._heard_s = self.used_s
        self._ping_is_out = False

    # --- transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass of Transport
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=self._settings.write_buffer_bytes)
        self._transport.write(encode_frame(Kind.HELLO, self._handshake.hello()))

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._reason = f"connection lost: {error}"
        self._transport = None
        self.is_open = False
        if self._in_flight_max:
            self._counters.connections -= 1
        if self._timer is not None:
            self._timer.cancel()
        if not self.welcomed.done():
            self.welcomed.set_exception(Unavailable(f"{self.address}: {self._reason} during the handshake"))
            self.welcomed.exception()  # the connecting task may be gone: no warning then
        if self._pending:
            self._counters.lost += 1
        for pending in list(self._pending.values()):
            self._fail(pending, MaybeApplied(f"{pending.method_name} to {self.address}: {self._reason}"))
        self._wake_waiting()
        self._on_closed(self)

    def eof_received(self) -> bool:
        self._reason = "server closed the connection"
        return False

    def pause_writing(self) -> None:
        self._write_is_paused = True

    def resume_writing(self) -> None:
        self._write_is_paused = False
        self._wake_waiting()

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        self._ping_is_out = False
        self._parser.feed(data)
        try:
            while self._transport is not None and (frame := self._parser.next()) is not None:
                self._on_frame(frame)
        except FrameError as error:
            self._counters.bad_frames += 1
            self.drop(f"broken frame: {error}")
        if self._waiting:
            self._wake_waiting()

    def drop(self, reason: str) -> None:
        """End the connection now; calls under way end with MaybeApplied."""
        self._reason = reason
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End the connection when what is buffered has left."""
        self._reason = "client closed the connection"
        self.is_open = False
        if self._transport is not None:
            self._flush()
            self._transport.close()

    @property
    def is_idle(self) -> bool:
        """No call is under way or waits."""
        return not self._pending and not self._waiting

    # --- frames ---

    def _on_frame(self, frame: Frame) -> None:
        kind = frame.kind
        if kind in (Kind.RESPONSE, Kind.PART):
            self._on_answer(frame)
        elif kind == Kind.ERROR:
            self._on_error(frame)
        elif kind == Kind.GOAWAY:
            self.is_open = False
            self._reason = "server stopped"
            self._wake_waiting()
            self._close_if_done()
        elif kind == Kind.PING:
            self._send(encode_frame(Kind.PONG))
        elif kind in (Kind.CHALLENGE, Kind.WELCOME) and not self.welcomed.done():
            self._on_handshake(frame)
        # other kinds: a newer server's; skipped

    def _on_handshake(self, frame: Frame) -> None:
        assert self._transport is not None
        try:
            if frame.kind == Kind.CHALLENGE:
                proof = self._handshake.on_challenge(frame.message)
                self._transport.write(encode_frame(Kind.PROOF, proof))
                return
            if self._handshake.server is None:
                raise InvalidRequest("WELCOME before CHALLENGE")
            welcome = self._handshake.on_welcome(frame.message)
        except Fs3Error as error:
            self.welcomed.set_exception(error)
            self.drop(str(error))
            return
        self._parser.bounds = self._bounds
        self._in_flight_max = max(1, min(welcome.in_flight_max, self._settings.in_flight_max))
        self._small_payload_bytes_max = welcome.small_payload_bytes_max
        self._counters.connections += 1
        self._counters.connected += 1
        self.is_open = True
        self.welcomed.set_result(welcome)

    def _bounds(self, kind: int, method: int) -> tuple[int, int]:
        return MESSAGE_BYTES_MAX, self._settings.payload_bytes_max if kind in (
            Kind.RESPONSE,
            Kind.PART,
        ) else 0

    def _on_answer(self, frame: Frame) -> None:
        pending = self._pending.get(frame.call)
        if pending is None:
            self._counters.late_answers += 1
            return
        try:
            response = pending.decode(frame.message)
            if pending.sink is not None:
                deliver(pending.sink, response, frame.payload)
            elif frame.payload_bytes:
                raise InvalidRequest(f"{pending.method_name}: the answer has payload, and no sink was given")
        except DECODE_ERRORS as error:
            self._fail(pending, CorruptData(f"answer to {pending.method_name}: {error}"))
        except Exception as error:  # border: a sink is the caller's code; it ends the call only
            self._fail(pending, error)
        else:
            if frame.kind == Kind.RESPONSE:
                self._forget(pending)
                if not pending.future.done():
                    pending.future.set_result(response)
            return
        if frame.kind == Kind.PART:
            self._send(encode_frame(Kind.CANCEL, call=frame.call))

    def _on_error(self, frame: Frame) -> None:
        error = error_of(frame.message)
        if frame.call:
            pending = self._pending.get(frame.call)
            if pending is not None:
                self._fail(pending, error)
            return
        if not self.welcomed.done():
            self.welcomed.set_exception(error)
        self.drop(f"server refused the connection: {error}")

    def _forget(self, pending: Pending) -> None:
        self._pending.pop(pending.number, None)
        self._close_if_done()

    def _fail(self, pending: Pending, error: BaseException) -> None:
        self._forget(pending)
        if not pending.future.done():
            pending.future.set_exception(error)

    def _close_if_done(self) -> None:
        if not self.is_open and self.welcomed.done() and not self._pending and self._transport is not None:
            self._transport.close()

    # --- calls ---

    @property
    def has_room(self) -> bool:
        """A call can be sent now."""
        return not self._write_is_paused and len(self._pending) < self._in_flight_max

    async def wait_for_room(self, deadline_s: float) -> None:
        """Until there is room, the connection ends, or the deadline (Unavailable). Busy: too many wait."""
        if len(self._waiting) >= self._settings.waiting_max:
            raise Busy(f"{len(self._waiting)} calls wait for {self.address}")
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        try:
            await wait_until(future, deadline_s, f"no room on the connection to {self.address} in time")
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    def _wake_waiting(self) -> None:
        room = self._in_flight_max - len(self._pending) if not self._write_is_paused else 0
        if not self.is_open:
            room = len(self._waiting)  # let them find another connection
        while self._waiting and room > 0:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                room -= 1

    def send(
        self,
        method: Method[Any, Any],
        request: Any,
        payload: Sequence[Buffer],
        sink: Sink | None,
        deadline_s: float,
        request_id: int,
    ) -> Pending:
        """Send a request; its answer completes ``Pending.future``. InvalidRequest: above a bound."""
        message = encode(request)
        payload_bytes = sum(memoryview(piece).nbytes for piece in payload) if payload else 0
        if len(message) > method.request_bytes_max:
            raise InvalidRequest(f"{method.name}: request of {len(message)} bytes")
        if payload_bytes and payload_bytes > min(method.payload_bytes_max, self._small_payload_bytes_max):
            raise InvalidRequest(f"{method.name}: payload of {payload_bytes} bytes")
        number = self._next_call
        self._next_call = number + 1 if number < 0xFFFFFFFF else 1
        assert number not in self._pending, number
        now_s = self._loop.time()
        frame = encode_frame(
            Kind.REQUEST,
            message,
            method=method.number,
            call=number,
            deadline_ms=max(1, min(int((deadline_s - now_s) * 1000), DEADLINE_MS_MAX)),
            request=request_id,
            payload_bytes=payload_bytes,
        )
        pending = Pending(self._loop.create_future(), number, method, sink, deadline_s, request_id)
        if not self._pending and not self._ping_is_out:
            self._heard_s = now_s
        self._pending[number] = pending
        self.used_s = now_s
        self._counters.calls += 1
        self._send(frame, *(bytes(piece) for piece in payload))
        check_s = min(deadline_s, now_s + self._settings.keepalive_s)
        if check_s < self._timer_s:
            self._arm(check_s)
        return pending

    def give_up(self, pending: Pending) -> None:
        """Forget a call: its answer, if one still comes, is dropped; the server is told."""
        if self._pending.get(pending.number) is pending:
            self._send(encode_frame(Kind.CANCEL, call=pending.number))
            self._forget(pending)
            self._wake_waiting()

    def _send(self, *pieces: bytes) -> None:
        self._out.extend(pieces)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)  # requests of the same turn leave together

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._out and self._transport is not None:
            data = b"".join(self._out) if len(self._out) > 1 else self._out[0]
            self._out.clear()
            self._transport.write(data)

    # --- time ---

    def _arm(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = at_s
        self._timer = self._loop.call_at(at_s, self._on_timer)

    def _on_timer(self) -> None:
        """End calls whose deadline has passed; find out whether a silent server is still there."""
        self._timer, self._timer_s = None, NO_TIMER
        now_s = self._loop.time()
        for pending in [p for p in self._pending.values() if p.deadline_s <= now_s]:
            self._counters.timeouts += 1
            self._send(encode_frame(Kind.CANCEL, call=pending.number))
            what = (
                f"{pending.method_name} to {self.address}: no answer in time (request {pending.request_id})"
            )
            self._fail(pending, MaybeApplied(what))
            self._ping()  # short calls, one after the other, must not hide that nobody is there
        self._wake_waiting()
        if self._transport is None or not (self._pending or self._ping_is_out):
            return
        # sums, as the timer is set to: a difference may round to just below the limit, for ever
        if now_s >= self._heard_s + self._settings.silence_s:
            self.drop(f"server silent for {now_s - self._heard_s:.1f} s")
            return
        if now_s >= self._heard_s + self._settings.keepalive_s:
            self._ping()
        earliest_s = min((p.deadline_s for p in self._pending.values()), default=NO_TIMER)
        limit_s = self._settings.silence_s if self._ping_is_out else self._settings.keepalive_s
        self._arm(max(min(earliest_s, self._heard_s + limit_s), now_s))

    def _ping(self) -> None:
        if not self._ping_is_out:
            self._ping_is_out = True
            self._send(encode_frame(Kind.PING))


def _handshake_bounds(kind: int, method: int) -> tuple[int, int]:
    return HANDSHAKE_BYTES_MAX, 0


async def wait_until(future: asyncio.Future[Any], deadline_s: float, late: str) -> Any:
    """Result of ``future``; Unavailable(late) at the deadline (loop clock).

    Works outside of a task too, where ``asyncio.timeout`` does not: a handler may call others before its
    first wait (``service``).
    """

    def expire() -> None:
        if not future.done():
            future.set_exception(Unavailable(late))

    timer = asyncio.get_running_loop().call_at(deadline_s, expire)
    try:
        return await future
    finally:
        timer.cancel()
