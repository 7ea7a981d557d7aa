"""Writes a planned version into its block and gives its sums.

No sum is taken from bytes that were not checked: where a new 64 KiB block mixes old bytes with new ones,
the old block is read whole and verified first, else one flipped bit would get a right sum. Old blocks that
are copied as they are keep their old sum, so a flipped bit stays visible there. A block that only grows
needs no reading: CRC32C goes on where it stopped.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from crc32c import crc32c

from fs3.errors import CorruptData
from fs3.wire.chunk import SUM_BLOCK_BYTES, Update

from ..disk import SECTOR_BYTES, DiskFile, Writes
from .format import StoredVersion
from .plan import Plan, Source

_PIECE_BYTES = 1024 * 1024
"""Bytes written at once by the general way; a multiple of SUM_BLOCK_BYTES."""
_PIECE_BLOCKS = _PIECE_BYTES // SUM_BLOCK_BYTES


class Place(NamedTuple):
    """A block in its file."""

    file: DiskFile
    offset_bytes: int


class Composer:
    """Makes versions, one at a time; owns the memory that it needs for that."""

    def __init__(self) -> None:
        self._piece = memoryview(mmap.mmap(-1, _PIECE_BYTES))  # page-aligned: written without a copy
        self._writes: Writes = _NoWrites()
        self._old = memoryview(mmap.mmap(-1, SUM_BLOCK_BYTES))

    def compose(
        self,
        plan: Plan,
        update: Update,
        payload: memoryview,
        base: tuple[StoredVersion, Place] | None,
        dest: Place | None,
    ) -> tuple[int, ...]:
        """Write ``plan`` to ``dest`` and return the sums of the whole content; inside ``batch``.

        ``base`` is given if any segment comes from it. Raises CorruptData (base bytes fail their sum or
        cannot be read; what was written is in nobody's way), DiskFailed.
        """
        if not plan.length_bytes:
            return ()
        if plan.write_from == plan.length_bytes:
            return self._prefix_sums(plan.length_bytes, base)
        assert dest is not None, plan
        if plan.segments[-1].source is Source.PAYLOAD and _is_plain(plan, update):
            self._place_payload(dest, update.offset_bytes, payload)
            kept = base[0].info.sums[: plan.write_from // SUM_BLOCK_BYTES] if base is not None else ()
            return (*kept, *update.sums)
        return self._write_pieces(_Job(plan, update, payload, base), dest)

    def _place_payload(self, dest: Place, start: int, payload: memoryview) -> None:
        """The payload as it is, its ragged end through a piece of whole sectors."""
        whole_bytes = len(payload) // SECTOR_BYTES * SECTOR_BYTES
        if whole_bytes:
            self._writes.add(dest.file, payload[:whole_bytes], dest.offset_bytes + start)
        rest_bytes = len(payload) - whole_bytes
        if rest_bytes:
            self._piece[:rest_bytes] = payload[whole_bytes:]
            self._piece[rest_bytes:SECTOR_BYTES] = bytes(SECTOR_BYTES - rest_bytes)
            dest.file.pwrite(self._piece[:SECTOR_BYTES], dest.offset_bytes + start + whole_bytes)

    def write(self, dest: Place, payload: memoryview) -> None:
        """Write a whole content as it is, in the batch under way. Raises DiskFailed."""
        self._place_payload(dest, 0, payload)

    @contextmanager
    def batch(self, writes: Writes) -> Iterator[None]:
        """Payloads that are written as they are go to ``writes`` inside; all is done at its end."""
        self._writes = writes
        try:
            yield
        finally:
            self._writes = _NoWrites()
            writes.wait()  # whatever happened: then the memory of the payloads is free again

    def _prefix_sums(self, length_bytes: int, base: tuple[StoredVersion, Place] | None) -> tuple[int, ...]:
        assert base is not None, length_bytes
        sums, (whole, rest_bytes) = base[0].info.sums, divmod(length_bytes, SUM_BLOCK_BYTES)
        if not rest_bytes or length_bytes == base[0].info.length_bytes:
            return sums[: -(-length_bytes // SUM_BLOCK_BYTES)]
        old = self._verified(base, whole)
        return (*sums[:whole], crc32c(old[:rest_bytes]))

    def _write_pieces(self, job: _Job, dest: Place) -> tuple[int, ...]:
        plan = job.plan
        first = plan.write_from // SUM_BLOCK_BYTES
        sums = list(job.base[0].info.sums[:first]) if job.base is not None else []
        block_count = -(-plan.length_bytes // SUM_BLOCK_BYTES)
        for piece in range(first, block_count, _PIECE_BLOCKS):
            start = piece * SUM_BLOCK_BYTES
            end = min(plan.length_bytes, start + _PIECE_BYTES)
            for block in range(piece, min(block_count, piece + _PIECE_BLOCKS)):
                at = (block - piece) * SUM_BLOCK_BYTES
                sums.append(self._fill_block(job, block, self._piece[at : at + SUM_BLOCK_BYTES]))
            from_sector = max(start, plan.write_from // SECTOR_BYTES * SECTOR_BYTES)
            to_sector = -(-end // SECTOR_BYTES) * SECTOR_BYTES
            self._piece[end - start : to_sector - start] = bytes(to_sector - end)
            dest.file.pwrite(
                self._piece[from_sector - start : to_sector - start], dest.offset_bytes + from_sector
            )
        return tuple(sums)

    def _fill_block(self, job: _Job, block: int, out: memoryview) -> int:
        """Put the bytes of one sum block that are to be written into ``out``; returns the block's sum."""
        plan, start = job.plan, block * SUM_BLOCK_BYTES
        end = min(plan.length_bytes, start + SUM_BLOCK_BYTES)
        rows = [
            (max(start, s.start), min(end, s.end), s.source)
            for s in plan.segments
            if s.start < end and s.end > start
        ]
        if len(rows) == 1 and rows[0][2] is Source.PAYLOAD:
            out[: end - start] = job.payload_at(start, end)
            return job.update.sums[block - job.update.offset_bytes // SUM_BLOCK_BYTES]
        if start < plan.write_from:
            return self._grow_block(job, block, out, rows)
        if rows[0][2] is Source.BASE or rows[-1][2] is Source.BASE:
            assert job.base is not None, plan
            stored, place = job.base
            if len(rows) == 1 and end == min(stored.info.length_bytes, start + SUM_BLOCK_BYTES):
                place.file.pread(out[: end - start], place.offset_bytes + start)
                return stored.info.sums[block]
            old = self._verified(job.base, block)
            for low, high, source in rows:
                if source is Source.BASE:
                    out[low - start : high - start] = old[low - start : high - start]
        _fill_new(job, start, out, rows)
        return crc32c(out[: end - start])

    def _grow_block(self, job: _Job, block: int, out: memoryview, rows: list[tuple[int, int, Source]]) -> int:
        """The block in which an in-place write begins: old bytes of the first sector, then what is new."""
        assert job.base is not None, job.plan
        stored, place = job.base
        start, begin = block * SUM_BLOCK_BYTES, job.plan.write_from
        sector = begin // SECTOR_BYTES * SECTOR_BYTES
        if sector < begin:
            place.file.pread(out[sector - start : begin - start], place.offset_bytes + sector)
        _fill_new(job, start, out, rows)
        return crc32c(out[begin - start : rows[-1][1] - start], stored.info.sums[block])

    def _verified(self, base: tuple[StoredVersion, Place], block: int) -> memoryview:
        stored, place = base
        start = block * SUM_BLOCK_BYTES
        old = self._old[: min(SUM_BLOCK_BYTES, stored.info.length_bytes - start)]
        place.file.pread(old, place.offset_bytes + start)
        if crc32c(old) != stored.info.sums[block]:
            raise CorruptData(f"{place.file.path} at {place.offset_bytes + start}: wrong sum")
        return old


@dataclass(frozen=True, slots=True)
class _Job:
    plan: Plan
    update: Update
    payload: memoryview
    base: tuple[StoredVersion, Place] | None

    def payload_at(self, start: int, end: int) -> memoryview:
        return self.payload[start - self.update.offset_bytes : end - self.update.offset_bytes]


class _NoWrites:
    """Stands for no batch."""

    def add(self, file: DiskFile, data: memoryview, offset_bytes: int) -> None:
        raise AssertionError("a write outside of a batch")

    def wait(self) -> None:
        """There is nothing to wait for."""


def _is_plain(plan: Plan, update: Update) -> bool:
    """What is written is the payload, the whole payload, and begins a sum block: its sums are the sums."""
    return plan.write_from == update.offset_bytes and plan.write_from % SUM_BLOCK_BYTES == 0


def _fill_new(job: _Job, start: int, out: memoryview, rows: list[tuple[int, int, Source]]) -> None:
    for low, high, source in rows:
        if source is Source.ZERO:
            out[low - start : high - start] = bytes(high - low)
        elif source is Source.PAYLOAD:
            out[low - start : high - start] = job.payload_at(low, high)
