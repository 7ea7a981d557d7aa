"""From ranges of files to requests to servers. PURE.

``cut`` divides a range by chunks into pieces; ``group`` puts pieces for one server together, bounded in
number and bytes. A piece carries the place in the caller's memory where its bytes belong, so that they are
received there directly.

Source: design 4.8 (a message carries 1 … 1024 ranges), 5.3 (bulk above 64 KiB), 6.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from fs3.ids import ChainId, ChunkId, InodeId
from fs3.wire.chunk import SUM_BLOCK_BYTES
from fs3.wire.storage import READ_ITEMS_MAX

F = TypeVar("F")

REQUEST_BYTES_MAX = 8 << 20
"""Of one bulk request: long enough to hide its fixed cost, short enough to spread over servers."""
SMALL_REQUEST_BYTES_MAX = 1 << 20
SMALL_ITEMS_MAX = 256
"""Of one small request: several in flight keep both ends at work."""
BULK_BYTES_MIN = 64 * 1024
"""Mean length of a request's pieces from which it goes over the bulk plane."""


class Piece(Generic[F]):
    """A range of one chunk and where its bytes go."""

    __slots__ = (
        "chain", "chunk", "corrupt_count", "doubted", "file", "length_bytes", "offset_bytes", "refused_count",
        "tries", "view",
    )  # fmt: skip

    def __init__(
        self, file: F, chain: ChainId, chunk: ChunkId, offset_bytes: int, length_bytes: int, view: memoryview
    ) -> None:
        self.file = file
        """The open file that it belongs to; this module does not look into it."""
        self.chain = chain
        self.chunk = chunk
        self.offset_bytes = offset_bytes
        """Within the chunk."""
        self.length_bytes = length_bytes
        self.view = view
        """``length_bytes`` long."""
        self.tries: tuple[str, ...] = ()
        """Addresses that did not give it."""
        self.corrupt_count = 0
        """Times that its bytes had a wrong sum."""
        self.doubted = ""
        """Address whose bytes had a wrong sum: it is asked once more, and compares them itself first."""
        self.refused_count = 0
        """Times that its capability was not known."""


def cut(
    file: F,
    inode: InodeId,
    chunk_size_bytes: int,
    chains: Sequence[ChainId],
    offset_bytes: int,
    view: memoryview,
    pieces: list[Piece[F]],
) -> None:
    """Append the pieces of ``[offset, offset + len(view))`` to ``pieces``."""
    length_bytes = len(view)
    index, within = divmod(offset_bytes, chunk_size_bytes)
    if within + length_bytes <= chunk_size_bytes:
        chunk = ChunkId(inode, index)
        pieces.append(Piece(file, chains[index % len(chains)], chunk, within, length_bytes, view))
        return
    position = 0
    while position < length_bytes:
        part = min(chunk_size_bytes - within, length_bytes - position)
        chunk = ChunkId(inode, index)
        pieces.append(
            Piece(file, chains[index % len(chains)], chunk, within, part, view[position : position + part])
        )
        position += part
        index += 1
        within = 0


class Batch(Generic[F]):
    """One request to one server."""

    __slots__ = ("address", "bytes", "pieces")

    def __init__(self, address: str) -> None:
        self.address = address
        self.pieces: list[Piece[F]] = []
        self.bytes = 0

    @property
    def is_bulk(self) -> bool:
        """Goes over the bulk plane."""
        return self.bytes >= BULK_BYTES_MIN * len(self.pieces)


def group(pieces: Iterable[Piece[F]], choose: Callable[[Piece[F]], str]) -> list[Batch[F]]:
    """Requests for all pieces; ``choose`` names the server of each. Large and small pieces do not mix, so
    that small ones are not held up behind large ones."""
    bulk: dict[str, Batch[F]] = {}
    small: dict[str, Batch[F]] = {}
    batches: list[Batch[F]] = []
    for piece in pieces:
        address = choose(piece)
        size_bytes = piece.length_bytes
        if size_bytes >= BULK_BYTES_MIN:
            group_of, bytes_max, items_max = bulk, REQUEST_BYTES_MAX, READ_ITEMS_MAX
        else:
            group_of, bytes_max, items_max = small, SMALL_REQUEST_BYTES_MAX, SMALL_ITEMS_MAX
        batch = group_of.get(address)
        if batch is None or batch.bytes + size_bytes > bytes_max or len(batch.pieces) >= items_max:
            batch = group_of[address] = Batch(address)
            batches.append(batch)
        batch.pieces.append(piece)
        batch.bytes += size_bytes
    return batches


def sum_cuts(offset_bytes: int, length_bytes: int) -> Iterable[tuple[int, int]]:
    """(start, end) of the parts of a range of a chunk that have a checksum each, relative to its start."""
    start = 0
    end = min(length_bytes, SUM_BLOCK_BYTES - offset_bytes % SUM_BLOCK_BYTES)
    while start < length_bytes:
        yield start, end
        start, end = end, min(length_bytes, end + SUM_BLOCK_BYTES)
