"""Records are what the byte tables say, and nothing else is taken for one."""

from __future__ import annotations

import struct

import crcmod.predefined
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.errors import CorruptData
from fs3.ids import (
    ChainVersion,
    ChunkId,
    ClientSessionId,
    Epoch,
    InodeId,
    TargetId,
    UpdateVersion,
)
from fs3.storage.engine import format as records
from fs3.storage.engine.allocate import Block
from fs3.storage.engine.versions import DedupRecord, EpochRecord
from fs3.wire.chunk import Identity, Update, UpdateKind, UpdateResult, VersionInfo, WriterTag

U16, U32, U64 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
CHUNKS = st.builds(ChunkId, U64.map(InodeId), U32)
WRITERS = st.builds(WriterTag, U64.map(ClientSessionId), U16, U64)
IDENTITIES = st.builds(Identity, U32.map(ChainVersion), U64.map(UpdateVersion), WRITERS)


@st.composite
def versions(draw: st.DrawFn) -> records.StoredVersion:
    length_bytes = draw(st.sampled_from((0, 1, 65536, 65537, 1 << 20)))
    info = VersionInfo(
        identity=draw(IDENTITIES),
        length_bytes=length_bytes,
        sums=tuple(draw(U32) for _ in range(-(-length_bytes // 65536))),
        removed=draw(st.booleans()) and not length_bytes,
    )
    block = Block(draw(st.integers(20, 26)), draw(U64)) if length_bytes else None
    return records.StoredVersion(info, block, draw(U32), draw(U64), draw(U64))


def fields(stored: records.StoredVersion) -> tuple[object, ...]:
    return stored.info, stored.block, stored.high_water_bytes, stored.change, stored.removed_ms


@given(CHUNKS, versions())
def test_committed_versions(chunk: ChunkId, stored: records.StoredVersion) -> None:
    key = records.committed_key(chunk)
    assert records.chunk_of(key) == chunk
    again = records.unpack_committed(key, records.pack_committed(key, stored))
    assert fields(again) == fields(stored)


@given(CHUNKS, versions(), st.sampled_from(UpdateKind), U32, U32, U32, U32)
def test_pending_versions(
    chunk: ChunkId,
    stored: records.StoredVersion,
    kind: UpdateKind,
    epoch: int,
    offset_bytes: int,
    length_bytes: int,
    chunk_size_bytes: int,
) -> None:
    key = records.pending_key(chunk)
    update = Update(
        chunk=chunk,
        identity=stored.info.identity,
        kind=kind,
        offset_bytes=offset_bytes,
        length_bytes=length_bytes,
        epoch=Epoch(epoch),
        chunk_size_bytes=chunk_size_bytes,
    )
    value = records.pack_pending(key, records.StoredPending(stored, update))
    again = records.unpack_pending(key, value)
    assert fields(again.version) == fields(stored) and again.update == update


@given(U64.map(ClientSessionId), U16, U64, CHUNKS, IDENTITIES, U32)
def test_dedup_records(
    session: ClientSessionId, channel: int, sequence: int, chunk: ChunkId, identity: Identity, length: int
) -> None:
    result = UpdateResult(identity=identity, length_bytes=length)
    record = DedupRecord(session, channel, sequence, chunk, result)
    key = records.dedup_key(session, channel)
    assert records.unpack_dedup(key, records.pack_dedup(key, record)) == record


@given(U64.map(InodeId), U32.map(Epoch), U64)
def test_epochs(inode: InodeId, epoch: Epoch, raised_ms: int) -> None:
    record = EpochRecord(inode, epoch, raised_ms)
    key = records.epoch_key(inode)
    assert records.unpack_epoch(key, records.pack_epoch(key, record)) == record


@given(st.binary(min_size=1, max_size=20), st.binary(max_size=80))
def test_the_sum_is_crc32c_over_key_and_body(key: bytes, body: bytes) -> None:
    value = records.seal(key, body)
    independent = crcmod.predefined.mkCrcFun("crc-32c")
    assert value == body + struct.pack(">I", independent(key + body))
    assert records.unseal(key, value) == body


@given(st.data(), versions())
def test_a_changed_byte_or_another_key_is_seen(data: st.DataObject, stored: records.StoredVersion) -> None:
    key = records.committed_key(ChunkId(InodeId(1), 2))
    value = bytearray(records.pack_committed(key, stored))
    with pytest.raises(CorruptData):
        records.unpack_committed(records.committed_key(ChunkId(InodeId(1), 3)), bytes(value))
    with pytest.raises(CorruptData):
        records.unpack_committed(key, bytes(value[: data.draw(st.integers(0, len(value) - 1))]))
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptData):
        records.unpack_committed(key, bytes(value))


def test_the_bytes_are_those_of_the_table() -> None:
    writer = WriterTag(ClientSessionId(0x1122), 3, 0x99)
    identity = Identity(ChainVersion(7), UpdateVersion(8), writer)
    info = VersionInfo(identity=identity, length_bytes=70_000, sums=(0xAABBCCDD, 0x01020304))
    stored = records.StoredVersion(info, Block(17, 5), 70_001, 6, 0)
    key = records.committed_key(ChunkId(InodeId(2), 1))
    assert key == b"c" + bytes(7) + b"\x02" + bytes(3) + b"\x01"
    value = records.pack_committed(key, stored)
    assert value[:-4] == bytes.fromhex(
        "00110003 00000007 0000000000000008 0000000000001122 0000000000000099"
        "00011170 00011171 0000000000000005 0000000000000006 0000000000000000"
        "aabbccdd 01020304"
    )
    header = records.pack_header(records.Header(0xABC, TargetId(0x10001), 64 << 20))
    assert header[:-4] == b"fs3chunk" + struct.pack(">IQQQ", 2, 0xABC, 0x10001, 64 << 20)


def test_numbers_that_do_not_fit_are_refused() -> None:
    key = records.epoch_key(InodeId(1))
    with pytest.raises(struct.error):
        records.pack_epoch(key, EpochRecord(InodeId(1), Epoch(2**32), 0))
