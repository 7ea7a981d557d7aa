"""Bytes on their way out: cut by chunk, and their checksums. PURE.

Data to write is a sequence of buffers, in order, that need not be joined: the sums run over them, they are
sent one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from crc32c import crc32c

from fs3.rpc.service import Buffer

from .plan import sum_cuts

_KEEP_GIL = 0
"""A sum block takes 5 µs: less than letting go of the GIL and getting it back from whoever took it."""


def cut_buffers(
    data: Sequence[Buffer], offset_bytes: int, chunk_size_bytes: int
) -> list[tuple[int, int, list[memoryview]]]:
    """(chunk index, offset within the chunk, buffers) of each chunk that ``data``, written at
    ``offset_bytes``, reaches into. Empty buffers are left out."""
    cuts: list[tuple[int, int, list[memoryview]]] = []
    at = offset_bytes
    for buffer in data:
        view = memoryview(buffer).cast("B")
        while view:
            index, within = divmod(at, chunk_size_bytes)
            part = view[: chunk_size_bytes - within]
            if cuts and cuts[-1][0] == index:
                cuts[-1][2].append(part)
            else:
                cuts.append((index, within, [part]))
            at += len(part)
            view = view[len(part) :]
    return cuts


def piece_sums(parts: Sequence[memoryview], within_bytes: int) -> tuple[int, ...]:
    """CRC32C of the bytes, cut at multiples of the sum block of the chunk."""
    length_bytes = sum(map(len, parts))
    if len(parts) == 1:
        view = parts[0]
        return tuple([crc32c(view[a:b], 0, _KEEP_GIL) for a, b in sum_cuts(within_bytes, length_bytes)])
    sums = []
    part, at = 0, 0  # the next byte to sum is parts[part][at]
    for start, end in sum_cuts(within_bytes, length_bytes):
        value, left = 0, end - start
        while left:
            taken = parts[part][at : at + left]
            value = crc32c(taken, value, _KEEP_GIL)
            left -= len(taken)
            at += len(taken)
            if at == len(parts[part]):
                part, at = part + 1, 0
        sums.append(value)
    return tuple(sums)
