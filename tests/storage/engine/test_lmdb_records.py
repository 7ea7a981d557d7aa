"""Records that are damaged below their sums: found at the open, or a failed disk; never a shorter list."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import lmdb
import pytest

from fs3.errors import CorruptData
from fs3.storage.disk import DiskFailed, OsDisk
from fs3.storage.engine.lmdb_records import LmdbRecords

PAGE_BYTES = 4096
LEAF = 2
COUNT = 3000


def filled(path: Path) -> None:
    records = LmdbRecords(OsDisk(), str(path), 1 << 26)
    records.write({b"c%08d" % number: b"v" * 40 for number in range(COUNT)})
    records.close()


def opened(path: Path) -> LmdbRecords:
    return LmdbRecords(OsDisk(), str(path), 1 << 26)


def test_whole_records_are_opened(tmp_path: Path) -> None:
    filled(tmp_path / "index")
    records = opened(tmp_path / "index")
    assert len(records.page(b"c", b"d", COUNT + 1)) == COUNT
    records.close()


def test_a_page_that_lost_a_record(tmp_path: Path) -> None:
    """The count of entries of each leaf (``lower`` of its header, two bytes an entry) is one less."""
    filled(tmp_path / "index")
    file = tmp_path / "index" / "data.mdb"
    data = bytearray(file.read_bytes())
    for at in range(2 * PAGE_BYTES, len(data), PAGE_BYTES):
        flags, lower = struct.unpack_from("<HH", data, at + 10)
        if flags == LEAF and lower > 100:
            struct.pack_into("<H", data, at + 12, lower - 2)
    file.write_bytes(data)
    with pytest.raises(CorruptData, match="records can be reached, 3000 expected"):
        opened(tmp_path / "index")


def test_a_file_that_cannot_be_read_does_not_end_the_process(
    tmp_path: Path,
) -> None:
    (tmp_path / "index" / "data.mdb").mkdir(parents=True)  # EISDIR, in place of EIO
    with pytest.raises(CorruptData, match="cannot be read"):
        opened(tmp_path / "index")


@pytest.mark.parametrize("error", [lmdb.CorruptedError, lmdb.PageNotFoundError])
def test_damage_that_a_read_meets_is_a_failed_disk(tmp_path: Path, error: type[Exception]) -> None:
    filled(tmp_path / "index")
    disk = OsDisk()
    records = LmdbRecords(disk, str(tmp_path / "index"), 1 << 26)

    class Damaged:
        def begin(self) -> Any:
            raise error("injected")

    damaged: Any = Damaged()
    whole, records._env = records._env, damaged
    with pytest.raises(DiskFailed, match="injected"):
        records.get(b"c00000001")
    with pytest.raises(DiskFailed, match="injected"):
        records.page(b"c", b"d", 5)
    assert disk.failure is not None and os.path.isdir(tmp_path)
    whole.close()
