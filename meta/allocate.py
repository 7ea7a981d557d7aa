"""Identities and places: inode and session ids that never repeat, and the chains of a new file.

Ids come from a counter in the KV store, a block at a time; what a service does not use of its block when it
ends is lost. Inode ids are the counter's values under a bijection of the 64-bit numbers, so that they are
spread evenly over the key space and still never repeat (design 3.12).
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Generic, NewType, TypeVar

from fs3.clock import Clock
from fs3.errors import Unavailable, fs_error
from fs3.ids import FIRST_CLIENT_SESSION, ChainId, ClientSessionId, InodeId, TargetId
from fs3.kv.run import OnMaybeApplied, run
from fs3.kv.schema import key_u64
from fs3.kv.transaction import Kv, Transaction
from fs3.layout import Layout, file_chains
from fs3.rng import Rng
from fs3.routing import ChainTable, RoutingInfo
from fs3.wire.storage import TargetSpace

I = TypeVar("I", bound=int)  # noqa: E741  # a kind of id
EINVAL = 22
BLOCK = 4096
"""Ids reserved by one transaction."""
RESERVED_INODES = 16
"""Numbers below are inodes with a fixed meaning (the root)."""
FULL_SHARE = 0.9
"""New files avoid chains whose fullest target is above this (design 2.8)."""
CANDIDATES = 8
"""Places that are compared for a new file."""
_U64 = struct.Struct("<Q")
_MASK = (1 << 64) - 1


def scrambled(number: int) -> int:
    """A bijection of the 64-bit numbers that spreads neighbours evenly (the finalizer of MurmurHash3)."""
    number ^= number >> 33
    number = number * 0xFF51_AFD7_ED55_8CCD & _MASK
    number ^= number >> 33
    number = number * 0xC4CE_B9FE_1A85_EC53 & _MASK
    return number ^ number >> 33


def inode_of(number: int) -> InodeId | None:
    """The inode id of the counter's value; None for the few that have a fixed meaning."""
    inode = scrambled(number)
    return None if inode < RESERVED_INODES else InodeId(inode)


def session_of(number: int) -> ClientSessionId | None:
    """The session id of the counter's value."""
    session = number + FIRST_CLIENT_SESSION
    return ClientSessionId(session) if session <= _MASK else None


class IdAllocator(Generic[I]):
    """Hands out ids of one kind."""

    def __init__(self, kv: Kv, name: bytes, make: Callable[[int], I | None], clock: Clock, rng: Rng) -> None:
        self._kv = kv
        self._key = key_u64(b"ICNT", tail=name)
        self._make = make
        self._clock = clock
        self._rng = rng
        self._free: deque[int] = deque()
        """The counter's values that are left of the block."""

    async def reserve(self, count: int, deadline_s: float) -> list[I]:
        """``count`` ids; waits for the store only when the block is used up. An error loses those
        that were taken so far."""
        found: list[I] = []
        while len(found) < count:
            while not self._free:
                await self._refill(deadline_s)
            if (one := self._make(self._free.popleft())) is not None:
                found.append(one)
        return found

    async def _refill(self, deadline_s: float) -> None:
        async def body(txn: Transaction) -> int:
            data = await txn.get(self._key)
            first = 0 if data is None else int(_U64.unpack(data)[0])
            txn.set(self._key, _U64.pack(first + BLOCK))
            return first

        # Run again after an unknown result it takes another block: the first is lost, none is given twice.
        first = await run(
            self._kv,
            body,
            clock=self._clock,
            rng=self._rng,
            deadline_s=deadline_s,
            on_maybe_applied=OnMaybeApplied.RETRY,
        )
        self._free.extend(range(first, first + BLOCK))


Share = NewType("Share", float)
"""Used part of a target's space, 0 … 1."""


class Placement:
    """Chooses the chains of new files; knows routing and, from the last survey, how full the targets are."""

    def __init__(self, routing: Callable[[], RoutingInfo], rng: Rng) -> None:
        self._routing = routing
        self._rng = rng
        self._used: dict[TargetId, Share] = {}
        self.capacity_bytes = 0
        self.free_bytes = 0

    def survey(self, targets: tuple[TargetSpace, ...]) -> None:
        """Take in what the storage nodes say of their space."""
        self._used = {t.target: Share(t.used_bytes / t.capacity_bytes) for t in targets if t.capacity_bytes}
        table = max(self._routing().tables, key=lambda t: t.replication, default=None)
        replication = table.replication if table else 1
        self.capacity_bytes = sum(t.capacity_bytes for t in targets) // replication
        self.free_bytes = sum(max(0, t.capacity_bytes - t.used_bytes) for t in targets) // replication

    def check_default(self, layout: Layout) -> None:
        """EINVAL when a layout cannot be a directory's default."""
        self._table(layout)

    def new_layout(self, wanted: Layout) -> Layout:
        """The layout of a new file: the newest table, a run of chains with space. EINVAL, Unavailable."""
        table = self._table(wanted)
        count = len(table.chains)
        stripe = min(wanted.stripe or count, count)
        seed = self._rng.getrandbits(32)
        if stripe == count:
            return self._placed(wanted, table, stripe, 0, seed)
        starts = [self._rng.randrange(count) for _ in range(CANDIDATES)]
        layouts = [self._placed(wanted, table, stripe, first, seed) for first in starts]
        for layout in layouts:  # the first that is not nearly full: chance spreads better than order
            if self._fullest(layout, table) <= FULL_SHARE:
                return layout
        return min(layouts, key=lambda layout: self._fullest(layout, table))

    def chains_of(self, layout: Layout) -> tuple[ChainId, ...]:
        """The chains of an existing file, in stripe order. Unavailable until routing has its table."""
        table = self._routing().table(layout.table, layout.table_version)
        if table is None:
            raise Unavailable(f"routing has no version {layout.table_version} of table {layout.table}")
        return file_chains(layout, table.chains)

    def all_chains(self) -> tuple[ChainId, ...]:
        """Every chain there is."""
        return tuple(sorted(self._routing().chains))

    def _table(self, layout: Layout) -> ChainTable:
        if problem := layout.problem():
            raise fs_error(EINVAL, problem)
        routing = self._routing()
        table = routing.table(layout.table)
        if table is None or not table.chains:
            if not routing.tables:
                raise Unavailable("the cluster has no chain table yet: files have nowhere to lie")
            raise fs_error(EINVAL, f"there is no chain table {layout.table}")
        return table

    def _placed(self, wanted: Layout, table: ChainTable, stripe: int, first: int, seed: int) -> Layout:
        return Layout(
            table=table.table,
            table_version=table.version,
            chunk_size_bytes=wanted.chunk_size_bytes,
            stripe=stripe,
            first=first,
            seed=seed,
        )

    def _fullest(self, layout: Layout, table: ChainTable) -> float:
        """Used part of the fullest target that the file would lie on."""
        if not self._used:
            return 0.0
        chains = self._routing().chains
        used = [
            self._used.get(member.target, Share(0.0))
            for chain in file_chains(layout, table.chains)
            if chain in chains
            for member in chains[chain].members
        ]
        return max(used, default=0.0)
