"""Identities: every kind of id is a type of its own, so that a chain id cannot be passed for a target id.

The types cost nothing at run time (``NewType``), and msgspec reads and writes them as plain integers.
Widths are those of the wire and of the on-disk formats; integers in Python have none, so whatever
leaves the process is packed by a format that checks them.

Source: design 2.7 (generations), 3.12 (inode ids), 4.3 (identity of a version).
"""

from __future__ import annotations

import struct
from typing import NamedTuple, NewType

NodeId = NewType("NodeId", int)
"""u32; a process that sends beacons: a storage node, a meta service, a mgmtd."""

Generation = NewType("Generation", int)
"""u64; one run of a node. Greater than every earlier one of the same node (design 2.7)."""

TargetId = NewType("TargetId", int)
"""u64; one replica store on one disk of one node: ``node << 16 | number on the node``."""

ChainId = NewType("ChainId", int)
"""u32; a list of targets that hold the same chunks."""

ChainTableId = NewType("ChainTableId", int)
"""u32; a list of chains that files are striped over."""

ChainVersion = NewType("ChainVersion", int)
"""u32; grows by one with every change of a chain's record."""

UpdateVersion = NewType("UpdateVersion", int)
"""u64; number of a version of a chunk, given by the head; 1 is the first, 0 means none."""

InodeId = NewType("InodeId", int)
"""u64; never reused, uniform over its range (design 3.12). ``ROOT_INODE`` is the root directory."""

ClientSessionId = NewType("ClientSessionId", int)
"""u64; one run of one client; never reused (design 3.4). Below 16: reserved, see ``HEAD_SESSION``."""

Epoch = NewType("Epoch", int)
"""u32; a file's epoch, raised by truncate, removal and settlement (design 4.9)."""

ROOT_INODE = InodeId(1)
NO_TARGET = TargetId(0)
HEAD_SESSION = ClientSessionId(1)
"""Writer session of updates that a chain's head makes for itself (design 4.3)."""
FIRST_CLIENT_SESSION = ClientSessionId(16)

_CHUNK = struct.Struct(">QI")


class ChunkId(NamedTuple):
    """One chunk of one file. Byte form: 12 bytes big endian, so a file's chunks are one range in order."""

    inode: InodeId
    chunk_index: int
    """u32; chunk ``chunk_index`` holds the bytes from ``chunk_index * chunk_size_bytes`` on."""

    def to_bytes(self) -> bytes:
        """The ordered 12-byte form."""
        return _CHUNK.pack(self.inode, self.chunk_index)

    @classmethod
    def from_bytes(cls, data: bytes) -> ChunkId:
        """Inverse of ``to_bytes``; struct.error when ``data`` is not 12 bytes."""
        inode, chunk_index = _CHUNK.unpack(data)
        return cls(InodeId(inode), chunk_index)

    def __str__(self) -> str:
        return f"{self.inode:x}.{self.chunk_index}"


def target_id(node: NodeId, number: int) -> TargetId:
    """The id of target ``number`` (0 … 65,535) of a node; unique over the cluster without any allocator."""
    assert 0 <= number < 1 << 16, number
    return TargetId(node << 16 | number)


def node_of_target(target: TargetId) -> NodeId:
    """The node that a target lies on."""
    return NodeId(target >> 16)
