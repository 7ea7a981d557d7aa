"""Requests for many small ranges, in the usual case: one pass, one choice of a replica for each chain.

What is unusual about a single range (it crosses a chunk's border or the file's end, is large, of another
session, of a file with unstored content) makes the whole batch go through ``ClientCore.pieces_of`` and
``Reader.plan``, which know about everything. The choice is theirs, ``Reader.choose_small``.

Source: design 6.2; [dp F]: what is spent on each range of a batch decides its rate.
"""

from __future__ import annotations

from collections.abc import Sequence

from fs3.ids import ChainId, ChunkId, InodeId

from .core import ClientCore
from .file import AsyncFile
from .open_files import OpenFile
from .plan import BULK_BYTES_MIN, SMALL_ITEMS_MAX, SMALL_REQUEST_BYTES_MAX, Batch, Piece

NO_CHAINS: Sequence[ChainId] = (ChainId(0),)


def plan_small(
    core: ClientCore, ranges: Sequence[tuple[AsyncFile, int, int]], views: Sequence[memoryview]
) -> list[Batch[OpenFile]] | None:
    """Requests that fill all views; None: something is unusual. StaleRouting: a chain has no replica."""
    by_chain: dict[ChainId, list[Piece[OpenFile]]] = {}
    last: AsyncFile | None = None
    first: OpenFile | None = None
    found: OpenFile | None = None
    length_bytes = chunk_bytes = 0
    chains, inode = NO_CHAINS, InodeId(0)
    for (file, offset_bytes, _), view in zip(ranges, views, strict=True):
        if file is not last:
            last = file
            found = None if file.closed else file.open_file
            if found is None or found.is_inline:
                return None
            first = first or found
            if found.session is not first.session:
                return None
            inode, chains = found.inode, found.chains
            length_bytes, chunk_bytes = found.length_bytes, found.chunk_size_bytes
        assert found is not None, file
        size_bytes = len(view)
        index, within = divmod(offset_bytes, chunk_bytes)
        if (
            not 0 < size_bytes < BULK_BYTES_MIN
            or within + size_bytes > chunk_bytes
            or not 0 <= offset_bytes <= length_bytes - size_bytes
        ):
            return None
        chain = chains[index % len(chains)]
        piece = Piece(found, chain, ChunkId(inode, index), within, size_bytes, view)
        mine = by_chain.get(chain)
        if mine is None:
            by_chain[chain] = [piece]
        else:
            mine.append(piece)
    return _batches(core, by_chain)


def _batches(
    core: ClientCore, by_chain: dict[ChainId, list[Piece[OpenFile]]]
) -> list[Batch[OpenFile]] | None:
    """One request a server; None: it would be too long a one."""
    now_s = core.clock.boot_s()
    planned_bytes: dict[str, int] = {}
    batches: dict[str, Batch[OpenFile]] = {}
    for chain, pieces in by_chain.items():
        address = core.reader.choose_small(chain, planned_bytes, now_s)
        batch = batches.get(address)
        if batch is None:
            batch = batches[address] = Batch(address)
        batch.pieces += pieces
        batch.bytes += sum([piece.length_bytes for piece in pieces])
        planned_bytes[address] = batch.bytes
        if len(batch.pieces) > SMALL_ITEMS_MAX or batch.bytes > SMALL_REQUEST_BYTES_MAX:
            return None
    return list(batches.values())
