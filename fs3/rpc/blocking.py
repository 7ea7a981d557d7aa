"""Frames over a blocking socket: how threads of the bulk plane talk, at both ends (design 5.1, 5.3).

Payloads go from the socket straight into the buffers they belong in, and from files or buffers straight into
the socket; in both directions the kernel copies outside the GIL. Time limits are the kernel's
(SO_RCVTIMEO, SO_SNDTIMEO): no poll before each read, and MSG_WAITALL works.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

from .framing import HEADER_BYTES, Bounds, Frame, FrameError, read_frame, read_head
from .service import Buffer, FileRegion

SCRATCH_BYTES = 8192
"""Read ahead with a header: enough for most messages, and for a whole answer of 4 KiB; what belongs to a
payload is copied out of it."""
IOVECS_MAX = 1024
SKIP_BYTES = 1 << 16
LIMIT_S_MIN = 1 / 1024
UNDECIDED = -1.0
_TIMEVAL = struct.Struct("@ll")
_LINGER = struct.Struct("@ii")


class PeerClosed(Exception):
    """The peer ended the connection (or we did, from another thread)."""


class Stalled(Exception):
    """The time limit has passed."""


class FrameSocket:
    """One connection. Used by one thread at a time, but for ``shut`` and ``has_ended``."""

    def __init__(self, sock: socket.socket, now_s: Callable[[], float]) -> None:
        assert sock.gettimeout() is None, "the kernel keeps the time of these sockets"
        self.sock = sock
        self._now_s = now_s
        self._receive_by_s = float("inf")
        self._send_by_s = float("inf")
        self._receive_limit_s = 0.0  # the kernel's: none yet
        self._send_limit_s = 0.0
        self._patience_s = 0.0
        self._scratch = bytearray(SCRATCH_BYTES)
        self._view = memoryview(self._scratch)
        self._start = 0
        self._end = 0
        self.received_bytes = 0
        self.sent_bytes = 0

    # --- time ---
    #
    # The kernel's limit is a power of two, at most the time that is left: calls with like timeouts need no
    # further system call, and who is woken early looks at the clock and waits again.

    def receive_by(self, deadline_s: float, left_s: float) -> None:
        """All further receiving together ends by then, with Stalled: also from a peer that only trickles.

        ``left_s``: from now to the deadline.
        """
        self._receive_by_s = deadline_s
        limit_s = _power_below(left_s)
        if limit_s != self._receive_limit_s:
            self._receive_limit_s = limit_s
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(limit_s))

    def send_by(self, deadline_s: float, left_s: float) -> None:
        """All further sending together ends by then, with Stalled."""
        self._send_by_s = deadline_s
        limit_s = _power_below(left_s)
        if limit_s != self._send_limit_s:
            self._send_limit_s = limit_s
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(limit_s))

    def send_within(self, patience_s: float) -> None:
        """Each further ``send`` that has to wait ends this long after its first wait, with Stalled."""
        self._patience_s = patience_s
        self.send_by(0.0, patience_s / 4)
        self._send_by_s = UNDECIDED

    def _go_on_receiving(self) -> None:
        left_s = self._receive_by_s - self._now_s()
        if left_s <= 0:
            raise Stalled("nothing received in time")
        self.receive_by(self._receive_by_s, left_s)

    def _go_on_sending(self) -> None:
        now_s = self._now_s()
        if self._send_by_s == UNDECIDED:
            self._send_by_s = now_s + self._patience_s
        elif now_s >= self._send_by_s:
            raise Stalled("peer does not take what it is sent")
        elif not self._patience_s:
            self.send_by(self._send_by_s, self._send_by_s - now_s)

    def take_counts(self) -> tuple[int, int]:
        """Bytes received and sent since this was called last."""
        counts = self.received_bytes, self.sent_bytes
        self.received_bytes = self.sent_bytes = 0
        return counts

    # --- end ---

    def shut(self) -> None:
        """End the connection from any thread: whoever waits in it wakes with PeerClosed."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the descriptor; what the kernel holds unsent still leaves."""
        self.sock.close()

    def reset(self) -> None:
        """Close and throw away what is unsent: afterwards the kernel refers to no payload of ours."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(1, 0))
        self.sock.close()

    def has_ended(self) -> bool:
        """The peer has closed, or has sent what nobody asked for. Never waits."""
        try:
            return self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) is not None
        except BlockingIOError:
            return False
        except OSError:
            return True

    # --- receiving ---

    @property
    def is_between_frames(self) -> bool:
        """Nothing of a further frame has arrived."""
        return self._start == self._end

    def read(self, bounds: Bounds) -> Frame:
        """The next frame; its payload is still to be read. FrameError, PeerClosed, Stalled."""
        if self._end - self._start < HEADER_BYTES:
            self._fill(HEADER_BYTES)
        head = read_head(self._view[self._start : self._start + HEADER_BYTES], bounds)
        size = HEADER_BYTES + head.message_bytes
        have = self._end - self._start
        if size <= SCRATCH_BYTES:
            if have < size:
                self._fill(size)
            data = bytes(self._view[self._start : self._start + size])
            self._start += size
        else:
            whole = bytearray(size)
            whole[:have] = self._view[self._start : self._end]
            self._start = self._end
            self._receive_all(memoryview(whole)[have:])
            data = bytes(whole)
        return read_frame(data, head.oversize)

    def read_payload(self, buffers: Sequence[memoryview]) -> None:
        """Exactly as many bytes as the buffers have room for, straight into them."""
        if len(buffers) == 1 and buffers[0].contiguous:
            self._read_one(buffers[0].cast("B"))
            return
        left = [view.cast("B") for view in buffers if view.nbytes]
        at = 0
        while at < len(left) and self._start < self._end:
            size = min(self._end - self._start, len(left[at]))
            left[at][:size] = self._view[self._start : self._start + size]
            self._start += size
            left[at] = left[at][size:]
            at += not left[at]
        while at < len(left):
            if len(left) - at == 1:
                self._receive_all(left[at])
                return
            room = left[at : at + IOVECS_MAX]
            got = self._receive(room)
            if got == sum(map(len, room)):
                at += len(room)
                continue
            self._go_on_receiving()
            while got:
                size = min(got, len(left[at]))
                left[at] = left[at][size:]
                got -= size
                at += not left[at]

    def _read_one(self, room: memoryview) -> None:
        size = min(self._end - self._start, len(room))
        if size:
            room[:size] = self._view[self._start : self._start + size]
            self._start += size
            room = room[size:]
        if room:
            self._receive_all(room)

    def skip_payload(self, size_bytes: int) -> None:
        """Read a payload that nobody wants."""
        while size_bytes:
            room = memoryview(bytearray(min(size_bytes, SKIP_BYTES)))
            self.read_payload([room])
            size_bytes -= len(room)

    def _fill(self, size_bytes: int) -> None:
        """Read until the scratch holds this much, or more."""
        if self._start and self._end - self._start < size_bytes:
            rest = self._end - self._start
            self._scratch[:rest] = self._scratch[self._start : self._end]
            self._start, self._end = 0, rest
        while self._end - self._start < size_bytes:
            self._end += self._receive([self._view[self._end :]], 0)
            if 0 < self._end - self._start < size_bytes:
                self._go_on_receiving()

    def _receive_all(self, room: memoryview) -> None:
        while True:
            room = room[self._receive([room]) :]
            if not room:
                return
            self._go_on_receiving()

    def _receive(self, room: list[memoryview], flags: int = socket.MSG_WAITALL) -> int:
        """Receive into all of the room; less when the time is up, a signal came, or without MSG_WAITALL."""
        try:
            if len(room) == 1:
                got = self.sock.recv_into(room[0], 0, flags)
            else:
                got, _, _, _ = self.sock.recvmsg_into(room, 0, flags)
        except BlockingIOError:
            self._go_on_receiving()
            return 0
        except OSError as error:
            raise PeerClosed(str(error)) from error
        if not got:
            raise PeerClosed("connection closed")
        self.received_bytes += got
        return got

    # --- sending ---

    def send(self, frame: bytes, payload: Sequence[Buffer | FileRegion] = ()) -> None:
        """Send a frame and its payload. PeerClosed, Stalled: how much of it has left is not known."""
        if self._patience_s:
            self._send_by_s = UNDECIDED
        try:
            waiting: list[memoryview] = [memoryview(frame)]
            for piece in payload:
                if isinstance(piece, FileRegion):
                    if piece.length_bytes:
                        self._send_buffers(waiting, socket.MSG_MORE)
                        waiting = []
                        self._send_region(piece)
                else:
                    view = memoryview(piece)
                    if view.nbytes:
                        waiting.append(view.cast("B"))
            self._send_buffers(waiting, 0)
        except OSError as error:
            raise PeerClosed(str(error)) from error

    def _send_buffers(self, buffers: list[memoryview], flags: int) -> None:
        if len(buffers) == 1:
            return self._send_one(buffers[0], flags)
        left = deque(buffers)
        while left:
            batch = [left[n] for n in range(min(len(left), IOVECS_MAX))]
            more = flags if len(left) <= IOVECS_MAX else socket.MSG_MORE
            try:
                sent = self.sock.sendmsg(batch, (), more)
            except BlockingIOError:
                sent = 0
            self.sent_bytes += sent
            if sent < sum(map(len, batch)):
                self._go_on_sending()
            while sent:
                size = min(sent, len(left[0]))
                sent -= size
                if size == len(left[0]):
                    left.popleft()
                else:
                    left[0] = left[0][size:]
        return None

    def _send_one(self, view: memoryview, flags: int) -> None:
        while True:
            try:
                sent = self.sock.send(view, flags)
            except BlockingIOError:
                sent = 0
            self.sent_bytes += sent
            if sent == len(view):
                return
            view = view[sent:]
            self._go_on_sending()

    def _send_region(self, region: FileRegion) -> None:
        offset, left = region.offset_bytes, region.length_bytes
        out = self.sock.fileno()
        while left:
            try:
                sent = os.sendfile(out, region.fd, offset, left)
            except BlockingIOError:
                self._go_on_sending()
                continue
            if not sent:
                raise FrameError(f"file ends {left} bytes before the region does: {region}")
            self.sent_bytes += sent
            offset += sent
            left -= sent
            if left:
                self._go_on_sending()


def _power_below(left_s: float) -> float:
    return 2.0 ** (math.frexp(left_s)[1] - 1) if left_s > LIMIT_S_MIN else LIMIT_S_MIN


def _timeval(limit_s: float) -> bytes:
    micros = int(limit_s * 1_000_000)
    return _TIMEVAL.pack(micros // 1_000_000, micros % 1_000_000)
