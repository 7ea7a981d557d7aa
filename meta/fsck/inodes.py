"""Judges inodes, and the records that hang on them, of one snapshot. PURE.

What names say was counted at other times; whoever changes names meanwhile makes findings that are none.
``needs_names`` tells those kinds: they are counted again before they are reported.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from fs3.errors import CorruptData
from fs3.ids import ROOT_INODE, InodeId
from fs3.kv.schema import split_u64
from fs3.wire.meta import Storage

from ..inode import NO_DIRECTORY, Inode, decode_inode
from ..intents import CUTS, REMOVALS, SETTLEMENTS, SPILLS
from .findings import Finding, Kind
from .names import Names

HANGING = (b"DTIM", b"DSUB", b"DPAR", b"INLN", CUTS, SPILLS, SETTLEMENTS, REMOVALS)
"""Records that an inode has under its own number, beside its attributes."""
OF_DIRECTORIES = (b"DTIM", b"DSUB", b"DPAR")
NEEDS_NAMES = (
    Kind.DANGLING_ENTRY,
    Kind.WRONG_KIND,
    Kind.LOST_DIRECTORY,
    Kind.NO_ENTRY,
    Kind.WRONG_NLINK,
    Kind.WRONG_SUBDIRECTORIES,
    Kind.WRONG_PARENT,
)


@dataclass(slots=True)
class Window:
    """All records of inodes in a range of numbers, at one read version."""

    inodes: dict[InodeId, bytes]
    hanging: dict[bytes, dict[InodeId, bytes]] = field(default_factory=dict)
    """prefix -> inode -> value."""

    def value(self, prefix: bytes, inode: InodeId) -> bytes | None:
        """A record that hangs on an inode."""
        return self.hanging.get(prefix, {}).get(inode)


@dataclass(slots=True)
class Judged:
    """What a window came to."""

    findings: list[Finding]
    records: dict[InodeId, Inode | None]
    """The inodes; None: a record that cannot be read."""


def judge(window: Window, names: Names | None) -> Judged:
    """Everything that is wrong in a window; without ``names`` only what needs none."""
    findings: list[Finding] = []
    records: dict[InodeId, Inode | None] = {}
    for inode, data in sorted(window.inodes.items()):
        try:
            record = decode_inode(inode, data)
        except CorruptData as error:
            records[inode] = None
            findings.append(_of(Kind.UNDECODABLE, inode, str(error)))
            continue
        records[inode] = record
        if record.inode != inode:
            findings.append(_of(Kind.UNDECODABLE, inode, f"its record is that of inode {record.inode:x}"))
            continue
        findings += _judge_parts(window, record)
        if names is not None:
            findings += _judge_names(window, record, names)
    findings += _strays(window)
    return Judged(findings, records)


def missing(names: Names, window: Window, low: int, high: int) -> Iterator[Finding]:
    """Entries that name no inode, and entries in directories that are none, of the window's range."""
    for number, is_named in names.between(low, high):
        inode = InodeId(number)
        if inode in window.inodes:
            continue
        if is_named:
            yield _of(Kind.DANGLING_ENTRY, inode, "names no inode")
        if inode in names.subdirectories:
            yield _of(Kind.LOST_DIRECTORY, inode, "has entries, and no inode")


def subdirectories(window: Window, inode: InodeId) -> int:
    """The stored number of subdirectories."""
    data = window.value(b"DSUB", inode)
    return 0 if data is None else int.from_bytes(data, "little", signed=True)


def parent(window: Window, inode: InodeId) -> int | None:
    """The stored parent of a directory."""
    data = window.value(b"DPAR", inode)
    return None if data is None else int.from_bytes(data, "big")


def _judge_parts(window: Window, record: Inode) -> Iterator[Finding]:
    """What the inode says of records that are, or are not, beside it."""
    inode = record.inode
    if not record.nlink and window.value(REMOVALS, inode) is None:
        yield _of(Kind.NO_REMOVAL, inode, "has no name, and nobody removes it")
    if record.nlink and window.value(REMOVALS, inode) is not None:
        yield _stray(REMOVALS, inode, "a removal of what has a name")
    if record.is_directory:
        for prefix in (b"INLN", CUTS, SPILLS, SETTLEMENTS):
            if window.value(prefix, inode) is not None:
                yield _stray(prefix, inode, "a file's record, of a directory")
        return
    for prefix in OF_DIRECTORIES:
        if window.value(prefix, inode) is not None:
            yield _stray(prefix, inode, "a directory's record, of none")
    if record.is_file:
        yield from _judge_file(window, record)


def _judge_file(window: Window, record: Inode) -> Iterator[Finding]:
    inode = record.inode
    content = window.value(b"INLN", inode)
    if record.layout is None:
        yield _of(Kind.UNDECODABLE, inode, "a file without a layout")
    if record.storage is Storage.CHUNKED:
        if content is not None:
            yield _stray(b"INLN", inode, "inline content of a file that is in chunks")
    elif len(content or b"") != record.length_bytes:
        said = f"{record.length_bytes} bytes long, and {len(content or b'')} are stored"
        yield _of(Kind.WRONG_INLINE, inode, said)
    for prefix, flag, name in (
        (CUTS, record.cutting, "truncate"),
        (SETTLEMENTS, record.settling, "settlement"),
        (SPILLS, record.storage is Storage.SPILLING, "move out of the KV store"),
    ):
        has = window.value(prefix, inode) is not None
        if record.nlink and flag and not has:
            yield _of(Kind.NO_INTENT, inode, f"its {name} is not finished, and nobody goes on with it")
        if record.nlink and has and not flag:
            yield _stray(prefix, inode, f"a {name} that the inode knows nothing of")


def _judge_names(window: Window, record: Inode, names: Names) -> Iterator[Finding]:
    inode = record.inode
    links = names.links.get(inode, 0)
    called = names.kind_of(inode)
    if called is not None and called is not record.kind:
        yield _of(Kind.WRONG_KIND, inode, f"it is a {record.kind.name}, its entry says {called.name}")
    if record.is_directory:
        yield from _judge_directory(window, record, names, links)
    elif record.nlink and not links:
        yield _of(Kind.NO_ENTRY, inode, f"{record.length_bytes} bytes that no name leads to")
    elif links != record.nlink:
        yield _of(Kind.WRONG_NLINK, inode, f"nlink {record.nlink}, and {links} names")


def _judge_directory(window: Window, record: Inode, names: Names, links: int) -> Iterator[Finding]:
    inode = record.inode
    is_root = inode == ROOT_INODE
    if record.nlink and not links and not is_root:
        yield _of(Kind.NO_ENTRY, inode, "a directory that no name leads to")
    elif links > (0 if is_root or not record.nlink else 1):
        yield _of(Kind.WRONG_NLINK, inode, f"a directory with {links} names")
    counted, stored = names.subdirectories.get(inode, 0), subdirectories(window, inode)
    if counted != stored and record.nlink:  # a tree that is being removed loses its entries without counting
        yield _of(Kind.WRONG_SUBDIRECTORIES, inode, f"{stored} subdirectories on record, {counted} are there")
    holder: int | None = names.directories.get(inode)
    if is_root:
        holder = ROOT_INODE
    elif not record.nlink:
        holder = NO_DIRECTORY
    stored_parent = parent(window, inode)
    if holder is not None and stored_parent != holder:
        shown = "none" if stored_parent is None else f"{stored_parent:x}"
        yield _of(Kind.WRONG_PARENT, inode, f"parent {shown} on record, its entry is in {holder:x}")


def _strays(window: Window) -> Iterator[Finding]:
    for prefix in HANGING:
        for inode in sorted(window.hanging.get(prefix, {})):
            if inode not in window.inodes:
                yield _stray(prefix, inode, "hangs on no inode")


def _of(kind: Kind, inode: InodeId, detail: str) -> Finding:
    return Finding(kind=kind, where=f"inode {inode:x}", detail=detail, inode=inode)


def _stray(prefix: bytes, inode: InodeId, detail: str) -> Finding:
    key = prefix + struct.pack(">Q", inode)
    where = f"record {prefix.decode()} of inode {inode:x}"
    return Finding(kind=Kind.STRAY_RECORD, where=where, detail=detail, inode=inode, key=key)


def inode_in(key: bytes) -> InodeId | None:
    """The inode in a key; None when the key is no inode's."""
    try:
        (number,), tail = split_u64(key, 1)
    except struct.error:
        return None
    return None if tail else InodeId(number)
