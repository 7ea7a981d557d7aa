"""Repairs what a check found, where that is safe: each in one transaction that looks again first.

Chunks are never touched by hand: those of no file go as a removed file's do (epoch, cut, tombstone), and a
file whose chunks reach beyond its length is settled by the same worker that settles a lost writer's.
Everything else is left alone; ``findings.WHAT_NEXT`` says what to do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec

from fs3.ids import ROOT_INODE, ChainId, ClientSessionId, Epoch, InodeId
from fs3.kv.schema import range_of
from fs3.kv.transaction import AtomicOp, Transaction
from fs3.layout import Layout
from fs3.wire.chunk import CHUNK_BYTES_MAX
from fs3.wire.meta import Storage

from ..dirent import Dirent, clear_dirent, get_dirent, put_dirent
from ..finisher import begin_settlement, keep_inline
from ..inode import get_inode, get_parent, put_inode, put_parent, touch_directory
from ..intents import CutIntent, Removal, get_removal, get_settlement, put_cut, put_removal
from ..services import Chains
from ..session import drop_open, get_session, holding_key, open_key, writers
from . import inodes
from .findings import Finding, Kind
from .inodes import HANGING, Window
from .walk import Entry, Walk, subdirectories

CHAIN_STEP_S = 30.0
Body = Callable[[Transaction], Awaitable[str]]
"""Answers what was done; empty: nothing had to be, or could be."""


class Mender:
    """``wall_ns``: the time that changed directories get."""

    def __init__(self, walk: Walk, chains: Chains, wall_ns: Callable[[], int]) -> None:
        self._walk = walk
        self._chains = chains
        self._wall_ns = wall_ns
        self._names: dict[int, list[Entry]] = {}

    async def look_up(self, findings: Sequence[Finding]) -> None:
        """Find the names of inodes whose repair needs them: one pass over all entries."""
        kinds = (Kind.WRONG_NLINK, Kind.WRONG_PARENT)
        self._names = {finding.inode: [] for finding in findings if finding.kind in kinds}

        def take(one: Entry) -> None:
            if one.entry.inode in self._names:
                self._names[one.entry.inode].append(one)

        if self._names:
            await self._walk.entries(take, lambda _: None)

    async def mend(self, finding: Finding) -> str:
        """What was done; empty: it was left alone. Fs3Error: a chain or the store does not answer."""
        if finding.kind is Kind.ORPHAN_CHUNK:
            return await self._cut_orphan(finding)
        if finding.kind is Kind.BAD_BYTES:
            return "handed to the storage node's own repair"
        bodies: dict[Kind, Body] = {
            Kind.DANGLING_ENTRY: partial(self._entry, finding),
            Kind.WRONG_KIND: partial(self._entry, finding),
            Kind.WRONG_NLINK: partial(self._nlink, finding),
            Kind.WRONG_SUBDIRECTORIES: partial(_recount, InodeId(finding.inode)),
            Kind.WRONG_PARENT: partial(self._parent, finding),
            Kind.NO_REMOVAL: partial(_queue_removal, InodeId(finding.inode)),
            Kind.NO_INTENT: partial(_renew_intent, InodeId(finding.inode)),
            Kind.STRAY_RECORD: partial(_drop_stray, finding),
            Kind.NO_SESSION: partial(_drop_of_session, finding),
            Kind.BEYOND_END: partial(_settle, InodeId(finding.inode)),
        }
        body = bodies.get(finding.kind)
        return await self._walk.transact(body) if body is not None else ""

    async def _cut_orphan(self, finding: Finding) -> str:
        inode, chains = InodeId(finding.inode), (ChainId(finding.chain),)
        if await self._walk.transact(lambda txn: get_inode(txn, inode)) is not None:
            return ""  # ids never come again: this one has never been gone
        force = await self._chains.raise_epoch(inode, Epoch(1), chains, timeout_s=CHAIN_STEP_S)
        epoch = Epoch(force + 1)
        await self._chains.raise_epoch(inode, epoch, chains, timeout_s=CHAIN_STEP_S)
        layout = Layout(chunk_size_bytes=CHUNK_BYTES_MAX)
        count = await self._chains.cut(inode, layout, chains, 0, epoch, timeout_s=CHAIN_STEP_S)
        return f"removed {count} chunks under epoch {epoch}"

    async def _entry(self, finding: Finding, txn: Transaction) -> str:
        """An entry that names nothing, or calls it what it is not."""
        directory, name = InodeId(finding.directory), finding.name
        if not name:
            return ""
        entry = await get_dirent(txn, directory, name)
        if entry is None or entry.inode != finding.inode:
            return ""
        record = await get_inode(txn, entry.inode)
        if record is None:
            clear_dirent(txn, directory, name)
            done = "took the name away"
        elif record.kind is not entry.kind:
            put_dirent(txn, directory, name, Dirent(entry.inode, record.kind))
            done = f"the entry says {record.kind.name} now"
        else:
            return ""
        touch_directory(txn, directory, self._wall_ns())
        await _recount(directory, txn)
        return done

    async def _nlink(self, finding: Finding, txn: Transaction) -> str:
        record = await get_inode(txn, InodeId(finding.inode))
        names = self._names.get(finding.inode, [])
        if record is None or record.is_directory or not record.nlink or not names:
            return ""
        for one in names:
            if await get_dirent(txn, one.directory, one.name) != one.entry:
                return ""
        if record.nlink == len(names):
            return ""
        put_inode(txn, msgspec.structs.replace(record, nlink=len(names)))
        return f"nlink is {len(names)} now"

    async def _parent(self, finding: Finding, txn: Transaction) -> str:
        inode = InodeId(finding.inode)
        record = await get_inode(txn, inode)
        names = self._names.get(inode, [])
        if record is None or not record.is_directory or not record.nlink:
            return ""
        if inode == ROOT_INODE:
            put_parent(txn, inode, inode)
            return "the root is its own parent"
        if len(names) != 1 or await get_dirent(txn, names[0].directory, names[0].name) != names[0].entry:
            return ""
        if await get_parent(txn, inode) == names[0].directory:
            return ""
        put_parent(txn, inode, names[0].directory)
        return f"parent is {names[0].directory:x} now"


async def _recount(directory: InodeId, txn: Transaction) -> str:
    """Reads the entries with conflict: whoever adds or removes one meanwhile makes this run again."""
    record = await get_inode(txn, directory)
    if record is None or not record.is_directory or not record.nlink:
        return ""
    counted, stored = await subdirectories(txn, directory)
    if counted == stored:
        return ""
    amount = (counted - stored).to_bytes(8, "little", signed=True)
    txn.atomic(AtomicOp.ADD, b"DSUB" + directory.to_bytes(8, "big"), amount)
    return f"{counted} subdirectories now"


async def _queue_removal(inode: InodeId, txn: Transaction) -> str:
    record = await get_inode(txn, inode)
    if record is None or record.nlink or record.is_directory or await get_removal(txn, inode) is not None:
        return ""
    put_removal(txn, inode, Removal())
    return "queued its removal"


async def _renew_intent(inode: InodeId, txn: Transaction) -> str:
    window = await _window_of(inode, txn)
    record = await get_inode(txn, inode)
    if record is None or all(f.kind is not Kind.NO_INTENT for f in inodes.judge(window, None).findings):
        return ""
    if record.storage is Storage.SPILLING:
        keep_inline(txn, record)
        return "the move was given up"
    if record.cutting:
        epoch = Epoch(record.epoch + 1)
        put_cut(txn, inode, CutIntent(epoch, record.length_bytes))
        put_inode(txn, msgspec.structs.replace(record, epoch=epoch))
        return "queued its truncate"
    await begin_settlement(txn, record, ())
    return "queued its settlement"


async def _settle(inode: InodeId, txn: Transaction) -> str:
    """Let the workers find out where the bytes end; an inline file has none in chunks."""
    record = await get_inode(txn, inode)
    if record is None or not record.nlink:
        return ""
    if record.cutting or record.settling:
        return "is being brought to rest"  # another chunk of the same file began it
    if await writers(txn, inode, limit=1):
        return ""
    if record.storage is Storage.INLINE:
        keep_inline(txn, record)
        return "queued a cut of its chunks"
    await begin_settlement(txn, record, ())
    return "queued its settlement"


async def _window_of(inode: InodeId, txn: Transaction) -> Window:
    """One inode and what hangs on it, read with conflict."""
    suffix = inode.to_bytes(8, "big")
    data = await txn.get(b"INOD" + suffix)
    hanging: dict[bytes, dict[InodeId, bytes]] = {}
    for prefix in HANGING:
        value = await txn.get(prefix + suffix)
        if value is not None:
            hanging[prefix] = {inode: value}
    return Window({inode: data} if data is not None else {}, hanging)


async def _drop_stray(finding: Finding, txn: Transaction) -> str:
    inode = InodeId(finding.inode)
    if finding.session:
        return await _mend_open(finding, txn)
    found = inodes.judge(await _window_of(inode, txn), None).findings
    if all(one.identity != finding.identity for one in found):
        return ""
    txn.clear(finding.key)
    return "dropped it"


async def _mend_open(finding: Finding, txn: Transaction) -> str:
    """A file opened by a session that does not know it, or that is gone."""
    inode, session = InodeId(finding.inode), _session_of(finding)
    if await txn.get(open_key(inode, session)) is None:
        return ""
    if await get_inode(txn, inode) is None:
        drop_open(txn, inode, session)
        return "dropped it"
    txn.set(holding_key(session, inode), b"")
    return "the session knows it now"


async def _drop_of_session(finding: Finding, txn: Transaction) -> str:
    inode, session = InodeId(finding.inode), _session_of(finding)
    if await get_session(txn, session) is not None:
        return ""
    if finding.key.startswith(b"OPEN"):
        if await txn.get(finding.key) is None:
            return ""
        record = await get_inode(txn, inode)
        if record is None or not record.nlink or record.storage is not Storage.CHUNKED:
            drop_open(txn, inode, session)
            return "dropped it"
        txn.clear(finding.key)
        await begin_settlement(txn, record, (session,))
        return "queued the file's settlement"
    if finding.key.startswith(b"SOPN"):
        settlement = await get_settlement(txn, inode)
        if settlement is not None and session in settlement.sessions:
            return "goes with the file's settlement"
    begin, end = finding.key, range_of(finding.key)[1]
    if not await txn.range(begin, end, limit=1):
        return ""
    txn.clear(finding.key)
    return "dropped it"


def _session_of(finding: Finding) -> ClientSessionId:
    return ClientSessionId(finding.session)
