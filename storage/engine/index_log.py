"""The log in front of the index, byte by byte, and what of it counts after a crash. PURE.

Format version 1. A file of one header sector and an area of whole sectors (4 KiB), written once with zeros
when it is made. All integers are big endian. Header::

    magic 8s ``fs3ilog\\0`` · format version u32 · log id u64 · bytes of the area u64 · CRC32C of these u32

Records lie in the area one behind the other from its start, each at the start of a sector, zeros behind it::

    magic 4s ``fs3r`` · log id u64 · sequence u64 · bytes of the changes u32 · CRC32C u32 · changes …

The CRC32C is that of all other bytes of the record. A change is: bytes of the key u8 · bytes of the value
u32 (0xFFFFFFFF: the key is deleted) · key · value. Changes take effect in their order.

The records below the log hold the *mark*, key ``MARK_KEY``: log id u64 · sequence u64 up to which they are
complete, sealed as every value is. When all of the log is in there, the next record goes to the start of
the area again and its sequence goes on: so what counts are the records from the start on whose sequences
follow the mark one by one, and what is left of earlier rounds has lower ones.

A record is written when the one before is on the disk. So the first one that is not whole was on its way
when the power went, and was promised to nobody. A whole one behind it, or one that does not follow, means
that promised changes are lost: never silently.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from crc32c import crc32c

from fs3.errors import CorruptData, IncompatibleVersion

from .format import seal, unseal
from .index import RESERVED_KEYS
from .overlay import Change

FORMAT_VERSION = 1
MAGIC = b"fs3ilog\0"
RECORD_MAGIC = b"fs3r"
SECTOR_BYTES = 4096
MARK_KEY = RESERVED_KEYS + b"l"

_HEADER = struct.Struct(">8sIQQ")
_RECORD = struct.Struct(">4sQQI")
_CHANGE = struct.Struct(">BI")
_MARK = struct.Struct(">QQ")
_SUM = struct.Struct(">I")
_DELETED = 0xFFFFFFFF
_BODY_AT = _RECORD.size + _SUM.size


class Mark(NamedTuple):
    """What the records below say of the log."""

    log_id: int
    sequence: int
    """Of the last record that is in them."""


class Replay(NamedTuple):
    """What of a log is not in the records below."""

    changes: list[Change]
    sequence: int
    """Of the last record there is (the mark's if nothing is new)."""
    end_bytes: int
    """Where the next record goes, in the area."""


class _Record(NamedTuple):
    offset_bytes: int
    end_bytes: int
    sequence: int
    body: memoryview


def in_sectors(length_bytes: int) -> int:
    """Rounded up to whole sectors."""
    return -(-length_bytes // SECTOR_BYTES) * SECTOR_BYTES


# -- header and mark


def pack_header(log_id: int, area_bytes: int) -> bytes:
    """The header sector."""
    fields = _HEADER.pack(MAGIC, FORMAT_VERSION, log_id, area_bytes)
    return (fields + _SUM.pack(crc32c(fields))).ljust(SECTOR_BYTES, b"\0")


def unpack_header(sector: bytes, mark: Mark, size_bytes: int) -> int:
    """Check the header of a log file of ``size_bytes``; the bytes of its area.

    Raises IncompatibleVersion, CorruptData (not a log, another index's, cut).
    """
    magic, version, log_id, area_bytes = _HEADER.unpack_from(sector)
    if magic != MAGIC:
        raise CorruptData("not an index log: no magic number in its header")
    if version != FORMAT_VERSION:
        raise IncompatibleVersion(f"index log format {version}; this program reads {FORMAT_VERSION}")
    if crc32c(sector[: _HEADER.size]) != _SUM.unpack_from(sector, _HEADER.size)[0]:
        raise CorruptData("the header of the index log fails its sum")
    if log_id != mark.log_id:
        raise CorruptData(f"this log ({log_id:#x}) belongs to another index, not to this ({mark.log_id:#x})")
    if size_bytes != SECTOR_BYTES + area_bytes:
        raise CorruptData(f"the index log has {size_bytes} bytes, {SECTOR_BYTES + area_bytes} expected")
    return int(area_bytes)


def pack_mark(mark: Mark) -> bytes:
    """Value of the mark."""
    return seal(MARK_KEY, _MARK.pack(*mark))


def unpack_mark(value: bytes) -> Mark:
    """Inverse of ``pack_mark``; CorruptData."""
    body = unseal(MARK_KEY, value)
    if len(body) != _MARK.size:
        raise CorruptData(f"the mark of the index log has {len(body)} bytes, {_MARK.size} expected")
    return Mark(*_MARK.unpack(body))


# -- records


def pack_record(log_id: int, sequence: int, changes: Iterable[Change]) -> bytes:
    """A record, without the zeros behind it."""
    parts: list[bytes] = []
    for key, value in changes:
        if value is None:
            parts += (_CHANGE.pack(len(key), _DELETED), key)
        else:
            parts += (_CHANGE.pack(len(key), len(value)), key, value)
    body = b"".join(parts)
    fields = _RECORD.pack(RECORD_MAGIC, log_id, sequence, len(body))
    return fields + _SUM.pack(crc32c(body, crc32c(fields))) + body


def replay(area: memoryview, mark: Mark) -> Replay:
    """What the area holds that is not below yet.

    Raises CorruptData: a record of another index; promised changes are lost (see the module).
    """
    changes: list[Change] = []
    sequence, end_bytes = mark.sequence, 0
    for record in _whole_records(area, mark.log_id):
        if record.sequence <= mark.sequence:
            continue  # of an earlier round
        if record.sequence != sequence + 1 or record.offset_bytes != end_bytes:
            raise CorruptData(
                f"index log: record {sequence + 1} is damaged or missing at {end_bytes}, but record "
                f"{record.sequence} is there at {record.offset_bytes}: acknowledged changes are lost"
            )
        changes += _unpack_changes(record)
        sequence, end_bytes = record.sequence, record.end_bytes
    return Replay(changes, sequence, end_bytes)


def _whole_records(area: memoryview, log_id: int) -> Iterator[_Record]:
    offset_bytes = 0
    while offset_bytes + _BODY_AT <= len(area):
        record = _whole_record(area, offset_bytes, log_id)
        if record is not None:
            yield record
        offset_bytes = record.end_bytes if record is not None else offset_bytes + SECTOR_BYTES


def _whole_record(area: memoryview, offset_bytes: int, log_id: int) -> _Record | None:
    magic, owner, sequence, length_bytes = _RECORD.unpack_from(area, offset_bytes)
    start, end = offset_bytes + _BODY_AT, offset_bytes + _BODY_AT + length_bytes
    if magic != RECORD_MAGIC or end > len(area):
        return None
    sum_at = offset_bytes + _RECORD.size
    wanted = _SUM.unpack_from(area, sum_at)[0]
    if crc32c(area[start:end], crc32c(area[offset_bytes:sum_at])) != wanted:
        return None
    if owner != log_id:
        raise CorruptData(f"index log {log_id:#x}: a record of another index ({owner:#x}) at {offset_bytes}")
    return _Record(offset_bytes, in_sectors(end), sequence, area[start:end])


def _unpack_changes(record: _Record) -> Iterator[Change]:
    body, at = bytes(record.body), 0
    while at < len(body):
        key_bytes, value_bytes = _CHANGE.unpack_from(body, at)
        at += _CHANGE.size
        key = body[at : at + key_bytes]
        at += key_bytes
        if value_bytes == _DELETED:
            yield key, None
            continue
        yield key, body[at : at + value_bytes]
        at += value_bytes
