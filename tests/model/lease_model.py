"""The lease model: the real pure machines of nodes and mgmtds under virtual time, without any I/O.

Nodes run ``NodeLeases`` and ``Pace``, mgmtds run ``PrimaryLease`` and ``Term`` (``Liveness``,
``PrimaryGrants``, ``ChainWatch`` with the chain machine) over a register that stands for the KV store.
Messages are lost, copied, delayed by up to 7.5 s; clocks drift by up to 0.9 % either way; processes pause
with their clocks running, die, come back as a new generation 0.2 s later, and may outlive their successor's
start.

Chains change as the chain machine says; a target that is copied to has everything as soon as its source, at
the same version, has told it so once. What is checked, in real time, after each event:

* S: whoever is valid at a version while somebody is valid at a later one is a serving member, in its
  generation, of that later one too;
* B: a lease that counts at its holder is regarded as running by its granter;
* P: at most one mgmtd is primary;
* W: a record that leaves a replica out is written when no lease of a primary counts at that replica;
* O: one record never both adds a serving member and takes one out;
* U: who is made joining has everything at the version before, by its own and its source's word;
* K: a joiner is in force only when every older serving member that lives knows of it, or is the only one,
  knows that it alone serves, and has no lease;
* R: who resumes has adopted the record before.

One assumption: a target that re-opened is locked away from its node's earlier process, which may go on
sending and granting for a while (it is checked for B and W) but has nothing to serve from. Without it S does
not hold for renewals: the new generation can be in force before its peers' grants to the old one are over;
only a joining rule for it (design 2.2) would close that.

A violation raises ``Broken`` with the walk's seed. What is not modelled: several primaries' cluster time,
chunks (``chain_model`` has them).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fs3.ids import ChainId, ChainVersion, Generation, NodeId, TargetId, target_id
from fs3.member.lease import NodeLeases, serves
from fs3.member.timing import TIMING, Timing
from fs3.mgmtd.chain_machine import Rule, Situation, Step, next_step
from fs3.mgmtd.grants import PrimaryGrants
from fs3.mgmtd.lease import LeaseRecord, PrimaryLease
from fs3.rng import Rng, derived_rng
from fs3.routing import ChainInfo, Member, NodeInfo, NodeKind, RoutingInfo, TargetState

CHAINS: tuple[tuple[int, ...], ...] = ((1, 2, 3), (2, 3, 4), (4, 1))
NODES = (1, 2, 3, 4)
MGMTDS = (101, 102)
DRIFT_MAX = 0.009


class Broken(AssertionError):
    """A lease rule does not hold."""


@dataclass(frozen=True, slots=True)
class Machines:
    """The machines under test; a mutant replaces one."""

    leases: type[NodeLeases] = NodeLeases
    grants: type[PrimaryGrants] = PrimaryGrants
    primary: type[PrimaryLease] = PrimaryLease
    decide: Callable[[Situation], Step] = next_step


@dataclass(slots=True)
class Weather:
    """How the world behaves; the walk changes it as it goes."""

    loss: float = 0.05
    copies: float = 0.05
    late: float = 0.02
    late_max_s: float = 7.5
    store_late: float = 0.05
    answers_late_s: dict[int, float] = field(default_factory=dict)
    """Mgmtd -> how late the answer to its next transaction is; then the store is away for it for a while."""
    cuts: dict[tuple[str, int, int], float] = field(default_factory=dict)
    """(plane, from, to): nothing passes until then."""

    def is_cut(self, plane: str, source: int, target: int, now_s: float) -> bool:
        return self.cuts.get((plane, source, target), 0.0) > now_s


class Machine:
    """A host: its clock, which goes on through pauses."""

    def __init__(self, world: LeaseWorld, number: int) -> None:
        rng = world.rng
        self.world = world
        self.number = number
        self.rate = 1 + rng.choice((-DRIFT_MAX, DRIFT_MAX, rng.uniform(-DRIFT_MAX, DRIFT_MAX)))
        self.offset_s = rng.uniform(0, 1000)

    def now_s(self) -> float:
        """Its own clock."""
        return self.offset_s + self.world.now_s * self.rate

    def real_s(self, own_s: float) -> float:
        """Real time at which its clock shows ``own_s``."""
        return (own_s - self.offset_s) / self.rate


class Process:
    """Something that runs on a host, may be paused, and may be dead."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.world = machine.world
        self.number = machine.number
        self.is_alive = True
        self.paused_until_s = 0.0

    @property
    def is_running(self) -> bool:
        return self.is_alive and self.world.now_s >= self.paused_until_s

    def now_s(self) -> float:
        return self.machine.now_s()

    def run(self, work: Callable[[], None]) -> None:
        """Run something now, or when the pause is over, or never."""
        if not self.is_alive:
            return
        if self.world.now_s < self.paused_until_s:
            self.world.at(self.paused_until_s, lambda: self.run(work))
        else:
            work()

    def every(self, period_s: float, work: Callable[[], None]) -> None:
        """Run ``work`` again and again as long as the process lives."""

        def again() -> None:
            if self.is_alive:
                self.run(work)
                self.world.after(period_s, again)

        self.world.after(period_s * self.world.rng.random(), again)


@dataclass(slots=True)
class Register:
    """The KV store as far as mgmtd needs it."""

    lease: LeaseRecord | None
    routing: RoutingInfo


class LeaseWorld:
    """Queue of events, network, register, and what is checked."""

    def __init__(self, seed: int, machines: Machines | None = None, timing: Timing = TIMING) -> None:
        self.seed = seed
        self.rng: Rng = derived_rng(seed, "lease walk")
        self.machines = machines or Machines()
        self.timing = timing
        self.now_s = 0.0
        self.weather = Weather()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._counter: Iterator[int] = itertools.count()
        self.hosts = {n: Machine(self, n) for n in (*NODES, *MGMTDS)}
        self.members: list[Any] = []
        """Every process of a node that may still run (``lease_nodes.NodeProcess``)."""
        self.mgmtds: dict[int, Any] = {}
        self.generations = dict.fromkeys((*NODES, *MGMTDS), 0)
        self.register = Register(None, _first_routing())
        self.history: dict[tuple[ChainId, ChainVersion], ChainInfo] = {
            (c, info.version): info for c, info in self.register.routing.chains.items()
        }
        self.granted_real_s: dict[tuple[NodeId, Generation], float] = {}
        """Real end of the longest grant that any primary gave to a run of a node."""
        self.removals: dict[ChainId, TargetId] = {}
        """Members that an operator wants out of their chains."""
        kinds = ("valid", "two_versions", "takeovers", "restarts", *(rule.value for rule in Rule))
        self.counts = dict.fromkeys(kinds, 0)

    # --- events ---

    def at(self, real_s: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (real_s, next(self._counter), work))

    def after(self, delay_s: float, work: Callable[[], None]) -> None:
        self.at(self.now_s + delay_s, work)

    def run_until(self, real_s: float) -> None:
        """Run events in order; check after each."""
        while self._queue and self._queue[0][0] <= real_s:
            self.now_s, _, work = heapq.heappop(self._queue)
            work()
            self.check()
        self.now_s = real_s

    def send(self, plane: str, source: int, target: int, deliver: Callable[[], None]) -> None:
        """A message: lost, late, twice, or just there. ``rpc`` loses none unless the link is cut."""
        weather, rng = self.weather, self.rng
        if weather.is_cut(plane, source, target, self.now_s):
            return
        if plane == "udp" and rng.random() < weather.loss:
            return
        for _ in range(2 if plane == "udp" and rng.random() < weather.copies else 1):
            delay_s = rng.uniform(0.0002, 0.02)
            if rng.random() < weather.late:
                delay_s = rng.uniform(0.02, weather.late_max_s)
            self.after(delay_s, deliver)

    def transact(self, owner: Process, body: Callable[[Register], Any], done: Callable[[Any], None]) -> None:
        """A transaction of a mgmtd: applied some time after now, answered some time after that."""
        weather, rng = self.weather, self.rng
        if weather.is_cut("kv", owner.number, 0, self.now_s):
            return

        def delay_s() -> float:
            return rng.uniform(0.02, 2.0) if rng.random() < weather.store_late else rng.uniform(0.001, 0.01)

        def answer_s() -> float | None:
            return delay_s() if rng.random() > weather.store_late / 4 else None

        answered_s: float | None
        if owner.number in weather.answers_late_s:
            apply_s, answered_s = 0.001, weather.answers_late_s.pop(owner.number)
            weather.cuts["kv", owner.number, 0] = self.now_s + 6.0
        else:
            apply_s, answered_s = delay_s(), answer_s()

        def apply() -> None:
            result = body(self.register)
            if answered_s is not None:
                self.after(answered_s, lambda: owner.run(lambda: done(result)))

        self.after(apply_s, apply)

    # --- what is checked ---

    def persisted(self, routing: RoutingInfo) -> None:
        """Routing was written: remember its records, and check W on those that are new."""
        for chain, info in routing.chains.items():
            before = self.register.routing.chains.get(chain)
            if before is None or before.version == info.version:
                continue
            assert info.version == before.version + 1, (before, info)
            self.history[chain, info.version] = info
            self._check_change(before, info)
            for member in before.serving:
                if not serves(info, member.target, member.generation):
                    self._check_left_out(chain, member)
        self.register.routing = routing

    def _check_change(self, before: ChainInfo, info: ChainInfo) -> None:
        """O, U, K and R."""
        chain, old = info.chain, {m.target: m for m in before.members}
        added = [m for m in info.serving if old[m.target].state is not TargetState.SERVING]
        gone = [m for m in before.serving if all(m.target != s.target for s in info.serving)]
        if added and gone:
            self.fail(f"O: chain {chain} at {info.version} gets and loses a serving member")
        for member in added:
            process = self._run_of(member)
            if before.serving and process is not None and process.copied.get(chain) != before.version:
                self.fail(f"U: {member.target:x} joins chain {chain} without having everything")
            known = process.leases.version_of(chain) if process is not None else before.version
            if not before.serving and known < before.version:
                self.fail(f"R: {member.target:x} resumes chain {chain}, whose record it does not know")
        for member in info.serving:
            was_in_force = old[member.target].state is TargetState.SERVING and not old[member.target].joining
            if not member.joining and not was_in_force and before.serving:
                self._check_known(before, member)

    def _check_known(self, before: ChainInfo, joiner: Member) -> None:
        for member in before.serving:
            process = self._run_of(member)
            if member.joining or member.target == joiner.target or process is None or not process.is_alive:
                continue
            version = process.leases.version_of(before.chain)
            known = self.history.get((before.chain, version))
            is_alone = known is not None and [m.target for m in known.serving] == [member.target]
            if is_alone and not process.leases.valid(before.chain, version, process.now_s()):
                continue  # it hangs on the primary's lease, and the next one comes with the record
            if known is None or all(m.target != joiner.target for m in known.serving):
                self.fail(f"K: {joiner.target:x} is in force, and {member.target:x} does not know of it")

    def _run_of(self, member: Member) -> Any:
        """The process that a record names, if it has not been forgotten."""
        return next(
            (p for p in self.members if p.number == member.node and p.generation == member.generation), None
        )

    def _check_left_out(self, chain: ChainId, member: Member) -> None:
        for process in self.members:
            if process.number != member.node or process.generation != member.generation:
                continue
            entry = process.leases._chains.get(chain)
            if entry is not None and process.is_alive and process.now_s() < entry.primary_until_s:
                self.fail(f"W: {member.target:x} left out of chain {chain} under a primary's lease")

    def check(self) -> None:
        """S, B and P, now."""
        acting = [m.number for m in self.mgmtds.values() if m.is_acting()]
        if len(acting) > 1:
            self.fail(f"P: two primaries {acting}")
        for chain, info in self.register.routing.chains.items():
            self._check_chain(chain, info)

    def _check_chain(self, chain: ChainId, newest: ChainInfo) -> None:
        valid: list[tuple[ChainVersion, Any]] = []
        for process in self.members:
            if not process.is_running or process.lost_store:
                continue
            version = process.leases.version_of(chain)
            if process.leases.valid(chain, version, process.now_s()):
                valid.append((version, process))
                self._check_bounded(chain, process)
        self.counts["valid"] += len(valid)
        highest = max((version for version, _ in valid), default=ChainVersion(0))
        for version, process in valid:
            if version == highest:
                continue
            self.counts["two_versions"] += 1
            record = self.history[chain, highest]
            target = target_of(chain, process.number)
            if not serves(record, target, process.generation):
                self.fail(
                    f"S: node {process.number}.{process.generation} serves chain {chain} at {version} "
                    f"while it is served at {highest} without it"
                )

    def _check_bounded(self, chain: ChainId, process: Any) -> None:
        """B: what counts at the holder runs at its granter."""
        entry = process.leases._chains[chain]
        now_s = process.now_s()
        if now_s < entry.primary_until_s:
            real_s = process.machine.real_s(entry.primary_until_s)
            if real_s > self.granted_real_s.get((process.number, process.generation), 0.0):
                self.fail(f"B: node {process.number} counts on the primary's lease longer than granted")
        for (target, generation), until_s in entry.peers_until.items():
            for peer in self.members:
                if peer.number != target >> 16 or peer.generation != generation or now_s >= until_s:
                    continue
                own = (target_of(chain, process.number), process.generation)
                granted_s = peer.machine.real_s(peer.leases.granted_until_s(chain, own))
                if process.machine.real_s(until_s) > granted_s:
                    self.fail(f"B: node {process.number} counts on {peer.number}'s lease longer than granted")

    def fail(self, text: str) -> None:
        raise Broken(f"seed {self.seed}, at {self.now_s:.3f} s: {text}")


def target_of(chain: ChainId, node: int) -> TargetId:
    """The target of a node in a chain."""
    return target_id(NodeId(node), int(chain))


def _first_routing() -> RoutingInfo:
    chains = {}
    for number, nodes in enumerate(CHAINS, 1):
        chain = ChainId(number)
        members = tuple(
            Member(target=target_of(chain, n), state=TargetState.SERVING, generation=Generation(1))
            for n in nodes
        )
        chains[chain] = ChainInfo(chain=chain, version=ChainVersion(1), members=members)
    infos = {NodeId(n): node_info(n, Generation(1)) for n in NODES}
    return RoutingInfo(version=1, cluster_id="model", nodes=infos, chains=chains)


def node_info(node: int, generation: Generation) -> NodeInfo:
    """A node's entry in routing."""
    return NodeInfo(
        node=NodeId(node),
        kind=NodeKind.STORAGE,
        generation=generation,
        host=f"n{node}",
        address=f"n{node}:1",
        beacon_address=f"n{node}:2",
    )
