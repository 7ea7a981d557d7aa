"""The store of the chain model: one chunk, its ordered index log, and what a crash leaves of it.

A stage is durable when it is done, and with it everything before it; a commit mark and a note are not, until
something durable follows. After a crash any prefix that contains all that was durable may be what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from zlib import crc32

import msgspec

from fs3.errors import Fs3Error, InvalidRequest
from fs3.ids import ChainId, ChainVersion, ChunkId, ClientSessionId, Epoch, InodeId
from fs3.rng import Rng
from fs3.storage.effects import Decree, EpochRaise, SessionEnd
from fs3.storage.engine.versions import ChunkState, DedupRecord, PendingInfo
from fs3.wire.chunk import Identity, Update, UpdateKind, VersionInfo

CHAIN = ChainId(1)
NO_EPOCH = Epoch(0)
INODE = InodeId(7)
CHUNK = ChunkId(INODE, 0)
Channel = tuple[ClientSessionId, int]


@dataclass(frozen=True, slots=True)
class Image:
    """What is in a store at one moment. Never changed."""

    committed: VersionInfo | None = None
    content: bytes = b""
    pending: PendingInfo | None = None
    pending_content: bytes = b""
    dedup: dict[Channel, DedupRecord] = field(default_factory=dict)
    epoch: Epoch = NO_EPOCH
    ended: frozenset[ClientSessionId] = frozenset()
    change: int = 0
    chunk_change: int = 0
    notes: dict[ChainVersion, int] = field(default_factory=dict)


class ModelStore:
    """A target's store; it outlives its node's processes."""

    number_floor = 0

    def __init__(self) -> None:
        self.image = Image()
        self._kept: list[Image] = [self.image]
        """What a crash may leave: the last durable image and those behind it."""

    def crash(self, rng: Rng) -> None:
        """The process is killed, and the machine with it."""
        self.image = rng.choice(self._kept)
        self._kept = [self.image]

    def put(self, image: Image, *, durable: bool) -> None:
        """A change, in order."""
        self.image = image
        self._kept = [image] if durable else [*self._kept, image]

    # -- ``StoreView``

    def versions(self, chunk: ChunkId) -> ChunkState:
        image = self.image
        return ChunkState(image.committed, image.pending, image.chunk_change)

    def pendings(self) -> list[tuple[ChunkId, PendingInfo]]:
        return [(CHUNK, self.image.pending)] if self.image.pending is not None else []

    def dedup(self, session: ClientSessionId, channel: int) -> DedupRecord | None:
        return self.image.dedup.get((session, channel))

    def epoch(self, inode: InodeId) -> Epoch:
        return self.image.epoch

    def session_ended(self, session: ClientSessionId) -> bool:
        return session in self.image.ended

    # -- changes

    def stage(
        self, update: Update, payload: bytes, dedup: DedupRecord | None, replaces: Identity | None
    ) -> VersionInfo | Fs3Error:
        """Stage an update; in the same transaction its record."""
        image, identity = self.image, update.identity
        if image.pending is not None and image.pending.version.identity == identity:
            return image.pending.version
        before = image.committed
        if (
            before is not None
            and identity.update_version <= before.identity.update_version
            and replaces != before.identity
        ):
            return InvalidRequest(f"{identity} is not above {before.identity}")
        content = applied(image.content, update, payload)
        version = VersionInfo(
            identity=identity,
            length_bytes=len(content),
            sums=sums_of(content),
            removed=update.kind is UpdateKind.REMOVE,
        )
        change = image.change + 1
        info = PendingInfo(version, msgspec.structs.replace(update, sums=()), change)
        records = {**image.dedup, (dedup.session, dedup.channel): dedup} if dedup is not None else image.dedup
        self._staged(
            replace(image, pending=info, pending_content=content, dedup=records,
                    change=change, chunk_change=change)
        )  # fmt: skip
        return version

    def _staged(self, image: Image) -> None:
        self.put(image, durable=True)

    def commit(self, identity: Identity) -> VersionInfo:
        """The pending version becomes the committed one; not durable by itself."""
        image, pending = self.image, self.image.pending
        assert pending is not None and pending.version.identity == identity, (identity, pending)
        change = image.change + 1
        image = replace(
            image, committed=pending.version, content=image.pending_content, pending=None,
            pending_content=b"", change=change, chunk_change=change,
        )  # fmt: skip
        self.put(image, durable=False)
        return pending.version

    def drop_pendings(self) -> None:
        """Entering SYNCING: pendings and the dedup table go, in one transaction; that changes the chunk."""
        image = self.image
        change = image.change + (image.pending is not None)
        chunk_change = change if image.pending is not None else image.chunk_change
        image = replace(
            image, pending=None, pending_content=b"", dedup={}, change=change, chunk_change=chunk_change
        )
        self.put(image, durable=True)

    def keep(self, decree: Decree) -> None:
        """A decree, durably."""
        match decree:
            case EpochRaise(_, epoch):
                self.merge(epoch=epoch)
            case SessionEnd(session):
                self.merge(ended=frozenset((session,)))

    def merge(
        self,
        epoch: Epoch = NO_EPOCH,
        ended: frozenset[ClientSessionId] = frozenset(),
        records: tuple[DedupRecord, ...] = (),
    ) -> None:
        """Merge by maximum, durably; records of ended sessions go."""
        image = self.image
        ended = image.ended | ended
        dedup = dict(image.dedup)
        for record in records:
            have = dedup.get((record.session, record.channel))
            if have is None or have.sequence < record.sequence:
                dedup[record.session, record.channel] = record
        dedup = {channel: record for channel, record in dedup.items() if channel[0] not in ended}
        self.put(replace(image, epoch=max(image.epoch, epoch), ended=ended, dedup=dedup), durable=True)

    def note(self, version: ChainVersion) -> None:
        """A version in which the target serves was adopted."""
        self.put(replace(self.image, notes={**self.image.notes, version: self.image.change}), durable=False)

    def flush(self) -> None:
        """Make all durable."""
        self.put(self.image, durable=True)


def sums_of(content: bytes) -> tuple[int, ...]:
    """Of the content; any sum will do here."""
    return (crc32(content),) if content else ()


def applied(before: bytes, update: Update, payload: bytes) -> bytes:
    """Content after an update."""
    grown: Callable[[int], bytes] = lambda length: before[:length].ljust(length, b"\0")  # noqa: E731
    match update.kind:
        case UpdateKind.WRITE:
            offset = update.offset_bytes
            return grown(offset) + payload + before[offset + len(payload) :]
        case UpdateKind.TRUNCATE:
            return grown(update.length_bytes)
        case UpdateKind.REPLACE:
            return payload
        case UpdateKind.REMOVE:
            return b""
