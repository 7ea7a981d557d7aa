"""Versions of chunks and updates to them: the words that wire, replica and chunk store share.

A chunk has a committed version and at most one pending one (design 4.1, 4.3). What tells two versions
apart is the whole ``Identity``, never the number alone: two heads may give the same number to different
bytes, and ``3fs`` mistake 1 is to compare numbers only.

All are positional on the wire (``array_like``): a field may be appended with a default, never moved.
"""

from __future__ import annotations

import enum

import msgspec

from ..ids import ChainVersion, ChunkId, ClientSessionId, Epoch, UpdateVersion

SUM_BLOCK_BYTES = 64 * 1024
"""A stored checksum covers this many bytes of a chunk (the last one: what there is)."""
CHUNK_BYTES_MIN = 64 * 1024
CHUNK_BYTES_MAX = 64 * 1024 * 1024


class WriterTag(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Who asked for an update: one request of one channel of one client session."""

    session: ClientSessionId
    channel: int
    """0 … 255: a client sends one request a channel at a time (design 4.5)."""
    sequence: int
    """u64, grows by one with each *new* request of the channel; a retry repeats it."""


class Identity(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A version's identity, fixed by the head and never changed afterwards (design 4.3)."""

    chain_version: ChainVersion
    """The chain version at assignment; not that of the message that carries it."""
    update_version: UpdateVersion
    writer: WriterTag


class UpdateKind(enum.IntEnum):
    """What an update does to a chunk."""

    WRITE = 1
    """Bytes ``[offset, offset + length)`` become the payload; a gap before them reads as zeros."""
    TRUNCATE = 2
    """Length becomes ``length_bytes`` (shorter or longer; what is added reads as zeros)."""
    REMOVE = 3
    """The chunk is gone; a tombstone keeps its number (design 4.9)."""
    REPLACE = 4
    """The whole chunk becomes the payload (resync, or a writer of whole chunks)."""


class Update(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One update of one chunk, as it travels down the chain and is staged."""

    chunk: ChunkId
    identity: Identity
    kind: UpdateKind
    offset_bytes: int = 0
    length_bytes: int = 0
    """WRITE, REPLACE: payload length. TRUNCATE: the new length."""
    sums: tuple[int, ...] = ()
    """CRC32C of the payload, cut at multiples of SUM_BLOCK_BYTES *of the chunk* (the ends may be short)."""
    epoch: Epoch = Epoch(0)
    """The file's epoch that the writer knew; only the head checks it (design 4.9)."""
    chunk_size_bytes: int = 0
    """The file's chunk size: bound of every offset and length in this chunk."""


class VersionInfo(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A stored version of a chunk as others see it."""

    identity: Identity
    length_bytes: int
    sums: tuple[int, ...]
    """One CRC32C for each SUM_BLOCK_BYTES of the content."""
    removed: bool = False
    """A tombstone: no content, the number goes on."""


class UpdateResult(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What an update came to; stored with the dedup record, so that a retry gets the same answer."""

    identity: Identity
    length_bytes: int
    """Length of the chunk after the update."""
