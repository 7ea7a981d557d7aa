"""The chain model: one chunk on one chain of three targets and a fourth that comes and goes.

The real machines run under virtual time: ``Replica`` with its gate, decrees and dedup judgement, the source's
``Job`` and ``decide`` of a resync, ``NodeLeases``, ``PrimaryGrants``, ``PrimaryLease``, ``Liveness``,
``ChainWatch`` with the chain machine. Around them messages are lost, late by up to 7.5 s, and come in any
order; processes pause, and die with what was not durable; clocks drift.

What is checked, beside the lease rules of ``lease_model`` (S: two serving groups never overlap):

* N: no two identities are committed under one number, anywhere, ever;
* C: no two contents under one identity; a version is its predecessor's content with its update applied;
* R: every read and every acknowledged write is linearizable: no number lower than one that was complete
  before it began (numbers are unique and versions hold what they should, so this is all there is to it);
* U: readers see committed versions only;
* A: what was acknowledged is there in the end, under its number;
* O: a request of a client is committed under one number at most;
* E: what a settled epoch shut out is never committed after the settlement;
* V: a chain's version, and the committed number of a member that serves, only grow;
* L: after the faults everything serves again, with the same content, within ``HEAL_S``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fs3.ids import ChainVersion, Epoch, Generation, NodeId
from fs3.member.timing import TIMING
from fs3.routing import ChainInfo, Member, RoutingInfo, TargetState
from fs3.storage.replica import Replica
from fs3.wire.chunk import Identity, Update, UpdateKind, VersionInfo, WriterTag

from .chain_resync import Resync
from .chain_store import CHAIN, ModelStore, applied
from .lease_model import NODES, LeaseWorld, Machine, Machines, node_info, target_of

HEAL_S = 25.0
"""Silence verdict, take-over, two resyncs one after the other, and what waits for late answers."""
TIMES = replace(TIMING, link_quarantine_s=5.0, copy_stall_s=3.0)
"""Production's, with what would outlast a walk shortened."""


def _node(machine: Machine) -> Any:
    from .chain_nodes import ChainNode

    return ChainNode(machine)


@dataclass(frozen=True, slots=True)
class ChainMachines(Machines):
    """The machines under test; a mutant replaces one."""

    replica: type[Replica] = Replica
    store: type[ModelStore] = ModelStore
    node: Callable[[Machine], Any] = _node
    """Makes a node's process."""
    resync: Callable[[Any], Any] = Resync
    settles_by_epoch: bool = True


@dataclass(frozen=True, slots=True)
class Committed:
    """The version that a number stands for."""

    identity: Identity
    content: bytes
    removed: bool


class ChainWorld(LeaseWorld):
    """The world of leases, with a chain of chunks in it and what is known of every version."""

    def __init__(self, seed: int, machines: ChainMachines | None = None) -> None:
        parts = machines or ChainMachines()
        super().__init__(seed, parts, TIMES)
        self.parts = parts
        self.register.routing = _routing()
        self.history = {(CHAIN, ChainVersion(1)): self.register.routing.chains[CHAIN]}
        self.stores = {n: parts.store() for n in NODES}
        self.committed: dict[int, Committed] = {}
        self.requests: dict[WriterTag, int] = {}
        self.complete_number = 0
        """Highest number of any read or write that is complete."""
        self.settled_epoch = Epoch(0)
        self.file_epoch = Epoch(0)
        """What meta says."""
        self.disk_late = 0.02
        self.source_late_s = 0.1
        self.pause_s = 0.3
        self.quiet_from_s = math.inf
        self.read_pause_s = 0.1
        self.settles_by_epoch = parts.settles_by_epoch
        self.broken_links: dict[tuple[int, int], None] = {}
        self.on_record: list[Any] = []
        """Called with each new record of the chain: faults that are aimed at a moment."""
        self.counts.update(dict.fromkeys(("reads", "writes", "resyncs", "settled"), 0))

    # --- what happened ---

    def persisted(self, routing: RoutingInfo) -> None:
        """Routing was written."""
        before = self.register.routing.chains[CHAIN]
        super().persisted(routing)
        info = routing.chains[CHAIN]
        if info.version != before.version:
            for strike in self.on_record:
                strike(info)

    def _check_known(self, before: ChainInfo, joiner: Member) -> None:
        """K, but for an older member alone that hangs on the primary's lease, which is over (design 2.2)."""
        older = [m for m in before.serving if not m.joining]
        process = self._run_of(older[0]) if len(older) == 1 else None
        if process is not None:
            version = process.leases.version_of(CHAIN)
            known = self.history.get((CHAIN, version))
            is_alone = known is not None and [m.target for m in known.serving] == [older[0].target]
            if is_alone and not process.leases.valid(CHAIN, version, process.now_s()):
                return
        super()._check_known(before, joiner)

    def on_commit(
        self, node: int, update: Update, version: VersionInfo, content: bytes, *, resync: bool
    ) -> None:
        """A member committed a version: N, C, O, E."""
        identity = version.identity
        number = identity.update_version
        known = self.committed.get(number)
        if known is None:
            self._first_commit(node, update, version, content, resync=resync)
        elif known.identity != identity:
            self.fail(f"N: node {node} commits {identity}, {known.identity} is committed")
        elif known.content != content:
            self.fail(f"C: node {node} commits {identity} with other content")

    def _first_commit(
        self, node: int, update: Update, version: VersionInfo, content: bytes, *, resync: bool
    ) -> None:
        identity, number = version.identity, int(version.identity.update_version)
        if resync:
            self.fail(f"N: node {node} is given {identity} by a resync, which nobody has committed")
        if number > 1 and number - 1 not in self.committed:
            self.fail(f"N: {identity} is committed, its predecessor nowhere")
        earlier = self.requests.setdefault(identity.writer, number)
        if earlier != number:
            self.fail(f"O: {identity.writer} is committed as {earlier} and as {number}")
        if update.epoch < self.settled_epoch:
            self.fail(f"E: {identity} of epoch {update.epoch} after the settlement of {self.settled_epoch}")
        before = self.committed[number - 1].content if number > 1 else b""
        if update.kind is UpdateKind.TRUNCATE and content != applied(before, update, b""):
            self.fail(f"C: {identity} does not follow from {number - 1}")
        if update.kind is UpdateKind.WRITE:
            offset, end = update.offset_bytes, update.offset_bytes + update.length_bytes
            if content != applied(before, update, content[offset:end]):
                self.fail(f"C: {identity} does not follow from {number - 1}")
        self.committed[number] = Committed(identity, content, version.removed)

    def completed(self, number: int, floor: int, what: str, identity: Identity | None) -> None:
        """A read or write is complete that began when ``floor`` was complete: R, U."""
        if number < floor:
            self.fail(f"R: {what} gives {number}, {floor} was complete before it began")
        if number and (number not in self.committed or self.committed[number].identity != identity):
            self.fail(f"U: {what} gives {identity}, {self.committed.get(number)} is committed")
        self.complete_number = max(self.complete_number, number)
        self.counts[what] += 1

    def settled(self, epoch: Epoch) -> None:
        """A settlement was acknowledged: E counts from now on."""
        self.settled_epoch = max(self.settled_epoch, epoch)
        self.counts["settled"] += 1

    # --- the end ---

    @property
    def is_healed(self) -> bool:
        """Everything serves, nothing is pending, all are the same."""
        info = self.register.routing.chains[CHAIN]
        images = [store.image for store in self.stores.values()]
        return (
            len(info.serving) == len(NODES)
            and not any(m.joining for m in info.members)
            and all(i.pending is None and i.committed == images[0].committed for i in images)
            and all(i.content == images[0].content for i in images)
        )

    def check_end(self) -> None:
        """L and A."""
        info = self.register.routing.chains[CHAIN]
        if not self.is_healed:
            states = [
                (m.target >> 16, int(m.generation), m.state.name, m.joining) for m in info.members
            ]  # fmt: skip
            images = {n: (_short(s.image.committed), s.image.pending) for n, s in self.stores.items()}
            self.fail(f"L: not healed: version {info.version} {states} {images}")
        last = self.stores[NODES[0]].image.committed
        if (last.identity.update_version if last is not None else 0) < self.complete_number:
            self.fail(f"A: {self.complete_number} was complete, {last} is left")


def _short(version: VersionInfo | None) -> Identity | None:
    return version.identity if version is not None else None


def _routing() -> RoutingInfo:
    members = tuple(
        Member(
            target=target_of(CHAIN, n),
            state=TargetState.SERVING if n < NODES[-1] else TargetState.OFFLINE,
            generation=Generation(1),
        )
        for n in NODES
    )
    info = ChainInfo(chain=CHAIN, version=ChainVersion(1), members=members)
    return RoutingInfo(
        version=1,
        cluster_id="model",
        nodes={NodeId(n): node_info(n, Generation(1)) for n in NODES},
        chains={CHAIN: info},
    )
