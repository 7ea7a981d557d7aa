"""Routing: which nodes, targets, chains and chain tables there are, as an immutable picture with a version.

mgmtd makes it, persists what must outlive it, and pushes it (design 2.5); servers and clients only read
it. A ``RoutingInfo`` is never changed: a newer one takes its place. ``apply_delta`` and the queries below are
pure.

A chain's record is persisted before it is published, so it may be taken from anybody (design 2.2).
"""

from __future__ import annotations

import enum

import msgspec

from .ids import (
    ChainId,
    ChainTableId,
    ChainVersion,
    Generation,
    NodeId,
    TargetId,
    node_of_target,
)


class NodeKind(enum.IntEnum):
    """What a node does."""

    MGMTD = 1
    META = 2
    STORAGE = 3


class TargetState(enum.IntEnum):
    """Public state of a chain's member (the words of 3FS; design 2.6)."""

    SERVING = 1
    LASTSRV = 2
    """Was serving in the last version that had a serving member; may resume."""
    SYNCING = 3
    WAITING = 4
    OFFLINE = 5


class LocalState(enum.IntEnum):
    """A target's state as its own node sees it."""

    UPTODATE = 1
    ONLINE = 2
    OFFLINE = 3


class NodeInfo(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A node, as last reported."""

    node: NodeId
    kind: NodeKind
    generation: Generation
    host: str
    address: str
    """RPC address ``host:port``."""
    beacon_address: str = ""
    """UDP ``host:port`` for beacons and peer leases; empty: takes none."""
    local_address: str = ""
    """``unix:/path`` for clients on the same host; empty: none."""
    zone: str = ""
    """Failure domain; members of a chain lie in different zones where possible. Empty: the node itself."""


class Member(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One target of a chain, in a given generation of its node (design 2.7)."""

    target: TargetId
    state: TargetState
    generation: Generation
    """A node of another generation is no member."""
    joining: bool = False
    """Named serving by this version, but not in force until the older ones have acknowledged (design 2.2)."""

    @property
    def node(self) -> NodeId:
        return node_of_target(self.target)


class ChainInfo(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A chain's record at one version; members in chain order, head first."""

    chain: ChainId
    version: ChainVersion
    members: tuple[Member, ...]
    candidates: tuple[TargetId, ...] = ()
    """When none serves: who may resume, in order (design 2.6)."""

    @property
    def serving(self) -> tuple[Member, ...]:
        """The serving members, head first."""
        return tuple([m for m in self.members if m.state is TargetState.SERVING])  # a third faster so

    @property
    def writable(self) -> tuple[Member, ...]:
        """SERVING, then SYNCING members: those that every update is staged by."""
        return tuple(m for m in self.members if m.state in (TargetState.SERVING, TargetState.SYNCING))


class ChainTable(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A version of a list of chains; old versions stay while a file uses them (design 3.10)."""

    table: ChainTableId
    version: int
    chains: tuple[ChainId, ...]
    replication: int


class RoutingInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The whole picture."""

    version: int = 0
    """Grows with every change; 0: knows nothing yet."""
    cluster_id: str = ""
    nodes: dict[NodeId, NodeInfo] = {}
    chains: dict[ChainId, ChainInfo] = {}
    tables: tuple[ChainTable, ...] = ()
    key_generations: dict[int, int] = {}
    """uid -> least valid key generation of its tokens; a uid that is not listed has 0 (design 7)."""

    def table(self, table: ChainTableId, version: int = 0) -> ChainTable | None:
        """A version of a table; 0: the newest."""
        found = [t for t in self.tables if t.table == table and version in (0, t.version)]
        return max(found, key=lambda t: t.version, default=None)

    def address_of(self, target: TargetId) -> str | None:
        """RPC address of the node that a target lies on."""
        node = self.nodes.get(node_of_target(target))
        return node.address if node else None

    def alive(self, kind: NodeKind) -> list[NodeInfo]:
        """The nodes of a kind, by id."""
        return [self.nodes[n] for n in sorted(self.nodes) if self.nodes[n].kind is kind]


class RoutingDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What changed between two versions; ``base_version`` 0: a full picture (the receiver starts anew)."""

    cluster_id: str
    base_version: int
    version: int
    nodes: tuple[NodeInfo, ...] = ()
    gone_nodes: tuple[NodeId, ...] = ()
    chains: tuple[ChainInfo, ...] = ()
    tables: tuple[ChainTable, ...] = ()
    key_generations: tuple[tuple[int, int], ...] = ()


def apply_delta(known: RoutingInfo, delta: RoutingDelta) -> RoutingInfo | None:
    """The picture after a delta; None when the delta starts elsewhere (ask for a full one).

    A chain record older than the known one is left out: a delta made before a chain record was learnt
    from a peer must not take it back.
    """
    if delta.base_version not in (0, known.version):
        return None
    fresh = delta.base_version == 0
    nodes = {} if fresh else dict(known.nodes)
    nodes.update((n.node, n) for n in delta.nodes)
    for gone in delta.gone_nodes:
        nodes.pop(gone, None)
    chains = dict(known.chains)
    if fresh:
        listed = {c.chain for c in delta.chains}
        chains = {c: info for c, info in chains.items() if c in listed}
    for info in delta.chains:
        present = chains.get(info.chain)
        if present is None or present.version <= info.version:
            chains[info.chain] = info
    tables = {} if fresh else {(t.table, t.version): t for t in known.tables}
    tables.update(((t.table, t.version), t) for t in delta.tables)
    keys = {} if fresh else dict(known.key_generations)
    keys.update(delta.key_generations)
    return RoutingInfo(
        version=delta.version,
        cluster_id=delta.cluster_id,
        nodes=nodes,
        chains=chains,
        tables=tuple(tables[key] for key in sorted(tables)),
        key_generations=keys,
    )


def with_chain(known: RoutingInfo, info: ChainInfo) -> RoutingInfo:
    """The picture with a newer chain record learnt from a peer; unchanged if it is not newer."""
    present = known.chains.get(info.chain)
    if present is not None and present.version >= info.version:
        return known
    return msgspec.structs.replace(known, chains={**known.chains, info.chain: info})
