"""Frames: read by others than our own code, cut anywhere, bounded, broken in every way."""

from __future__ import annotations

import struct

import crcmod.predefined
import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.rpc.framing import (
    HANDSHAKE_BYTES_MAX,
    HEADER_BYTES,
    HEADER_FIELDS,
    MESSAGE_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    Frame,
    FrameError,
    FrameParser,
    Kind,
    encode_frame,
    plain_payload,
)
from fs3.wire.codec import encode

CRC32C = crcmod.predefined.mkPredefinedCrcFun("crc-32c")


def _bounds(kind: int, method: int) -> tuple[int, int]:
    return (1 << 16, 1 << 16) if method != 9 else (1 << 16, 0)


def _parser() -> FrameParser:
    return FrameParser(_bounds, plain_payload)


def _all(parser: FrameParser) -> list[Frame]:
    frames = []
    while (frame := parser.next()) is not None:
        frames.append(frame)
    return frames


class Sample(msgspec.Struct, array_like=True):
    name: str
    sizes: tuple[int, ...]


def test_frame_read_with_independent_libraries() -> None:
    message = encode(Sample("x", (1, 70_000)))
    data = encode_frame(
        Kind.REQUEST, message, method=101, flags=3, call=7, deadline_ms=250, request=1 << 40, payload_bytes=11
    )
    summed, *rest = struct.unpack("<I2sBBHHIIQII", data[:36])
    assert rest == [b"f3", 1, 16, 101, 3, 7, 250, 1 << 40, len(message), 11]
    assert CRC32C(data[4:]) == summed
    assert msgpack.unpackb(data[36:]) == ["x", [1, 70_000]]
    assert sum(size for _, size in HEADER_FIELDS) == HEADER_BYTES == 36


messages = st.binary(max_size=300)


@given(st.lists(st.tuples(messages, st.binary(max_size=500)), max_size=8), st.data())
def test_stream_cut_anywhere(sent: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    stream = b"".join(
        encode_frame(Kind.REQUEST, message, call=number, payload_bytes=len(payload)) + payload
        for number, (message, payload) in enumerate(sent)
    )
    parser, got, at = _parser(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        parser.feed(stream[at : at + size])
        got += _all(parser)
        at += size
    assert [(f.message, bytes(f.payload or b"")) for f in got] == sent
    assert [f.call for f in got] == list(range(len(sent)))


def test_byte_by_byte() -> None:
    stream = encode_frame(Kind.RESPONSE, b"abc", payload_bytes=3) + b"xyz" + encode_frame(Kind.PING)
    parser, got = _parser(), []
    for byte in stream:
        parser.feed(bytes([byte]))
        got += _all(parser)
    assert [f.kind for f in got] == [Kind.RESPONSE, Kind.PING]
    assert bytes(got[0].payload or b"") == b"xyz"


def test_payload_above_the_methods_bound_is_skipped() -> None:
    parser = _parser()
    parser.feed(encode_frame(Kind.REQUEST, b"m", method=9, payload_bytes=1 << 15))
    for _ in range(8):
        assert parser.next() is None
        parser.feed(bytes(1 << 12))
    (frame,) = _all(parser)
    assert frame.oversize and frame.payload is None
    parser.feed(encode_frame(Kind.PING))
    assert [f.kind for f in _all(parser)] == [Kind.PING]


def test_lengths_are_refused_before_a_byte_of_them_is_there() -> None:
    def allocate(size_bytes: int) -> memoryview:
        raise AssertionError(size_bytes)

    for length in (1 << 17, MESSAGE_BYTES_MAX, (1 << 32) - 1):
        parser = FrameParser(_bounds, allocate)
        header = bytearray(encode_frame(Kind.REQUEST))
        header[28:32] = length.to_bytes(4, "little")
        parser.feed(bytes(header))
        with pytest.raises(FrameError, match="message of"):
            parser.next()
    parser = FrameParser(_bounds, allocate)
    parser.feed(encode_frame(Kind.REQUEST, payload_bytes=PAYLOAD_BYTES_MAX + 1))
    with pytest.raises(FrameError, match="payload of"):
        parser.next()


@given(st.integers(0, (HEADER_BYTES + 5) * 8 - 1))
def test_one_flipped_bit_never_passes(bit: int) -> None:
    data = bytearray(encode_frame(Kind.REQUEST, b"hello", method=3, call=1))
    data[bit // 8] ^= 1 << bit % 8
    parser = _parser()
    parser.feed(bytes(data))
    try:
        frame = parser.next()
    except FrameError:
        return
    assert frame is None  # a length grew: more is waited for, and the checksum will tell
    parser.feed(bytes(HANDSHAKE_BYTES_MAX + (1 << 16)))
    with pytest.raises(FrameError):
        _all(parser)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_frame_error_or_wait(data: bytes) -> None:
    parser = _parser()
    parser.feed(data)
    try:
        assert parser.next() is None
    except FrameError:
        pass
    assert len(parser._data) <= 400
