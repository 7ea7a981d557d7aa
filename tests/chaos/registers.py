"""What chaos workers write and read: slots of shared files, each a register whose values are all different.

A slot is written and read as a whole; its bytes repeat the value, so a torn or mixed read shows by itself.
Slots lie within one chunk each: a write of one is atomic (design 4.3).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MIB = 1 << 20
SIZES_BYTES = (4096, 128 * 1024, MIB)
"""Over the small plane, over the bulk plane, a whole chunk."""
FILES = 6
QUIET_FILES = 2
"""Further files whose slots are written once, before the faults: reads of them wait for no writer."""
FIRST_VALUE = 1
"""Of quiet slots."""
SLOTS = 4
"""Of each file: one a chunk."""
_WORD = struct.Struct("<Q")


class Register(NamedTuple):
    """One slot."""

    path: str
    offset_bytes: int
    size_bytes: int

    is_quiet: bool = False
    """Written before the faults, and never again."""

    @property
    def name(self) -> str:
        return f"{self.path}+{self.offset_bytes}"


def registers(root: str) -> list[Register]:
    """All slots, always the same."""
    return [
        Register(f"{root}/file{number}", slot * MIB, SIZES_BYTES[number % len(SIZES_BYTES)], number >= FILES)
        for number in range(FILES + QUIET_FILES)
        for slot in range(SLOTS)
    ]


def content_of(value: int, size_bytes: int) -> bytes:
    """The bytes of a slot that holds ``value``; 0 is what nobody has written."""
    return _WORD.pack(value) * (size_bytes // _WORD.size)


def value_of(content: bytes) -> int | None:
    """The value of a slot; None: its bytes are of several, or no slot's at all."""
    if len(content) < _WORD.size:
        return None if content else 0
    (value,) = _WORD.unpack_from(content)
    return value if content == _WORD.pack(value) * (len(content) // _WORD.size) else None
