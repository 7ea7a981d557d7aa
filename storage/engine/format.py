"""Records of a chunk store, byte by byte. PURE.

Format version 2. A store is a directory::

    lock                 locked by the process that has it open
    index/               the ordered store of records (LMDB in production, a log in front: ``index_log``)
    data/CC-NNNN         blocks of size class CC (exponent, 16 … 26), file NNNN of the class (decimal)

Block ``n`` of a class lies at ``n << CC`` of its files laid end to end, each ``file_bytes`` long. All
integers are big endian. Each value ends with a CRC32C over key and the bytes before it (LMDB has none).

==================  =======================================================================
key                 value
==================  =======================================================================
``h``               header: magic 8s ``fs3chunk`` · format version u32 · store id u64 ·
                    target u64 · file_bytes u64
``n``               counters: change u64 · number floor u64 · dropped change u64
``b`` class u8      blocks of this class below this number were handed out: u64
``c`` chunk 12      committed version: *version* · sums u32 …
``p`` chunk 12      pending version: *version* · *update* · sums u32 …
``d`` session u64   last request of a channel: sequence u64 · chunk 12 · chain version u32 ·
channel u16         update version u64 · writer session u64 · channel u16 · sequence u64 ·
                    length u32
``e`` inode u64     epoch u32 · raised at u64 (cluster time, ms)
``s`` session u64   this client session is over: since u64 (cluster time, ms)
``v`` version u32   change sequence u64 when this chain version was adopted
``u``               scrub: began u64 · ended u64 (cluster time, ms, of the round under way and of the last
                    whole one) · bytes read u64 · chunks u64 · bad blocks u64 · 1: behind u8 · chunk 12
==================  =======================================================================

*version*, 64 bytes: flags u8 (1: removed) · size class u8 (0: no block) · writer channel u16 ·
chain version u32 · update version u64 · writer session u64 · writer sequence u64 · length u32 ·
high-water mark u32 (no byte of the block below it may be written) · block number u64 · change u64 ·
removed at u64 (cluster time, ms). One sum follows for each 64 KiB of the length.

*update*, 20 bytes: kind u8 · 3 zero bytes · epoch u32 · offset u32 · length u32 · chunk size u32.

A number that does not fit its field is a ``struct.error`` at packing, never cut.
"""

from __future__ import annotations

import struct

from crc32c import crc32c

from fs3.errors import CorruptData, IncompatibleVersion, InvalidRequest
from fs3.ids import (
    ChainVersion,
    ChunkId,
    ClientSessionId,
    Epoch,
    InodeId,
    TargetId,
    UpdateVersion,
)
from fs3.wire.chunk import (
    SUM_BLOCK_BYTES,
    Identity,
    Update,
    UpdateKind,
    UpdateResult,
    VersionInfo,
    WriterTag,
)

from .allocate import CLASSES, Block
from .versions import DedupRecord, EpochRecord, ScrubMark

FORMAT_VERSION = 2
"""1: without a log in front of the index. Who does not know of the log must not open a store that has one."""
MAGIC = b"fs3chunk"
HEADER_KEY = b"h"
COUNTERS_KEY = b"n"
SCRUB_KEY = b"u"
HIGH, COMMITTED, PENDING, DEDUP, EPOCH, SESSION, CHAIN_VERSION = b"b", b"c", b"p", b"d", b"e", b"s", b"v"

_SUM = struct.Struct(">I")
_HEADER = struct.Struct(">8sIQQQ")
_COUNTERS = struct.Struct(">QQQ")
_VERSION = struct.Struct(">BBHIQQQIIQQQ")
_UPDATE = struct.Struct(">B3xIIII")
_DEDUP_KEY = struct.Struct(">cQH")
_DEDUP = struct.Struct(">Q12sIQQHQI")
_EPOCH = struct.Struct(">IQ")
_SCRUB = struct.Struct(">QQQQQB12s")
_U64 = struct.Struct(">Q")
_U32 = struct.Struct(">I")
_REMOVED = 1
_KINDS = frozenset(UpdateKind)


class Header:
    """Whose store this is."""

    __slots__ = ("file_bytes", "store_id", "target", "version")

    def __init__(
        self, store_id: int, target: TargetId, file_bytes: int, version: int = FORMAT_VERSION
    ) -> None:
        self.version = version
        """Format that the store had when this was read."""
        self.store_id = store_id
        self.target = target
        self.file_bytes = file_bytes


class Counters:
    """Numbers that must not go back although the records that bore them are gone."""

    __slots__ = ("change", "dropped_change", "number_floor")

    def __init__(self, change: int = 0, number_floor: int = 0, dropped_change: int = 0) -> None:
        self.change = change
        self.number_floor = number_floor
        self.dropped_change = dropped_change


class StoredVersion:
    """A version and where its bytes lie. Never changed but for ``verified``."""

    __slots__ = ("block", "change", "high_water_bytes", "info", "removed_ms", "verified")

    def __init__(
        self,
        info: VersionInfo,
        block: Block | None,
        high_water_bytes: int,
        change: int,
        removed_ms: int = 0,
        verified: int = 0,
    ) -> None:
        self.info = info
        self.block = block
        self.high_water_bytes = high_water_bytes
        self.change = change
        self.removed_ms = removed_ms
        self.verified = verified
        """Bit n: the n-th 64 KiB were read since open or write, and their sum was right (not stored)."""

    def with_high_water(self, high_water_bytes: int) -> StoredVersion:
        """The same with a high-water mark of at least so much."""
        high = max(high_water_bytes, self.high_water_bytes)
        return StoredVersion(self.info, self.block, high, self.change, self.removed_ms, self.verified)


class StoredPending:
    """A pending version and its update (without sums)."""

    __slots__ = ("update", "version")

    def __init__(self, version: StoredVersion, update: Update) -> None:
        self.version = version
        self.update = update


def seal(key: bytes, body: bytes) -> bytes:
    """The value of a record: ``body`` and its sum."""
    return body + _SUM.pack(crc32c(body, crc32c(key)))


def unseal(key: bytes, value: bytes) -> bytes:
    """The body of a value; CorruptData if its sum is wrong."""
    body = value[:-4]
    if len(value) < 4 or crc32c(body, crc32c(key)) != _SUM.unpack(value[-4:])[0]:
        raise CorruptData(f"chunk store record {key!r} fails its sum")
    return body


def _exactly(kind: struct.Struct, key: bytes, value: bytes) -> tuple[int, ...]:
    body = unseal(key, value)
    if len(body) != kind.size:
        raise CorruptData(f"chunk store record {key!r} has {len(body)} bytes, {kind.size} expected")
    return kind.unpack(body)


# -- header and counters


def pack_header(header: Header) -> bytes:
    """Value of the header record, in the present format."""
    body = _HEADER.pack(MAGIC, FORMAT_VERSION, header.store_id, header.target, header.file_bytes)
    return seal(HEADER_KEY, body)


def unpack_header(value: bytes, target: TargetId) -> Header:
    """Check and read the header: IncompatibleVersion, InvalidRequest (another target's), CorruptData."""
    if value[:8] != MAGIC or len(value) < 12:
        raise CorruptData("not a chunk store: no magic number in its header")
    version = _U32.unpack(value[8:12])[0]
    if not 1 <= version <= FORMAT_VERSION:
        raise IncompatibleVersion(f"chunk store format {version}; this program reads 1 to {FORMAT_VERSION}")
    body = unseal(HEADER_KEY, value)
    if len(body) != _HEADER.size:
        raise CorruptData(f"chunk store header has {len(body)} bytes, {_HEADER.size} expected")
    _, _, store_id, owner, file_bytes = _HEADER.unpack(body)
    if owner != target:
        raise InvalidRequest(f"this chunk store belongs to target {owner:#x}, not to {target:#x}")
    return Header(store_id, TargetId(owner), file_bytes, version)


def pack_counters(counters: Counters) -> bytes:
    """Value of the counters record."""
    body = _COUNTERS.pack(counters.change, counters.number_floor, counters.dropped_change)
    return seal(COUNTERS_KEY, body)


def unpack_counters(value: bytes) -> Counters:
    """Inverse of ``pack_counters``."""
    return Counters(*_exactly(_COUNTERS, COUNTERS_KEY, value))


def pack_scrub(mark: ScrubMark) -> bytes:
    """Value of the scrub record."""
    after = mark.after
    chunk = after.to_bytes() if after is not None else bytes(12)
    numbers = (mark.began_ms, mark.ended_ms, mark.read_bytes, mark.chunk_count, mark.bad_count)
    return seal(SCRUB_KEY, _SCRUB.pack(*numbers, after is not None, chunk))


def unpack_scrub(value: bytes) -> ScrubMark:
    """Inverse of ``pack_scrub``."""
    body = unseal(SCRUB_KEY, value)
    if len(body) != _SCRUB.size:
        raise CorruptData(f"chunk store record {SCRUB_KEY!r} has {len(body)} bytes")
    began_ms, ended_ms, read_bytes, chunk_count, bad_count, is_behind, chunk = _SCRUB.unpack(body)
    after = ChunkId.from_bytes(chunk) if is_behind else None
    return ScrubMark(began_ms, ended_ms, read_bytes, chunk_count, bad_count, after)


def high_key(size_class: int) -> bytes:
    """Key of the high mark of a size class."""
    return HIGH + bytes((size_class,))


def pack_number(key: bytes, number: int) -> bytes:
    """Value of a record that is one u64 (high marks, ended sessions, chain versions)."""
    return seal(key, _U64.pack(number))


def unpack_number(key: bytes, value: bytes) -> int:
    """Inverse of ``pack_number``."""
    return _exactly(_U64, key, value)[0]


# -- versions


def committed_key(chunk: ChunkId) -> bytes:
    """Key of a committed version."""
    return COMMITTED + chunk.to_bytes()


def pending_key(chunk: ChunkId) -> bytes:
    """Key of a pending version."""
    return PENDING + chunk.to_bytes()


def chunk_of(key: bytes) -> ChunkId:
    """The chunk that the key of a version names."""
    return ChunkId.from_bytes(key[1:])


def _pack_version(stored: StoredVersion) -> bytes:
    info, block = stored.info, stored.block
    writer = info.identity.writer
    return _VERSION.pack(
        _REMOVED if info.removed else 0,
        block.size_class if block else 0,
        writer.channel,
        info.identity.chain_version,
        info.identity.update_version,
        writer.session,
        writer.sequence,
        info.length_bytes,
        stored.high_water_bytes,
        block.number if block else 0,
        stored.change,
        stored.removed_ms,
    )


def _pack_sums(sums: tuple[int, ...]) -> bytes:
    return struct.pack(f">{len(sums)}I", *sums)


def _unpack_version(key: bytes, body: bytes, sums_at: int) -> StoredVersion:
    if len(body) < sums_at:
        raise CorruptData(f"chunk store record {key!r} is too short: {len(body)} bytes")
    fields = _VERSION.unpack_from(body)
    flags, size_class, channel, chain, number, session, sequence, length, high, block, change, at_ms = fields
    count = -(-length // SUM_BLOCK_BYTES)
    fits = size_class in CLASSES and length <= 1 << size_class if length else not size_class
    if len(body) != sums_at + 4 * count or not fits:
        raise CorruptData(f"chunk store record {key!r}: {len(body)} bytes for a content of {length}")
    writer = WriterTag(ClientSessionId(session), channel, sequence)
    info = VersionInfo(
        identity=Identity(ChainVersion(chain), UpdateVersion(number), writer),
        length_bytes=length,
        sums=struct.unpack_from(f">{count}I", body, sums_at),
        removed=bool(flags & _REMOVED),
    )
    return StoredVersion(info, Block(size_class, block) if size_class else None, high, change, at_ms)


def pack_committed(key: bytes, stored: StoredVersion) -> bytes:
    """Value of a committed version."""
    return seal(key, _pack_version(stored) + _pack_sums(stored.info.sums))


def unpack_committed(key: bytes, value: bytes) -> StoredVersion:
    """Inverse of ``pack_committed``."""
    return _unpack_version(key, unseal(key, value), _VERSION.size)


def pack_pending(key: bytes, pending: StoredPending) -> bytes:
    """Value of a pending version."""
    update = pending.update
    fields = _UPDATE.pack(
        update.kind, update.epoch, update.offset_bytes, update.length_bytes, update.chunk_size_bytes
    )
    return seal(key, _pack_version(pending.version) + fields + _pack_sums(pending.version.info.sums))


def unpack_pending(key: bytes, value: bytes) -> StoredPending:
    """Inverse of ``pack_pending``."""
    body = unseal(key, value)
    version = _unpack_version(key, body, _VERSION.size + _UPDATE.size)
    kind, epoch, offset, length, chunk_size = _UPDATE.unpack_from(body, _VERSION.size)
    if kind not in _KINDS:
        raise CorruptData(f"chunk store record {key!r}: there is no update of kind {kind}")
    update = Update(
        chunk=chunk_of(key),
        identity=version.info.identity,
        kind=UpdateKind(kind),
        offset_bytes=offset,
        length_bytes=length,
        epoch=Epoch(epoch),
        chunk_size_bytes=chunk_size,
    )
    return StoredPending(version, update)


# -- dedup, epochs, sessions


def dedup_key(session: ClientSessionId, channel: int) -> bytes:
    """Key of a channel's record."""
    return _DEDUP_KEY.pack(DEDUP, session, channel)


def pack_dedup(key: bytes, record: DedupRecord) -> bytes:
    """Value of a channel's record."""
    identity = record.result.identity
    body = _DEDUP.pack(
        record.sequence,
        record.chunk.to_bytes(),
        identity.chain_version,
        identity.update_version,
        identity.writer.session,
        identity.writer.channel,
        identity.writer.sequence,
        record.result.length_bytes,
    )
    return seal(key, body)


def unpack_dedup(key: bytes, value: bytes) -> DedupRecord:
    """Inverse of ``pack_dedup``."""
    body = unseal(key, value)
    if len(body) != _DEDUP.size:
        raise CorruptData(f"chunk store record {key!r} has {len(body)} bytes, {_DEDUP.size} expected")
    _, session, channel = _DEDUP_KEY.unpack(key)
    sequence, chunk, chain, number, writer_session, writer_channel, writer_sequence, length = _DEDUP.unpack(
        body
    )
    writer = WriterTag(ClientSessionId(writer_session), writer_channel, writer_sequence)
    identity = Identity(ChainVersion(chain), UpdateVersion(number), writer)
    return DedupRecord(
        session=ClientSessionId(session),
        channel=channel,
        sequence=sequence,
        chunk=ChunkId.from_bytes(chunk),
        result=UpdateResult(identity=identity, length_bytes=length),
    )


def epoch_key(inode: InodeId) -> bytes:
    """Key of a file's epoch."""
    return EPOCH + _U64.pack(inode)


def pack_epoch(key: bytes, record: EpochRecord) -> bytes:
    """Value of a file's epoch."""
    return seal(key, _EPOCH.pack(record.epoch, record.raised_ms))


def unpack_epoch(key: bytes, value: bytes) -> EpochRecord:
    """Inverse of ``pack_epoch``."""
    epoch, raised_ms = _exactly(_EPOCH, key, value)
    return EpochRecord(InodeId(_U64.unpack(key[1:])[0]), Epoch(epoch), raised_ms)


def session_key(session: ClientSessionId) -> bytes:
    """Key of a session's end."""
    return SESSION + _U64.pack(session)


def session_of(key: bytes) -> ClientSessionId:
    """The session that the key of an end names."""
    return ClientSessionId(_U64.unpack(key[1:])[0])


def chain_version_key(version: ChainVersion) -> bytes:
    """Key of the note of a chain version."""
    return CHAIN_VERSION + _U32.pack(version)


def chain_version_of(key: bytes) -> ChainVersion:
    """The chain version in such a key."""
    return ChainVersion(_U32.unpack(key[1:])[0])


def after(prefix: bytes) -> bytes:
    """The first key behind all keys with this prefix."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))
