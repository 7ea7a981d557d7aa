"""Checksums of ranges and chunks as they travel (design 4.2). PURE.

Sums are CRC32C of a payload cut at multiples of ``SUM_BLOCK_BYTES`` *of the chunk*, so that whole blocks
need no second pass anywhere: what the client computed is what is stored and what a reader gets.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

from crc32c import crc32c

from fs3.errors import CorruptData, Fs3Error, InvalidRequest
from fs3.wire.chunk import CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, SUM_BLOCK_BYTES, UpdateKind

KEEP_GIL = 0
"""Third argument of ``crc32c``. The sum of a block takes 5 µs: less than letting go of the GIL and getting it
back from whoever took it meanwhile, sixteen times a chunk of 1 MiB."""


def content_sum(sums: Sequence[int]) -> int:
    """CRC32C over the packed sums (u32, little endian) of a whole chunk: compared hop by hop."""
    return crc32c(struct.pack(f"<{len(sums)}I", *sums))


def block_count(offset_bytes: int, length_bytes: int) -> int:
    """How many sums a range has."""
    if length_bytes == 0:
        return 0
    return (offset_bytes + length_bytes - 1) // SUM_BLOCK_BYTES - offset_bytes // SUM_BLOCK_BYTES + 1


def pieces(offset_bytes: int, length_bytes: int) -> Sequence[tuple[int, int]]:
    """(start, end) of each summed piece, relative to the start of the range."""
    first = SUM_BLOCK_BYTES - offset_bytes % SUM_BLOCK_BYTES
    if first >= length_bytes:
        return ((0, length_bytes),) if length_bytes else ()
    cuts = (0, *range(first, length_bytes, SUM_BLOCK_BYTES), length_bytes)
    return tuple(pairwise(cuts))


def sums_of(payload: memoryview, offset_bytes: int) -> tuple[int, ...]:
    """The sums of a payload that lies at ``offset_bytes`` of its chunk."""
    return tuple([crc32c(payload[a:b], 0, KEEP_GIL) for a, b in pieces(offset_bytes, len(payload))])


def check_payload(payload: memoryview, offset_bytes: int, sums: Sequence[int]) -> None:
    """CorruptData unless the sums are those of the payload; names the first bad block."""
    for number, (a, b) in enumerate(pieces(offset_bytes, len(payload))):
        if crc32c(payload[a:b], 0, KEEP_GIL) != sums[number]:
            block = (offset_bytes + a) // SUM_BLOCK_BYTES
            raise CorruptData(f"block {block} of the payload does not match its sum")


def problem_of_update(
    kind: UpdateKind,
    offset_bytes: int,
    length_bytes: int,
    sum_count: int,
    chunk_size_bytes: int,
    payload_bytes: int,
) -> Fs3Error | None:
    """Why an update from the wire cannot be; None: its numbers fit together and into the chunk."""
    if not CHUNK_BYTES_MIN <= chunk_size_bytes <= CHUNK_BYTES_MAX:
        return InvalidRequest(
            f"chunk size {chunk_size_bytes} is not between {CHUNK_BYTES_MIN} and {CHUNK_BYTES_MAX}"
        )
    if offset_bytes < 0 or length_bytes < 0 or offset_bytes + length_bytes > chunk_size_bytes:
        return InvalidRequest(
            f"range {offset_bytes}+{length_bytes} is outside a chunk of {chunk_size_bytes} bytes"
        )
    carries = kind is UpdateKind.WRITE or kind is UpdateKind.REPLACE
    if kind is not UpdateKind.WRITE and offset_bytes != 0:
        return InvalidRequest(f"{kind.name} has offset {offset_bytes}")
    if kind is UpdateKind.WRITE and length_bytes == 0:
        return InvalidRequest("WRITE of no bytes")
    if kind is UpdateKind.REMOVE and length_bytes != 0:
        return InvalidRequest(f"REMOVE has length {length_bytes}")
    expected_bytes = length_bytes if carries else 0
    if payload_bytes != expected_bytes:
        return InvalidRequest(f"{kind.name} carries {payload_bytes} bytes, not {expected_bytes}")
    expected_sums = block_count(offset_bytes, length_bytes) if carries else 0
    if sum_count != expected_sums:
        return InvalidRequest(f"{kind.name} has {sum_count} sums, not {expected_sums}")
    return None
