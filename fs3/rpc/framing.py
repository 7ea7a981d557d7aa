"""The frame: what every connection of fs3 carries. PURE.

One frame is a header, a MessagePack message and raw payload bytes, all integers little endian::

    offset  size  field
         0     4  checksum          CRC32C of bytes 4 … 36 + message_bytes
         4     2  magic             "f3" (0x6633 big endian)
         6     1  version           of this table: 1
         7     1  kind              see ``Kind``
         8     2  method            number of the method (REQUEST; echoed in answers), else 0
        10     2  flags             see ``Flag``; unknown ones are ignored
        12     4  call              number of the call on this connection; answers carry that of their request
        16     4  deadline_ms       REQUEST: time left for the call; 0: the server's longest
        20     8  request           id of the caller's operation, for logs; 0: none
        28     4  message_bytes     length of the message that follows the header
        32     4  payload_bytes     length of the payload that follows the message
        36        message, payload

The payload is not covered: its checksums are end to end, in the message (design 4.2).

Lengths are compared with the receiver's bounds before a byte is allocated for them. What breaks a frame
(magic, version, checksum, a message above its bound) ends the connection: nothing after it can be trusted.
A payload above its method's bound is skipped, not stored, and the frame is handed out as ``oversize``.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import NamedTuple

from crc32c import crc32c

MAGIC = 0x3366
"""``f3``: the bytes 0x66 0x33, read as a little-endian u16."""
FRAME_VERSION = 1
HEADER_BYTES = 36
HANDSHAKE_BYTES_MAX = 4096
"""Bound of every message before the peer has proved who it is; also the length that is never looked up."""
MESSAGE_BYTES_MAX = 16 << 20
"""No message of any method is longer."""
PAYLOAD_BYTES_MAX = 64 << 20
"""No payload is longer: one chunk of the largest size."""

HEADER_FIELDS = (
    ("checksum", 4),
    ("magic", 2),
    ("version", 1),
    ("kind", 1),
    ("method", 2),
    ("flags", 2),
    ("call", 4),
    ("deadline_ms", 4),
    ("request", 8),
    ("message_bytes", 4),
    ("payload_bytes", 4),
)
_SUMMED = struct.Struct("<HBBHHIIQII")
_SUM = struct.Struct("<I")
_SUMMED_BYTES = _SUMMED.size
assert _SUM.size + _SUMMED_BYTES == HEADER_BYTES == sum(size for _, size in HEADER_FIELDS)


class Kind(enum.IntEnum):
    """What a frame is. A receiver skips kinds that it does not know."""

    HELLO = 1
    """Client → server, first frame: versions, cluster, who I am (``fs3.identity.handshake``)."""
    CHALLENGE = 2
    """Server → client: the version chosen, the server's proof, its nonce."""
    PROOF = 3
    """Client → server: the client's proof."""
    WELCOME = 4
    """Server → client: calls may follow."""
    REQUEST = 16
    """Client → server: a call."""
    RESPONSE = 17
    """Server → client: the answer, or its last part."""
    PART = 18
    """Server → client: one part of an answer that streams."""
    ERROR = 19
    """Server → client: the call failed; call 0: the connection did, and is closed after this frame."""
    CANCEL = 20
    """Client → server: the answer is not wanted any more; nothing is answered."""
    GOAWAY = 21
    """Server → client: no further calls on this connection; those under way are answered."""
    PING = 22
    """Either: answer with PONG."""
    PONG = 23
    RECEIPT = 24
    """Client → server, bulk: every payload of earlier answers has been read (design 4.1)."""


class Flag(enum.IntFlag):
    """Bits of ``flags``."""

    HELD = 1
    """Answer, bulk: the server keeps the payload's blocks until it learns that they have been read."""


class FrameError(Exception):
    """The bytes are no frame of ours, or break a bound: the connection cannot go on."""


class Frame(NamedTuple):
    """One frame, taken apart."""

    kind: int
    method: int
    flags: int
    call: int
    deadline_ms: int
    request: int
    message: bytes
    payload_bytes: int
    payload: memoryview | None = None
    """The bytes, when ``payload_bytes`` > 0 and they were stored."""
    oversize: bool = False
    """The payload was above the bound, and skipped."""


def encode_frame(
    kind: int,
    message: bytes = b"",
    *,
    method: int = 0,
    flags: int = 0,
    call: int = 0,
    deadline_ms: int = 0,
    request: int = 0,
    payload_bytes: int = 0,
) -> bytes:
    """Header and message of a frame; the caller sends ``payload_bytes`` bytes behind it."""
    summed = (
        _SUMMED.pack(
            MAGIC,
            FRAME_VERSION,
            kind,
            method,
            flags,
            call,
            deadline_ms,
            request,
            len(message),
            payload_bytes,
        )
        + message
    )
    return _SUM.pack(crc32c(summed)) + summed


Bounds = Callable[[int, int], tuple[int, int]]
"""(kind, method) -> (longest message, longest payload) in bytes."""


class Head(NamedTuple):
    """The lengths that a header states, checked against the bounds."""

    message_bytes: int
    payload_bytes: int
    oversize: bool


def read_head(header: bytes | memoryview, bounds: Bounds) -> Head:
    """The lengths in the 36 bytes of a header. FrameError for what no peer of ours sends.

    The checksum is verified by ``read_frame``, when the message is there: until then the lengths are
    believed only up to their bounds.
    """
    magic, version, kind, method, _, _, _, _, message_bytes, payload_bytes = _SUMMED.unpack_from(header, 4)
    if magic != MAGIC:
        raise FrameError(f"magic is {magic:#06x}, not {MAGIC:#06x}: not an fs3 peer")
    if version != FRAME_VERSION:
        raise FrameError(f"frame version is {version}, not {FRAME_VERSION}")
    if message_bytes <= HANDSHAKE_BYTES_MAX and not payload_bytes:
        return Head(message_bytes, 0, False)
    message_max, payload_max = bounds(kind, method)
    if message_bytes > max(message_max, HANDSHAKE_BYTES_MAX):
        raise FrameError(f"message of {message_bytes} bytes, kind {kind} method {method}: most {message_max}")
    if payload_bytes > PAYLOAD_BYTES_MAX:
        raise FrameError(f"payload of {payload_bytes} bytes, kind {kind} method {method}: too long")
    return Head(message_bytes, payload_bytes, payload_bytes > payload_max)


def read_frame(data: bytes, oversize: bool) -> Frame:
    """The frame whose header and message ``data`` is exactly, checksum verified; payload yet to come."""
    summed = data[4:]
    if crc32c(summed) != _SUM.unpack_from(data)[0]:
        raise FrameError("checksum of a frame does not match")
    _, _, kind, method, flags, call, deadline_ms, request, _, payload_bytes = _SUMMED.unpack_from(summed)
    message = summed[_SUMMED_BYTES:]
    return Frame(kind, method, flags, call, deadline_ms, request, message, payload_bytes, None, oversize)


class FrameParser:
    """Frames from a stream of bytes that arrives in pieces.

    Holds at most one incomplete frame: bounded by the bounds. Invariant: bytes are consumed once, in order.
    """

    def __init__(self, bounds: Bounds, new_payload: Callable[[int], memoryview]) -> None:
        self.bounds = bounds
        """May be replaced between frames (wider after the handshake)."""
        self._new_payload = new_payload
        self._data = b""
        self._at = 0
        self._pieces: list[bytes] = []
        self._have_bytes = 0
        self._need_bytes = 0  # until this much is there, joining the pieces would be wasted work
        self._frame: Frame | None = None  # its payload is being received
        self._filled_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        if self._at == len(self._data) and not self._pieces:
            self._data, self._at = data, 0
            return
        if not self._pieces:
            rest = self._data[self._at :]
            self._pieces.append(rest)
            self._have_bytes = len(rest)
            self._data, self._at = b"", 0
        self._pieces.append(data)
        self._have_bytes += len(data)
        if self._have_bytes >= self._need_bytes:
            self._data, self._at = b"".join(self._pieces), 0
            self._pieces.clear()

    def next(self) -> Frame | None:
        """The next whole frame, or None until more is fed. FrameError: the stream is broken."""
        if self._frame is not None:
            return self._fill()
        data, at = self._data, self._at
        have = len(data) - at
        if have < HEADER_BYTES:
            self._need_bytes = HEADER_BYTES
            return None
        head = read_head(data[at : at + HEADER_BYTES], self.bounds)
        size = HEADER_BYTES + head.message_bytes
        if have < size:
            self._need_bytes = size
            return None
        frame = read_frame(data[at : at + size], head.oversize)
        self._at = at + size
        self._need_bytes = 0
        if not head.payload_bytes:
            return frame
        payload = None if head.oversize else self._new_payload(head.payload_bytes)
        self._frame = frame._replace(payload=payload)
        self._filled_bytes = 0
        return self._fill()

    def _fill(self) -> Frame | None:
        frame = self._frame
        assert frame is not None
        left = frame.payload_bytes - self._filled_bytes
        piece = memoryview(self._data)[self._at : self._at + left]
        size = len(piece)
        if frame.payload is not None:
            frame.payload[self._filled_bytes : self._filled_bytes + size] = piece
        self._filled_bytes += size
        self._at += size
        if size < left:
            return None
        self._frame = None
        return frame


def plain_payload(size_bytes: int) -> memoryview:
    """Room for a payload, as ``new_payload`` of a parser whose user needs no alignment."""
    return memoryview(bytearray(size_bytes))
