"""What operations and workers are given to work with, and the context of one operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from fs3.clock import Clock
from fs3.errors import InternalError
from fs3.identity.capability import CapabilitySigner
from fs3.ids import ChainId, ClientSessionId, Epoch, InodeId
from fs3.kv.transaction import Kv
from fs3.layout import Layout
from fs3.rng import Rng
from fs3.rpc.service import PeerIdentity
from fs3.stubs.storage import FileEnd
from fs3.wire.storage import TargetSpace

from .acl import Who
from .allocate import IdAllocator, Placement
from .renewals import Renewals


class Chains(Protocol):
    """What is asked of the storage nodes: ``fs3.stubs.storage.StorageStub``, or its double in tests."""

    async def raise_epoch(
        self, inode: InodeId, epoch: Epoch, chains: Sequence[ChainId], *, timeout_s: float
    ) -> Epoch: ...

    async def cut(
        self,
        inode: InodeId,
        layout: Layout,
        chains: Sequence[ChainId],
        length_bytes: int,
        epoch: Epoch,
        *,
        timeout_s: float,
    ) -> int: ...

    async def file_end(
        self, inode: InodeId, layout: Layout, chains: Sequence[ChainId], *, timeout_s: float
    ) -> FileEnd: ...

    async def end_session(
        self, session: ClientSessionId, chains: Sequence[ChainId], *, timeout_s: float
    ) -> None: ...

    async def space(self, *, timeout_s: float) -> tuple[TargetSpace, ...]: ...


class Event(msgspec.Struct, frozen=True):
    """Something that others are told after the commit: workers wake up, the log gets a line."""

    name: str
    inode: InodeId = InodeId(0)
    session: ClientSessionId = ClientSessionId(0)
    detail: str = ""


REMOVAL_QUEUED = "removal queued"
SESSION_ENDING = "session ending"
CUT_LEFT = "cut left over"


@dataclass(slots=True)
class KvContact:
    """When this service last got something out of the KV store."""

    last_s: float = float("-inf")
    """By the clock's ``boot_s``."""


@dataclass(frozen=True, slots=True)
class Services:
    """Components shared by all operations and workers of a meta service."""

    kv: Kv
    clock: Clock
    rng: Rng
    chains: Chains
    placement: Placement
    inode_ids: IdAllocator[InodeId]
    session_ids: IdAllocator[ClientSessionId]
    signer: CapabilitySigner
    cluster_time_ms: Callable[[], int]
    publish: Callable[[Event], None]
    inline_limit_bytes: int
    renewals: Renewals = field(default_factory=Renewals)
    contact: KvContact = field(default_factory=KvContact)


class Unfinished(Exception):  # never leaves the driver: it says what to do first
    """The body met a file whose truncate or settlement is not finished; finish it, then run again."""

    def __init__(self, inode: InodeId) -> None:
        super().__init__(f"inode {inode:x} has unfinished work")
        self.inode = inode


class PrepareAgain(Exception):  # never leaves the driver
    """What ``prepare`` looked at is not what the body found: prepare, then run again."""


@dataclass(slots=True)
class Op:
    """One operation: what its body may use beside the transaction. A new attempt begins with ``begin``."""

    services: Services
    peer: PeerIdentity
    who: Who
    now_ns: int
    """Wall clock when the request came; the same in every attempt."""
    deadline_s: float
    """By ``services.clock.boot_s()``."""
    is_admin: bool
    finish_file: Callable[[InodeId, float], Awaitable[None]]
    """``Finisher.finish``."""
    ids: list[InodeId] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    prepared: Any = None
    """What the operation's ``prepare`` found out."""
    attempts: int = 0
    is_blind: bool = False
    """Answered without the KV store: its end says nothing about the store."""
    _ids_used: int = 0

    def begin(self) -> None:
        """Forget what an earlier attempt left."""
        self.attempts += 1
        self.events.clear()
        self._ids_used = 0

    def fresh_inode(self) -> InodeId:
        """The next of the ids that were reserved for this operation; the same ones in each attempt."""
        if self._ids_used >= len(self.ids):
            raise InternalError(f"operation uses more than the {len(self.ids)} ids reserved for it")
        self._ids_used += 1
        return self.ids[self._ids_used - 1]

    def left_s(self) -> float:
        """Time until the deadline, at least a little."""
        return max(0.001, self.deadline_s - self.services.clock.boot_s())
