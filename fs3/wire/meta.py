"""The metadata service: methods 200 … 299.

Names are bytes, as in POSIX; a ``Path`` is relative to a directory inode, ``/`` separated, resolved on the
server with symlinks never followed out of the tree. Every mutation carries (session, slot, sequence) and is
applied exactly once (design 3.3). Times are nanoseconds since 1970.

Source: design 3.
"""

from __future__ import annotations

import enum

import msgspec

from ..ids import ROOT_INODE, ClientSessionId, Epoch, InodeId
from ..layout import Layout
from ..rpc.service import Method, Service

NAME_BYTES_MAX = 255
PATH_BYTES_MAX = 4096
PATH_DEPTH_MAX = 1024
LIST_LIMIT_MAX = 4096


class InodeKind(enum.IntEnum):
    """What an inode is; never changes."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3


class Storage(enum.IntEnum):
    """Where a file's content is (design 3.9)."""

    INLINE = 1
    SPILLING = 2
    """Moving out of the KV store; whoever finds it old finishes it."""
    CHUNKED = 3


class Path(msgspec.Struct, frozen=True, array_like=True):
    """A name below a directory; empty text: the inode itself."""

    text: bytes = b""
    base: InodeId = ROOT_INODE


class Attributes(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """An inode as clients see it."""

    inode: InodeId
    kind: InodeKind
    mode: int
    """Permission bits, 0o7777."""
    uid: int
    gid: int
    nlink: int
    length_bytes: int
    """Files: a lower bound while somebody writes; exact after close or fsync. Symlinks: of the text."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    epoch: Epoch = Epoch(0)
    layout: Layout | None = None
    """Files: where the chunks lie. Directories: default for new files, if set here."""
    storage: Storage = Storage.CHUNKED
    content_version: int = 0
    """Of inline content; grows with each write of it."""
    symlink_target: bytes = b""
    settling: bool = False
    """A lost writer is being settled: the length is a lower bound, open for write waits (design 3.5)."""


class Mutation(msgspec.Struct, frozen=True, array_like=True):
    """Identity of a mutating request (design 3.3)."""

    session: ClientSessionId
    slot: int
    """0 … 63."""
    sequence: int
    """Grows by one with each new request in the slot; a retry repeats it."""


class ActAs(msgspec.Struct, frozen=True, array_like=True):
    """Whom an admin's connection acts for (a mount); others are refused if it is not themselves."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


# -- sessions ------------------------------------------------------------------------------------------


class OpenSessionRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    host: str
    description: str = ""
    request_nonce: bytes = b""
    """16 random bytes; a retry with the same nonce opens no second session."""


class OpenSessionResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    session: ClientSessionId
    renew_every_s: float
    lost_after_s: float
    slot_count: int
    inline_limit_bytes: int


class RenewSessionRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    session: ClientSessionId


class RenewSessionResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    cluster_time_ms: int


class CloseSessionRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Its open files must be closed; what is left is settled as if it were lost."""

    session: ClientSessionId


class CloseSessionResponse(msgspec.Struct, frozen=True, array_like=True):
    pass


# -- reading -------------------------------------------------------------------------------------------


class StatRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    path: Path
    follow: bool = True
    act_as: ActAs | None = None


class StatResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    attributes: Attributes


class ListRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A page of a directory in byte order of names. Pages are not one snapshot (design 3.11)."""

    path: Path
    after: bytes = b""
    """Names greater than this one; empty: from the start."""
    limit: int = 1000
    with_attributes: bool = False
    act_as: ActAs | None = None


class Entry(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One name in a directory."""

    name: bytes
    inode: InodeId
    kind: InodeKind
    attributes: Attributes | None = None


class ListResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    directory: InodeId
    entries: tuple[Entry, ...]
    more: bool


class StatFsRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    act_as: ActAs | None = None


class StatFsResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    capacity_bytes: int
    """Usable bytes: of all targets, divided by replication."""
    free_bytes: int
    file_count: int
    """Inodes; an estimate, exact within seconds."""


# -- files ---------------------------------------------------------------------------------------------


class OpenMode(enum.IntFlag):
    """What the opener may do with the content."""

    READ = 1
    WRITE = 2


class OpenRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Open an existing file. Reading needs no record; writing registers (session, inode) until close."""

    path: Path
    mode: OpenMode
    mutation: Mutation
    """Needed for WRITE; for READ the session names whom the capability is for, the slot is not used."""
    truncate: bool = False
    act_as: ActAs | None = None


class CreateRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Create a file, perhaps with its whole content, in one transaction."""

    path: Path
    mutation: Mutation
    permissions: int = 0o644
    mode: OpenMode = OpenMode.READ | OpenMode.WRITE
    """0 with ``content``: create complete and closed: no open record, no close needed."""
    exclusive: bool = False
    """An existing file is Exists; otherwise it is opened (and cut with ``truncate``)."""
    truncate: bool = False
    layout: Layout | None = None
    content: bytes | None = None
    """At most ``inline_limit_bytes``."""
    mtime_ns: int = 0
    act_as: ActAs | None = None


class OpenResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    attributes: Attributes
    capability: bytes
    """For the storage nodes; signed."""
    capability_expires_ms: int
    """In cluster time."""
    content: bytes | None = None
    """Inline content, when the file has it and was opened for reading."""
    created: bool = False


class CloseRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Set the exact length and end the open record of this session."""

    inode: InodeId
    mutation: Mutation
    epoch: Epoch
    written_end_bytes: int = 0
    """Greatest end of an acknowledged write by this session; 0: none."""
    mtime_ns: int = 0
    keep_open: bool = False
    """True: this is a ``sync``; the record stays."""
    act_as: ActAs | None = None


class CloseResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    attributes: Attributes


class WriteInlineRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Replace the inline content of a file that is open for writing."""

    inode: InodeId
    mutation: Mutation
    content_version: int
    """The one it was made from; StaleFile if another was written since or the file is no longer inline."""
    content: bytes
    mtime_ns: int = 0


class SpillRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Move a file out of the KV store (design 3.9): start returns the content, finish drops it."""

    inode: InodeId
    mutation: Mutation
    content_version: int
    finish: bool = False


class SpillResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    attributes: Attributes
    content: bytes = b""


class RenewCapabilitiesRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """New capabilities for still valid ones of this session (at most 1,000)."""

    session: ClientSessionId
    capabilities: tuple[bytes, ...]


class RenewCapabilitiesResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    capabilities: tuple[bytes, ...]
    """Empty bytes where one cannot be renewed: open again."""
    expires_ms: int


# -- the tree ------------------------------------------------------------------------------------------


class MkdirsRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    path: Path
    mutation: Mutation
    permissions: int = 0o755
    parents: bool = False
    exist_ok: bool = False
    layout: Layout | None = None
    act_as: ActAs | None = None


class RemoveKind(enum.IntEnum):
    """What may be removed; anything else is refused."""

    ANY = 0
    FILE = 1
    """unlink: IsADirectory for a directory."""
    DIRECTORY = 2
    """rmdir: NotADirectory for a file."""


class RemoveRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    path: Path
    mutation: Mutation
    kind: RemoveKind = RemoveKind.ANY
    recursive: bool = False
    """A whole tree in one request (design 3.7)."""
    missing_ok: bool = False
    act_as: ActAs | None = None


class RemoveResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    removed: bool


class RenameFlags(enum.IntFlag):
    """The flags of renameat2(2)."""

    NONE = 0
    NOREPLACE = 1
    EXCHANGE = 2


class RenameRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    source: Path
    destination: Path
    mutation: Mutation
    flags: RenameFlags = RenameFlags.NONE
    act_as: ActAs | None = None


class SetAttrRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Change what is not None."""

    path: Path
    mutation: Mutation
    follow: bool = True
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    layout: Layout | None = None
    """Directories only."""
    act_as: ActAs | None = None


class TruncateRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Set a file's length (design 3.6). Answers when the chunks are cut."""

    path: Path
    mutation: Mutation
    length_bytes: int
    act_as: ActAs | None = None


OPEN_SESSION = Method("open_session", 200, OpenSessionRequest, OpenSessionResponse)
RENEW_SESSION = Method("renew_session", 201, RenewSessionRequest, RenewSessionResponse)
CLOSE_SESSION = Method("close_session", 202, CloseSessionRequest, CloseSessionResponse)
STAT = Method("stat", 210, StatRequest, StatResponse)
LIST = Method("list", 211, ListRequest, ListResponse)
STATFS = Method("statfs", 212, StatFsRequest, StatFsResponse)
OPEN = Method("open", 220, OpenRequest, OpenResponse)
CREATE = Method("create", 221, CreateRequest, OpenResponse)
CLOSE = Method("close", 222, CloseRequest, CloseResponse)
SYNC = Method("sync", 223, CloseRequest, CloseResponse)
WRITE_INLINE = Method("write_inline", 224, WriteInlineRequest, CloseResponse)
SPILL = Method("spill", 225, SpillRequest, SpillResponse)
RENEW_CAPABILITIES = Method("renew_capabilities", 226, RenewCapabilitiesRequest, RenewCapabilitiesResponse)
MKDIRS = Method("mkdirs", 230, MkdirsRequest, StatResponse)
REMOVE = Method("remove", 231, RemoveRequest, RemoveResponse)
RENAME = Method("rename", 232, RenameRequest, StatResponse)
SETATTR = Method("setattr", 233, SetAttrRequest, StatResponse)
TRUNCATE = Method("truncate", 234, TruncateRequest, StatResponse)

META = Service(
    "meta",
    (
        OPEN_SESSION, RENEW_SESSION, CLOSE_SESSION, STAT, LIST, STATFS, OPEN, CREATE, CLOSE, SYNC,
        WRITE_INLINE, SPILL, RENEW_CAPABILITIES, MKDIRS, REMOVE, RENAME, SETATTR, TRUNCATE,
    ),
)  # fmt: skip
