"""Messages to MessagePack bytes and back.

All messages are ``msgspec`` structs, positional (``array_like``): a receiver ignores fields appended by a
newer sender, and fills fields that an older sender does not know with their defaults (docs/wire.md). A
message that does not fit its type is the sender's fault: InvalidRequest, never another exception.

Source: design 5.2; [dp A]: 150–260 ns a message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from ..errors import InvalidRequest

M = TypeVar("M", bound=msgspec.Struct)

_ENCODER = msgspec.msgpack.Encoder()
_DECODERS: dict[type, Callable[[bytes | memoryview], object]] = {}

encode: Callable[[msgspec.Struct], bytes] = _ENCODER.encode
"""The bytes of a message."""


def decoder(kind: type[M]) -> Callable[[bytes | memoryview], M]:
    """The bare decoding function of a type: raises msgspec.MsgspecError. For those who bind it once."""
    found = _DECODERS.get(kind)
    if found is None:
        found = _DECODERS[kind] = msgspec.msgpack.Decoder(kind).decode
    return found  # type: ignore[return-value]  # the table pairs each type with its own decoder


def decode(data: bytes | memoryview, kind: type[M]) -> M:
    """The message of type ``kind`` in ``data``; InvalidRequest when it is none."""
    try:
        return decoder(kind)(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"not a {kind.__name__}: {error}") from error
