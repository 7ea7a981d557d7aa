"""What a storage node keeps beside its chunks: its run number, and which disks are its own. PURE.

Both are one sector each, little endian, overwritten in place (a sector is old or new after a power cut)::

    node.state, in the node's directory            disk.state, in each disk's directory
    offset  size  field                            offset  size  field
         0     4  magic "f3ns"                          0     4  magic "f3ds"
         4     4  version 1                             4     4  version 1
         8     4  node                                  8     4  node
        12     4  disks that were ever made ready      12     4  number of the disk on its node
        16     8  generation of the last run           16     8  reserved, 0
        24     4  CRC32C of bytes 0 … 24               24     4  CRC32C of bytes 0 … 24

The generation is written before it is used, so no two runs share one (design 2.7). A disk has its number
for good: target ids are made of it. A directory without ``disk.state`` is made ready only if its place in
the settings was never used; otherwise the disk is missing (not mounted?), and writing there would hide it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from crc32c import crc32c

from fs3.errors import CorruptData, IncompatibleVersion
from fs3.ids import Generation, NodeId

STATE_BYTES = 4096
"""What is written: one sector, zeros behind the fields."""
DISKS_MAX = 256
TARGETS_PER_DISK_MAX = 256
VERSION = 1
_NODE_MAGIC = b"f3ns"
_DISK_MAGIC = b"f3ds"
_FIELDS = struct.Struct("<4sIIIQ")
_SUM = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class NodeState:
    """Contents of ``node.state``."""

    node: NodeId
    disk_count: int
    generation: Generation


@dataclass(frozen=True, slots=True)
class DiskState:
    """Contents of ``disk.state``."""

    node: NodeId
    disk_number: int


def target_number(disk_number: int, place: int) -> int:
    """Number on its node of the target at ``place`` (0 … 255) of a disk."""
    assert 0 <= disk_number < DISKS_MAX and 0 <= place < TARGETS_PER_DISK_MAX, (disk_number, place)
    return disk_number << 8 | place


def pack_node(state: NodeState) -> bytes:
    """The sector of ``node.state``."""
    return _pack(_NODE_MAGIC, state.node, state.disk_count, state.generation)


def unpack_node(data: bytes) -> NodeState | None:
    """What a sector says; None: it was never written (all zeros). CorruptData, IncompatibleVersion."""
    fields = _unpack(_NODE_MAGIC, data, "node.state")
    return NodeState(NodeId(fields[0]), fields[1], Generation(fields[2])) if fields is not None else None


def pack_disk(state: DiskState) -> bytes:
    """The sector of ``disk.state``."""
    return _pack(_DISK_MAGIC, state.node, state.disk_number, 0)


def unpack_disk(data: bytes) -> DiskState | None:
    """As ``unpack_node``, of a disk."""
    fields = _unpack(_DISK_MAGIC, data, "disk.state")
    return DiskState(NodeId(fields[0]), fields[1]) if fields is not None else None


def _pack(magic: bytes, node: int, number: int, generation: int) -> bytes:
    fields = _FIELDS.pack(magic, VERSION, node, number, generation)
    return (fields + _SUM.pack(crc32c(fields))).ljust(STATE_BYTES, b"\0")


def _unpack(magic: bytes, data: bytes, name: str) -> tuple[int, int, int] | None:
    if not any(data):
        return None  # made, and the power went before it was written
    if len(data) < _FIELDS.size + _SUM.size or data[:4] != magic:
        raise CorruptData(f"{name} is none: {data[:4]!r}")
    fields = data[: _FIELDS.size]
    if _SUM.unpack_from(data, _FIELDS.size)[0] != crc32c(fields):
        raise CorruptData(f"{name} does not match its sum")
    _, version, node, number, generation = _FIELDS.unpack(fields)
    if version != VERSION:
        raise IncompatibleVersion(f"{name} is of version {version}, this program knows {VERSION}")
    return node, number, generation
