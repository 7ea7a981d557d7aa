"""Random walks of the lease model: which faults strike when, for how long, and mutants of the machines.

A walk has phases of quiet and of trouble; what trouble there is, is drawn for each walk, some of it switched
off altogether (a walk in which everything fails at once finds little). ``focus`` aims a walk at one rule: the
lease mistakes need faults that come together (chain model, D and F).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from fs3.ids import ChainId, ChainVersion, Generation, NodeId
from fs3.member.beacon import Answer, Pairs, SentLog
from fs3.member.lease import NodeLeases, Replica, _PrimaryLease
from fs3.member.timing import Timing
from fs3.mgmtd.chain_machine import Rule, Situation, Step, next_step
from fs3.mgmtd.grants import PrimaryGrants
from fs3.mgmtd.lease import LeaseRecord, PrimaryLease
from fs3.routing import ChainInfo, TargetState

from .lease_model import CHAINS, MGMTDS, NODES, LeaseWorld, Machines, target_of
from .lease_nodes import MgmtdProcess, NodeProcess, newest

WALK_S = 40.0


@dataclass(frozen=True, slots=True)
class Walk:
    """Runs one walk from one seed."""

    seed: int
    machines: Machines | None = None
    focus: str = ""
    walk_s: float = WALK_S

    def run(self) -> LeaseWorld:
        """The world as it is at the end; ``Broken`` when a rule does not hold."""
        world = LeaseWorld(self.seed, self.machines)
        for number in NODES:
            NodeProcess(world.hosts[number])
        for number in MGMTDS:
            MgmtdProcess(world.hosts[number])
        Trouble(world, self.focus).begin()
        world.run_until(self.walk_s)
        return world


class Trouble:
    """What goes wrong in one walk."""

    def __init__(self, world: LeaseWorld, focus: str) -> None:
        self.world = world
        self.focus = focus
        rng, weather = world.rng, world.weather
        weather.loss = rng.choice((0.0, 0.02, 0.2))
        weather.late = 0.3 if focus == "late" else rng.choice((0.0, 0.01, 0.1))
        weather.store_late = rng.choice((0.0, 0.05, 0.3))
        faults: dict[str, Callable[[], None]] = {
            "restart": self.restart,
            "outlived": self.outlived,
            "pause": self.pause,
            "cut": self.cut,
            "routing": self.cut_routing,
            "primary": self.lose_primary,
            "isolated": self.isolate_from_mgmtds,
            "evidence": self.evidence,
            "removal": self.remove,
            "store": self.cut_store,
            "disk": self.fail_disk,
            "chain": self.lose_chain,
        }
        on = [name for name in faults if rng.random() < 0.6]
        self._faults = [faults[name] for name in on] or [self.restart]
        self._aimed: Callable[[], None] | None = {
            "late": self.remove,
            "start": self.restarted_granter,
            "takeover": self.takeover_then_restart,
            "routing": self.removed_unheard,
            "waits": self.isolated_removal,
            "reset": self.reset_and_outlived,
            "store": self.late_answer,
            "join": self.join_in_trouble,
            "lost": self.lose_chain,
        }.get(focus)
        if focus == "store":
            weather.store_late = 0.0
            self._faults = [self.late_answer]
        if focus == "start":  # everything else would only disturb a schedule as long as this
            weather.loss = weather.late = weather.store_late = 0.0
            self._faults = [self.restarted_granter]

    def begin(self) -> None:
        self.world.after(self.world.rng.uniform(4.0, 6.0), self._strike)

    def _strike(self) -> None:
        rng = self.world.rng
        if self._aimed is not None and rng.random() < 0.5:
            self._aimed()
        else:
            rng.choice(self._faults)()
        pause_s = {"start": 25.0, "store": 8.0}.get(self.focus) or rng.choice((0.1, 0.7, 2.0, 4.0))
        self.world.after(pause_s * rng.uniform(0.5, 1.5), self._strike)

    # --- single faults ---

    def node(self) -> int:
        return self.world.rng.choice(NODES)

    def mgmtd(self) -> int:
        acting = [m for m, process in self.world.mgmtds.items() if process.is_acting()]
        return acting[0] if acting and self.world.rng.random() < 0.8 else self.world.rng.choice(MGMTDS)

    def restart(self, number: int = 0, *, outlived_s: float = 0.0, after_s: float = 0.0) -> None:
        """A node dies (or its process lives on for a while, cut off from nobody) and comes back."""
        number = number or self.node()
        world, process = self.world, newest(self.world, number)
        if process is None:
            return
        if outlived_s:
            world.after(outlived_s, lambda: _die(process))
        else:
            _die(process)
        world.members = [p for p in world.members if p.is_alive]
        world.counts["restarts"] += 1
        after_s = after_s or world.rng.choice((0.2, 0.2, 1.0, 8.0))
        world.after(after_s, lambda: _start_node(world, number))

    def outlived(self) -> None:
        """The old process goes on beside the new one."""
        self.restart(outlived_s=self.world.rng.uniform(0.5, 4.0))

    def pause(self) -> None:
        """A process stands still; its clock does not."""
        world, rng = self.world, self.world.rng
        number = rng.choice((self.node(), self.mgmtd()))
        process = newest(world, number) if number in NODES else world.mgmtds.get(number)
        if process is not None:
            process.paused_until_s = world.now_s + rng.choice((0.3, 1.6, 3.5, 6.0)) * rng.uniform(0.8, 1.2)

    def cut(self) -> None:
        """One direction between two hosts, all planes."""
        rng = self.world.rng
        source, target = rng.sample((*NODES, *MGMTDS), 2)
        self._cut(("udp", "rpc"), source, target, rng.uniform(0.5, 8.0))

    def cut_routing(self) -> None:
        """Datagrams pass, connections do not."""
        number = self.node()
        for mgmtd in MGMTDS:
            self._cut(("rpc",), mgmtd, number, 6.0)

    def isolate_from_mgmtds(self) -> None:
        """A chain's members hear each other but no mgmtd."""
        length_s = self.world.rng.uniform(2.0, 8.0)
        for number in self.world.rng.choice(CHAINS):
            for mgmtd in MGMTDS:
                self._cut(("udp", "rpc"), mgmtd, number, length_s)

    def lose_primary(self) -> None:
        """The primary dies and comes back, or is cut from the store."""
        world, number = self.world, self.mgmtd()
        if world.rng.random() < 0.5:
            self._cut(("kv",), number, 0, world.rng.uniform(2.0, 6.0))
            return
        process = world.mgmtds.pop(number, None)
        if process is not None:
            process.is_alive = False
            world.after(world.rng.uniform(0.2, 5.0), lambda: _start_mgmtd(world, number))

    def cut_store(self) -> None:
        """The primary cannot reach the store."""
        self._cut(("kv",), self.mgmtd(), 0, self.world.rng.uniform(1.0, 6.0))

    def evidence(self, number: int = 0) -> None:
        """Somebody says that a node is dead; true or not."""
        process, node = self.world.mgmtds.get(self.mgmtd()), NodeId(number or self.node())
        term = process.term if process is not None and process.is_acting() else None
        if process is not None and term is not None and node in term.liveness.lives:
            life = term.liveness.lives[node]
            term.liveness.on_evidence(node, life.generation, "reset", process.now_s())

    def remove(self) -> None:
        """An operator wants a member out."""
        chain = self.world.rng.randrange(len(CHAINS))
        node = self.world.rng.choice(CHAINS[chain])
        self.world.removals[ChainId(chain + 1)] = target_of(ChainId(chain + 1), node)
        self.world.after(7.0, partial(self._give_back, ChainId(chain + 1)))

    def _give_back(self, chain: ChainId) -> None:
        self.world.removals.pop(chain, None)

    def fail_disk(self, chain: ChainId | None = None, number: int = 0) -> None:
        """A target is of no use until its node restarts."""
        chain = chain or ChainId(self.world.rng.randint(1, len(CHAINS)))
        process = newest(self.world, number or self.world.rng.choice(CHAINS[chain - 1]))
        if process is not None:
            process.failed_disks.add(chain)

    def _cut(self, planes: tuple[str, ...], source: int, target: int, length_s: float) -> None:
        for plane in planes:
            self.world.weather.cuts[plane, source, target] = self.world.now_s + length_s

    # --- faults that come together ---

    def lose_chain(self) -> None:
        """All members of a chain are heard and of no use; then they restart, in some order."""
        chain = ChainId(self.world.rng.randint(1, len(CHAINS)))
        for number in CHAINS[chain - 1]:
            self.fail_disk(chain, number)
            self.world.after(self.world.rng.uniform(3.0, 9.0), partial(self.restart, number))

    def join_in_trouble(self) -> None:
        """A member comes back; the others are restarted, or do not hear of new records, while it joins."""
        rng = self.world.rng
        nodes = rng.choice(CHAINS)
        number = rng.choice(nodes)
        self.restart(number, after_s=rng.uniform(2.2, 4.0))
        other = rng.choice([n for n in nodes if n != number])
        for _ in range(3):
            self.world.after(rng.uniform(3.0, 8.0), partial(self._deaf, other))
        if rng.random() < 0.5:
            self.world.after(rng.uniform(4.0, 7.0), partial(self.restart, other))

    def _deaf(self, number: int) -> None:
        for peer in (*NODES, *MGMTDS):
            self._cut(("rpc", "udp") if peer in NODES else ("rpc",), peer, number, 0.8)

    def late_answer(self) -> None:
        """The primary's renewal is seen by others long before it hears of its success; it is the last one."""
        self.world.weather.answers_late_s[self.mgmtd()] = self.world.rng.uniform(0.8, 1.35)

    def restarted_granter(self) -> None:
        """Two live by each other's leases, unheard by mgmtds; one restarts, is heard, and does not answer.

        The other one then counts as dead and leaves, while a grant that the restarted one does not remember
        still runs.
        """
        world = self.world
        lasting, dying = CHAINS[2] if world.rng.random() < 0.5 else CHAINS[2][::-1]
        for mgmtd in MGMTDS:
            for number, length_s in ((lasting, 12.0), (dying, 6.0)):
                self._cut(("udp", "rpc"), mgmtd, number, length_s)
                self._cut(("udp", "rpc"), number, mgmtd, length_s)

        def restart() -> None:
            self._cut(("udp",), dying, lasting, 4.0)
            self.restart(dying, after_s=0.2)

        world.after(5.8, restart)

    def takeover_then_restart(self) -> None:
        """The primary is lost; just before, a node has its last lease and is restarted, outlived."""
        world, rng = self.world, self.world.rng
        primary = self.mgmtd()
        nodes = rng.choice(CHAINS)
        number = rng.choice(nodes)
        for peer in NODES:
            self._cut(("udp",), peer, number, 6.0)
        self._cut(("kv",), primary, 0, 6.0)
        world.after(rng.uniform(2.0, 2.8), lambda: self.restart(number, outlived_s=5.0, after_s=0.2))

    def removed_unheard(self) -> None:
        """A member is taken out and does not learn of it: its datagrams pass, its connections do not."""
        self.remove()
        for chain, target in self.world.removals.items():
            number = target >> 16
            for mgmtd in MGMTDS:
                self._cut(("rpc",), mgmtd, number, 6.0)
            for peer in CHAINS[chain - 1]:
                self._cut(("udp",), peer, number, 6.0)

    def isolated_removal(self) -> None:
        """A member lives by its peers alone, is taken out, and then one of them at most tells it so."""
        self.remove()
        chain, target = self.world.rng.choice(sorted(self.world.removals.items()))
        number = target >> 16
        for mgmtd in MGMTDS:
            self._cut(("udp", "rpc"), mgmtd, number, 9.0)
        self.world.after(self.world.rng.uniform(0.5, 6.0), lambda: self._unheard(chain, number))

    def _unheard(self, chain: ChainId, number: int) -> None:
        for peer in CHAINS[chain - 1]:
            self._cut(("udp",), peer, number, 6.0)

    def reset_and_outlived(self) -> None:
        """A forged reset, and the node is cut from its peers: it lives by the primary's lease alone."""
        number = self.node()
        for peer in NODES:
            self._cut(("udp",), peer, number, 4.0)
        for mgmtd in MGMTDS:
            self._cut(("rpc",), mgmtd, number, 4.0)
        self.world.after(self.world.rng.uniform(0.2, 3.0), lambda: self.evidence(number))


def _start_node(world: LeaseWorld, number: int) -> None:
    NodeProcess(world.hosts[number])


def _start_mgmtd(world: LeaseWorld, number: int) -> None:
    MgmtdProcess(world.hosts[number])


def _die(process: NodeProcess) -> None:
    process.is_alive = False


# --- mutants: each breaks one rule ---


class CountedFromReceipt(NodeLeases):
    """A lease counts from when the answer came."""

    def _counted_from(self, sent_s: float, now_s: float) -> float:
        return super()._counted_from(now_s, now_s)


class NoStartWait(NodeLeases):
    """A restarted node forgets what it had granted, and serves at once."""

    def __init__(self, node: NodeId, generation: Generation, started_s: float, timing: Timing) -> None:
        super().__init__(node, generation, started_s, timing)
        self.allowed_from_s = started_s


class AnyRoutingCounts(NodeLeases):
    """A grant counts although the routing that it was made from has not come yet."""

    def _counts_now(self, lease: _PrimaryLease) -> bool:
        return True


class OwnGrantsIgnored(NodeLeases):
    """A member does not wait for its own grants to those that a version leaves out."""

    def _waits_for(self, chain: ChainId, info: ChainInfo, now_s: float) -> float:
        super()._waits_for(chain, info, now_s)
        return -math.inf


class GrantsAtOlderVersion(NodeLeases):
    """A member grants what it is asked for, whatever version it has adopted."""

    def answer(
        self,
        peer: NodeId,
        peer_generation: Generation,
        sequence: int,
        pairs: Pairs,
        adopted: dict[ChainId, ChainVersion],
        now_s: float,
    ) -> Answer:
        answer = super().answer(peer, peer_generation, sequence, pairs, {}, now_s)
        granted = dict(answer.granted)
        for chain, version in pairs:
            if version <= self.version_of(chain) and now_s >= self.allowed_from_s:
                granted[chain] = version
                for target, generation in self._runs_of(chain, peer, peer_generation):
                    own = self._granted.setdefault(chain, {})
                    own[target, generation] = now_s + self._timing.grant_s
        return Answer(echo_generation=peer_generation, echo_sequence=sequence, granted=tuple(granted.items()))

    def _runs_of(self, chain: ChainId, peer: NodeId, generation: Generation) -> list[Replica]:
        return [(target_of(chain, peer), generation)]


class LatestSending(SentLog):
    """An answer counts from the last request that was sent."""

    def answered(self, sequence: int) -> float | None:
        return max(self._sent.values(), default=None) if super().answered(sequence) is not None else None


class CountedFromLastSent(NodeLeases):
    """An answer counts from the last request, not from the one that it answers."""

    def sent_beacon(self, mgmtd: NodeId, sequence: int, now_s: float) -> None:
        self._to_primary.setdefault(mgmtd, LatestSending())
        super().sent_beacon(mgmtd, sequence, now_s)

    def sent_ask(self, peer: NodeId, sequence: int, now_s: float) -> None:
        self._to_peers.setdefault(peer, LatestSending())
        super().sent_ask(peer, sequence, now_s)


class NoTakeoverWait(PrimaryGrants):
    """A new primary leaves out and renews at once."""

    def __init__(self, began_s: float, timing: Timing) -> None:
        super().__init__(began_s, timing)
        self.floor_s = -math.inf


class LeavesAtOnce(PrimaryGrants):
    """A verdict ends a lease: whoever counts as dead is left out without waiting for its grant."""

    def until_s(self, node: NodeId, generation: Generation, chain: ChainId) -> float:
        return self.floor_s


class CountedFromSuccess(PrimaryLease):
    """The holder counts from when its renewal succeeded, not from when it began it."""

    def wrote(self, record: LeaseRecord, began_s: float, now_s: float) -> bool:
        return super().wrote(record, now_s, now_s)


class NoMargin(PrimaryLease):
    """A standby does not wait out the holder."""

    def _is_over(self, now_s: float) -> bool:
        return self._seen_since_s is not None and now_s - self._seen_since_s >= 1.0


def adds_and_removes(at: Situation) -> Step:
    """A member that has everything joins in the version that another one leaves in."""
    step = next_step(at)
    syncing = next((m for m in at.info.members if m.state is TargetState.SYNCING), None)
    if step.rule is Rule.LEAVE and step.record is not None and syncing is not None and at.is_well(syncing):
        members = [
            msgspec.structs.replace(m, state=TargetState.SERVING, joining=True)
            if m.target == syncing.target
            else m
            for m in step.record.members
        ]
        step.record = msgspec.structs.replace(step.record, members=tuple(members))
    return step


def in_force_at_once(at: Situation) -> Step:
    """A joiner is in force before the others have acknowledged it."""
    everybody = {t: replace(k, acknowledged=at.info.version) for t, k in at.known.items()}
    return next_step(replace(at, known=everybody))


def resumes_at_once(at: Situation) -> Step:
    """A candidate resumes before it has adopted the record that makes it one, and is not waited for."""
    if at.info.serving:
        return next_step(at)
    everybody = {t: replace(k, acknowledged=at.info.version) for t, k in at.known.items()}
    return next_step(replace(at, known=everybody, resumable_since_s=-math.inf))


def any_uptodate(at: Situation) -> Step:
    """That a member had everything at some version counts at the next one too."""
    everybody = {
        t: replace(k, uptodate_at=at.info.version if k.uptodate_at else k.uptodate_at)
        for t, k in at.known.items()
    }
    return next_step(replace(at, known=everybody))


MUTANTS: dict[str, tuple[Machines, str]] = {
    "counted from receipt": (Machines(leases=CountedFromReceipt), "late"),
    "counted from the last sent": (Machines(leases=CountedFromLastSent), "late"),
    "no start wait": (Machines(leases=NoStartWait), "start"),
    "any routing counts": (Machines(leases=AnyRoutingCounts), "routing"),
    "own grants ignored": (Machines(leases=OwnGrantsIgnored), "waits"),
    "grants at older versions": (Machines(leases=GrantsAtOlderVersion), "waits"),
    "new primary acts at once": (Machines(grants=NoTakeoverWait), "takeover"),
    "reset is death": (Machines(grants=LeavesAtOnce), "reset"),
    "a version adds and removes": (Machines(decide=adds_and_removes), "join"),
    "joiner in force before acknowledgements": (Machines(decide=in_force_at_once), "join"),
    "resumes without waiting": (Machines(decide=resumes_at_once), "lost"),
    "uptodate of another version": (Machines(decide=any_uptodate), "join"),
    "primary counts from success": (Machines(primary=CountedFromSuccess), "store"),
    "standby does not wait": (Machines(primary=NoMargin), "store"),
}
"""Name -> (machines with one mistake, the faults that find it)."""
FOCI = ("", "late", "start", "takeover", "routing", "waits", "reset", "store", "join", "lost")
