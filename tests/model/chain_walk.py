"""Random walks of the chain model: which faults strike when, and for how long.

What trouble there is is drawn for each walk, some of it switched off altogether; ``focus`` aims a walk at one
rule. After ``TROUBLE_S`` the weather clears, the dead come back, and everything must heal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fs3.ids import NodeId
from fs3.routing import ChainInfo, TargetState

from .chain_clients import start_clients
from .chain_model import HEAL_S, ChainMachines, ChainWorld
from .chain_store import CHAIN
from .lease_model import MGMTDS, NODES, target_of
from .lease_nodes import MgmtdProcess, newest

TROUBLE_S = 36.0


@dataclass(frozen=True, slots=True)
class ChainWalk:
    """Runs one walk from one seed."""

    seed: int
    machines: ChainMachines | None = None
    focus: str = ""
    trouble_s: float = TROUBLE_S

    def run(self) -> ChainWorld:
        """The world as it is at the end; ``Broken`` when a rule does not hold."""
        world = ChainWorld(self.seed, self.machines)
        for number in NODES:
            world.parts.node(world.hosts[number])
        for number in MGMTDS:
            MgmtdProcess(world.hosts[number])
        start_clients(world)
        trouble = ChainTrouble(world, self.focus, self.trouble_s)
        trouble.begin()
        world.run_until(self.trouble_s)
        trouble.end()
        world.quiet_from_s = self.trouble_s + 8.0
        deadline_s = self.trouble_s + HEAL_S
        world.run_until(self.trouble_s + 1.0)
        while world.now_s < deadline_s and not world.is_healed:
            world.run_until(min(deadline_s, world.now_s + 0.25))
        world.check_end()
        return world


class ChainTrouble:
    """What goes wrong in one walk."""

    def __init__(self, world: ChainWorld, focus: str, until_s: float) -> None:
        self.world = world
        self.until_s = until_s
        self.focus = focus
        rng, weather = world.rng, world.weather
        weather.loss = rng.choice((0.0, 0.02, 0.2))
        weather.late = rng.choice((0.0, 0.01, 0.05))
        weather.store_late = rng.choice((0.0, 0.05, 0.3))
        world.disk_late = rng.choice((0.0, 0.02, 0.2))
        world.source_late_s = rng.choice((0.0, 0.1, 0.6))
        faults: dict[str, Callable[[], None]] = {
            "kill": self.kill,
            "kill all": self.kill_all,
            "pause": self.pause,
            "cut": self.cut,
            "routing": self.cut_routing,
            "isolated": self.isolate_from_mgmtds,
            "primary": self.lose_primary,
            "evidence": self.evidence,
            "drain": self.drain,
            "lost": self.lose_chain,
        }
        on = [name for name in faults if rng.random() < 0.6]
        self._faults = [faults[name] for name in on] or [self.kill]
        aimed: dict[str, Callable[[], None]] = {
            "isolated": self.isolated_restart,
            "routing": self.removed_unheard,
            "head": self.kill_head,
            "busy": self.kill_head,
            "tail": self.kill_tail,
            "takeover": self.takeover_then_drain,
            "reset": self.reset,
            "apart": self.two_apart,
            "lost": self.lose_chain,
            "link": self.break_link,
        }
        self._aimed = aimed.get(focus)
        if focus == "join":
            world.on_record.append(self._at_join)
        if focus == "late":
            weather.late, world.disk_late, world.source_late_s = 0.2, 0.3, 0.6
            world.read_pause_s = 0.03
        if focus in ("head", "join", "busy"):
            world.pause_s = 0.03
        if focus in ("join", "busy"):
            world.read_pause_s = 0.03
        if focus == "isolated":  # everything else would only disturb a schedule as long as this
            weather.loss = weather.late = weather.store_late = 0.0
            self._faults = [self.isolated_restart]

    def begin(self) -> None:
        self.world.after(self.world.rng.uniform(2.0, 4.0), self._strike)

    def end(self) -> None:
        """Fair weather."""
        world = self.world
        world.weather.cuts.clear()
        world.weather.loss = world.weather.late = world.weather.store_late = world.disk_late = 0.0
        world.weather.answers_late_s.clear()
        world.removals.clear()
        world.broken_links.clear()
        world.on_record.clear()

    def _strike(self) -> None:
        rng, world = self.world.rng, self.world
        if world.now_s > self.until_s:
            return
        if self._aimed is not None and rng.random() < 0.6:
            self._aimed()
        else:
            rng.choice(self._faults)()
        pause_s = 16.0 if self.focus == "isolated" else rng.choice((0.3, 1.0, 3.0, 6.0))
        world.after(pause_s * rng.uniform(0.5, 1.5), self._strike)

    @property
    def _info(self) -> ChainInfo:
        return self.world.register.routing.chains[CHAIN]

    # --- single faults ---

    def kill(self, number: int = 0, after_s: float = 0.0, *, known: bool | None = None) -> None:
        """A node dies with what was not durable, and comes back."""
        world, rng = self.world, self.world.rng
        number = number or rng.choice(NODES)
        process = newest(world, NodeId(number))
        if process is None:
            return
        process.is_alive = False
        world.members = [p for p in world.members if p.is_alive]
        world.stores[number].crash(rng)
        world.counts["restarts"] += 1
        if rng.random() < 0.7 if known is None else known:
            world.after(0.05, lambda: self.evidence(number))
        after_s = after_s or rng.choice((0.2, 0.2, 1.0, 4.0, 9.0))
        world.after(after_s, partial(_start_node, world, number))

    def kill_all(self) -> None:
        """Everything at once."""
        for number in NODES:
            if self.world.rng.random() < 0.9:
                self.kill(number)

    def lose_chain(self) -> None:
        """All members say that their targets are of no use; then their nodes restart, in some order."""
        rng = self.world.rng
        for number in NODES:
            process = newest(self.world, NodeId(number))
            if process is not None and rng.random() < 0.9:
                process.failed_disks.add(CHAIN)
            self.world.after(rng.uniform(2.5, 6.0), partial(self.kill, number))

    def kill_head(self) -> None:
        """Whoever gives numbers, and often the one behind it soon after."""
        rng = self.world.rng
        writable = self._info.writable
        for place, member in enumerate(writable[: rng.choice((1, 2, 2))]):
            node = int(member.node)
            after_s = place * rng.uniform(0.0, 3.0)
            self.world.after(after_s, lambda node=node: self.kill(node, rng.choice((0.2, 1.0, 6.0))))  # type: ignore[misc]

    def kill_tail(self) -> None:
        """The last serving member dies, or is cut from the one before it while it commits."""
        serving = self._info.serving
        if len(serving) < 2:
            return
        before, last = int(serving[-2].node), int(serving[-1].node)
        self._cut(("rpc",), last, before, 2.5)
        self.world.after(self.world.rng.uniform(0.2, 1.0), lambda: self.kill(last, 4.0, known=True))

    def pause(self) -> None:
        """A process stands still; its clock does not."""
        world, rng = self.world, self.world.rng
        number = rng.choice((*NODES, *MGMTDS))
        process = newest(world, NodeId(number)) if number in NODES else world.mgmtds.get(number)
        if process is not None:
            process.paused_until_s = world.now_s + rng.choice((0.3, 1.6, 3.5, 6.0)) * rng.uniform(0.8, 1.2)

    def cut(self) -> None:
        """One direction between two hosts."""
        source, target = self.world.rng.sample((*NODES, *MGMTDS), 2)
        self._cut(("udp", "rpc"), source, target, self.world.rng.uniform(0.5, 8.0))

    def cut_routing(self, number: int = 0) -> None:
        """Datagrams pass, connections to mgmtds do not."""
        number = number or self.world.rng.choice(NODES)
        for mgmtd in MGMTDS:
            self._cut(("rpc",), mgmtd, number, self.world.rng.uniform(1.0, 6.0))

    def break_link(self) -> None:
        """Two members in use cannot reach each other, mostly but for datagrams; both are heard by mgmtd."""
        world, rng = self.world, self.world.rng
        if len(self._info.writable) < 2:
            return
        one, other = (int(m.node) for m in rng.sample(self._info.writable, 2))
        length_s = rng.uniform(3.0, 9.0)
        planes = ("rpc",) if rng.random() < 0.7 else ("rpc", "udp")
        self._cut(planes, one, other, length_s)
        self._cut(planes, other, one, length_s)
        world.broken_links[one, other] = None
        world.after(length_s, lambda: world.broken_links.pop((one, other), None))

    def isolate_from_mgmtds(self, numbers: tuple[int, ...] = NODES) -> None:
        """Members hear each other but no mgmtd."""
        length_s = self.world.rng.uniform(2.0, 8.0)
        for number in numbers:
            for mgmtd in MGMTDS:
                self._cut(("udp", "rpc"), mgmtd, number, length_s)

    def lose_primary(self) -> None:
        """The primary dies and comes back, or is cut from the store."""
        world, number = self.world, self._primary()
        if world.rng.random() < 0.5:
            self._cut(("kv",), number, 0, world.rng.uniform(2.0, 6.0))
            return
        process = world.mgmtds.pop(number, None)
        if process is not None:
            process.is_alive = False
            world.after(world.rng.uniform(0.2, 5.0), partial(_start_mgmtd, world, number))

    def evidence(self, number: int = 0) -> None:
        """Somebody says that a node is dead; true or not."""
        process = self.world.mgmtds.get(self._primary())
        node = NodeId(number or self.world.rng.choice(NODES))
        term = process.term if process is not None and process.is_acting() else None
        if process is not None and term is not None and node in term.liveness.lives:
            life = term.liveness.lives[node]
            term.liveness.on_evidence(node, life.generation, "reset", process.now_s())

    def drain(self) -> None:
        """An operator wants a member out for a while."""
        world = self.world
        world.removals[CHAIN] = target_of(CHAIN, world.rng.choice(NODES))
        world.after(world.rng.uniform(2.0, 6.0), world.removals.clear)

    def _primary(self) -> int:
        acting = [m for m, process in self.world.mgmtds.items() if process.is_acting()]
        return acting[0] if acting else self.world.rng.choice(MGMTDS)

    def _cut(self, planes: tuple[str, ...], source: int, target: int, length_s: float) -> None:
        for plane in planes:
            self.world.weather.cuts[plane, source, target] = self.world.now_s + length_s

    # --- faults that come together ---

    def isolated_restart(self) -> None:
        """The chain lives by its members' leases, all but one unheard; that one restarts, deaf to them.

        The others count as dead and leave while a grant that the restarted one does not remember runs (V7).
        """
        world, serving = self.world, [int(m.node) for m in self._info.serving]
        if len(serving) < 2:
            return
        first = world.rng.choice(serving)
        for mgmtd in MGMTDS:
            for number in NODES:
                if number != first:
                    self._cut(("udp", "rpc"), mgmtd, number, 9.0)
                    self._cut(("udp", "rpc"), number, mgmtd, 9.0)

        def restart() -> None:
            for number in NODES:
                self._cut(("udp",), first, number, 3.0)
            self.kill(first, 0.2, known=False)

        world.after(world.rng.uniform(4.0, 4.8), restart)

    def removed_unheard(self) -> None:
        """A serving member is drained and does not hear of it; its datagrams pass (V8)."""
        world, serving = self.world, self._info.serving
        if len(serving) < 2:
            return
        member = world.rng.choice(serving)
        world.removals[CHAIN] = member.target
        world.after(6.0, world.removals.clear)
        for mgmtd in MGMTDS:
            self._cut(("rpc",), mgmtd, int(member.node), 6.0)
        for peer in NODES:
            self._cut(("udp",), peer, int(member.node), 6.0)

    def takeover_then_drain(self) -> None:
        """The primary is lost; the next one is asked at once to take a member out."""
        world = self.world
        self._cut(("kv",), self._primary(), 0, 6.0)
        world.after(world.rng.uniform(1.5, 2.5), self.removed_unheard)

    def reset(self) -> None:
        """A forged reset, and the node is cut from its peers: it lives by the primary's lease alone."""
        world = self.world
        number = int(world.rng.choice(self._info.serving or self._info.members).node)
        for peer in NODES:
            self._cut(("udp",), peer, number, 4.0)
        for mgmtd in MGMTDS:
            self._cut(("rpc",), mgmtd, number, 4.0)
        world.after(world.rng.uniform(0.2, 2.0), lambda: self.evidence(number))

    def two_apart(self) -> None:
        """A member is killed for a while; when it is nearly back, the others hear no mgmtd (V9)."""
        world = self.world
        number = int(world.rng.choice(self._info.members).node)
        others = tuple(n for n in NODES if n != number)
        self.kill(number, 1.0)
        world.after(world.rng.uniform(2.0, 6.0), lambda: self.isolate_from_mgmtds(others))

    def _at_join(self, info: ChainInfo) -> None:
        """A version names a joiner: one of the older members does not hear of it for a while."""
        rng = self.world.rng
        older = [m for m in info.serving if not m.joining]
        joiner = next((m for m in info.serving if m.joining), None)
        if joiner is None or not older or info.members[0].state is not TargetState.SERVING:
            return
        deaf = int(older[-1].node if rng.random() < 0.7 else rng.choice(older).node)
        length_s = rng.uniform(0.3, 3.0)
        for mgmtd in MGMTDS:
            self._cut(("rpc",), mgmtd, deaf, length_s)
        for peer in NODES:
            self._cut(("udp",), peer, deaf, length_s)
        self._cut(("rpc",), int(joiner.node), deaf, length_s)
        if rng.random() < 0.3:
            self.kill(deaf, rng.choice((1.0, 8.0)))


def _start_node(world: ChainWorld, number: int) -> None:
    world.parts.node(world.hosts[number])


def _start_mgmtd(world: ChainWorld, number: int) -> None:
    MgmtdProcess(world.hosts[number])


FOCI = (
    "",
    "isolated",
    "routing",
    "head",
    "busy",
    "tail",
    "takeover",
    "reset",
    "apart",
    "lost",
    "join",
    "late",
    "link",
)
