"""What mgmtd keeps in the KV store, and the transactions that read and write it.

Every write of the picture re-reads the lease record: a primary that has lost it cannot change anything,
whatever it believes (design 2.4). The routing version is written with each change, so a change whose answer
was lost is recognised when it is tried again.

Keys: ``fs3.kv.schema``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from fs3.ids import ChainId, ChainTableId, Generation, NodeId, TargetId
from fs3.kv.schema import key_u32, key_u64, range_of, split_u32
from fs3.kv.transaction import ReadTransaction, Transaction
from fs3.routing import ChainInfo, ChainTable, NodeInfo, RoutingInfo
from fs3.wire.codec import decode, encode

from .lease import LeaseRecord

LEASE = b"MLSE"
GENERATION = b"MMGN"
CLUSTER_TIME = b"MCTM"
VERSION = b"MVER"
NODE = b"MNOD"
TARGET = b"MTGT"
CHAIN = b"MCHN"
TABLE = b"MTAB"
KEY_GENERATION = b"MKEY"

PAGE_MAX = 1000
_U64 = struct.Struct(">Q")

M = TypeVar("M", bound=msgspec.Struct)


class TermOver(Exception):  # never leaves mgmtd: whoever asked is told that this is no primary any more
    """The lease record does not name this term any more."""


class TargetRecord(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A target that has been registered."""

    target: TargetId
    store_id: bytes
    """Of the store that it was registered with; while it is in a chain, of the store that the chain had."""
    zone: str = ""
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Change:
    """Records to put; what makes one new routing version."""

    nodes: tuple[NodeInfo, ...] = ()
    targets: tuple[TargetRecord, ...] = ()
    """Not part of routing; they ride along."""
    chains: tuple[ChainInfo, ...] = ()
    tables: tuple[ChainTable, ...] = ()
    key_generations: tuple[tuple[int, int], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.nodes or self.targets or self.chains or self.tables or self.key_generations)


@dataclass(slots=True)
class Loaded:
    """Everything, as a new primary finds it."""

    routing: RoutingInfo
    targets: dict[TargetId, TargetRecord] = field(default_factory=dict)
    cluster_time_bound_ms: int = 0


async def read_lease(txn: ReadTransaction) -> LeaseRecord | None:
    """The lease record, if there ever was one."""
    data = await txn.get(LEASE)
    return decode(data, LeaseRecord) if data is not None else None


async def swap_lease(txn: Transaction, seen: LeaseRecord | None, wanted: LeaseRecord) -> LeaseRecord | None:
    """Write ``wanted`` if the record is ``seen``; returns the record as it then is."""
    found = await read_lease(txn)
    if found == seen:
        txn.set(LEASE, encode(wanted))
        return wanted
    return found


async def check_term(txn: Transaction, record: LeaseRecord) -> None:
    """TermOver unless the store's record is of the same term."""
    found = await read_lease(txn)
    if not record.same_term(found) or (found is not None and found.released):
        raise TermOver(f"term {record.start} of node {record.holder} is over: {found}")


async def next_generation(txn: Transaction, node: NodeId) -> Generation:
    """A generation that this mgmtd never had."""
    key = key_u64(GENERATION, node)
    generation = await _get_u64(txn, key) + 1
    txn.set(key, _U64.pack(generation))
    return Generation(generation)


async def put_bound(txn: Transaction, record: LeaseRecord, bound_ms: int) -> None:
    """Raise the bound of cluster time."""
    await check_term(txn, record)
    if await _get_u64(txn, CLUSTER_TIME) < bound_ms:
        txn.set(CLUSTER_TIME, _U64.pack(bound_ms))


async def put_change(txn: Transaction, record: LeaseRecord, change: Change, new_version: int) -> None:
    """Write one change as routing version ``new_version``; does nothing if that is there already."""
    await check_term(txn, record)
    version = await _get_u64(txn, VERSION)
    if version == new_version:
        return  # an earlier attempt was applied, only its answer was lost: nobody else writes in this term
    assert version == new_version - 1, (version, new_version)
    for node in change.nodes:
        txn.set(key_u32(NODE, node.node), encode(node))
    for target in change.targets:
        txn.set(key_u64(TARGET, target.target), encode(target))
    for chain in change.chains:
        txn.set(key_u32(CHAIN, chain.chain), encode(chain))
    for table in change.tables:
        txn.set(key_u32(TABLE, table.table, table.version), encode(table))
    for uid, generation in change.key_generations:
        txn.set(key_u32(KEY_GENERATION, uid), _U64.pack(generation))
    txn.set(VERSION, _U64.pack(new_version))


async def load(txn: Transaction, record: LeaseRecord, cluster_id: str) -> Loaded:
    """Everything, read at one version under the lease."""
    await check_term(txn, record)
    nodes = [decode(value, NodeInfo) for _, value in await _all(txn, NODE)]
    chains = [decode(value, ChainInfo) for _, value in await _all(txn, CHAIN)]
    tables = [decode(value, ChainTable) for _, value in await _all(txn, TABLE)]
    targets = [decode(value, TargetRecord) for _, value in await _all(txn, TARGET)]
    keys = {split_u32(key, 1)[0][0]: _U64.unpack(value)[0] for key, value in await _all(txn, KEY_GENERATION)}
    routing = RoutingInfo(
        version=await _get_u64(txn, VERSION),
        cluster_id=cluster_id,
        nodes={NodeId(n.node): n for n in nodes},
        chains={ChainId(c.chain): c for c in chains},
        tables=tuple(tables),
        key_generations=keys,
    )
    return Loaded(routing, {t.target: t for t in targets}, await _get_u64(txn, CLUSTER_TIME))


def changed_routing(routing: RoutingInfo, change: Change) -> RoutingInfo:
    """The picture after a change."""
    tables: dict[tuple[ChainTableId, int], ChainTable] = {(t.table, t.version): t for t in routing.tables}
    tables.update(((t.table, t.version), t) for t in change.tables)
    return RoutingInfo(
        version=routing.version + 1,
        cluster_id=routing.cluster_id,
        nodes={**routing.nodes, **{n.node: n for n in change.nodes}},
        chains={**routing.chains, **{c.chain: c for c in change.chains}},
        tables=tuple(tables[key] for key in sorted(tables)),
        key_generations={**routing.key_generations, **dict(change.key_generations)},
    )


async def _get_u64(txn: ReadTransaction, key: bytes) -> int:
    data = await txn.get(key)
    return int(_U64.unpack(data)[0]) if data is not None else 0


async def _all(txn: Transaction, prefix: bytes) -> list[tuple[bytes, bytes]]:
    begin, end = range_of(prefix)
    found: list[tuple[bytes, bytes]] = []
    while page := await txn.snapshot.range(begin, end, limit=PAGE_MAX):
        found += page
        begin = page[-1][0] + b"\0"
    return found
