"""What the operations on files share: opening, setting the length, dropping, the capability."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import msgspec

from fs3.errors import Busy, StaleFile, fs_error
from fs3.identity.capability import CAPABILITY_MS, Capability, Rights
from fs3.ids import ClientSessionId, Epoch, InodeId
from fs3.kv.run import run
from fs3.kv.transaction import ReadTransaction, Transaction
from fs3.layout import CHUNK_COUNT_MAX, FILE_BYTES_MAX, chunk_count
from fs3.stubs.storage import FileEnd
from fs3.wire.meta import Attributes, InodeKind, OpenMode, OpenResponse, Storage

from .acl import READ, WRITE, require, without_set_id
from .inode import (
    Inode,
    clear_inode,
    content_key,
    decode_inode,
    get_inode,
    inode_key,
    put_inode,
    shown,
)
from .intents import (
    CUTS,
    REMOVALS,
    SETTLEMENTS,
    SPILLS,
    CutIntent,
    Removal,
    clear_intent,
    get_settlement,
    put_cut,
    put_removal,
)
from .services import REMOVAL_QUEUED, Event, Op, Unfinished
from .session import holding_key, register_open, writers


async def open_existing(
    op: Op, txn: Transaction, session: ClientSessionId, seen: Inode, mode: OpenMode, *, truncate: bool
) -> Inode:
    """Open a file that the path led to; returns its record as it is now.

    EISDIR, EACCES, EINVAL (truncate without WRITE), ESTALE (it is being removed), ELOOP (a symlink).
    """
    if seen.kind is InodeKind.DIRECTORY:
        raise fs_error(errno.EISDIR, "open a directory with list")
    if seen.kind is InodeKind.SYMLINK:
        raise fs_error(errno.ELOOP, "this is a symlink")
    if truncate and not mode & OpenMode.WRITE:
        raise fs_error(errno.EINVAL, "truncate needs the file opened for writing")
    want = (READ if mode & OpenMode.READ else 0) | (WRITE if mode & OpenMode.WRITE else 0)
    require(op.who, seen, want)
    if not mode & OpenMode.WRITE:
        return seen
    record = await calm_file(txn, seen.inode)
    await register_open(txn, record.inode, session)
    if truncate:
        record = await set_length(op, txn, record, 0, None)
    return record


async def calm_file(txn: Transaction, inode: InodeId) -> Inode:
    """The record, read with conflict, of a file whose length nobody is about to change.

    ``Unfinished``: the driver finishes that first. ESTALE: it has no name any more.
    """
    record = await calm_or_unlinked(txn, inode)
    if not record.nlink:
        raise fs_error(errno.ESTALE, f"file {inode:x} is being removed")
    return record


async def calm_or_unlinked(txn: Transaction, inode: InodeId) -> Inode:
    """``calm_file``, also of a file that has no name any more but is still open somewhere."""
    record = await file_record(txn, inode)
    if record.cutting or record.settling:
        raise Unfinished(inode)
    return record


async def file_record(txn: Transaction, inode: InodeId) -> Inode:
    """The record of a file, read with conflict. ESTALE, EISDIR, EINVAL."""
    data = await txn.get(inode_key(inode))
    if data is None:
        raise fs_error(errno.ESTALE, f"inode {inode:x} is gone")
    record = decode_inode(inode, data)
    if record.kind is InodeKind.DIRECTORY:
        raise fs_error(errno.EISDIR)
    if record.kind is not InodeKind.FILE:
        raise fs_error(errno.EINVAL, "this is not a file")
    return record


def check_length(record: Inode, length_bytes: int) -> None:
    """EINVAL (negative), EFBIG."""
    assert record.layout is not None, record
    if length_bytes < 0:
        raise fs_error(errno.EINVAL, f"a length of {length_bytes} bytes")
    size = record.layout.chunk_size_bytes
    if length_bytes > FILE_BYTES_MAX or chunk_count(length_bytes, size) > CHUNK_COUNT_MAX:
        raise fs_error(errno.EFBIG, f"{length_bytes} bytes in chunks of {size} are more than a file can have")


async def set_length(
    op: Op, txn: Transaction, record: Inode, length_bytes: int, end: FileEnd | None
) -> Inode:
    """Give a calm file a length, perhaps leaving a cut to be finished; returns the changed record.

    ``end``: where the written bytes were found to end, under ``record.epoch``, after the request came.
    Without it a file that somebody has open for writing is always cut, for there may be more bytes than the
    length says.

    EINVAL, EFBIG; StaleFile: an inline file has to be moved out first; Busy: it is moving out.
    """
    check_length(record, length_bytes)
    record = msgspec.structs.replace(
        record,
        mtime_ns=op.now_ns,
        ctime_ns=op.now_ns,
        mode=record.mode if op.who.uid == 0 else without_set_id(record),
    )
    if record.storage is Storage.SPILLING:
        raise Busy("the file is moving out of the metadata store")
    if record.storage is Storage.INLINE:
        changed = await _set_inline_length(op, txn, record, length_bytes)
    elif await _needs_cut(txn, record, length_bytes, end):
        epoch = Epoch(record.epoch + 1)
        put_cut(txn, record.inode, CutIntent(epoch, length_bytes))
        changed = msgspec.structs.replace(record, length_bytes=length_bytes, epoch=epoch, cutting=True)
    else:
        changed = msgspec.structs.replace(record, length_bytes=length_bytes)
    put_inode(txn, changed)
    return changed


async def _needs_cut(txn: Transaction, record: Inode, length_bytes: int, end: FileEnd | None) -> bool:
    if length_bytes < record.length_bytes:
        return True
    if end is not None:
        return end.length_bytes > length_bytes
    return bool(await writers(txn, record.inode, limit=1))


async def _set_inline_length(op: Op, txn: Transaction, record: Inode, length_bytes: int) -> Inode:
    content = await txn.get(content_key(record.inode)) or b""
    if length_bytes <= op.services.inline_limit_bytes:
        return replace_content(txn, record, content[:length_bytes].ljust(length_bytes, b"\0"))
    if content:
        raise StaleFile(
            "the file is kept in the metadata store: move it out (spill) before it can grow so far"
        )
    return msgspec.structs.replace(record, storage=Storage.CHUNKED, length_bytes=length_bytes)


def replace_content(txn: Transaction, record: Inode, content: bytes) -> Inode:
    """Write a small file's content; the caller stores the returned record."""
    if content:
        txn.set(content_key(record.inode), content)
    else:
        txn.clear(content_key(record.inode))
    return msgspec.structs.replace(
        record, length_bytes=len(content), content_version=record.content_version + 1
    )


async def inline_content(txn: ReadTransaction, record: Inode) -> bytes | None:
    """The content of a file that is in the KV store; None: it is in chunks."""
    if not record.is_file or record.storage is Storage.CHUNKED:
        return None
    return await txn.get(content_key(record.inode)) or b""


async def opened(op: Op, txn: Transaction, record: Inode, mode: OpenMode, *, created: bool) -> OpenResponse:
    """The answer to open and create; the capability is put in by ``with_capability``, after the commit."""
    content = await inline_content(txn.snapshot, record) if mode & OpenMode.READ else None
    return OpenResponse(
        attributes=await shown(txn.snapshot, record),
        capability=b"",
        capability_expires_ms=0,
        content=content,
        created=created,
    )


def with_capability(op: Op, response: OpenResponse, session: ClientSessionId, mode: OpenMode) -> OpenResponse:
    """Sign the capability under the epoch that the answer shows."""
    if not mode:
        return response
    attributes = response.attributes
    now_ms = op.services.cluster_time_ms()
    expires_ms = now_ms + CAPABILITY_MS
    capability = Capability(
        inode=attributes.inode,
        epoch=attributes.epoch,
        rights=Rights(int(mode) & (Rights.READ | Rights.WRITE)),
        session=session,
        uid=max(op.peer.uid, 0),
        key_generation=op.peer.key_generation,
        expires_ms=expires_ms,
        checked_s=now_ms // 1000,
    )
    return msgspec.structs.replace(
        response, capability=op.services.signer.sign(capability), capability_expires_ms=expires_ms
    )


async def unlink_file(txn: Transaction, record: Inode, now_ns: int) -> list[Event]:
    """The last name of a file or symlink is gone: drop it now if that is all, else leave it to the workers.

    ``record`` was read by the caller; it is read again here with conflict. Returns what to tell the workers.
    """
    inode = record.inode
    present = await get_inode(txn, inode)
    assert present is not None and present.nlink, f"inode {inode:x} had a name, but {present}"
    if not present.has_chunks and not present.cutting and not await writers(txn, inode, limit=1):
        await drop_inode(txn, present)
        return []
    put_inode(txn, msgspec.structs.replace(present, nlink=0, ctime_ns=now_ns))
    put_removal(txn, inode, Removal())
    return [Event(REMOVAL_QUEUED, inode)]


async def drop_inode(txn: Transaction, record: Inode) -> None:
    """Clear an inode and everything that hangs on it; its chunks are gone, or never were."""
    inode = record.inode
    if record.is_file:
        settlement = await get_settlement(txn, inode)
        for session in settlement.sessions if settlement else ():
            txn.clear(holding_key(session, inode))
        for kind in (CUTS, SPILLS, SETTLEMENTS, REMOVALS):
            clear_intent(txn, kind, inode)
    clear_inode(txn, record)


@dataclass(frozen=True, slots=True)
class AskedEnd:
    """Where the written bytes of a file ended when the chains were asked."""

    inode: InodeId
    epoch: Epoch
    end: FileEnd

    def fits(self, record: Inode) -> bool:
        """Still the same file under the same epoch: the answer may be used."""
        return record.inode == self.inode and record.epoch == self.epoch


async def asked_end(op: Op, record: Inode | None) -> AskedEnd | None:
    """Ask all chains of a file where its bytes end; None: it has no chunks."""
    if record is None or not record.is_file or record.storage is not Storage.CHUNKED:
        return None
    assert record.layout is not None, record
    services = op.services
    chains = services.placement.chains_of(record.layout)
    end = await services.chains.file_end(record.inode, record.layout, chains, timeout_s=op.left_s())
    return AskedEnd(record.inode, record.epoch, end)


async def refreshed(op: Op, response: OpenResponse) -> OpenResponse:
    """Finish the cut that this operation began, and show the file as it is then."""
    return msgspec.structs.replace(response, attributes=await finished_attributes(op, response.attributes))


async def finished_attributes(op: Op, attributes: Attributes) -> Attributes:
    """Finish the file's cut; its attributes afterwards (as they were, if it is gone by then)."""
    await op.finish_file(attributes.inode, op.deadline_s)
    services = op.services
    record = await run(
        services.kv,
        lambda txn: get_inode(txn, attributes.inode),
        clock=services.clock,
        rng=services.rng,
        deadline_s=op.deadline_s,
    )
    if record is None:
        return attributes
    # Only what finishing changes is taken over: the rest is this operation's own answer.
    return msgspec.structs.replace(attributes, epoch=record.epoch)
