"""Messages: fields appended by one side are tolerated by the other; what does not fit is InvalidRequest."""

from __future__ import annotations

import msgpack  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.errors import InvalidRequest
from fs3.wire.codec import decode, encode


class Older(msgspec.Struct, array_like=True, frozen=True):
    name: str
    size_bytes: int = 0


class Newer(msgspec.Struct, array_like=True, frozen=True):
    name: str
    size_bytes: int = 0
    flags: tuple[int, ...] = ()
    note: str = "none"


def test_appended_fields_both_ways() -> None:
    assert decode(encode(Newer("a", 1, (2,), "x")), Older) == Older("a", 1)
    assert decode(encode(Older("a", 1)), Newer) == Newer("a", 1, (), "none")


def test_read_with_an_independent_library() -> None:
    assert msgpack.unpackb(encode(Newer("ä", 1 << 40, (1, 2)))) == ["ä", 1 << 40, [1, 2], "none"]
    assert decode(msgpack.packb(["a", 5]), Older) == Older("a", 5)


@pytest.mark.parametrize("data", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb({}), msgpack.packb([])])
def test_what_does_not_fit(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="Older"):
        decode(data, Older)


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    try:
        assert isinstance(decode(data, Older), Older)
    except InvalidRequest:
        pass
