"""Reads a chunk from the disk itself and compares it with its sums: what the page cache does not show.

What is wrong on the disk may be right in the cache, and is then lost with it. So these reads go around the
cache and leave it as it is; only where a block is wrong the cache is told to forget it, so that from then on
everybody sees what the disk has, the repair included. Source: design 4.2, 4.7.
"""

from __future__ import annotations

from typing import NamedTuple

from crc32c import crc32c

from fs3.errors import Busy, CorruptData
from fs3.ids import ChunkId
from fs3.wire.chunk import SUM_BLOCK_BYTES

from .compose import Place
from .core import StoreCore
from .format import StoredVersion

PIECE_BYTES = 1024 * 1024
"""Read in one call; the scratch memory of a scrub has this length."""
_PAGE_BYTES = 4096


class Scrubbed(NamedTuple):
    """What one look at a chunk found."""

    bad: tuple[int, ...]
    """Numbers of the 64 KiB blocks that fail their sums or cannot be read, of either version."""
    read_bytes: int


def scrub_chunk(core: StoreCore, chunk: ChunkId, scratch: memoryview) -> Scrubbed:
    """As ``ChunkStore.scrub_chunk``."""
    assert len(scratch) == PIECE_BYTES, len(scratch)
    bad: dict[int, None] = {}
    read_bytes = 0
    for identity in core.identities(chunk):
        try:
            stored = core.held(chunk, identity)
        except Busy:  # it was committed meanwhile, and something came after it
            continue
        if stored is None or stored.block is None:
            continue
        try:
            bad.update(dict.fromkeys(_bad_blocks(stored, core.place(stored.block), scratch)))
            read_bytes += stored.info.length_bytes
        finally:
            core.release(stored.block)
    return Scrubbed(tuple(sorted(bad)), read_bytes)


def _bad_blocks(stored: StoredVersion, place: Place, scratch: memoryview) -> list[int]:
    bad: list[int] = []
    length_bytes = stored.info.length_bytes
    for start in range(0, length_bytes, PIECE_BYTES):
        piece = scratch[: min(PIECE_BYTES, length_bytes - start)]
        is_read = _read(place, start, scratch[: -(-len(piece) // _PAGE_BYTES) * _PAGE_BYTES])
        for at in range(0, len(piece), SUM_BLOCK_BYTES):
            number = (start + at) // SUM_BLOCK_BYTES
            block = scratch[at : at + SUM_BLOCK_BYTES]  # whole pages: what lies behind the content, too
            is_there = is_read or _read(place, start + at, block[: _pages(len(piece) - at)])
            if is_there and crc32c(piece[at : at + SUM_BLOCK_BYTES]) == stored.info.sums[number]:
                continue
            bad.append(number)
            stored.verified &= ~(1 << number)
            place.file.forget_cached(place.offset_bytes + start + at, SUM_BLOCK_BYTES)
    return bad


def _pages(length_bytes: int) -> int:
    return min(SUM_BLOCK_BYTES, -(-length_bytes // _PAGE_BYTES) * _PAGE_BYTES)


def _read(place: Place, offset_bytes: int, buffer: memoryview) -> bool:
    """False: unreadable, all or a part of it. DiskFailed."""
    try:
        place.file.pread_direct(buffer, place.offset_bytes + offset_bytes)
    except CorruptData:
        return False
    return True
