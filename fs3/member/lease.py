"""A node's leases, those it holds and those it grants to peers. PURE: time is an argument.

A target serves reads and commits writes at chain version v only while ``NodeLeases.valid`` says so: under a
lease from the primary, *or* under leases from every other serving member at exactly v. A version with one
serving member of several replicas hangs on the primary's alone; a chain of one target needs none.

Invariants (the lease model checks them against real time):

* what the holder regards as valid ends before what its granter regards as granted: the holder counts L from
  the *sending* of the request that is answered, the granter G = 1.02 L + 50 ms from its answer;
* a node grants only at the version that it has adopted itself, and versions it has adopted only grow;
* after adopting a version that leaves out a member (or a generation of one), a node is not valid until its
  own last grant to that one is over;
* until G after its start a node is not valid and grants nothing: an earlier generation may have granted;
* a grant of the primary counts only once the routing that it was made from has been adopted.

All times are seconds by the node's own clock (``boot_s``).

Source: design 2.2, 2.7; chain model V3, V7, V8.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..ids import ChainId, ChainVersion, Generation, NodeId, TargetId, node_of_target
from ..routing import ChainInfo, Member, TargetState
from .beacon import RECORDS_MAX, Answer, Grant, Pairs, SentLog
from .timing import Timing

Replica = tuple[TargetId, Generation]

WAITING_GRANTS_MAX = 8
NEVER = -math.inf


@dataclass(slots=True)
class _Chain:
    """One chain that this node is, or was, a member of."""

    info: ChainInfo
    own: Member | None
    """This node's own serving entry, in its present generation; None: it does not serve."""
    others: tuple[Replica, ...]
    """The other serving members."""
    peers_until: dict[Replica, float] = field(default_factory=dict)
    """At exactly this version."""
    primary_until_s: float = NEVER
    wait_until_s: float = NEVER
    """Own grants to those that this version leaves out run until then."""
    valid_from_s: float = math.inf
    valid_until_s: float = NEVER
    member_since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _PrimaryLease:
    routing_version: int
    until_s: float
    uncovered: tuple[ChainId, ...]


class NodeLeases:
    """All leases of one run of a node, as holder and as granter.

    ``started_s``: when this generation began, no later than its first use of what it finds on its disks.
    """

    def __init__(self, node: NodeId, generation: Generation, started_s: float, timing: Timing) -> None:
        self.node = node
        self.generation = generation
        self.allowed_from_s = started_s + timing.grant_s
        self.routing_version = 0
        self.is_fenced = False
        self._timing = timing
        self._chains: dict[ChainId, _Chain] = {}
        self._known: dict[ChainId, ChainInfo] = {}
        self._to_primary: dict[NodeId, SentLog] = {}
        self._to_peers: dict[NodeId, SentLog] = {}
        self._lease: _PrimaryLease | None = None
        self._waiting: list[_PrimaryLease] = []
        self._granted: dict[ChainId, dict[Replica, float]] = {}
        self._leaving: dict[TargetId, None] = {}
        self._leaving_until_s = NEVER

    # --- what the node asks ---

    def valid(self, chain: ChainId, version: ChainVersion, now_s: float) -> bool:
        """Whether this node may serve, commit and answer queries of ``chain`` at ``version`` now."""
        entry = self._chains.get(chain)
        return (
            entry is not None
            and entry.info.version == version
            and entry.valid_from_s <= now_s < entry.valid_until_s
        )

    def may_acknowledge(self, chain: ChainId, version: ChainVersion, now_s: float) -> bool:
        """Whether its grants to those that ``version`` leaves out are over (design 2.2: acknowledging).

        Grants of an earlier generation too: until they are over, this one acknowledges nothing.
        """
        if self.version_of(chain) != version or now_s < self.allowed_from_s:
            return False
        entry = self._chains.get(chain)  # None: it has never served in this generation, nor granted
        return entry is None or now_s >= entry.wait_until_s

    def primary_left_s(self, now_s: float) -> float:
        """What is left of the primary's lease to this node; 0: none."""
        return max(0.0, self._lease.until_s - now_s) if self._lease is not None else 0.0

    def chains_without(self, now_s: float) -> list[tuple[ChainId, float]]:
        """Chains that list this node as serving, without any lease now, and for how long (seconds)."""
        found = []
        for chain, entry in self._chains.items():
            if entry.own is not None and now_s >= entry.valid_until_s:
                since_s = max(entry.valid_until_s, entry.member_since_s)
                found.append((chain, now_s - since_s))
        return found

    def asks(self) -> dict[NodeId, Pairs]:
        """What is to be asked of each peer: one message a peer and period."""
        found: dict[NodeId, list[tuple[ChainId, ChainVersion]]] = {}
        for chain, entry in self._chains.items():
            if entry.own is not None:
                for member in entry.info.serving:
                    if member.node != self.node:
                        found.setdefault(member.node, []).append((chain, entry.info.version))
        return {node: tuple(found[node]) for node in sorted(found)}

    def version_of(self, chain: ChainId) -> ChainVersion:
        """The version of a chain that this node has adopted; 0: knows none."""
        info = self._known.get(chain)
        return info.version if info is not None else ChainVersion(0)

    def records(self, chains: Iterable[ChainId]) -> tuple[ChainInfo, ...]:
        """The adopted records of some chains, at most ``RECORDS_MAX``."""
        found = (self._known[chain] for chain in chains if chain in self._known)
        return tuple(info for info, _ in zip(found, range(RECORDS_MAX), strict=False))

    # --- what changes it ---

    def fence(self) -> None:
        """Never valid and grants nothing again: this generation's clock is not to be trusted."""
        self.is_fenced = True
        for entry in self._chains.values():
            self._refresh(entry)

    def adopt(self, chains: dict[ChainId, ChainInfo], routing_version: int, now_s: float) -> None:
        """Adopt a routing picture: all chain records; older ones than known are left out."""
        for chain, info in chains.items():
            self._adopt_chain(chain, info, now_s)
        self.routing_version = max(self.routing_version, routing_version)
        ripe = [lease for lease in self._waiting if lease.routing_version <= self.routing_version]
        self._waiting = [lease for lease in self._waiting if lease.routing_version > self.routing_version]
        for lease in ripe:
            self._apply(lease)

    def _adopt_chain(self, chain: ChainId, info: ChainInfo, now_s: float) -> None:
        known = self._known.get(chain)
        if known is not None and known.version >= info.version:
            return
        self._known[chain] = info
        before = self._chains.get(chain)
        own = next((m for m in info.serving if self._is_own(m)), None)
        if before is None and own is None:
            return
        entry = _Chain(
            info=info,
            own=own,
            others=tuple((m.target, m.generation) for m in info.serving if m.node != self.node),
            wait_until_s=self._waits_for(chain, info, now_s),
            member_since_s=now_s,
        )
        if before is not None:
            entry.primary_until_s = before.primary_until_s
            entry.wait_until_s = max(entry.wait_until_s, before.wait_until_s)
        elif self._lease is not None and chain not in self._lease.uncovered:
            entry.primary_until_s = self._lease.until_s
        self._chains[chain] = entry
        self._refresh(entry)

    def _is_own(self, member: Member) -> bool:
        return member.node == self.node and member.generation == self.generation

    def _waits_for(self, chain: ChainId, info: ChainInfo, now_s: float) -> float:
        """Until when own grants to those whom the new record leaves out run; they are never renewed."""
        stay = {(m.target, m.generation) for m in info.serving}
        granted = self._granted.get(chain, {})
        latest_s = max((end for who, end in granted.items() if who not in stay), default=NEVER)
        self._granted[chain] = {who: end for who, end in granted.items() if who in stay or end > now_s}
        return latest_s

    def _refresh(self, entry: _Chain) -> None:
        """Work out from when until when the chain may be served; reads only compare the two with now."""
        entry.valid_from_s = max(self.allowed_from_s, entry.wait_until_s)
        if entry.own is None or self.is_fenced:
            entry.valid_until_s = NEVER
        elif len(entry.info.members) == 1:
            entry.valid_until_s = math.inf
        else:
            by_peers_s = (
                min(entry.peers_until.get(who, NEVER) for who in entry.others) if entry.others else NEVER
            )
            # a joining member is in force when all others say so, or the primary in a newer record
            by_primary_s = NEVER if entry.own.joining else entry.primary_until_s
            entry.valid_until_s = max(by_peers_s, by_primary_s)

    # --- holder: the primary's lease ---

    def sent_beacon(self, mgmtd: NodeId, sequence: int, now_s: float) -> None:
        """A beacon leaves now for a mgmtd."""
        self._to_primary.setdefault(mgmtd, SentLog()).sent(sequence, now_s)

    def on_grant(self, mgmtd: NodeId, grant: Grant, now_s: float) -> float | None:
        """The primary's answer. Returns when the beacon that it answers was sent; None: none was open."""
        log = self._to_primary.get(mgmtd)
        if grant.echo_generation != self.generation or log is None:
            return None
        sent_s = log.answered(grant.echo_sequence)
        if sent_s is None:
            return None
        if grant.granted:
            lease = _PrimaryLease(
                grant.routing_version, self._counted_from(sent_s, now_s), tuple(grant.uncovered)
            )
            if self._counts_now(lease):
                self._apply(lease)
            else:
                self._waiting = [*self._waiting, lease][-WAITING_GRANTS_MAX:]
        return sent_s

    def _counted_from(self, sent_s: float, now_s: float) -> float:
        """The end of a lease whose request left at ``sent_s``; when its answer came says nothing."""
        return sent_s + self._timing.lease_s

    def _counts_now(self, lease: _PrimaryLease) -> bool:
        return lease.routing_version <= self.routing_version

    def _apply(self, lease: _PrimaryLease) -> None:
        if self._lease is None or lease.until_s >= self._lease.until_s:
            self._lease = lease
        left_out = dict.fromkeys(lease.uncovered)
        for chain, entry in self._chains.items():
            if chain not in left_out and lease.until_s > entry.primary_until_s:
                entry.primary_until_s = lease.until_s
                self._refresh(entry)

    # --- holder: peers' leases ---

    def sent_ask(self, peer: NodeId, sequence: int, now_s: float) -> None:
        """An ask leaves now for a peer."""
        self._to_peers.setdefault(peer, SentLog()).sent(sequence, now_s)

    def on_answer(self, peer: NodeId, peer_generation: Generation, answer: Answer, now_s: float) -> bool:
        """A peer's answer; ``newer`` in it is for the caller to adopt. True: it answers an open ask."""
        log = self._to_peers.get(peer)
        if answer.echo_generation != self.generation or log is None:
            return False
        sent_s = log.answered(answer.echo_sequence)
        if sent_s is None:
            return False
        until_s = self._counted_from(sent_s, now_s)
        for chain, version in answer.granted:
            entry = self._chains.get(chain)
            if entry is None or entry.info.version != version:
                continue
            for who in entry.others:
                if node_of_target(who[0]) == peer and who[1] == peer_generation:
                    entry.peers_until[who] = max(entry.peers_until.get(who, NEVER), until_s)
            self._refresh(entry)
        return True

    # --- granter ---

    def answer(
        self,
        peer: NodeId,
        peer_generation: Generation,
        sequence: int,
        pairs: Pairs,
        adopted: dict[ChainId, ChainVersion],
        now_s: float,
    ) -> Answer:
        """What this node answers to an ask; what it grants is noted before it can be sent.

        ``adopted``: by this node's targets; a joiner's lease takes that the version can be acknowledged.
        """
        granted: list[tuple[ChainId, ChainVersion]] = []
        newer: list[ChainInfo] = []
        wanted: list[ChainId] = []
        for chain, version in pairs:
            known = self._known.get(chain)
            if known is None or known.version < version:
                wanted.append(chain)
            elif known.version > version:
                newer.append(known)
            elif self._grants(known, peer, peer_generation, adopted.get(chain), now_s):
                granted.append((chain, version))
        return Answer(
            echo_generation=peer_generation,
            echo_sequence=sequence,
            granted=tuple(granted),
            newer=tuple(newer[:RECORDS_MAX]),
            wanted=tuple(wanted[:RECORDS_MAX]),
            clock_ms=int(now_s * 1000),
        )

    def _grants(
        self,
        info: ChainInfo,
        peer: NodeId,
        generation: Generation,
        adopted: ChainVersion | None,
        now_s: float,
    ) -> bool:
        if self.is_fenced or now_s < self.allowed_from_s:
            return False
        entry = self._chains.get(info.chain)
        if entry is None or entry.own is None:
            return False
        asker = next((m for m in info.serving if m.node == peer and m.generation == generation), None)
        if asker is None or (asker.target in self._leaving and now_s < self._leaving_until_s):
            return False
        if asker.joining and not (
            adopted == info.version and self.may_acknowledge(info.chain, info.version, now_s)
        ):
            return False
        self._granted.setdefault(info.chain, {})[asker.target, generation] = now_s + self._timing.grant_s
        return True

    def stop_lending(self, targets: Iterable[TargetId], now_s: float) -> None:
        """The primary says that these are to leave their chains: nothing is granted to them as long as it
        says so, and a lease longer. To refuse is always right; it spares a wait after they have left."""
        self._leaving = dict.fromkeys(targets)
        self._leaving_until_s = now_s + self._timing.lease_s

    def unlent(self, now_s: float) -> tuple[TargetId, ...]:
        """Of those that are to leave, the ones to which no grant of this node runs."""
        if not self._leaving or now_s >= self._leaving_until_s:
            return ()
        grants = [one for granted in self._granted.values() for one in granted.items()]
        lent = frozenset([target for (target, _), end_s in grants if end_s > now_s])
        return tuple([target for target in self._leaving if target not in lent])

    def granted_until_s(self, chain: ChainId, replica: Replica) -> float:
        """Until when this node regards its grant to a replica as running."""
        return self._granted.get(chain, {}).get(replica, NEVER)


def serves(info: ChainInfo, target: TargetId, generation: Generation) -> bool:
    """Whether a record names a target, in a generation of its node, as serving."""
    return any(
        m.target == target and m.generation == generation and m.state is TargetState.SERVING
        for m in info.members
    )
