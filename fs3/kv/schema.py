"""Every key of the system on one screen, and how keys are packed.

A key is a four-letter prefix, then fixed-width big-endian integers, then (last, if at all) a byte string:
so the order of the keys is the order of their parts, and what belongs together is one range. Nothing but
this module names a prefix.

To add a kind of record: append a row (letters never used before, never given again), use its constant.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .ranges import KeyRange, prefix_end


class Row(NamedTuple):
    """One kind of record."""

    prefix: bytes
    owner: str
    """The component that writes it."""
    key: str
    """What follows the prefix."""
    value: str


PREFIX_BYTES = 4

# Rows: (prefix, owner, key after the prefix, value). Keep them grouped by owner.
TABLE: tuple[Row, ...] = (Row(b"TEST", "tests", "anything", "anything; no component reads it"),)


def _check_table(table: tuple[Row, ...]) -> None:
    seen: dict[bytes, str] = {}
    for row in table:
        assert len(row.prefix) == PREFIX_BYTES and row.prefix.isalnum() and row.prefix.isupper(), row
        assert row.prefix not in seen, (row, seen[row.prefix])
        seen[row.prefix] = row.owner


_check_table(TABLE)

_U32 = struct.Struct(">I")
_U64 = tuple(struct.Struct(f">4s{count}Q") for count in range(5))


def key_u64(prefix: bytes, *numbers: int, tail: bytes = b"") -> bytes:
    """``prefix``, up to four u64, then ``tail``; struct.error when a number does not fit."""
    return _U64[len(numbers)].pack(prefix, *numbers) + tail


def key_u32(prefix: bytes, *numbers: int, tail: bytes = b"") -> bytes:
    """``prefix``, u32 numbers, then ``tail``; struct.error when a number does not fit."""
    return prefix + b"".join(_U32.pack(number) for number in numbers) + tail


def split_u64(key: bytes, count: int) -> tuple[tuple[int, ...], bytes]:
    """The ``count`` u64 after the prefix, and the tail; struct.error when the key is shorter."""
    packer = _U64[count]
    parts = packer.unpack_from(key)
    return parts[1:], key[packer.size :]


def split_u32(key: bytes, count: int) -> tuple[tuple[int, ...], bytes]:
    """The ``count`` u32 after the prefix, and the tail; struct.error when the key is shorter."""
    end = PREFIX_BYTES + 4 * count
    return struct.unpack(f">{count}I", key[PREFIX_BYTES:end]), key[end:]


def range_of(start: bytes) -> KeyRange:
    """The range of all keys that begin with ``start`` (a prefix, or a prefix with leading parts)."""
    return start, prefix_end(start)
