"""Plays a scenario of one chain and writes down what the primary does: text in, transcript out.

The primary's own parts (``Term``: who lives, grants, ``ChainWatch``) run under a clock that is only counted;
nodes are the few lines below. A scenario is a file: lines of ``TIME COMMAND ARGUMENTS``, a line ``---``, and
the transcript, which tests compare. ``python -m tests.mgmtd.chain_play`` writes transcripts anew; the
difference is to be read before it is committed.

=================  ==========================================================================
members N ...      the chain at first, all serving (time 0)
kill N             the process dies; calls to it are refused
start N [clean=no] [store=new]  it starts again, a generation later
silence N / heard N  nothing of it arrives / it does again
disk N             its target fails
forged N           somebody says that it is dead, and it is not
unwanted N / wanted N  an operator takes it out / lets it back
repair N           an operator accepts the loss of data: N shall serve
deaf N / hears N   it does not get new records / it does again
cut N M / mend N M  two nodes cannot reach each other, and say so / they can again
slow N / quick N   it needs 1 s for each update, others 1 ms / it is as quick as they are
stuck N / goes-on N  copying to N stands still / it goes on
primary            the primary is lost; another one takes over 3 s later
copying N S        from now on copying to N takes S seconds
=================  ==========================================================================
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from fs3.ids import ChainId, ChainVersion, Generation, NodeId, TargetId, target_id
from fs3.member.beacon import Beacon
from fs3.member.timing import TIMING
from fs3.mgmtd.chain_machine import Situation, Step, next_step
from fs3.mgmtd.chain_watch import ChainWatch
from fs3.mgmtd.lease import LeaseRecord
from fs3.mgmtd.liveness import Hearing
from fs3.mgmtd.store import Change, Loaded, TargetRecord
from fs3.mgmtd.term import NodeReport, Term
from fs3.routing import ChainInfo, LocalState, Member, NodeInfo, NodeKind, RoutingInfo, TargetState
from fs3.wire.mgmtd import TargetReport

from .chain_rules import check_step, state_name

SCENARIOS = Path(__file__).parent / "scenarios"
CHAIN = ChainId(1)
TICK_S = 0.05
ADOPT_S = 0.1
PROBED_S = 0.8
"""From a death to the call that is refused."""


@dataclass(slots=True)
class FakeNode:
    """A storage node with one target."""

    number: int
    generation: int = 1
    is_up: bool = True
    is_reachable: bool = True
    is_deaf: bool = False
    acknowledge_us: int = 1000
    is_stuck: bool = False
    cut_from: set[int] = field(default_factory=set)
    local: LocalState = LocalState.ONLINE
    store: bytes = b"store"
    clean: bool = True
    copy_s: float = 0.5
    nonce: bytes = bytes(16)
    sequence: int = 0
    record: ChainInfo | None = None
    adopted_s: float = 0.0
    died_s: float | None = None
    lent_until_s: dict[TargetId, float] = field(default_factory=dict)
    leaving: tuple[TargetId, ...] = ()
    """Whom it was told to lend nothing more."""

    @property
    def is_heard(self) -> bool:
        """Whether what it sends arrives."""
        return self.is_up and self.is_reachable

    def serves(self) -> bool:
        """It is heard, and a serving member by the record that it knows."""
        return self.is_heard and any(
            m.node == self.number and m.generation == self.generation
            for m in (self.record.serving if self.record is not None else ())
        )

    def report(self, now_s: float, step_count: int) -> TargetReport:
        """What it says of its target; ``step_count``: of the copying whose source it is."""
        own = next((m for m in self.record.members if m.node == self.number), None) if self.record else None
        is_member = own is not None and own.generation == self.generation
        is_copied = now_s >= self.adopted_s + self.copy_s and not self.is_stuck
        state = own.state if own is not None and is_member else TargetState.OFFLINE
        is_complete = state is TargetState.SERVING or (state is TargetState.SYNCING and is_copied)
        local = LocalState.UPTODATE if is_complete else LocalState.ONLINE
        version = self.record.version if is_complete and self.record else ChainVersion(0)
        return TargetReport(
            target=target_id(NodeId(self.number), 0),
            state=LocalState.OFFLINE if self.local is LocalState.OFFLINE else local,
            store_id=self.store,
            clean=self.clean,
            chain_version=version,
            acknowledge_us=self.acknowledge_us if state in (TargetState.SERVING, TargetState.SYNCING) else 0,
            copy_step_count=step_count,
        )


@dataclass(slots=True)
class Play:
    """One scenario, as it goes."""

    lines: list[str] = field(default_factory=list)
    now_s: float = 0.0
    nodes: dict[int, FakeNode] = field(default_factory=dict)
    term: Term | None = None
    takeover_s: float | None = None
    unwanted: set[TargetId] = field(default_factory=set)
    routing: RoutingInfo = field(default_factory=RoutingInfo)
    targets: dict[TargetId, TargetRecord] = field(default_factory=dict)
    held: dict[int, str] = field(default_factory=dict)
    nonces: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def run(self, script: list[tuple[float, list[str]]]) -> list[str]:
        """Play it to the end (the last line's time)."""
        end_s = script[-1][0]
        rest = list(script)
        for tick in range(round(end_s / TICK_S) + 1):
            self.now_s = tick * TICK_S
            while rest and rest[0][0] <= self.now_s + TICK_S / 2:
                _, words = rest.pop(0)
                self._command(words)
            self._tick(tick)
        return self.lines

    def _command(self, words: list[str]) -> None:
        name, *arguments = words
        if name != "members":
            self._say(f"-- {' '.join(words)}")
        getattr(self, "do_" + name.replace("-", "_"))(
            *arguments
        )  # a command that there is not is a mistake in the file

    def _say(self, text: str) -> None:
        self.lines.append(f"{self.now_s:6.2f}  {text}")

    # --- commands ---

    def do_members(self, *numbers: str) -> None:
        self.nodes = {int(n): FakeNode(int(n)) for n in numbers}
        infos = {NodeId(n): _info(n, 1) for n in self.nodes}
        members = tuple(
            Member(target=target_id(NodeId(n), 0), state=TargetState.SERVING, generation=Generation(1))
            for n in self.nodes
        )
        info = ChainInfo(chain=CHAIN, version=ChainVersion(1), members=members)
        self.routing = RoutingInfo(version=1, nodes=infos, chains={CHAIN: info})
        for member in members:
            self.targets[member.target] = TargetRecord(target=member.target, store_id=b"store")
        for node in self.nodes.values():
            node.record = info
        self._take_over()
        self.now_s = 0.0

    def do_kill(self, number: str) -> None:
        node = self.nodes[int(number)]
        node.is_up, node.died_s = False, self.now_s

    def do_start(self, number: str, *changes: str) -> None:
        old = self.nodes[int(number)]
        self.nodes[int(number)] = FakeNode(
            number=old.number,
            generation=old.generation + 1,
            copy_s=old.copy_s,
            clean="clean=no" not in changes,
            store=b"new store" if "store=new" in changes else old.store,
        )

    def do_silence(self, number: str) -> None:
        self.nodes[int(number)].is_reachable = False

    def do_heard(self, number: str) -> None:
        self.nodes[int(number)].is_reachable = True

    def do_disk(self, number: str) -> None:
        self.nodes[int(number)].local = LocalState.OFFLINE

    def do_forged(self, number: str) -> None:
        if self.term is not None:
            self._evidence(self.term, self.nodes[int(number)])

    def do_unwanted(self, number: str) -> None:
        self.unwanted.add(target_id(NodeId(int(number)), 0))

    def do_wanted(self, number: str) -> None:
        self.unwanted.discard(target_id(NodeId(int(number)), 0))

    def do_repair(self, number: str) -> None:
        assert self.term is not None
        self.term.chains.repairs[CHAIN] = target_id(NodeId(int(number)), 0)

    def do_deaf(self, number: str) -> None:
        self.nodes[int(number)].is_deaf = True

    def do_hears(self, number: str) -> None:
        self.nodes[int(number)].is_deaf = False

    def do_cut(self, number: str, other: str) -> None:
        self.nodes[int(number)].cut_from.add(int(other))
        self.nodes[int(other)].cut_from.add(int(number))

    def do_mend(self, number: str, other: str) -> None:
        self.nodes[int(number)].cut_from.discard(int(other))
        self.nodes[int(other)].cut_from.discard(int(number))

    def do_slow(self, number: str) -> None:
        self.nodes[int(number)].acknowledge_us = 1_000_000

    def do_quick(self, number: str) -> None:
        self.nodes[int(number)].acknowledge_us = 1000

    def do_stuck(self, number: str) -> None:
        self.nodes[int(number)].is_stuck = True

    def do_goes_on(self, number: str) -> None:
        self.nodes[int(number)].is_stuck = False

    def do_copying(self, number: str, seconds: str) -> None:
        self.nodes[int(number)].copy_s = float(seconds)

    def do_primary(self) -> None:
        self.term, self.takeover_s = None, self.now_s + TIMING.primary_s

    def do_end(self) -> None:
        """The time up to which it is played."""

    # --- what runs by itself ---

    def _take_over(self) -> None:
        record = LeaseRecord(holder=NodeId(99), generation=Generation(1), start=1, renewal=1, address="m:1")
        loaded = Loaded(self.routing, dict(self.targets))
        nonce = self.nonces
        self.term = Term(record, loaded, self.now_s, TIMING, lambda: next(nonce).to_bytes(16, "big"))
        self.term.chains = ChainWatch(_checked)
        self.takeover_s = None

    def _tick(self, tick: int) -> None:
        if self.takeover_s is not None and self.now_s >= self.takeover_s:
            self._take_over()
            self._say("-- another primary")
        term = self.term
        if term is None:
            return
        self._lend(tick)
        for node in self.nodes.values():
            if node.is_heard:
                self._hear(term, node, tick)
            elif node.died_s is not None and self.now_s >= node.died_s + PROBED_S:
                node.died_s = None
                self._evidence(term, node)
        self._pass(term)

    def _lend(self, tick: int) -> None:
        """Who serves asks the others for leases, each half second. Who is not heard is heard by nobody."""
        for asker in self.nodes.values():
            if asker.serves() and tick % 10 == asker.number % 10:
                target = target_id(NodeId(asker.number), 0)
                for lender in self.nodes.values():
                    is_cut = lender.number in asker.cut_from or not lender.serves()
                    if lender is not asker and not is_cut and target not in lender.leaving:
                        lender.lent_until_s[target] = self.now_s + TIMING.grant_s

    def _evidence(self, term: Term, node: FakeNode) -> None:
        term.liveness.on_evidence(NodeId(node.number), Generation(node.generation), "refused", self.now_s)

    def _hear(self, term: Term, node: FakeNode, tick: int) -> None:
        number, generation = NodeId(node.number), Generation(node.generation)
        if not term.liveness.is_current(number, generation) or tick % 2 == 0:
            term.liveness.register(number, generation, self.now_s, heard=True)
            receivers = [m.node for m in term.routing.chains[CHAIN].members if m.state is TargetState.SYNCING]
            is_going = not any(self.nodes[int(n)].is_stuck for n in receivers)
            report = node.report(self.now_s, int(self.now_s * 10) if is_going else 0)
            term.reports[number] = NodeReport(generation, 1, "", (), (report,))
            term.slowness.on_report(number, generation, (report,), self.now_s)
            if term.routing.nodes[number].generation < generation:
                term.publish(Change(nodes=(_info(node.number, node.generation),)))
        newest = term.routing.chains[CHAIN]
        if not node.is_deaf and (node.record is None or node.record.version < newest.version):
            node.record, node.adopted_s = newest, self.now_s + ADOPT_S
        if tick % 10 == node.number % 10 or node.adopted_s == self.now_s:
            self._beacon(term, node, number, generation)

    def _beacon(self, term: Term, node: FakeNode, number: NodeId, generation: Generation) -> None:
        assert node.record is not None
        node.sequence += 1
        acknowledged = ((CHAIN, node.record.version),) if self.now_s >= node.adopted_s else ()
        unreachable = tuple(NodeId(n) for n in sorted(node.cut_from))
        unlent = tuple(t for t in node.leaving if node.lent_until_s.get(t, 0.0) <= self.now_s)
        beacon = Beacon(
            routing_version=1, clock_ms=0, acknowledged=acknowledged, unreachable=unreachable, unlent=unlent
        )
        heard = term.liveness.on_beacon(number, generation, node.sequence, node.nonce, beacon, self.now_s)
        node.nonce = term.liveness.lives[number].nonce
        node.leaving = term.chains.leaving.told(number)
        if heard is Hearing.COUNTED and term.liveness.may_grant(number):
            term.grants.grant(number, generation, self.now_s)

    def _pass(self, term: Term) -> None:
        for number, node in term.routing.nodes.items():
            term.verdicts[number] = term.verdict(node, self.now_s)
        term.chains.unwanted = set(self.unwanted)
        plan = term.chains.plan(term, self.now_s)
        self._tell_held({t >> 16: why for t, why in plan.held.items()})
        for rule, info in plan.changed:
            term.publish(term.chains.change(term, plan, 1))
            self._say(f"v{info.version} {rule.value}: " + "  ".join(_shown(m) for m in info.members))
            if rule.value == "repair":
                term.chains.repairs.clear()
        self.routing, self.targets = term.routing, dict(term.targets)

    def _tell_held(self, held: dict[int, str]) -> None:
        for number, why in held.items():
            if self.held.get(number) != why:
                self._say(f"   {number} held: {why}")
        self.held = held


def _checked(at: Situation) -> Step:
    step = next_step(at)
    check_step(at, step)
    return step


def _shown(member: Member) -> str:
    return f"{member.node}.{member.generation} {state_name(member)}"


def _info(number: int, generation: int) -> NodeInfo:
    return NodeInfo(
        node=NodeId(number),
        kind=NodeKind.STORAGE,
        generation=Generation(generation),
        host=f"n{number}",
        address=f"n{number}:1",
    )


def play(text: str) -> str:
    """A scenario's file as it should be: its script and the transcript."""
    script = text.split("\n---\n", maxsplit=1)[0].rstrip("\n")
    commands = [line.split() for line in script.splitlines() if line and not line.startswith("#")]
    lines = Play().run([(float(time), words) for time, *words in commands])
    return "\n".join([script, "---", *lines]) + "\n"


if __name__ == "__main__":
    for path in sorted(SCENARIOS.glob("*.txt")):
        path.write_text(play(path.read_text()))
