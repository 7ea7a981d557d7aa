"""The processes of the lease model: nodes and mgmtds, thin shells around the real machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fs3.identity.datagram import NO_NONCE
from fs3.ids import ChainId, Generation, NodeId, TargetId
from fs3.member.beacon import Answer, Beacon, Grant, Pairs
from fs3.member.pace import Pace
from fs3.mgmtd.generations import plan_renewals
from fs3.mgmtd.lease import LeaseRecord
from fs3.mgmtd.liveness import Hearing, Verdict
from fs3.mgmtd.store import Change, Loaded, TargetRecord, changed_routing
from fs3.mgmtd.term import NodeReport, Term
from fs3.routing import ChainInfo, LocalState, RoutingInfo
from fs3.wire.mgmtd import TargetReport

from .lease_model import CHAINS, MGMTDS, LeaseWorld, Machine, Process, Register, node_info, target_of, without

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

    def _send_beacon(self, mgmtd: int, now_s: float) -> None:
        self.sequence += 1
        sequence, nonce = self.sequence, self.nonces.get(mgmtd, NO_NONCE)
        self.leases.sent_beacon(NodeId(mgmtd), sequence, now_s)
        lacking = self.leases.chains_without(now_s)
        beacon = Beacon(
            routing_version=self.leases.routing_version,
            clock_ms=int(now_s * 1000),
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
        answer = self.leases.answer(NodeId(asker.number), asker.generation, sequence, pairs, {}, self.now_s())
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
        return lambda: target.run(lambda: target.on_report(self))

    def on_routing(self, routing: RoutingInfo) -> None:
        if routing.version > self.leases.routing_version:
            self.leases.adopt(routing.chains, routing.version, self.now_s())


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
            self._writing_since_s = None
            world.counts["takeovers"] += 1

        self.term = None
        world.transact(self, lambda register: register.routing, done)

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

    def on_report(self, node: NodeProcess) -> None:
        term = self._acting_term()
        if term is None or not term.liveness.register(
            NodeId(node.number), node.generation, self.now_s(), heard=True
        ):
            return
        targets = tuple(
            TargetReport(
                target=target_of(ChainId(c), node.number),
                state=LocalState.UPTODATE,
                store_id=b"store",
                clean=True,
            )
            for c, nodes in enumerate(CHAINS, 1)
            if node.number in nodes
        )
        term.reports[NodeId(node.number)] = NodeReport(node.generation, 1, "", (), targets)
        if term.routing.nodes[NodeId(node.number)].generation < node.generation:
            info = node_info(node.number, node.generation)
            self._write(lambda at: Change(nodes=(info,)))
        routing = term.routing
        self.world.send("rpc", self.number, node.number, lambda: node.run(lambda: node.on_routing(routing)))

    # --- chains ---

    def _pass(self) -> None:
        term = self._acting_term()
        if term is None:
            return
        now_s = self.now_s()
        for node, known in term.routing.nodes.items():
            term.verdicts[node] = term.verdict(known, now_s)
        plan = plan_renewals(term.routing.chains.values(), term.present, term.grants, now_s)
        if plan.chains:
            chains = tuple(plan.chains)
            self._write(lambda at: Change(chains=chains), "renewed")
            return
        for chain, target in self._leaving(term):
            before = term.routing.chains[chain]
            member = next(m for m in before.members if m.target == target)
            term.grants.stop_covering(member.node, member.generation, chain)
            if now_s >= term.grants.until_s(member.node, member.generation, chain):
                record = without(before, target)
                self._write(lambda at, record=record: Change(chains=(record,)), "removed")  # type: ignore[misc]
                return

    def _leaving(self, term: Term) -> list[tuple[ChainId, TargetId]]:
        """Planned removals, and members of dead nodes; never the last serving one."""
        found = []
        for chain, record in term.routing.chains.items():
            planned = self.world.removals.get(chain)
            for member in record.serving if len(record.serving) > 1 else ():
                is_dead = term.verdicts.get(member.node) is Verdict.DEAD and self.world.drops_dead
                if member.target == planned or is_dead:
                    found.append((chain, member.target))
        return found

    def _write(self, plan: Callable[[Term], Change], what: str = "") -> None:
        """One change at a time, under the lease record."""
        term, now_s = self.term, self.now_s()
        if term is None or (
            self._writing_since_s is not None and now_s - self._writing_since_s < STORE_TIMEOUT_S
        ):
            return
        if self._writing_since_s is not None:
            self.lease.resign()  # an earlier change is in doubt: read everything afresh
            self.term, self._writing_since_s = None, None
            return
        self._writing_since_s = now_s
        change, world = plan(term), self.world
        routing = changed_routing(term.routing, change)

        def body(register: Register) -> bool:
            if not term.record.same_term(register.lease):
                return False
            assert register.routing.version == routing.version - 1, (register.routing.version, routing)
            world.persisted(routing)
            if what:
                world.counts[what] += 1
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
