"""One accepted connection: handshake, then requests of the small plane, answered in any order.

Requests are handled inside ``data_received``; all answers that are ready leave in one write. A peer hurts
only itself: its unread answers, its calls under way and their payloads are bounded, and while one of the
bounds is reached nothing more is read from it; answers that do not leave for long cut it.
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Coroutine
from functools import partial
from typing import Any, Protocol

import msgspec

from ..errors import Busy, DeadlineExceeded, Fs3Error, InternalError, InvalidRequest, MaybeApplied
from ..identity.handshake import Plane, ServerHandshake, Welcome
from ..tasks import TaskScope
from ..wire.codec import encode
from .buffers import aligned_payload
from .counters import ServerCounters
from .dispatch import (
    DECODE_ERRORS,
    OnBug,
    Row,
    as_coroutine,
    error_message,
    payload_bytes_of,
    response_message,
)
from .framing import HANDSHAKE_BYTES_MAX, Frame, FrameError, FrameParser, Kind, encode_frame
from .running import HandlerRun
from .service import Buffer, FileRegion, PeerIdentity, Reply
from .settings import ServerSettings


class ServerParts(Protocol):
    """What a connection needs of its server."""

    settings: ServerSettings
    counters: ServerCounters
    rows: dict[int, Row]
    on_bug: OnBug

    @property
    def scope(self) -> TaskScope: ...

    def new_handshake(self) -> ServerHandshake: ...

    def adopt_bulk(self, transport: asyncio.Transport, peer: PeerIdentity) -> None:
        """Hand the connection to the bulk plane; Busy or InvalidRequest."""
        ...

    def opened(self, connection: ServerConnection, transport: asyncio.Transport) -> None: ...

    def closed(self, connection: ServerConnection) -> None: ...


class State(enum.Enum):
    """Of a connection."""

    HELLO = "hello"
    PROOF = "proof"
    OPEN = "open"
    CLOSING = "closing"
    """Nothing more is read; what is buffered leaves."""


class SmallCall:
    """One request under way (``service.Call``)."""

    __slots__ = (
        "_connection",
        "connection_state",
        "deadline_s",
        "number",
        "payload",
        "peer",
        "request_id",
        "row",
        "run",
    )

    def __init__(self, connection: ServerConnection, frame: Frame, row: Row, deadline_s: float) -> None:
        self._connection = connection
        self.peer: PeerIdentity = connection.peer
        self.connection_state: dict[str, Any] = connection.state_of_peer
        self.request_id = frame.request
        self.deadline_s = deadline_s
        self.payload = frame.payload
        self.number = frame.call
        self.row = row
        self.run: HandlerRun | None = None

    @property
    def is_unwanted(self) -> bool:
        """Nothing is to be answered any more."""
        return self.run is not None and self.run.unwanted

    def send_part(self, reply: Reply[Any]) -> None:
        """See ``service.Call``."""
        self._connection.send_reply(Kind.PART, self, reply)


class ServerConnection(asyncio.Protocol):
    """See the module's text."""

    def __init__(self, server: ServerParts) -> None:
        self._server = server
        self._settings = server.settings
        self._counters = server.counters
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = FrameParser(_handshake_bounds, aligned_payload)
        self._handshake = server.new_handshake()
        self.state = State.HELLO
        self.peer = PeerIdentity("nobody")
        self.state_of_peer: dict[str, Any] = {}
        self._calls: dict[int, SmallCall] = {}
        self._payload_bytes = 0  # of calls that wait
        self._out: list[Buffer] = []
        self._is_pumping = False
        self._flush_is_due = False
        self._write_is_paused = False
        self._read_is_paused = False
        self._now_s = self._loop.time()
        self.since_s = self._now_s
        """When the state was entered, or the last request arrived (loop clock)."""
        self.stalled_since_s: float | None = None
        """Since when the peer has not taken its answers."""

    # --- transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass of Transport
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=self._settings.write_buffer_bytes)
        self._server.opened(self, self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.state = State.CLOSING
        self._out.clear()
        for call in list(self._calls.values()):
            _give_up(call)
        self._server.closed(self)

    def eof_received(self) -> bool:
        return False  # close: nobody is left to read answers

    def pause_writing(self) -> None:
        self._write_is_paused = True
        self.stalled_since_s = self._loop.time()

    def resume_writing(self) -> None:
        self._write_is_paused = False
        self.stalled_since_s = None
        self._pump()

    def data_received(self, data: bytes) -> None:
        self._counters.received_bytes += len(data)
        if self.state is not State.CLOSING:
            self._parser.feed(data)
            self._pump()

    @property
    def is_idle(self) -> bool:
        """No call is under way and nothing waits to be sent."""
        return not self._calls and not self._out and not self._write_is_paused

    # --- reading ---

    def _may_read(self) -> bool:
        settings = self._settings
        return (
            not self._write_is_paused
            and len(self._calls) < settings.in_flight_max
            and self._payload_bytes < settings.payload_in_flight_bytes_max
        )

    def _pump(self) -> None:
        """Handle the frames that are there, as far as the bounds allow; then send all answers at once."""
        if self._is_pumping or self._transport is None:
            return
        self._is_pumping = True
        self._now_s = self._loop.time()
        try:
            while self.state is not State.CLOSING and self._may_read():
                frame = self._parser.next()
                if frame is None:
                    break
                self._on_frame(frame)
        except FrameError as error:
            self._counters.bad_frames += 1
            self.refuse(InvalidRequest(str(error)))
        finally:
            self._is_pumping = False
        self._flush()
        self._set_reading()

    def _set_reading(self) -> None:
        if self._transport is None or self.state is State.CLOSING:
            return
        pause = not self._may_read()
        if pause and not self._read_is_paused:
            self._transport.pause_reading()
        elif self._read_is_paused and not pause:
            self._transport.resume_reading()
        self._read_is_paused = pause

    def _on_frame(self, frame: Frame) -> None:
        if self.state is not State.OPEN:
            self._on_handshake(frame)
        elif frame.kind == Kind.REQUEST:
            self.since_s = self._now_s
            self._on_request(frame)
        elif frame.kind == Kind.CANCEL:
            call = self._calls.get(frame.call)
            if call is not None:
                self._counters.cancelled += 1
                _give_up(call)
        elif frame.kind == Kind.PING:
            self._out.append(encode_frame(Kind.PONG))
        # other kinds: a newer client's; skipped

    # --- handshake ---

    def _on_handshake(self, frame: Frame) -> None:
        try:
            if self.state is State.HELLO and frame.kind == Kind.HELLO:
                self._out.append(encode_frame(Kind.CHALLENGE, self._handshake.on_hello(frame.message)))
                self.state = State.PROOF
            elif self.state is State.PROOF and frame.kind == Kind.PROOF:
                self._prove(frame)
            else:
                raise InvalidRequest(f"frame of kind {frame.kind} before the handshake is done")
        except Fs3Error as error:
            self._counters.refused_handshakes += 1
            self.refuse(error)

    def _prove(self, frame: Frame) -> None:
        self.peer = self._handshake.on_proof(frame.message)
        assert self._transport is not None
        if self._handshake.plane is Plane.BULK:
            self._server.adopt_bulk(self._transport, self.peer)
            self.state = State.CLOSING  # the transport is an empty shell now
            return
        self.state = State.OPEN
        self.since_s = self._now_s
        self._parser.bounds = self._bounds
        welcome = Welcome(
            in_flight_max=self._settings.in_flight_max,
            small_payload_bytes_max=self._settings.small_payload_bytes_max,
        )
        self._out.append(encode_frame(Kind.WELCOME, encode(welcome)))

    def _bounds(self, kind: int, method: int) -> tuple[int, int]:
        row = self._server.rows.get(method) if kind == Kind.REQUEST else None
        if row is None:
            return HANDSHAKE_BYTES_MAX, 0
        payload_max = min(row.method.payload_bytes_max, self._settings.small_payload_bytes_max)
        return row.method.request_bytes_max, payload_max

    def refuse(self, error: Fs3Error) -> None:
        """End the connection and say why."""
        if self._transport is not None and self.state is not State.CLOSING:
            self._out.append(encode_frame(Kind.ERROR, error_message(error)))
            self._flush()
            self.state = State.CLOSING
            self._transport.close()

    # --- requests ---

    def _on_request(self, frame: Frame) -> None:
        row = self._server.rows.get(frame.method)
        if row is None or frame.oversize:
            what = f"payload of {frame.payload_bytes} bytes is too long" if row else "unknown method"
            return self._reject(frame, InvalidRequest(f"method {frame.method}: {what}"))
        if frame.call in self._calls:
            raise FrameError(f"call {frame.call} is under way already")
        try:
            request = row.decode(frame.message)
        except DECODE_ERRORS as error:
            return self._reject(frame, InvalidRequest(f"{row.method.name}: {error}"))
        if self._counters.in_flight >= self._settings.in_flight_total_max:
            self._counters.busy += 1
            return self._reject(frame, Busy("too many calls under way in this server"))
        longest_s = self._settings.call_s_max
        left_s = min(frame.deadline_ms / 1000, longest_s) if frame.deadline_ms else longest_s
        call = SmallCall(self, frame, row, self._now_s + left_s)
        try:
            result = row.handler(call, request)
            if isinstance(result, msgspec.Struct):
                message = response_message(row, result)
                self._out.append(encode_frame(Kind.RESPONSE, message, method=frame.method, call=frame.call))
                row.ok_count += 1
            elif isinstance(result, Reply):
                self._finish(call, result)
            else:
                self._step(call, as_coroutine(result))
        except Exception as error:  # dispatch: whatever a handler raises is answered
            self._fail(call, error)
        return None

    def _reject(self, frame: Frame, error: Fs3Error) -> None:
        if not isinstance(error, Busy):
            self._counters.bad_requests += 1
        self._out.append(encode_frame(Kind.ERROR, error_message(error), method=frame.method, call=frame.call))

    def _step(self, call: SmallCall, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a handler up to its first wait; if there is one, the call is under way until it ends."""
        run = HandlerRun(
            call.row,
            coroutine,
            call.deadline_s,
            call.request_id,
            partial(self._finish, call),
            partial(self._fail, call),
        )
        if not run.step(self._server.scope, partial(self._ended, call)):
            call.run = run
            self._calls[call.number] = call
            self._counters.in_flight += 1
            self._payload_bytes += call.payload.nbytes if call.payload is not None else 0

    def _ended(self, call: SmallCall) -> None:
        del self._calls[call.number]
        self._counters.in_flight -= 1
        self._payload_bytes -= call.payload.nbytes if call.payload is not None else 0
        if self._read_is_paused:
            self._pump()

    # --- answers ---

    def _finish(self, call: SmallCall, reply: Reply[Any]) -> None:
        self.send_reply(Kind.RESPONSE, call, reply)
        call.row.ok_count += 1

    def _fail(self, call: SmallCall, error: Exception) -> None:
        call.row.error_count += 1
        if not isinstance(error, Fs3Error):
            self._counters.bugs += 1
            self._server.on_bug(call.row.method.name, call.request_id, error)
            error = InternalError(
                f"{call.row.method.name}: {type(error).__name__} (request {call.request_id})"
            )
        elif isinstance(error, DeadlineExceeded | MaybeApplied):
            self._counters.expired += 1
        if not call.is_unwanted:
            number = call.row.method.number
            self._send(encode_frame(Kind.ERROR, error_message(error), method=number, call=call.number))

    def send_reply(self, kind: Kind, call: SmallCall, reply: Reply[Any]) -> None:
        """Queue an answer or a part of one; a payload that is to be released is copied."""
        try:
            payload = [_content(piece, reply.released is None) for piece in reply.payload]
            frame = encode_frame(
                kind,
                response_message(call.row, reply.response),
                method=call.row.method.number,
                call=call.number,
                payload_bytes=payload_bytes_of(payload),
            )
        finally:
            if reply.released is not None:
                reply.released()
        if not call.is_unwanted:
            self._send(frame, *payload)

    def _send(self, *pieces: Buffer) -> None:
        if self._transport is None:
            return
        self._out.extend(pieces)
        if not self._is_pumping and not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)  # answers of the same turn leave together

    def _flush(self) -> None:
        self._flush_is_due = False
        if not self._out or self._transport is None:
            return
        data = b"".join(self._out)
        self._out.clear()
        self._counters.sent_bytes += len(data)
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > self._settings.write_buffer_bytes_max:
            self.cut()

    # --- the server's side ---

    def go_away(self) -> None:
        """Tell the client that the server stops; calls under way are still answered."""
        self._send(encode_frame(Kind.GOAWAY))

    def close(self) -> None:
        """Close when what is buffered has left."""
        if self._transport is not None:
            self._flush()
            self.state = State.CLOSING
            self._transport.close()

    def cut(self) -> None:
        """Drop the connection: the peer does not take its answers."""
        if self._transport is not None:
            self._counters.stalled += 1
            self.state = State.CLOSING
            self._transport.abort()


def _give_up(call: SmallCall) -> None:
    if call.run is not None:
        call.run.give_up()


def _handshake_bounds(kind: int, method: int) -> tuple[int, int]:
    return HANDSHAKE_BYTES_MAX, 0


def _content(piece: Buffer | FileRegion, stays: bool) -> Buffer:
    """A piece of payload as bytes that stay what they are until they have left."""
    if not isinstance(piece, FileRegion):
        return piece if stays else bytes(piece)
    data = os.pread(piece.fd, piece.length_bytes, piece.offset_bytes)
    assert len(data) == piece.length_bytes, (piece, len(data))
    return data
