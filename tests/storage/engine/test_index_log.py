"""The index log is what its byte table says; what is torn is dropped, what is lost is said."""

from __future__ import annotations

import struct

import crcmod.predefined
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.errors import CorruptData, IncompatibleVersion
from fs3.storage.engine.index_log import (
    MARK_KEY,
    SECTOR_BYTES,
    Mark,
    in_sectors,
    pack_header,
    pack_mark,
    pack_record,
    replay,
    unpack_header,
    unpack_mark,
)
from fs3.storage.engine.overlay import Change

AREA_BYTES = 40 * SECTOR_BYTES
LOG_ID = 0xAB
CHANGES = st.lists(st.tuples(st.binary(max_size=64), st.none() | st.binary(max_size=3000)), max_size=8)
LOGS = st.lists(CHANGES, min_size=1, max_size=5)


def lay(
    records: list[list[Change]], first: int = 1, area: bytearray | None = None, log_id: int = LOG_ID
) -> tuple[bytearray, list[int]]:
    """The area with these records at its start, and where each begins (and the last ends)."""
    area = bytearray(AREA_BYTES) if area is None else area
    starts = [0]
    for number, changes in enumerate(records):
        record = pack_record(log_id, first + number, changes)
        area[starts[-1] : starts[-1] + in_sectors(len(record))] = record.ljust(in_sectors(len(record)), b"\0")
        starts.append(starts[-1] + in_sectors(len(record)))
    return area, starts


def read(area: bytearray, sequence: int = 0) -> tuple[list[Change], int, int]:
    return tuple(replay(memoryview(area), Mark(LOG_ID, sequence)))  # type: ignore[return-value]


def flat(records: list[list[Change]]) -> list[Change]:
    return [change for record in records for change in record]


@given(LOGS, st.integers(0, 2**64 - 10))
def test_what_is_written_is_read(records: list[list[Change]], mark: int) -> None:
    area, starts = lay(records, mark + 1)
    assert read(area, mark) == (flat(records), mark + len(records), starts[-1])


@given(LOGS, LOGS)
def test_what_is_left_of_earlier_rounds_does_not_count(
    old: list[list[Change]], new: list[list[Change]]
) -> None:
    area, _ = lay(old)
    mark = len(old)
    assert read(area, mark) == ([], mark, 0)
    area, starts = lay(new, mark + 1, area)
    assert read(area, mark) == (flat(new), mark + len(new), starts[-1])


@given(LOGS, LOGS, st.data())
def test_a_last_record_of_which_any_part_was_written(
    old: list[list[Change]], new: list[list[Change]], data: st.DataObject
) -> None:
    """Each piece of 512 bytes is old or new: the record is there or not."""
    before, _ = lay(old)
    mark = len(old)
    before, starts = lay(new[:-1], mark + 1, before)
    area, end = bytearray(before), bytearray(before)
    lay(new, mark + 1, end)
    for at in range(starts[-1], AREA_BYTES, 512):
        if data.draw(st.booleans()):
            area[at : at + 512] = end[at : at + 512]
    there = new if area[: len(end)] == end else new[:-1]
    changes, sequence, _ = read(area, mark)
    assert (changes, sequence) == (flat(there), mark + len(there))


@given(LOGS, st.data())
def test_a_changed_bit_in_a_record(records: list[list[Change]], data: st.DataObject) -> None:
    area, starts = lay(records)
    number = data.draw(st.integers(0, len(records) - 1))
    length_bytes = len(pack_record(LOG_ID, number + 1, records[number]))
    area[starts[number] + data.draw(st.integers(0, length_bytes - 1))] ^= 1 << data.draw(st.integers(0, 7))
    if number == len(records) - 1:
        assert read(area) == (flat(records[:-1]), number, starts[number])
    else:
        wanted = f"record {number + 1} is damaged or missing .* acknowledged changes are lost"
        with pytest.raises(CorruptData, match=wanted):
            read(area)


def test_records_that_do_not_follow_the_mark() -> None:
    area, _ = lay([[(b"a", b"1")]], first=7)
    assert read(area, 6)[1] == 7
    with pytest.raises(CorruptData, match="record 6 is damaged or missing at 0, but record 7"):
        read(area, 5)  # the records below are older than what this log was begun on
    area, starts = lay([[(b"a", b"1")], [(b"b", b"2")]])
    area[2 * SECTOR_BYTES : 3 * SECTOR_BYTES] = area[SECTOR_BYTES : 2 * SECTOR_BYTES]
    assert starts == [0, SECTOR_BYTES, 2 * SECTOR_BYTES]
    with pytest.raises(CorruptData, match="record 3 is damaged or missing at 8192, but record 2"):
        read(area)


def test_a_record_of_another_index() -> None:
    area, _ = lay([[(b"a", b"1")]], log_id=0xCD)
    with pytest.raises(CorruptData, match=r"a record of another index \(0xcd\) at 0"):
        read(area)


def test_the_bytes_are_those_of_the_table() -> None:
    crc = crcmod.predefined.mkCrcFun("crc-32c")
    changes = (
        struct.pack(">BI", 1, 2) + b"k" + b"vw" + struct.pack(">BI", 2, 0xFFFFFFFF) + b"de"
        + struct.pack(">BI", 1, 0) + b"e"
    )  # fmt: skip
    fields = b"fs3r" + struct.pack(">QQI", LOG_ID, 9, len(changes))
    record = pack_record(LOG_ID, 9, [(b"k", b"vw"), (b"de", None), (b"e", b"")])
    assert record == fields + struct.pack(">I", crc(fields + changes)) + changes
    fields = b"fs3ilog\0" + struct.pack(">IQQ", 1, LOG_ID, AREA_BYTES)
    header = fields + struct.pack(">I", crc(fields))
    assert pack_header(LOG_ID, AREA_BYTES) == header + bytes(SECTOR_BYTES - len(header))
    mark = struct.pack(">QQ", LOG_ID, 9)
    assert MARK_KEY == b"\xffl"
    assert pack_mark(Mark(LOG_ID, 9)) == mark + struct.pack(">I", crc(MARK_KEY + mark))


def test_headers_and_marks() -> None:
    mark = Mark(LOG_ID, 4)
    assert unpack_mark(pack_mark(mark)) == mark
    with pytest.raises(CorruptData, match="fails its sum"):
        unpack_mark(pack_mark(mark)[:-1] + b"\0")
    header = pack_header(LOG_ID, AREA_BYTES)
    whole_bytes = SECTOR_BYTES + AREA_BYTES
    assert unpack_header(header, mark, whole_bytes) == AREA_BYTES
    with pytest.raises(CorruptData, match=r"belongs to another index"):
        unpack_header(header, Mark(LOG_ID + 1, 4), whole_bytes)
    with pytest.raises(CorruptData, match=r"bytes, .* expected"):
        unpack_header(header, mark, whole_bytes - 1)
    with pytest.raises(CorruptData, match="no magic number"):
        unpack_header(bytes(SECTOR_BYTES), mark, whole_bytes)
    with pytest.raises(CorruptData, match="header of the index log fails its sum"):
        unpack_header(header[:15] + b"\xff" + header[16:], mark, whole_bytes)
    later = header[:8] + struct.pack(">I", 2) + header[12:]
    with pytest.raises(IncompatibleVersion, match="format 2; this program reads 1"):
        unpack_header(later, mark, whole_bytes)
