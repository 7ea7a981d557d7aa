"""Layout: how a file's bytes are spread over chunks and chains. Pure.

A file is cut into chunks of ``chunk_size_bytes``; chunk i lies on chain ``chains[i mod len(chains)]``,
where ``chains`` is a run of the chain table, shuffled by ``shuffle`` with the file's seed. The shuffle is
defined here and must never change: existing files are found by it (design 3.10; ``3fs`` mistake 26).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from .ids import ChainId, ChainTableId, ChunkId, InodeId
from .wire.chunk import CHUNK_BYTES_MAX, CHUNK_BYTES_MIN

DEFAULT_CHUNK_BYTES = 1 << 20
FILE_BYTES_MAX = 1 << 60
"""Greatest length of a file: far above any disk, far below what would overflow a signed 64-bit offset."""
CHUNK_COUNT_MAX = 1 << 32


class Layout(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Where a file's chunks lie. Directories carry one as the default for what is created in them."""

    table: ChainTableId = ChainTableId(1)
    table_version: int = 0
    """0 in a directory: the newest at creation; a file always names one."""
    chunk_size_bytes: int = DEFAULT_CHUNK_BYTES
    stripe: int = 0
    """Number of chains a file is spread over; 0: all of the table."""
    first: int = 0
    """Index in the table of the run's first chain."""
    seed: int = 0
    """Of the shuffle; u32."""

    def problem(self) -> str:
        """Why this layout cannot be, or ""."""
        size = self.chunk_size_bytes
        if not CHUNK_BYTES_MIN <= size <= CHUNK_BYTES_MAX or size & (size - 1):
            return f"chunk size {size} is not a power of two from 64 KiB to 64 MiB"
        if not 0 <= self.stripe <= 65_536:
            return f"stripe {self.stripe} is not between 0 (all chains) and 65,536"
        return ""


class Extent(NamedTuple):
    """A piece of a byte range that lies in one chunk."""

    chunk: ChunkId
    chain: ChainId
    offset_bytes: int
    """Within the chunk."""
    length_bytes: int
    position_bytes: int
    """Within the range that was cut."""


def shuffle(count: int, seed: int) -> list[int]:
    """The numbers 0 … count-1 in the order that ``seed`` gives.

    Fisher–Yates from the end, drawing from xorshift64* started at ``seed * 2654435769 + 1``; the draw for
    position i is the upper 32 bits of the product, modulo i + 1.
    """
    order = list(range(count))
    state = (seed * 2_654_435_769 + 1) & 0xFFFF_FFFF_FFFF_FFFF or 1
    for i in range(count - 1, 0, -1):
        state ^= state >> 12
        state ^= (state << 25) & 0xFFFF_FFFF_FFFF_FFFF
        state ^= state >> 27
        j = ((state * 0x2545_F491_4F6C_DD1D & 0xFFFF_FFFF_FFFF_FFFF) >> 32) % (i + 1)
        order[i], order[j] = order[j], order[i]
    return order


def file_chains(layout: Layout, table_chains: tuple[ChainId, ...]) -> tuple[ChainId, ...]:
    """The chains of a file, in stripe order: a run of the table from ``first``, shuffled."""
    count = len(table_chains)
    width = min(layout.stripe or count, count)
    run = [table_chains[(layout.first + i) % count] for i in range(width)]
    return tuple(run[i] for i in shuffle(width, layout.seed))


def extents(
    inode: InodeId, layout: Layout, chains: tuple[ChainId, ...], offset_bytes: int, length_bytes: int
) -> Iterator[Extent]:
    """The pieces of ``[offset, offset + length)``, in order. ``chains`` is ``file_chains`` of the layout."""
    size = layout.chunk_size_bytes
    position = 0
    while position < length_bytes:
        index, within = divmod(offset_bytes + position, size)
        piece = min(size - within, length_bytes - position)
        yield Extent(ChunkId(inode, index), chains[index % len(chains)], within, piece, position)
        position += piece


def chunk_count(length_bytes: int, chunk_size_bytes: int) -> int:
    """How many chunks a file of this length reaches over."""
    return -(-length_bytes // chunk_size_bytes)
