"""Reads of a chunk store: whole blocks go out with their stored sums, ragged ends are summed here.

A sum that is computed here vouches for the way to the receiver only if the bytes were right to begin with,
so the 64 KiB block around a ragged end is verified the first time that it is touched after open or write
(one bit a block and version, in memory), and again when its bytes have to come from the disk: what was right
in the page cache may have gone bad there meanwhile. Source: design 4.2, 5.3.
"""

from __future__ import annotations

from collections.abc import Sequence

from crc32c import crc32c

from fs3.errors import CorruptData
from fs3.ids import ChunkId
from fs3.wire.chunk import SUM_BLOCK_BYTES, Identity, VersionInfo

from .allocate import Block
from .compose import Place
from .core import StoreCore
from .format import StoredVersion
from .plan import sum_pieces
from .versions import Region, SmallRead

_NOTHING = SmallRead(None, 0, ())


class HeldRead:
    """``ReadHandle``: a range of a version whose block is held until ``release``."""

    __slots__ = ("_block", "_core", "length_bytes", "offset_bytes", "regions", "sums", "version")

    def __init__(
        self,
        core: StoreCore,
        stored: StoredVersion | None,
        offset_bytes: int,
        regions: tuple[Region, ...],
        sums: tuple[int, ...],
    ) -> None:
        self._core = core
        self._block: Block | None = stored.block if stored is not None else None
        self.version: VersionInfo | None = stored.info if stored is not None else None
        self.offset_bytes = offset_bytes
        self.length_bytes = regions[0].length_bytes if regions else 0
        self.regions = regions
        self.sums = sums

    def release(self) -> None:
        block, self._block = self._block, None
        if block is not None:
            self._core.release(block)


class HeldVersions:
    """Committed versions of several chunks, held until ``release``: many small reads under one lock."""

    __slots__ = ("_core", "versions")

    def __init__(self, core: StoreCore, versions: list[StoredVersion]) -> None:
        self._core = core
        self.versions = versions

    def read(self, number: int, offset_bytes: int, data: memoryview) -> tuple[int, ...] | None:
        """Fill ``data`` from the version of the ``number``-th chunk; the sums of its pieces. None: that would
        wait for the disk, or go beyond the end. Raises CorruptData, DiskFailed."""
        stored = self.versions[number]
        end = offset_bytes + len(data)
        if end > stored.info.length_bytes:
            return None
        block = stored.block
        assert block is not None, stored.info
        core = self._core
        file_number, start_bytes = core.allocator.place(block)
        file = core.files[block.size_class, file_number]
        if not file.pread_nowait(data, start_bytes + offset_bytes):
            return None
        first = offset_bytes // SUM_BLOCK_BYTES
        if end <= (first + 1) * SUM_BLOCK_BYTES and stored.verified >> first & 1:
            return (crc32c(data),)  # nearly always
        pieces = sum_pieces(offset_bytes, len(data))
        return _sums_of(stored, Place(file, start_bytes), data, pieces, wait=False)

    def release(self) -> None:
        """Let go of the blocks; once."""
        self._core.release_all(self.versions)


class ChunkReader:
    """Reads versions of chunks; from any thread."""

    def __init__(self, core: StoreCore) -> None:
        self._core = core

    def read(
        self, chunk: ChunkId, identity: Identity | None, offset_bytes: int, length_bytes: int
    ) -> HeldRead:
        """As ``ChunkStore.read``."""
        assert offset_bytes >= 0 and length_bytes >= 0, (offset_bytes, length_bytes)
        stored = self._core.held(chunk, identity)
        if stored is None or stored.block is None:
            return HeldRead(self._core, stored, offset_bytes, (), ())
        end = min(offset_bytes + length_bytes, stored.info.length_bytes)
        if end <= offset_bytes:
            self._core.release(stored.block)
            return HeldRead(self._core, _without_block(stored), offset_bytes, (), ())
        try:
            place = self._core.place(stored.block)
            if _is_whole(stored, offset_bytes, end):  # whole blocks: the rule for bulk reads, and no loop
                sums = stored.info.sums[offset_bytes // SUM_BLOCK_BYTES : -(-end // SUM_BLOCK_BYTES)]
            else:
                sums = tuple(
                    self._piece_sum(stored, place, low, high)
                    for low, high in sum_pieces(offset_bytes, end - offset_bytes)
                )
            region = Region(place.file, place.offset_bytes + offset_bytes, end - offset_bytes)
            return HeldRead(self._core, stored, offset_bytes, (region,), sums)
        except BaseException:
            self._core.release(stored.block)
            raise

    def _piece_sum(self, stored: StoredVersion, place: Place, low: int, high: int) -> int:
        if _is_whole(stored, low, high):
            return stored.info.sums[low // SUM_BLOCK_BYTES]
        data = memoryview(bytearray(high - low))
        _fetch(stored, place, low, data)
        verify_block(stored, place, low // SUM_BLOCK_BYTES, wait=True)
        return crc32c(data)

    def read_into(
        self,
        chunk: ChunkId,
        identity: Identity | None,
        offset_bytes: int,
        buffer: memoryview,
        *,
        wait: bool,
    ) -> SmallRead | None:
        """As ``ChunkStore.read_into``."""
        assert offset_bytes >= 0, offset_bytes
        stored = self._core.held(chunk, identity)
        if stored is None:
            return _NOTHING
        block = stored.block
        if block is None:
            return SmallRead(stored.info, 0, ())
        try:
            length_bytes = min(len(buffer), stored.info.length_bytes - offset_bytes)
            if length_bytes <= 0:
                return SmallRead(stored.info, 0, ())
            place = self._core.place(block)
            data = buffer if length_bytes == len(buffer) else buffer[:length_bytes]
            if wait:
                _fetch(stored, place, offset_bytes, data)
            elif not place.file.pread_nowait(data, place.offset_bytes + offset_bytes):
                return None
            number, end = offset_bytes // SUM_BLOCK_BYTES, offset_bytes + length_bytes
            if end < (number + 1) * SUM_BLOCK_BYTES and stored.verified >> number & 1:
                return SmallRead(stored.info, length_bytes, (crc32c(data),))  # nearly always
            sums = _sums_of(stored, place, data, sum_pieces(offset_bytes, length_bytes), wait=wait)
            return None if sums is None else SmallRead(stored.info, length_bytes, sums)
        finally:
            self._core.release(block)

    def hold_committed(self, chunks: Sequence[ChunkId]) -> HeldVersions | None:
        """As ``ChunkStore.hold_committed``."""
        versions = self._core.held_committed(chunks)
        return None if versions is None else HeldVersions(self._core, versions)

    def verify_range(
        self, chunk: ChunkId, identity: Identity | None, offset_bytes: int, length_bytes: int
    ) -> list[int]:
        """As ``ChunkStore.verify_range``."""
        stored = self._core.held(chunk, identity)
        if stored is None or stored.block is None:
            return []
        try:
            place = self._core.place(stored.block)
            end = min(offset_bytes + length_bytes, stored.info.length_bytes)
            if end <= offset_bytes:
                return []
            numbers = range(offset_bytes // SUM_BLOCK_BYTES, -(-end // SUM_BLOCK_BYTES))
            return [number for number in numbers if not _block_is_right(stored, place, number)]
        finally:
            self._core.release(stored.block)

    def verify_chunk(self, chunk: ChunkId) -> list[int]:
        """As ``ChunkStore.verify_chunk``."""
        core = self._core
        bad: dict[int, None] = {}
        for identity in core.identities(chunk):
            stored = core.held(chunk, identity)
            if stored is None or stored.block is None:
                continue
            try:
                place = core.place(stored.block)
                for number in range(len(stored.info.sums)):
                    if not _block_is_right(stored, place, number):
                        bad[number] = None
            finally:
                core.release(stored.block)
        return sorted(bad)


def _block_is_right(stored: StoredVersion, place: Place, number: int) -> bool:
    stored.verified &= ~(1 << number)
    try:
        return verify_block(stored, place, number, wait=True)
    except CorruptData:
        return False


def _fetch(stored: StoredVersion, place: Place, offset_bytes: int, data: memoryview) -> None:
    """Read bytes; those that came from the disk belong to blocks that are to be verified again."""
    if place.file.pread_nowait(data, place.offset_bytes + offset_bytes):
        return
    place.file.pread(data, place.offset_bytes + offset_bytes)
    for low, _ in sum_pieces(offset_bytes, len(data)):
        stored.verified &= ~(1 << low // SUM_BLOCK_BYTES)


def _sums_of(
    stored: StoredVersion,
    place: Place,
    data: memoryview,
    pieces: Sequence[tuple[int, int]],
    *,
    wait: bool,
) -> tuple[int, ...] | None:
    """Sums of bytes just read; None: a block must be verified first, and that would wait."""
    sums: list[int] = []
    start = pieces[0][0]
    for low, high in pieces:
        number = low // SUM_BLOCK_BYTES
        if _is_whole(stored, low, high):
            sums.append(stored.info.sums[number])
            continue
        if not stored.verified >> number & 1 and not verify_block(stored, place, number, wait=wait):
            return None
        sums.append(crc32c(data[low - start : high - start]))
    return tuple(sums)


def verify_block(stored: StoredVersion, place: Place, number: int, *, wait: bool) -> bool:
    """Check one 64 KiB block unless it was. False: it would wait. Raises CorruptData, DiskFailed."""
    if stored.verified >> number & 1:
        return True
    start = number * SUM_BLOCK_BYTES
    data = memoryview(bytearray(min(SUM_BLOCK_BYTES, stored.info.length_bytes - start)))
    if wait:
        place.file.pread(data, place.offset_bytes + start)
    elif not place.file.pread_nowait(data, place.offset_bytes + start):
        return False
    if crc32c(data) != stored.info.sums[number]:
        raise CorruptData(
            f"{place.file.path} at {place.offset_bytes + start}: block {number} of a chunk fails its sum"
        )
    stored.verified |= 1 << number
    return True


def _is_whole(stored: StoredVersion, low: int, high: int) -> bool:
    """Whether a range has only whole blocks (the last one of the content may be short)."""
    return low % SUM_BLOCK_BYTES == 0 and (high % SUM_BLOCK_BYTES == 0 or high == stored.info.length_bytes)


def _without_block(stored: StoredVersion) -> StoredVersion:
    return StoredVersion(stored.info, None, 0, stored.change)
