"""What a check can find, and what an operator does about it. PURE."""

from __future__ import annotations

import enum

import msgspec


class Kind(enum.Enum):
    """Kinds of damage; the values are what ``--json`` says."""

    UNDECODABLE = "undecodable"
    DANGLING_ENTRY = "dangling-entry"
    WRONG_KIND = "wrong-kind"
    LOST_DIRECTORY = "entries-of-no-directory"
    NO_ENTRY = "no-entry"
    WRONG_NLINK = "wrong-nlink"
    WRONG_SUBDIRECTORIES = "wrong-subdirectories"
    WRONG_PARENT = "wrong-parent"
    NO_REMOVAL = "no-removal"
    NO_INTENT = "no-intent"
    STRAY_RECORD = "stray-record"
    WRONG_INLINE = "wrong-inline-length"
    OLD_INTENT = "old-intent"
    NO_SESSION = "no-session"
    ORPHAN_CHUNK = "orphan-chunk"
    FOREIGN_CHUNK = "foreign-chunk"
    BEYOND_END = "beyond-end"
    CHUNK_TOO_LONG = "chunk-too-long"
    REPLICA_MISSING = "replica-missing"
    REPLICAS_DIFFER = "replicas-differ"
    CONTENT_DIFFERS = "content-differs"
    BAD_BYTES = "bad-bytes"
    LONG_PENDING = "long-pending"
    HOLE_AT_END = "hole-at-end"
    """A notice, no damage that can be proved: truncate makes such files as well."""


_EMPTY_STORE = (
    "stop its node, move the target's directory away, start it: it is copied from the chain's others"
)

WHAT_NEXT: dict[Kind, str] = {
    Kind.UNDECODABLE: "restore the record from a backup of the KV store; nothing else of it can be trusted",
    Kind.DANGLING_ENTRY: "--repair takes the name away: what it named is gone",
    Kind.WRONG_KIND: "--repair makes the entry say what the inode is",
    Kind.LOST_DIRECTORY: "restore the directory's inode from a backup of the KV store, or have support look",
    Kind.NO_ENTRY: "no name leads to it: have its content looked at before it is given up",
    Kind.WRONG_NLINK: "--repair counts the names again",
    Kind.WRONG_SUBDIRECTORIES: "--repair counts the directory's entries again",
    Kind.WRONG_PARENT: "--repair names the directory that holds its entry",
    Kind.NO_REMOVAL: "--repair queues its removal",
    Kind.NO_INTENT: "--repair queues the truncate or settlement that its inode says is not finished",
    Kind.STRAY_RECORD: "--repair drops it",
    Kind.WRONG_INLINE: "compare the file with a backup; write it anew",
    Kind.OLD_INTENT: "a chain or a meta service does not get on: look at `fs3 dev status` and the meta log",
    Kind.NO_SESSION: "--repair drops it; a file that was open is settled first",
    Kind.ORPHAN_CHUNK: "--repair removes it as a removed file's chunks are: epoch, then cut",
    Kind.FOREIGN_CHUNK: "the file's layout does not lead here; compare the file with a backup",
    Kind.BEYOND_END: "--repair settles the file: its length becomes what its chunks hold",
    Kind.CHUNK_TOO_LONG: "compare the file with a backup; write it anew",
    Kind.REPLICA_MISSING: _EMPTY_STORE,
    Kind.REPLICAS_DIFFER: _EMPTY_STORE,
    Kind.CONTENT_DIFFERS: "run with --data: it shows which replica's bytes are wrong",
    Kind.BAD_BYTES: "--repair --data has the storage node fetch the blocks from the chain's other members",
    Kind.LONG_PENDING: "a member of the chain does not answer: look at its node",
    Kind.HOLE_AT_END: "if no truncate made the file longer, chunks are lost: compare it with a backup",
}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong."""

    kind: Kind
    where: str
    """The record or chunk: ``inode 1f``, ``entry 'a' of 1``, ``chunk 1f.3 on chain 2``."""
    detail: str
    inode: int = 0
    directory: int = 0
    """The directory of an entry."""
    name: bytes = b""
    key: bytes = b""
    """Of a KV record that is wrong by itself."""
    chain: int = 0
    chunk_index: int = -1
    target: int = 0
    """The replica that is wrong, where one is."""
    session: int = 0

    @property
    def is_notice(self) -> bool:
        """Worth a look, and no damage: does not count for the exit code."""
        return self.kind is Kind.HOLE_AT_END

    @property
    def identity(self) -> tuple[object, ...]:
        """The same for the same damage, seen twice."""
        return (
            self.kind, self.inode, self.directory, self.name, self.key, self.chain, self.chunk_index,
            self.target, self.session,
        )  # fmt: skip
