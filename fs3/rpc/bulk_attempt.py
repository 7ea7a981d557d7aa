"""One call of the bulk plane on one connection: what a thread does, and how others give it up.

**No late bytes** (design 5.1): who gives a call up shuts its connection down and waits until the thread
has let go of every buffer. Until a call has begun to send or receive it holds none, and is let go at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import CorruptData, InvalidRequest, Unavailable
from ..wire.codec import decoder, encode
from .blocking import FrameSocket, Stalled
from .dispatch import DECODE_ERRORS, error_of
from .framing import MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX, Flag, Frame, Kind, encode_frame
from .service import Buffer, Method, Sink

DEADLINE_MS_MAX = (1 << 32) - 1


class BulkPeer:
    """A connection to a server and what is known of it."""

    __slots__ = ("address", "next_call", "owes_receipt", "socket", "used_s")

    def __init__(self, address: str, sock: FrameSocket) -> None:
        self.address = address
        self.socket = sock
        self.next_call = 1
        self.owes_receipt = False
        """The server holds blocks until it hears that we have read them (``bulk_connection``)."""
        self.used_s = 0.0


class Attempt:
    """One call."""

    def __init__(
        self,
        address: str,
        method: Method[Any, Any],
        request: Any,
        payload: Sequence[Buffer],
        sink: Sink | None,
        deadline_s: float,
        request_id: int,
    ) -> None:
        self.address = address
        self.method = method
        self.message = encode(request)
        self.payload = payload
        self.payload_bytes = sum(memoryview(piece).nbytes for piece in payload) if payload else 0
        self.sink = sink
        self.deadline_s = deadline_s
        self.request_id = request_id
        self.is_sent = False
        """The request has left as a whole: it may be applied."""
        self.is_clean = False
        """The answer has been read to its end: the connection can be used again."""
        self._number = 0  # of the call on its connection
        self._lock = threading.Lock()
        self._socket: FrameSocket | None = None
        self._is_abandoned = False
        if len(self.message) > method.request_bytes_max or self.payload_bytes > method.payload_bytes_max:
            raise InvalidRequest(
                f"{method.name}: request of {len(self.message)} bytes with {self.payload_bytes} of payload"
            )

    def hold(self, sock: FrameSocket) -> None:
        """From here on buffers are in use. Unavailable: it has been given up before."""
        with self._lock:
            if self._is_abandoned:
                raise Unavailable(f"{self.method.name}: given up")
            self._socket = sock

    def let_go(self) -> bool:
        """Buffers are no longer in use. True: it was given up, its connection is shut down."""
        with self._lock:
            self._socket = None
            return self._is_abandoned

    def abandon(self) -> bool:
        """Give up, from any thread. True: buffers are in use until the thread ends, which it does at once."""
        with self._lock:
            self._is_abandoned = True
            if self._socket is not None:
                self._socket.shut()
            return self._socket is not None

    def send(self, peer: BulkPeer, now_s: Callable[[], float]) -> None:
        """Send the request. Between ``hold`` and ``let_go``. PeerClosed, Stalled: the connection is over."""
        sock = peer.socket
        self._number = number = peer.next_call
        peer.next_call = number + 1 if number < DEADLINE_MS_MAX else 1
        left_s = self.deadline_s - now_s()
        if left_s <= 0:
            raise Stalled("no time left")
        request = encode_frame(
            Kind.REQUEST,
            self.message,
            method=self.method.number,
            call=number,
            deadline_ms=max(1, min(int(left_s * 1000), DEADLINE_MS_MAX)),
            request=self.request_id,
            payload_bytes=self.payload_bytes,
        )
        sock.send_by(self.deadline_s, left_s)
        sock.send(request, self.payload)
        self.is_sent = True
        peer.owes_receipt = False  # a request says that all earlier answers have been read

    def receive(self, peer: BulkPeer, now_s: Callable[[], float]) -> Any:
        """Receive the answer, after ``send``.

        Raises what the server answered or the sink raised; PeerClosed, Stalled, FrameError: the connection
        is over.
        """
        sock, number = peer.socket, self._number
        left_s = self.deadline_s - now_s()
        if left_s <= 0:
            raise Stalled("no time left")
        sock.receive_by(self.deadline_s, left_s)
        while True:
            frame = sock.read(_bounds)
            if frame.call != number or frame.kind not in (Kind.RESPONSE, Kind.PART, Kind.ERROR):
                sock.skip_payload(frame.payload_bytes)
                if frame.kind == Kind.ERROR and not frame.call:
                    raise error_of(frame.message)  # the server ends the connection
                continue
            if frame.flags & Flag.HELD:
                peer.owes_receipt = True
            response = self._take(frame, sock)
            if frame.kind == Kind.RESPONSE:
                return response

    def _take(self, frame: Frame, sock: FrameSocket) -> Any:
        if frame.kind == Kind.ERROR:
            self.is_clean = True
            raise error_of(frame.message)
        try:
            response = decoder(self.method.response)(frame.message)
        except DECODE_ERRORS as error:
            raise CorruptData(f"answer to {self.method.name}: {error}") from error
        if self.sink is None:
            if frame.payload_bytes:
                raise InvalidRequest(f"{self.method.name}: the answer has payload, and no sink was given")
            self.is_clean = frame.kind == Kind.RESPONSE
            return response
        room = self.sink.buffers(response)
        if sum(buffer.nbytes for buffer in room) != frame.payload_bytes:
            what = f"answer has {frame.payload_bytes} bytes of payload, room is {[b.nbytes for b in room]}"
            raise CorruptData(f"{self.method.name}: {what}")
        if frame.payload_bytes:
            sock.read_payload(room)
        self.is_clean = frame.kind == Kind.RESPONSE
        self.sink.received(response)
        return response


def _bounds(kind: int, method: int) -> tuple[int, int]:
    return MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX if kind in (Kind.RESPONSE, Kind.PART) else 0
