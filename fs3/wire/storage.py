"""The storage service: methods 100 … 199.

From clients (a user's connection; every request names a capability that was presented before): READ, WRITE.
From meta services (a node's connection; no capability): RAISE_EPOCH, CUT, QUERY_LENGTH, END_SESSION.
From the predecessor in the chain: UPDATE, DROP_EXPIRED, the RESYNC methods, and the hops of RAISE_EPOCH and
END_SESSION.
From any member: QUERY_VERSION. From whoever checks the cluster, with its key: LIST_CHUNKS.

Every request about a chain carries the sender's chain version and is answered StaleRouting unless it
equals the receiver's, checked on arrival and again under the chunk lock (design 4.3).

Capabilities: PRESENT gives one a number of the client's choice; the server keeps them by (session,
number), for all connections of that session's user, bounded; an unknown or expired number is answered
CapabilityExpired and the client presents it again (design 7).
"""

from __future__ import annotations

import msgspec

from ..ids import ChainId, ChainVersion, ChunkId, ClientSessionId, Epoch, InodeId, TargetId
from ..rpc.service import Method, Service
from .chunk import CHUNK_BYTES_MAX, Identity, Update, UpdateKind, UpdateResult

READ_ITEMS_MAX = 1024
EXPIRED_MAX = 1024
"""Records that one DROP_EXPIRED names: far less than a message holds."""
LIST_CHUNKS_MAX = 1024
RESYNC_RECORDS_MAX = 512
"""Records, and chunks, that one message of a resync names."""


class PresentRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    session: ClientSessionId
    number: int
    """u32, chosen by the client; presenting again under the same number replaces."""
    capability: bytes
    """Signed form, ``fs3.identity.capability``."""


class PresentResponse(msgspec.Struct, frozen=True, array_like=True):
    pass


class ReadItem(msgspec.Struct, frozen=True, array_like=True):
    """One range of one chunk."""

    chain: ChainId
    chain_version: ChainVersion
    chunk: ChunkId
    offset_bytes: int
    length_bytes: int
    capability: int
    """Number under which it was presented."""


class ReadRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    session: ClientSessionId
    items: tuple[ReadItem, ...]
    """1 … READ_ITEMS_MAX."""
    relaxed: bool = False
    """Take the replica's own committed version, even while a newer one is pending (design 4.4)."""
    verify: bool = False
    """Compare every stored block of the ranges with its sum before answering, also those that were right
    before: the reader has seen a wrong sum and asks whether it was the way or the disk (design 4.2)."""
    pending: bool = False
    """Of nodes only: take the replica's pending version, if it has one. Another member's own fails its sums;
    it takes nothing but bytes that match those (design 4.7)."""
    by_sums: bool = False
    """Of nodes only: answer also where this member does not serve, with what it has: the asker takes nothing
    but bytes that match the sums that it knows (design 4.7)."""


class ReadResult(msgspec.Struct, frozen=True, array_like=True):
    """The answer to one item. The payload of its part carries ``length_bytes`` bytes of it, in order."""

    code: int = 0
    """0, or the code of an error of ``fs3.errors`` (then no bytes)."""
    length_bytes: int = 0
    """Shorter than asked where the chunk ends; 0 where there is none (a hole)."""
    sums: tuple[int, ...] = ()
    """CRC32C of the bytes sent, cut at multiples of SUM_BLOCK_BYTES of the chunk."""
    update_version: int = 0
    message: str = ""


class ReadResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One part of the answer: the results of items ``first … first + len(results) - 1``."""

    first: int
    results: tuple[ReadResult, ...]


class WriteRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One update of one chunk, to the head. Payload: the bytes (WRITE, REPLACE)."""

    chain: ChainId
    chain_version: ChainVersion
    chunk: ChunkId
    kind: UpdateKind
    offset_bytes: int
    length_bytes: int
    sums: tuple[int, ...]
    session: ClientSessionId
    channel: int
    sequence: int
    epoch: Epoch
    chunk_size_bytes: int
    capability: int


class WriteResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    result: UpdateResult


class UpdateRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """An update on its way down the chain, from its predecessor. Payload: the bytes."""

    chain: ChainId
    chain_version: ChainVersion
    """The sender's present one; gates the message only."""
    sender: TargetId
    update: Update
    dedup_result_length_bytes: int = 0
    """Chunk length after the update, as the head computed it; the stored result of a retry."""
    behind_count: int = 0
    """Members behind the receiver, whom it waits for while it holds the payload."""


class UpdateResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The successor, and all behind it, have staged and committed this identity."""

    identity: Identity
    length_bytes: int
    content_sum: int
    """CRC32C over the packed sums of the whole chunk: equal at every member, or some bytes are wrong."""


class QueryVersionRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """To the last SERVING member: what is committed of these chunks (design 4.4)."""

    chain: ChainId
    chain_version: ChainVersion
    chunks: tuple[ChunkId, ...]


class QueryVersionResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    committed: tuple[Identity | None, ...]


class RaiseEpochRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Raise the epoch of a file on one chain (design 4.9). From meta to the head; then hop by hop."""

    chain: ChainId
    chain_version: ChainVersion
    inode: InodeId
    epoch: Epoch


class RaiseEpochResponse(msgspec.Struct, frozen=True, array_like=True):
    epoch: Epoch
    """Now in force; higher if somebody raised it further."""


class CutRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Remove a file's chunks from ``first_removed`` on, and shorten the one before. To the head.

    The epoch must be in force on this chain already. At most ``max_count`` chunks; repeat while ``more``.
    """

    chain: ChainId
    chain_version: ChainVersion
    inode: InodeId
    epoch: Epoch
    first_removed: int
    boundary_length_bytes: int = -1
    """Length that chunk ``first_removed - 1`` is cut to, if this chain has it and it is longer; -1: not."""
    max_count: int = 256
    chunk_size_bytes: int = CHUNK_BYTES_MAX


class CutResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    removed_count: int
    more: bool


class QueryLengthRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Where the written bytes of a file end on one chain. The head rolls its pendings forward first."""

    chain: ChainId
    chain_version: ChainVersion
    inode: InodeId


class QueryLengthResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    chunk_index: int
    """Of the last chunk with content; -1: none."""
    length_bytes: int
    chunk_count: int
    used_bytes: int


class EndSessionRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A client session is over: its updates are refused from now on (design 4.5). From meta to the head."""

    chain: ChainId
    chain_version: ChainVersion
    session: ClientSessionId


class EndSessionResponse(msgspec.Struct, frozen=True, array_like=True):
    pass


class SpaceRequest(msgspec.Struct, frozen=True, array_like=True):
    pass


class TargetSpace(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a target has and uses; bytes of blocks, not of files."""

    target: TargetId
    chain: ChainId
    capacity_bytes: int
    used_bytes: int
    chunk_count: int


class SpaceResponse(msgspec.Struct, frozen=True, array_like=True):
    targets: tuple[TargetSpace, ...]


class ExpiredTombstone(msgspec.Struct, frozen=True, array_like=True):
    """A removed chunk, and the removal."""

    chunk: ChunkId
    identity: Identity


class ExpiredEpoch(msgspec.Struct, frozen=True, array_like=True):
    """A file's epoch, exactly."""

    inode: InodeId
    epoch: Epoch


class Expired(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Records whose retention is over; EXPIRED_MAX of them in one message at most."""

    tombstones: tuple[ExpiredTombstone, ...] = ()
    epochs: tuple[ExpiredEpoch, ...] = ()
    sessions: tuple[ClientSessionId, ...] = ()
    """Client sessions whose end is to be forgotten."""

    def __len__(self) -> int:
        return len(self.tombstones) + len(self.epochs) + len(self.sessions)


class DropExpiredRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Forget records, the members behind first (design 4.9). The head begins; from the predecessor only."""

    chain: ChainId
    chain_version: ChainVersion
    records: Expired


class DropExpiredResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    kept: Expired
    """Of the records asked about, those that the receiver or somebody behind it still needs: whoever is
    before it must keep them, too. All others are in no store from the receiver on."""


class ResyncFrom(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Who speaks in each message of a resync (design 4.6): the receiver's predecessor, to SYNCING members."""

    chain: ChainId
    chain_version: ChainVersion
    sender: TargetId
    since: ChainVersion = ChainVersion(0)
    """The version in which the receiver entered SYNCING, as it said itself; refused (StaleRouting) when it
    has entered it anew since then, and dropped what it had been told. 0 in BEGIN only."""


class ResyncBeginRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    source: ResyncFrom
    number_floor: int
    """Numbers of dropped tombstones of the sender are not above it."""


class ResyncBeginResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    since: ChainVersion
    store_id: int
    complete_version: ChainVersion
    """The newest version in which the receiver had everything, but for what was pending then and changed
    later; 0: there is none. The sender compares what changed since it adopted that version itself."""


class ResyncEpoch(msgspec.Struct, frozen=True, array_like=True):
    """A file's epoch and the cluster time of its raise."""

    inode: InodeId
    epoch: Epoch
    raised_ms: int


class ResyncSession(msgspec.Struct, frozen=True, array_like=True):
    """A client session that is over, since this cluster time."""

    session: ClientSessionId
    ended_ms: int


class ResyncChannel(msgspec.Struct, frozen=True, array_like=True):
    """The last request of a client's channel, whose version is committed at the sender (design 4.5)."""

    session: ClientSessionId
    channel: int
    sequence: int
    chunk: ChunkId
    result: UpdateResult


class ResyncRecordsRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Merged by maximum with what the receiver has; RESYNC_RECORDS_MAX in all."""

    source: ResyncFrom
    epochs: tuple[ResyncEpoch, ...] = ()
    sessions: tuple[ResyncSession, ...] = ()
    channels: tuple[ResyncChannel, ...] = ()


class ResyncRecordsResponse(msgspec.Struct, frozen=True, array_like=True):
    pass


class ResyncRecord(msgspec.Struct, frozen=True, array_like=True):
    """What is committed of a chunk."""

    chunk: ChunkId
    identity: Identity | None = None
    """None: nothing is known of it."""
    content_sum: int = 0
    """As in ``UpdateResponse``."""
    removed: bool = False


class ResyncPageRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What does the receiver have of ``chunks``, and of others in ``(after, through]`` that it changed?"""

    source: ResyncFrom
    chunks: tuple[ChunkId, ...]
    """In order; RESYNC_RECORDS_MAX at most."""
    after: ChunkId | None
    through: ChunkId | None
    """None: to the end."""
    changed_after: ChainVersion
    """Since the receiver adopted this version; 0: everything that it has."""


class ResyncPageResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    records: tuple[ResyncRecord, ...]
    """In order."""
    through: ChunkId | None
    """The answer ends here: at what was asked for, or before."""


class ResyncPutRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Take a committed version: REPLACE (payload: the whole chunk) or REMOVE."""

    source: ResyncFrom
    update: Update
    replaces: Identity | None = None
    """The receiver's version whose place it takes even if that has a higher number."""
    forgets: bool = False
    """The sender knows nothing of the chunk: exactly ``replaces`` goes, and leaves no tombstone."""


class ResyncPutResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    applied: bool
    """False: the receiver has something else meanwhile."""
    present: ResyncRecord


class ResyncDoneRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The receiver has everything that the sender has, at this chain version (design 2.6)."""

    source: ResyncFrom


class ResyncDoneResponse(msgspec.Struct, frozen=True, array_like=True):
    pass


class ListChunksRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A page of what one replica has, for whoever checks the cluster (``fs3 fsck``). To any member that has
    everything; changes nothing but what ``mend`` says."""

    chain: ChainId
    chain_version: ChainVersion
    target: TargetId
    behind: ChunkId | None = None
    """Chunks greater than this one; None: from the first."""
    limit: int = 512
    """1 … LIST_CHUNKS_MAX records."""
    verify: bool = False
    """Read the bytes of every chunk of the page and compare them with their sums."""
    mend: bool = False
    """Begin the node's own repair of each chunk whose bytes were found wrong."""


class ListedChunk(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What one replica knows of one chunk."""

    chunk: ChunkId
    identity: Identity | None = None
    """Of the committed version; None: there is none."""
    length_bytes: int = 0
    content_sum: int = 0
    """As in ``UpdateResponse``."""
    removed: bool = False
    """A tombstone."""
    pending: Identity | None = None
    bad_block_count: int = 0
    """``verify``: 64 KiB blocks whose bytes are not what their sums say."""


class ListChunksResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    records: tuple[ListedChunk, ...]
    """In order."""
    more: bool
    """There may be chunks behind the last one."""


PRESENT = Method("present", 100, PresentRequest, PresentResponse)
READ = Method("read", 101, ReadRequest, ReadResponse, streams=True)
WRITE = Method("write", 102, WriteRequest, WriteResponse, payload_bytes_max=CHUNK_BYTES_MAX)
UPDATE = Method("update", 103, UpdateRequest, UpdateResponse, payload_bytes_max=CHUNK_BYTES_MAX)
QUERY_VERSION = Method("query_version", 104, QueryVersionRequest, QueryVersionResponse)
RAISE_EPOCH = Method("raise_epoch", 105, RaiseEpochRequest, RaiseEpochResponse)
CUT = Method("cut", 106, CutRequest, CutResponse)
QUERY_LENGTH = Method("query_length", 107, QueryLengthRequest, QueryLengthResponse)
END_SESSION = Method("end_session", 108, EndSessionRequest, EndSessionResponse)
SPACE = Method("space", 109, SpaceRequest, SpaceResponse)
DROP_EXPIRED = Method("drop_expired", 110, DropExpiredRequest, DropExpiredResponse)
RESYNC_BEGIN = Method("resync_begin", 111, ResyncBeginRequest, ResyncBeginResponse)
RESYNC_RECORDS = Method("resync_records", 112, ResyncRecordsRequest, ResyncRecordsResponse)
RESYNC_PAGE = Method("resync_page", 113, ResyncPageRequest, ResyncPageResponse)
RESYNC_PUT = Method("resync_put", 114, ResyncPutRequest, ResyncPutResponse, payload_bytes_max=CHUNK_BYTES_MAX)
RESYNC_DONE = Method("resync_done", 115, ResyncDoneRequest, ResyncDoneResponse)
LIST_CHUNKS = Method("list_chunks", 116, ListChunksRequest, ListChunksResponse)

STORAGE = Service(
    "storage",
    (
        PRESENT,
        READ,
        WRITE,
        UPDATE,
        QUERY_VERSION,
        RAISE_EPOCH,
        CUT,
        QUERY_LENGTH,
        END_SESSION,
        SPACE,
        DROP_EXPIRED,
        RESYNC_BEGIN,
        RESYNC_RECORDS,
        RESYNC_PAGE,
        RESYNC_PUT,
        RESYNC_DONE,
        LIST_CHUNKS,
    ),
)
