"""How values are kept in the files that clients share: which bytes a block holds, and what bytes say. PURE.

A file has a few chunks; the first bytes of each are its blocks, the rest is never written. Blocks are no
multiple of anything that disks or checksums like.
"""

from __future__ import annotations

import struct

from .history import UNKNOWN, Values

CHUNK_BYTES = 64 * 1024
BLOCK_BYTES = 1040
BLOCKS = 8
"""Of one chunk."""
CHUNKS = 3
"""Of one shared file."""
FULL_BYTES = (CHUNKS - 1) * CHUNK_BYTES + BLOCKS * BLOCK_BYTES
STAMP = struct.Struct("<QII")


def place(chunk: int, block: int) -> int:
    """Where in its file a block begins."""
    return chunk * CHUNK_BYTES + block * BLOCK_BYTES


def stamped(value: int, chunk: int, block: int) -> bytes:
    """The bytes of a block that holds ``value``."""
    return STAMP.pack(value, chunk, block) * (BLOCK_BYTES // STAMP.size)


def values_of(data: bytes | memoryview, chunk: int, first: int, count: int) -> Values | str:
    """The values of ``count`` blocks from ``first`` on; what was not read is UNKNOWN. A text: it is torn."""
    found: list[int] = []
    for block in range(first, first + count):
        start = (block - first) * BLOCK_BYTES
        part = bytes(data[start : start + BLOCK_BYTES])
        if not part:
            found.append(UNKNOWN)
        elif len(part) < BLOCK_BYTES:
            return f"block {block}: only {len(part)} bytes"
        elif not any(part):
            found.append(0)
        else:
            value, of_chunk, of_block = STAMP.unpack_from(part)
            if part != stamped(value, chunk, block):
                return f"block {block} is torn: it begins with {value} of {of_chunk}, {of_block}"
            found.append(value)
    return tuple(found)
