"""The processes of the lease model: nodes and mgmtds, thin shells around the real machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fs3.identity.datagram import NO_NONCE
from fs3.ids import ChainId, ChainVersion, Generation, NodeId
from fs3.member.beacon import Answer, Beacon, Grant, Pairs
from fs3.member.pace import Pace
from fs3.mgmtd.chain_watch import ChainWatch
from fs3.mgmtd.lease import LeaseRecord
from fs3.mgmtd.liveness import Hearing
from fs3.mgmtd.store import Change, Loaded, TargetRecord, changed_routing
from fs3.mgmtd.term import NodeReport, Term
from fs3.routing import ChainInfo, LocalState, Member, RoutingInfo, TargetState
from fs3.wire.mgmtd import TargetReport

from .lease_model import CHAINS, MGMTDS, LeaseWorld, Machine, Process, Register, node_info, target_of

TICK_S = 0.1
ROUTING_S = 0.2
STORE_TIMEOUT_S = 1.4


class NodeProcess(Process):
    """One generation of a node."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        world = self.world
        world.generations[self.number] += 1
        self.generation = Generation(world.generations[self.number])
        self.leases = world.machines.leases(NodeId(self.number), self.generation, self.now_s(), world.timing)
        self.sequence = 0
        self.lost_store = False
        """A later process of the node has locked the store: this one can answer peers, not readers."""
        for earlier in world.members:
            if earlier.number == self.number:
                earlier.lost_store = True
        self.copied: dict[ChainId, ChainVersion] = {}
        """The version at which this node's target of a chain, SYNCING, and its source were of one mind."""
        self.failed_disks: set[ChainId] = set()
        self.paces: dict[int, Pace] = {}
        self.nonces: dict[int, bytes] = {}
        world.members.append(self)
        self.every(TICK_S, self._tick)
        self.every(ROUTING_S, self._ask_routing)

    def _tick(self) -> None:
        now_s = self.now_s()
        for mgmtd in MGMTDS:
            pace = self.paces.setdefault(mgmtd, Pace(self.world.timing))
            if pace.is_due(now_s):
                pace.sent(now_s)
                self._send_beacon(mgmtd, now_s)
        for peer, pairs in self.leases.asks().items():
            pace = self.paces.setdefault(peer, Pace(self.world.timing))
            if pace.is_due(now_s):
                pace.sent(now_s)
                self._send_ask(peer, pairs, now_s)
        self._copy()

    def own(self, chain: ChainId) -> Member | None:
        """Its entry in the record that it knows; None: it is no member in this generation."""
        records = self.leases.records([chain])
        members = records[0].members if records else ()
        return next((m for m in members if m.node == self.number and m.generation == self.generation), None)

    def acknowledgements(self) -> dict[ChainId, ChainVersion]:
        """What it may acknowledge now."""
        now_s = self.now_s()
        versions = {ChainId(c): self.leases.version_of(ChainId(c)) for c in range(1, len(CHAINS) + 1)}
        return {c: v for c, v in versions.items() if v and self.leases.may_acknowledge(c, v, now_s)}

    def _copy(self) -> None:
        """As a source: tell the SYNCING one that it has everything, at the version that both must be at."""
        for number in range(1, len(CHAINS) + 1):
            chain = ChainId(number)
            for info in self.leases.records([chain]):
                syncing = next((m for m in info.members if m.state is TargetState.SYNCING), None)
                if syncing is None or not info.serving or info.serving[-1] != self.own(chain):
                    continue
                receiver = newest(self.world, syncing.node)
                if receiver is not None:
                    self.world.send("rpc", self.number, receiver.number, _copying(receiver, info))

    def on_copied(self, info: ChainInfo) -> None:
        own = self.own(info.chain)
        is_syncing = own is not None and own.state is TargetState.SYNCING
        if is_syncing and self.leases.version_of(info.chain) == info.version:
            self.copied[info.chain] = info.version

    def reported(self, chain: ChainId) -> TargetReport:
        """What it says of its target now."""
        own, version = self.own(chain), self.leases.version_of(chain)
        is_complete = own is not None and (
            own.state is TargetState.SERVING
            or (own.state is TargetState.SYNCING and self.copied.get(chain) == version)
        )
        state = LocalState.UPTODATE if is_complete else LocalState.ONLINE
        return TargetReport(
            target=target_of(chain, self.number),
            state=LocalState.OFFLINE if chain in self.failed_disks else state,
            store_id=b"store",
            clean=True,
            chain=chain,
            chain_version=version if is_complete else ChainVersion(0),
        )

    def unreachable(self) -> tuple[NodeId, ...]:
        """Whom it says that it cannot reach."""
        return ()

    def _send_beacon(self, mgmtd: int, now_s: float) -> None:
        self.sequence += 1
        sequence, nonce = self.sequence, self.nonces.get(mgmtd, NO_NONCE)
        self.leases.sent_beacon(NodeId(mgmtd), sequence, now_s)
        lacking = self.leases.chains_without(now_s)
        beacon = Beacon(
            routing_version=self.leases.routing_version,
            clock_ms=int(now_s * 1000),
            acknowledged=tuple(self.acknowledgements().items()),
            unreachable=self.unreachable(),
            no_lease_ms=int(max((since for _, since in lacking), default=0.0) * 1000),
        )

        def deliver() -> None:
            target = self.world.mgmtds.get(mgmtd)
            if target is not None:
                target.run(lambda: target.on_beacon(self, sequence, nonce, beacon))

        self.world.send("udp", self.number, mgmtd, deliver)

    def on_grant(self, mgmtd: int, grant: Grant) -> None:
        if self.leases.on_grant(NodeId(mgmtd), grant, self.now_s()) is None:
            return
        if grant.nonce != self.nonces.get(mgmtd):
            self.paces[mgmtd].hurry()
        self.paces[mgmtd].answered()
        self.nonces[mgmtd] = grant.nonce

    def _send_ask(self, peer: NodeId, pairs: Pairs, now_s: float) -> None:
        self.sequence += 1
        sequence = self.sequence
        self.leases.sent_ask(peer, sequence, now_s)

        def deliver() -> None:
            target = newest(self.world, peer)
            if target is not None:
                target.run(lambda: target.on_ask(self, sequence, pairs))

        self.world.send("udp", self.number, peer, deliver)

    def on_ask(self, asker: NodeProcess, sequence: int, pairs: Pairs) -> None:
        answer = self.leases.answer(
            NodeId(asker.number), asker.generation, sequence, pairs, self.acknowledgements(), self.now_s()
        )
        self.world.send(
            "udp", self.number, asker.number, lambda: asker.run(lambda: asker.on_answer(self, answer))
        )

    def on_answer(self, peer: NodeProcess, answer: Answer) -> None:
        if self.leases.on_answer(NodeId(peer.number), peer.generation, answer, self.now_s()):
            self.paces[peer.number].answered()
            self._learn(answer.newer)
            records = self.leases.records(answer.wanted)
            if records:
                self.world.send(
                    "udp", self.number, peer.number, lambda: peer.run(lambda: peer._learn(records))
                )

    def _learn(self, records: tuple[ChainInfo, ...]) -> None:
        self.leases.adopt({info.chain: info for info in records}, 0, self.now_s())

    def _ask_routing(self) -> None:
        """Report and fetch routing, over connections; a zombie reports too and is refused."""
        for mgmtd in MGMTDS:
            target = self.world.mgmtds.get(mgmtd)
            if target is not None:
                self.world.send("rpc", self.number, mgmtd, self._reporting(target))

    def _reporting(self, target: MgmtdProcess) -> Callable[[], None]:
        self.sequence += 1
        sequence = self.sequence
        targets = tuple(
            self.reported(ChainId(c)) for c, nodes in enumerate(CHAINS, 1) if self.number in nodes
        )
        return lambda: target.run(lambda: target.on_report(self, sequence, targets))

    def on_routing(self, routing: RoutingInfo) -> None:
        if routing.version > self.leases.routing_version:
            self.leases.adopt(routing.chains, routing.version, self.now_s())


def _copying(receiver: NodeProcess, info: ChainInfo) -> Callable[[], None]:
    return lambda: receiver.run(lambda: receiver.on_copied(info))


def newest(world: LeaseWorld, node: int) -> NodeProcess | None:
    """Whoever answers at a node's address: its newest process, if it lives."""
    found: list[Any] = [p for p in world.members if p.number == node and p.is_alive]
    return max(found, key=lambda p: p.generation, default=None)


class MgmtdProcess(Process):
    """One generation of a mgmtd."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        world = self.world
        world.generations[self.number] += 1
        self.generation = Generation(world.generations[self.number])
        self.lease = world.machines.primary(
            NodeId(self.number), self.generation, f"m{self.number}", world.timing
        )
        self.term: Term | None = None
        self._store_busy_since_s: float | None = None
        self._writing_since_s: float | None = None
        world.mgmtds[self.number] = self
        self.every(world.timing.renew_s, self._keep)
        self.every(0.05, self._pass)

    def is_acting(self) -> bool:
        """Whether it would act as primary now."""
        return self.is_running and self.lease.is_primary(self.now_s())

    def _acting_term(self) -> Term | None:
        return self.term if self.term is not None and self.is_acting() else None

    # --- election ---

    def _keep(self) -> None:
        now_s = self.now_s()
        if self.term is not None and not self.is_acting():
            self.lease.resign()
            self.term = None
        if self._store_busy_since_s is not None and now_s - self._store_busy_since_s < STORE_TIMEOUT_S:
            return
        self._store_busy_since_s = now_s
        if self.lease.is_own and self.is_acting():
            self._swap(now_s)
        else:
            self.world.transact(
                self, lambda register: register.lease, lambda record: self._observed(record, now_s)
            )

    def _observed(self, record: LeaseRecord | None, step_s: float) -> None:
        if self._store_busy_since_s == step_s:  # else its time was over: the keeper goes on without it
            self.lease.observe(record, self.now_s())
            self._swap(step_s)

    def _swap(self, step_s: float) -> None:
        began_s = self.now_s()
        wanted, seen = self.lease.next_record(began_s), self.lease.record
        if wanted is None:
            self._store_busy_since_s = None
            return

        def body(register: Register) -> LeaseRecord | None:
            if register.lease == seen:
                register.lease = wanted
            return register.lease

        def done(found: LeaseRecord | None) -> None:
            if self._store_busy_since_s != step_s:
                return
            self._store_busy_since_s = None
            now_s = self.now_s()
            if found != wanted:
                self.lease.observe(found, now_s)
            elif self.lease.wrote(wanted, began_s, now_s):
                self._load(wanted, now_s)
            elif self.term is not None:
                self.term.record = wanted

        self.world.transact(self, body, done)

    def _load(self, record: LeaseRecord, began_s: float) -> None:
        world = self.world

        def done(routing: RoutingInfo) -> None:
            if not record.same_term(self.lease.record) or not self.is_acting():
                return
            targets = {
                m.target: TargetRecord(target=m.target, store_id=b"store")
                for info in routing.chains.values()
                for m in info.members
            }
            self.term = Term(record, Loaded(routing, targets), began_s, world.timing, self._nonce)
            self.term.grants = world.machines.grants(began_s, world.timing)
            self.term.chains = ChainWatch(world.machines.decide)
            self._writing_since_s = None
            world.counts["takeovers"] += 1

        def late() -> None:
            if self.term is None and record.same_term(self.lease.record):
                self.lease.resign()

        self.term = None
        world.transact(self, lambda register: register.routing, done)
        # a picture that does not come in time is given up with the term
        world.after(STORE_TIMEOUT_S, lambda: self.run(late))

    def _nonce(self) -> bytes:
        return self.world.rng.randbytes(16)

    # --- nodes ---

    def on_beacon(self, node: NodeProcess, sequence: int, nonce: bytes, beacon: Beacon) -> None:
        term = self._acting_term()
        if term is None:
            return
        number, generation, now_s = NodeId(node.number), node.generation, self.now_s()
        heard = term.liveness.on_beacon(number, generation, sequence, nonce, beacon, now_s)
        if heard in (Hearing.DROPPED, Hearing.STRANGER):
            return
        granted = heard is Hearing.COUNTED and term.liveness.may_grant(number)
        uncovered: tuple[ChainId, ...] = ()
        if granted:
            uncovered = term.grants.grant(number, generation, now_s)
            run, end_s = (number, generation), self.machine.real_s(now_s + self.world.timing.grant_s)
            self.world.granted_real_s[run] = max(self.world.granted_real_s.get(run, 0.0), end_s)
        grant = Grant(
            echo_generation=generation,
            echo_sequence=sequence,
            granted=granted,
            nonce=term.liveness.lives[number].nonce,
            term=term.record.start,
            routing_version=term.routing.version,
            uncovered=uncovered,
        )
        mgmtd = self.number
        self.world.send("udp", mgmtd, number, lambda: node.run(lambda: node.on_grant(mgmtd, grant)))

    def on_report(self, node: NodeProcess, sequence: int, targets: tuple[TargetReport, ...]) -> None:
        term, number = self._acting_term(), NodeId(node.number)
        if term is None or not term.liveness.register(number, node.generation, self.now_s(), heard=True):
            return
        before = term.reports.get(number)
        if before is None or (before.generation, before.sequence) < (node.generation, sequence):
            term.reports[number] = NodeReport(node.generation, sequence, "", (), targets)
        if term.routing.nodes[NodeId(node.number)].generation < node.generation:
            info = node_info(node.number, node.generation)
            self._write(lambda at: Change(nodes=(info,)))
        routing = term.routing
        self.world.send("rpc", self.number, node.number, lambda: node.run(lambda: node.on_routing(routing)))

    # --- chains ---

    def _pass(self) -> None:
        """One pass; none while a change is being written: whom it leaves out must not be covered again."""
        term = self._acting_term()
        if term is None or self._is_writing():
            return
        now_s = self.now_s()
        for node, known in term.routing.nodes.items():
            term.verdicts[node] = term.verdict(known, now_s)
        term.chains.unwanted = set(self.world.removals.values())
        plan = term.chains.plan(term, now_s)
        if plan.changed:
            rules = [rule.value for rule, _ in plan.changed]
            self._write(lambda at: at.chains.change(at, plan, len(CHAINS)), rules)

    def _is_writing(self) -> bool:
        """Whether a change is under way; one that is in doubt ends the term: everything is read afresh."""
        if self._writing_since_s is None:
            return False
        if self.now_s() - self._writing_since_s >= STORE_TIMEOUT_S:
            self.lease.resign()
            self.term, self._writing_since_s = None, None
        return True

    def _write(self, plan: Callable[[Term], Change], rules: list[str] | None = None) -> None:
        """One change at a time, under the lease record."""
        if self._is_writing() or self.term is None:
            return
        term = self.term
        self._writing_since_s = self.now_s()
        change, world = plan(term), self.world
        routing = changed_routing(term.routing, change)

        def body(register: Register) -> bool:
            if not term.record.same_term(register.lease):
                return False
            assert register.routing.version == routing.version - 1, (register.routing.version, routing)
            world.persisted(routing)
            for rule in rules or ():
                world.counts[rule] += 1
            return True

        def done(applied: bool) -> None:
            if self.term is not term:
                return
            self._writing_since_s = None
            if applied:
                term.publish(change)
            else:
                self.lease.resign()
                self.term = None

        world.transact(self, body, done)
