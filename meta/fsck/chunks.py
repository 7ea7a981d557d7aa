"""Judges chunks: replicas against each other, and against the file that they are of. PURE.

Members of a chain are looked at one after the other while writes go on, so what differs is no finding until
it has been seen to stay (``replicas.settled``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fs3.ids import ChainId, ChunkId, InodeId, TargetId
from fs3.wire.meta import Storage
from fs3.wire.storage import ListedChunk

from ..inode import Inode
from .findings import Finding, Kind

Row = Mapping[TargetId, ListedChunk | None]
"""What each member says of one chunk; None: it knows nothing of it."""


def present_length(row: Row) -> int | None:
    """Length of the newest committed version; None: there is no content."""
    newest = _newest(row)
    return None if newest is None or newest.removed else newest.length_bytes


def differences(chain: ChainId, chunk: ChunkId, row: Row) -> list[Finding]:
    """What the members of a chain disagree about, and bytes that were found wrong."""

    def finding(kind: Kind, target: TargetId, detail: str) -> Finding:
        return Finding(
            kind=kind,
            where=f"chunk {chunk} on chain {chain}, target {target:x}",
            detail=detail,
            inode=chunk.inode,
            chain=chain,
            chunk_index=chunk.chunk_index,
            target=target,
        )

    found = [
        finding(Kind.BAD_BYTES, target, f"{record.bad_block_count} blocks of 64 KiB fail their sums")
        for target, record in sorted(row.items())
        if record is not None and record.bad_block_count
    ]
    newest = _newest(row)
    for target, record in sorted(row.items()):
        if record is not None and record.pending is not None:
            found.append(finding(Kind.LONG_PENDING, target, f"{record.pending} waits for its chain"))
        elif newest is not None and (problem := _problem(record, newest)) is not None:
            found.append(finding(problem[0], target, problem[1]))
    return found


def _newest(row: Row) -> ListedChunk | None:
    committed = [r for r in row.values() if r is not None and r.identity is not None]
    if not committed:
        return None
    return max(committed, key=lambda r: (_number(r), r.content_sum))


def _number(record: ListedChunk) -> tuple[int, int]:
    assert record.identity is not None
    return record.identity.update_version, record.identity.chain_version


def _problem(record: ListedChunk | None, newest: ListedChunk) -> tuple[Kind, str] | None:
    if record is None or record.identity is None:  # tombstones go, the last member first
        return None if newest.removed else (Kind.REPLICA_MISSING, f"others have {newest.identity}")
    if record.identity != newest.identity:
        return Kind.REPLICAS_DIFFER, f"{record.identity} here, {newest.identity} elsewhere"
    if (record.length_bytes, record.content_sum) != (newest.length_bytes, newest.content_sum):
        sums = f"sum {record.content_sum:08x} of {record.length_bytes} bytes here"
        return Kind.CONTENT_DIFFERS, f"{sums}, {newest.content_sum:08x} of {newest.length_bytes} elsewhere"
    return None


def is_at_rest(record: Inode, *, is_open: bool) -> bool:
    """The length is exact: nobody writes, and no truncate or settlement is under way."""
    return bool(record.nlink) and not (is_open or record.cutting or record.settling)


def end_of(record: Inode) -> int:
    """Bytes of the file that lie in chunks."""
    if record.storage is Storage.INLINE:
        return 0
    return record.length_bytes


def judge_chunk(
    chain: ChainId,
    chunk: ChunkId,
    length_bytes: int,
    record: Inode | None,
    chains: Sequence[ChainId],
    *,
    is_open: bool,
) -> Iterator[Finding]:
    """A chunk with content against its file. ``record`` None: there is no such inode. ``chains``: the
    file's; empty: not known."""

    def finding(kind: Kind, detail: str) -> Finding:
        return Finding(
            kind=kind,
            where=f"chunk {chunk} on chain {chain}",
            detail=detail,
            inode=chunk.inode,
            chain=chain,
            chunk_index=chunk.chunk_index,
        )

    if record is None:
        yield finding(Kind.ORPHAN_CHUNK, f"{length_bytes} bytes of a file that is not there")
        return
    if not record.is_file or record.layout is None:
        yield finding(Kind.FOREIGN_CHUNK, f"{length_bytes} bytes of what is no file")
        return
    size = record.layout.chunk_size_bytes
    if chains and chains[chunk.chunk_index % len(chains)] != chain:
        yield finding(
            Kind.FOREIGN_CHUNK, f"the file has it on chain {chains[chunk.chunk_index % len(chains)]}"
        )
        return
    if length_bytes > size:
        yield finding(Kind.CHUNK_TOO_LONG, f"{length_bytes} bytes in a chunk of {size}")
        return
    end = chunk.chunk_index * size + length_bytes
    if record.storage is Storage.SPILLING or not is_at_rest(record, is_open=is_open):
        return
    if length_bytes and end > end_of(record):
        yield finding(Kind.BEYOND_END, f"reaches to {end}, its file has {end_of(record)} bytes in chunks")


def judge_end(record: Inode, end_bytes: int, *, is_open: bool) -> Iterator[Finding]:
    """A file against the end of its chunks: a notice where the last bytes are in none."""
    if record.storage is not Storage.CHUNKED or not is_at_rest(record, is_open=is_open):
        return
    if end_bytes < record.length_bytes:
        inode = InodeId(record.inode)
        detail = f"{record.length_bytes} bytes long, its chunks end at {end_bytes}"
        yield Finding(kind=Kind.HOLE_AT_END, where=f"inode {inode:x}", detail=detail, inode=inode)
