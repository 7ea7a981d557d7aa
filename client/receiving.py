"""Receiving a batch of reads: parts go straight to their places, sums are checked while the bytes are hot.

A ``ReadSink`` serves one request. ``buffers`` and ``received`` run in whatever thread receives; nobody else
looks at the sink before the call has ended.

Source: design 4.2 (the receiver names the bad block), 4.8, 5.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

from crc32c import crc32c

from fs3.errors import CorruptData, Fs3Error, from_wire
from fs3.wire.chunk import SUM_BLOCK_BYTES
from fs3.wire.storage import ReadResponse, ReadResult

from .plan import F, Piece, sum_cuts

_ZEROS = bytes(1 << 20)


def fill_zeros(view: memoryview) -> None:
    """Zeros all over ``view``."""
    for start in range(0, len(view), len(_ZEROS)):
        part = view[start : start + len(_ZEROS)]
        part[:] = _ZEROS[: len(part)]


class WrongSum(CorruptData):
    """Bytes came that do not match the sums that came with them: changed on the way, or on the disk that they
    came from, which its server does not know yet."""


class ReadSink(Generic[F]):
    """Where the answers to ``pieces`` go (``fs3.rpc.service.Sink``)."""

    __slots__ = ("done", "failed", "pieces", "views")

    def __init__(self, pieces: Sequence[Piece[F]], views: Sequence[memoryview] | None = None) -> None:
        self.pieces = pieces
        self.views = [piece.view for piece in pieces] if views is None else views
        """Where the bytes go: the caller's memory, or a hedge's own."""
        self.done = bytearray(len(pieces))
        """1 where a piece has arrived and is right."""
        self.failed: dict[int, Fs3Error] = {}

    def buffers(self, response: ReadResponse) -> Sequence[memoryview]:
        """Room for the part's payload. CorruptData: the answer does not fit the request."""
        views = self.views
        at = response.first
        if at < 0 or at + len(response.results) > len(views):
            raise CorruptData(f"answer for items {at} + {len(response.results)} of {len(views)}")
        room = []
        for result in response.results:
            length_bytes = result.length_bytes
            if length_bytes:
                view = views[at]
                if not 0 < length_bytes <= len(view):
                    raise CorruptData(f"{length_bytes} bytes for a range of {len(view)}")
                room.append(view if length_bytes == len(view) else view[:length_bytes])
            at += 1
        return room

    def received(self, response: ReadResponse) -> None:
        """Check the part's bytes; what is beyond the end of a chunk reads as zeros."""
        pieces, views, done = self.pieces, self.views, self.done
        at = response.first
        for result in response.results:
            if result.code:
                self.failed[at] = from_wire(result.code, 0, result.message, "")
            else:
                view = views[at]
                length_bytes = result.length_bytes
                if self._is_right(pieces[at].offset_bytes, view, result):
                    if length_bytes < len(view):
                        fill_zeros(view[length_bytes:])
                    done[at] = 1
                    self.failed.pop(at, None)
                else:
                    self.failed[at] = WrongSum(
                        f"chunk {pieces[at].chunk}, {length_bytes} bytes from {pieces[at].offset_bytes}, "
                        f"version {result.update_version}: wrong checksum"
                    )
            at += 1

    @staticmethod
    def _is_right(offset_bytes: int, view: memoryview, result: ReadResult) -> bool:
        length_bytes, sums = result.length_bytes, result.sums
        if len(sums) == 1 and offset_bytes % SUM_BLOCK_BYTES + length_bytes <= SUM_BLOCK_BYTES:
            return crc32c(view if length_bytes == len(view) else view[:length_bytes]) == sums[0]
        cuts = list(sum_cuts(offset_bytes, length_bytes))
        return len(cuts) == len(sums) and all(
            crc32c(view[start:end]) == wanted for (start, end), wanted in zip(cuts, sums, strict=True)
        )

    def missing(self) -> list[int]:
        """The pieces that have not arrived."""
        return [at for at, is_done in enumerate(self.done) if not is_done]
