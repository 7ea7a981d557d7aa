"""Which bytes a new version of a chunk is made of, and where they go. PURE.

A new version builds on the committed one. Its content is a row of segments: bytes of the old content,
zeros, bytes of the payload. It is written

* nowhere, if it is a prefix of the old content: it shares the old block;
* *in place*, into the same block, if all that is new lies behind everything that any version or reader of
  this block has (its high-water mark), and fits;
* else into a new block (copy-on-write), the smallest that holds it.

So no byte that somebody may read is ever written. Source: design 4.1.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from fs3.errors import InvalidRequest
from fs3.wire.chunk import CHUNK_BYTES_MAX, SUM_BLOCK_BYTES, Update, UpdateKind

from .allocate import class_for
from .format import StoredVersion


class Source(enum.Enum):
    """Where bytes come from."""

    BASE = enum.auto()
    ZERO = enum.auto()
    PAYLOAD = enum.auto()


class Segment(NamedTuple):
    """Bytes ``[start, end)`` of the chunk: of the same place in the base, or of the payload."""

    start: int
    end: int
    source: Source


@dataclass(frozen=True, slots=True)
class Plan:
    """How to make a version."""

    length_bytes: int
    segments: tuple[Segment, ...]
    """Cover the whole content, in order, none empty."""
    size_class: int
    """Of the new block to take; 0: none (no content, or the base's block is shared)."""
    shares_base: bool
    """The version lies in the base's block."""
    write_from: int
    """Bytes from here to the end are written; ``length_bytes``: nothing is."""
    removed: bool = False


def sum_pieces(offset_bytes: int, length_bytes: int) -> list[tuple[int, int]]:
    """A range cut at multiples of SUM_BLOCK_BYTES of the chunk: (start, end) of each piece."""
    end, start = offset_bytes + length_bytes, offset_bytes
    pieces: list[tuple[int, int]] = []
    while start < end:
        cut = min(end, (start // SUM_BLOCK_BYTES + 1) * SUM_BLOCK_BYTES)
        pieces.append((start, cut))
        start = cut
    return pieces


def plan_update(update: Update, payload_bytes: int, base: StoredVersion | None) -> Plan:
    """The plan of an update on the committed version; InvalidRequest if it cannot be."""
    length_bytes = base.info.length_bytes if base is not None else 0
    _check(update, payload_bytes)
    match update.kind:
        case UpdateKind.REMOVE:
            return Plan(0, (), 0, shares_base=False, write_from=0, removed=True)
        case UpdateKind.REPLACE:
            return _place((Segment(0, update.length_bytes, Source.PAYLOAD),), update.length_bytes, None)
        case UpdateKind.TRUNCATE:
            kept = min(length_bytes, update.length_bytes)
            row = (Segment(0, kept, Source.BASE), Segment(kept, update.length_bytes, Source.ZERO))
            return _place(row, update.length_bytes, base)
        case UpdateKind.WRITE:
            return _place(*_written(update, length_bytes), base)


def _written(update: Update, length_bytes: int) -> tuple[tuple[Segment, ...], int]:
    if not update.length_bytes:  # as POSIX has it: a write of nothing does not grow the file
        return (Segment(0, length_bytes, Source.BASE),), length_bytes
    start, end = update.offset_bytes, update.offset_bytes + update.length_bytes
    new_length_bytes = max(length_bytes, end)
    kept = min(start, length_bytes)
    row = (
        Segment(0, kept, Source.BASE),
        Segment(kept, start, Source.ZERO),
        Segment(start, end, Source.PAYLOAD),
        Segment(end, new_length_bytes, Source.BASE),
    )
    return row, new_length_bytes


def _place(row: tuple[Segment, ...], length_bytes: int, base: StoredVersion | None) -> Plan:
    segments = tuple(segment for segment in row if segment.end > segment.start)
    if not length_bytes:
        return Plan(0, (), 0, shares_base=False, write_from=0)
    if base is not None and base.block is not None:
        prefix = segments[0].end if segments[0].source is Source.BASE else 0
        if prefix == length_bytes:
            return Plan(length_bytes, segments, 0, shares_base=True, write_from=length_bytes)
        fits = length_bytes <= base.block.size_bytes
        if fits and prefix == base.info.length_bytes and prefix >= base.high_water_bytes:
            return Plan(length_bytes, segments, 0, shares_base=True, write_from=prefix)
    return Plan(length_bytes, segments, class_for(length_bytes), shares_base=False, write_from=0)


def _check(update: Update, payload_bytes: int) -> None:
    limit_bytes = update.chunk_size_bytes or CHUNK_BYTES_MAX
    carries = update.kind in (UpdateKind.WRITE, UpdateKind.REPLACE)
    end = update.length_bytes + (update.offset_bytes if update.kind is UpdateKind.WRITE else 0)
    if min(update.offset_bytes, update.length_bytes) < 0 or end > min(limit_bytes, CHUNK_BYTES_MAX):
        raise InvalidRequest(f"{update.kind.name} up to byte {end} of a chunk of {limit_bytes} bytes")
    if update.kind is not UpdateKind.WRITE and update.offset_bytes:
        raise InvalidRequest(f"{update.kind.name} at offset {update.offset_bytes}")
    if payload_bytes != (update.length_bytes if carries else 0):
        raise InvalidRequest(
            f"{update.kind.name} of {update.length_bytes} bytes with a payload of {payload_bytes}"
        )
    wanted_sums = -(-end // SUM_BLOCK_BYTES) - update.offset_bytes // SUM_BLOCK_BYTES if payload_bytes else 0
    if carries and len(update.sums) != wanted_sums:
        raise InvalidRequest(
            f"{update.kind.name} of {update.length_bytes} bytes with {len(update.sums)} sums"
        )
