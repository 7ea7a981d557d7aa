"""The protocol between clients of the embedded store and its owner.

A Unix stream socket carries frames: u32 little endian length, then MessagePack: an array of messages. A
message is an array whose first item is its kind. A client says Hello first and sends nothing else before
it has its Welcome. Answers come in the order of the commits of a connection; watches at any time.

The table is ``docs/kv.md``. Lengths are bounded before they are believed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import msgspec

from ..errors import InvalidRequest
from .mutations import CommitRequest

PROTOCOL = 1
FRAME_MAX_BYTES = 4 * 1024 * 1024
"""A transaction at its limit (1 MB, each item counted with 16 bytes) is shorter than this in any case."""
_LENGTH = struct.Struct("<I")


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """First message of a client."""

    protocol: int


class Commit(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """One transaction; answered by ``Answer``."""

    id: int
    """Chosen by the client, not used twice on a connection."""
    request: CommitRequest


class Watch(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Answered by WatchSet or WatchRefused, then once by WatchFired."""

    id: int
    key: bytes
    seen: bytes | None


class Unwatch(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Gives a watch up; not answered (WatchFired may be on its way)."""

    id: int


ToOwner = Hello | Commit | Watch | Unwatch


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The owner's answer to Hello; it closes the connection if ``protocol`` is not the client's."""

    protocol: int
    store_id: bytes
    version: int
    """The store's version now."""


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Outcome of a commit."""

    id: int
    verdict: int
    """``resolver.Verdict``."""
    stamp: bytes
    message: str


class WatchSet(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The watch is in force."""

    id: int


class WatchFired(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The value is another now; the watch is over."""

    id: int


class WatchRefused(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The owner is at its bound."""

    id: int
    message: str


ToClient = Welcome | Answer | WatchSet | WatchFired | WatchRefused

decode_to_owner = msgspec.msgpack.Decoder(list[ToOwner]).decode
decode_to_client = msgspec.msgpack.Decoder(list[ToClient]).decode
_encode = msgspec.msgpack.Encoder().encode


def frame(messages: Sequence[ToOwner] | Sequence[ToClient]) -> bytes:
    """One frame."""
    body = _encode(messages)
    assert len(body) <= FRAME_MAX_BYTES, len(body)
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts what arrives into the bodies of frames."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that are complete with ``data``; InvalidRequest when a length is out of bounds."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, at)
            if length > FRAME_MAX_BYTES:
                raise InvalidRequest(f"frame of {length} bytes; at most {FRAME_MAX_BYTES} are allowed")
            if end - at - _LENGTH.size < length:
                break
            at += _LENGTH.size
            yield data[at : at + length]
            at += length
        self._rest = data[at:]
