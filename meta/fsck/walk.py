"""Reads the KV store for a check: pages in key order, each in a transaction of its own, never all at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from fs3.clock import Clock
from fs3.errors import CorruptData
from fs3.ids import ROOT_INODE, ClientSessionId, InodeId
from fs3.kv.ranges import key_after
from fs3.kv.run import OnMaybeApplied, run
from fs3.kv.schema import key_u64, range_of
from fs3.kv.transaction import Kv, ReadTransaction, Transaction
from fs3.rng import Rng

from ..dirent import NAME_OFFSET, Dirent, decode_dirent, dirent_key
from ..inode import Inode, decode_inode, inode_key
from ..session import session_key
from . import inodes, sessions
from .findings import Finding, Kind
from .inodes import HANGING, Window, inode_in

T = TypeVar("T")
ENTRY_PAGE = 1000
INODE_PAGE = 128
RECORD_PAGE = 500
STEP_S = 60.0
LAST_INODE = (1 << 64) - 1


class Entry(NamedTuple):
    """A name."""

    directory: InodeId
    name: bytes
    entry: Dirent


class Seen(NamedTuple):
    """A window of inodes, and who has them open."""

    window: Window
    high: int
    """It reaches to this inode."""
    opened: dict[InodeId, None]


class Walk:
    """The KV store, in pages."""

    def __init__(self, kv: Kv, clock: Clock, rng: Rng) -> None:
        self._kv = kv
        self._clock = clock
        self._rng = rng

    async def transact(self, body: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run a body; DeadlineExceeded when the store cannot be reached for a minute."""
        return await run(
            self._kv,
            body,
            clock=self._clock,
            rng=self._rng,
            deadline_s=self._clock.boot_s() + STEP_S,
            on_maybe_applied=OnMaybeApplied.RETRY,
        )

    async def page(self, begin: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` pairs, of one snapshot."""
        return await self.transact(lambda txn: txn.snapshot.range(begin, end, limit=limit))

    async def entries(self, take: Callable[[Entry], None], damaged: Callable[[Finding], None]) -> int:
        """Hand every entry to ``take``, and those that cannot be read to ``damaged``; how many there were."""
        begin, end = range_of(b"DENT")
        count = 0
        while page := await self.page(begin, end, ENTRY_PAGE):
            for key, value in page:
                directory = inode_in(key[:NAME_OFFSET])
                try:
                    entry = decode_dirent(value)
                except CorruptData as error:
                    damaged(_undecodable(key, str(error)))
                    continue
                if directory is None or len(key) <= NAME_OFFSET:
                    damaged(_undecodable(key, "its key is no entry's"))
                    continue
                take(Entry(directory, key[NAME_OFFSET:], entry))
            count += len(page)
            begin = key_after(page[-1][0])
        return count

    async def window(self, low: int, last: int, limit: int = INODE_PAGE) -> Seen:
        """The next inodes from ``low`` to ``last`` at most, and everything that hangs on them."""

        async def body(txn: Transaction) -> Seen:
            reads = txn.snapshot
            pairs = await reads.range(inode_key(InodeId(low)), _end(b"INOD", last), limit=limit)
            found = {inode: value for key, value in pairs if (inode := inode_in(key)) is not None}
            high = max(found) if found and len(pairs) == limit else last
            hanging = {prefix: await _of_inodes(reads, prefix, low, high) for prefix in HANGING}
            opened = await reads.range(key_u64(b"OPEN", low), _end(b"OPEN", high))
            writers = {InodeId(int.from_bytes(key[4:12], "big")): None for key, _ in opened}
            return Seen(Window(found, hanging), high, writers)

        return await self.transact(body)

    async def session_records(self, prefix: bytes, damaged: Callable[[Finding], None]) -> int:
        """Judge every record of a prefix that names a session; how many there were."""
        begin, end = range_of(prefix)
        count = 0
        while True:
            start = begin

            async def body(txn: Transaction, start: bytes = start) -> tuple[list[Finding], bytes, int]:
                return await _session_page(txn.snapshot, start, end)

            findings, begin, seen = await self.transact(body)
            for finding in findings:
                damaged(finding)
            count += seen
            if seen < RECORD_PAGE:
                return count


async def _session_page(reads: ReadTransaction, begin: bytes, end: bytes) -> tuple[list[Finding], bytes, int]:
    pairs = await reads.range(begin, end, limit=RECORD_PAGE)
    alive: dict[ClientSessionId, None] = {}
    files: dict[InodeId, None] = {}
    opens: dict[bytes, None] = {}
    for key, value in pairs:
        one = sessions.held(key, value)
        if one is None:
            continue
        if one.session not in alive and await reads.get(session_key(one.session)) is not None:
            alive[one.session] = None
        if one.inode and key.startswith(b"OPEN"):
            if await reads.get(inode_key(one.inode)) is not None:
                files[one.inode] = None
            if await reads.get(sessions.sopn_key(one)) is not None:
                opens[sessions.sopn_key(one)] = None
    findings = list(sessions.judge(pairs, alive, files, opens))
    return findings, key_after(pairs[-1][0]) if pairs else end, len(pairs)


async def _of_inodes(reads: ReadTransaction, prefix: bytes, low: int, high: int) -> dict[InodeId, bytes]:
    pairs = await reads.range(key_u64(prefix, low), _end(prefix, high))
    return {inode: value for key, value in pairs if (inode := inode_in(key)) is not None}


def _end(prefix: bytes, last: int) -> bytes:
    """Behind everything of inode ``last``."""
    return range_of(key_u64(prefix, last))[1]


def _undecodable(key: bytes, detail: str) -> Finding:
    return Finding(kind=Kind.UNDECODABLE, where=f"record {key!r}", detail=detail, key=key)


async def confirmed(reads: ReadTransaction, finding: Finding, names: list[Entry]) -> Finding | None:
    """A finding about names, looked at again at one read version; None: it has an explanation.

    ``names``: where entries of the inode were found since.
    """
    inode = InodeId(finding.inode)
    data = await reads.get(inode_key(inode))
    present = [one for one in names if await _names_still(reads, one)]
    if finding.kind is Kind.LOST_DIRECTORY:
        begin, end = range_of(key_u64(b"DENT", inode))
        return finding if data is None and await reads.range(begin, end, limit=1) else None
    if finding.kind is Kind.DANGLING_ENTRY:
        return _at(finding, present[0]) if data is None and present else None
    if data is None:
        return None
    record = decode_inode(inode, data)
    if finding.kind is Kind.WRONG_KIND:
        wrong = [one for one in present if one.entry.kind is not record.kind]
        return _at(finding, wrong[0]) if wrong else None
    if record.is_directory:
        return await _confirmed_directory(reads, finding, record, present)
    if finding.kind is Kind.NO_ENTRY:
        return finding if record.nlink and not names else None
    return finding if len(present) != record.nlink and len(present) == len(names) else None


async def _confirmed_directory(
    reads: ReadTransaction, finding: Finding, record: Inode, present: list[Entry]
) -> Finding | None:
    inode = record.inode
    data = await reads.get(key_u64(b"DPAR", inode))
    window = Window({}, {b"DPAR": {inode: data} if data is not None else {}})
    parent = inodes.parent(window, inode)
    if finding.kind is Kind.WRONG_SUBDIRECTORIES:
        counted, stored = await subdirectories(reads, inode)
        return finding if record.nlink and counted != stored else None
    if finding.kind is Kind.WRONG_NLINK:
        return finding if len(present) > 1 else None
    if inode == ROOT_INODE:
        return finding if parent != ROOT_INODE else None
    in_parent = parent is not None and await _lies_in(reads, InodeId(parent), inode)
    if finding.kind is Kind.NO_ENTRY:
        return finding if record.nlink and not in_parent and not present else None
    return None if in_parent or not record.nlink or not present else finding


async def subdirectories(reads: ReadTransaction, directory: InodeId) -> tuple[int, int]:
    """Those that are there, and the number on record."""
    data = await reads.get(key_u64(b"DSUB", directory))
    stored = 0 if data is None else int.from_bytes(data, "little", signed=True)
    pairs = await reads.range(*range_of(key_u64(b"DENT", directory)))
    return sum(_is_directory(value) for _, value in pairs), stored


async def _lies_in(reads: ReadTransaction, directory: InodeId, inode: InodeId) -> bool:
    pairs = await reads.range(*range_of(key_u64(b"DENT", directory)))
    return any(_decoded(value) is not None and decode_dirent(value).inode == inode for _, value in pairs)


async def _names_still(reads: ReadTransaction, one: Entry) -> bool:
    data = await reads.get(dirent_key(one.directory, one.name))
    return data is not None and _decoded(data) == one.entry


def _decoded(value: bytes) -> Dirent | None:
    try:
        return decode_dirent(value)
    except CorruptData:
        return None


def _is_directory(value: bytes) -> bool:
    entry = _decoded(value)
    return entry is not None and entry.kind.name == "DIRECTORY"


def _at(finding: Finding, one: Entry) -> Finding:
    """The finding, with the entry that it is about."""
    return Finding(
        kind=finding.kind,
        where=f"entry {one.name!r} of {one.directory:x} (inode {finding.inode:x})",
        detail=finding.detail,
        inode=finding.inode,
        directory=one.directory,
        name=one.name,
    )
