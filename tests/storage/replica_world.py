"""A chain of real replica machines over a network that loses, repeats, delays and reorders.

Nodes crash, lose what is not synced, and come back as new generations that a new chain version names.
Clients write and repeat until they are answered, readers ask any member; ``History`` is checked afterwards.
Time is virtual; everything is drawn from one seed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from fs3.errors import Busy, Fs3Error, Unavailable
from fs3.ids import (
    ChainId,
    ChainVersion,
    ChunkId,
    Epoch,
    Generation,
    InodeId,
    TargetId,
)
from fs3.rng import derived_rng
from fs3.routing import ChainInfo, Member, TargetState
from fs3.storage import effects as fx
from fs3.storage.reading import Ask, Serve, choose_after_answer, choose_at_once
from fs3.storage.replica import Replica
from fs3.storage.sums import sums_of
from fs3.wire.chunk import Identity, Update, UpdateKind

from .model_store import ModelStore

CHAIN = ChainId(7)
INODE = InodeId(99)
CHUNK_SIZE_BYTES = 65536
FORWARD_TIMEOUT_S = 1.0
START_WAIT_S = 0.5


@dataclass
class Faults:
    """Shares of messages, and how often nodes die (a mean time; 0: never)."""

    lost: float = 0.0
    repeated: float = 0.0
    delay_s: float = 0.01
    crash_every_s: float = 0.0
    down_s: float = 0.5
    leases_missing: float = 0.0


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.view = memoryview(data)


@dataclass
class Operation:
    """One answered operation: when it was asked and answered, and the version it saw or made."""

    chunk: ChunkId
    is_write: bool
    asked_s: float
    answered_s: float
    number: int
    content: bytes


@dataclass
class History:
    operations: list[Operation] = field(default_factory=list)
    committed: dict[tuple[ChunkId, int], tuple[Identity, bytes]] = field(default_factory=dict)
    epochs: dict[tuple[ChunkId, int], Epoch] = field(default_factory=dict)
    """Under which epoch each version was numbered."""

    def commit(self, update: Update, content: bytes) -> None:
        """Every replica's commits: one identity and one content for each number."""
        chunk, identity = update.chunk, update.identity
        key = (chunk, identity.update_version)
        self.epochs[key] = update.epoch
        seen = self.committed.setdefault(key, (identity, content))
        assert seen == (identity, content), f"{key}: {seen} and {(identity, content)}"


class Node:
    """One target with its machine; ``replica`` is None while it is down."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.target = TargetId(number << 16)
        self.generation = Generation(0)
        self.store = ModelStore()
        self.replica: Replica | None = None
        self.lease_outage_until_s = 0.0
        self.tickets: dict[int, Callable[[fx.Done | None, Fs3Error | None], None]] = {}
        self.offline = ""

    def start(self) -> None:
        self.generation = Generation(self.generation + 1)
        self.store = self.store.crash()
        self.replica = self.world.replica_type(self.target, self.generation, self.store, self.lease_valid)
        self.tickets = {}
        self.world.later(0.1, self._ticker(self.generation))

    def _ticker(self, generation: Generation) -> Callable[[], None]:
        def tick() -> None:
            if self.replica is not None and self.generation == generation:
                self.perform(self.replica.on_tick(self.world.now_s))
                self.world.later(0.1, tick)

        return tick

    def crash(self) -> None:
        self.replica = None
        tickets, self.tickets = self.tickets, {}
        for answer in tickets.values():
            answer(None, Unavailable("connection lost"))

    def lease_valid(self, version: ChainVersion) -> bool:
        return self.world.now_s >= self.lease_outage_until_s and version == self.version

    @property
    def version(self) -> ChainVersion:
        standing = self.replica.gate.standing if self.replica is not None else None
        return standing.version if standing is not None else ChainVersion(0)

    def adopt(self, info: ChainInfo) -> None:
        if self.replica is not None:
            self.perform(self.replica.on_routing(info, self.world.now_s))

    def ask(
        self,
        request: Callable[[Replica, int], list[fx.Effect]],
        answer: Callable[[fx.Done | None, Fs3Error | None], None],
    ) -> None:
        """Hand a request to the machine; ``answer`` is called once."""
        if self.replica is None:
            return answer(None, Unavailable("down"))
        ticket = next(self.world.tickets)
        self.tickets[ticket] = answer
        self.perform(request(self.replica, ticket))

    def perform(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            self._perform_one(effect)

    def _perform_one(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Stage():
                payload = bytes(effect.payload.view) if effect.payload is not None else b""
                self._work(lambda replica: self._stage(replica, effect, payload))
            case fx.Forward():
                self.world.forward(self, effect)
            case fx.Commit(chunk, identity):
                self._commit(chunk, identity)
            case fx.Record():
                self._work(lambda replica: self._record(replica, effect))
            case fx.PassOn():
                self.world.pass_on(self, effect)
            case fx.Answer(ticket, done, _):
                self._answer(ticket, done, None)
            case fx.Fail(ticket, error):
                self._answer(ticket, None, error)
            case fx.GoOffline(reason):
                self.offline = reason
            case fx.DropPendings():
                self._work(self._drop)
            case fx.Adopt():
                pass
            case fx.Mend() | fx.Verify() | fx.Repair():
                raise AssertionError(f"contents never differ in this world: {effect}")

    def _answer(self, ticket: int, done: fx.Done | None, error: Fs3Error | None) -> None:
        if (answer := self.tickets.pop(ticket, None)) is not None:
            answer(done, error)

    def _commit(self, chunk: ChunkId, identity: Identity) -> None:
        held = self.store.versions(chunk).pending
        assert held is not None and held.version.identity == identity, (identity, held)
        assert self.store.commit(chunk, identity)
        self.world.history.commit(held.update, self.store.bytes_of(chunk, identity))

    def _record(self, replica: Replica, effect: fx.Record) -> list[fx.Effect]:
        self.store.record(effect.decree)
        return replica.on_decree_step(effect.token, None, self.world.now_s)

    def _drop(self, replica: Replica) -> list[fx.Effect]:
        self.store.drop_pendings()
        return replica.on_pendings_dropped()

    def _stage(self, replica: Replica, effect: fx.Stage, payload: bytes) -> list[fx.Effect]:
        version, error = self.store.stage(effect.update, payload, effect.dedup)
        return replica.on_staged(effect.token, version, error, self.world.now_s)

    def _work(self, work: Callable[[Replica], list[fx.Effect]]) -> None:
        """The disk does it in a while, unless the node dies before."""
        generation = self.generation

        def run() -> None:
            if self.replica is not None and self.generation == generation:
                self.perform(work(self.replica))

        self.world.disk(self, run)


class World:
    """The chain, its network, and whoever uses it."""

    def __init__(
        self, seed: int, members: int, faults: Faults, replica_type: type[Replica] = Replica
    ) -> None:
        self.replica_type = replica_type
        self.rng = derived_rng(seed, "world")
        self.faults = faults
        self.now_s = 100.0
        self.tickets = count(1)
        self.history = History()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._disk_free_s: dict[int, float] = {}
        self.nodes = {n.target: n for n in (Node(self, i + 1) for i in range(members))}
        for node in self.nodes.values():
            node.start()
        self.info = ChainInfo(chain=CHAIN, version=ChainVersion(1), members=self._members())
        for node in self.nodes.values():
            node.adopt(self.info)
        if faults.crash_every_s:
            self.later(self.rng.expovariate(1 / faults.crash_every_s), self._crash)
        if faults.leases_missing:
            self.later(0.5, self._lease_outage)

    def _members(self) -> tuple[Member, ...]:
        return tuple(
            Member(target=n.target, state=TargetState.SERVING, generation=n.generation)
            for n in self.nodes.values()
        )

    # -- time, network, disk

    def later(self, after_s: float, run: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now_s + after_s, next(self._order), run))

    def run_until(self, end_s: float) -> None:
        while self._heap and self._heap[0][0] <= end_s:
            self.now_s, _, run = heapq.heappop(self._heap)
            run()
        self.now_s = end_s

    def disk(self, node: Node, run: Callable[[], None]) -> None:
        """Work of one disk is done in its order."""
        done_s = max(self._disk_free_s.get(node.target, 0.0), self.now_s) + self.rng.random() * 0.005
        self._disk_free_s[node.target] = done_s
        self.later(done_s - self.now_s, run)

    def send(self, run: Callable[[], None]) -> None:
        """Deliver a message never, once or more often."""
        if self.rng.random() < self.faults.lost:
            return
        copies = 1 + (self.rng.random() < self.faults.repeated)
        for _ in range(copies):
            self.later(self.rng.random() * self.faults.delay_s, run)

    def forward(self, sender: Node, effect: fx.Forward) -> None:
        generation = sender.generation
        state = {"open": True}
        payload = _payload_of(sender.store, effect)
        update = effect.update
        kind = UpdateKind.REPLACE if effect.whole else update.kind
        if effect.whole or update.kind in (UpdateKind.WRITE, UpdateKind.REPLACE):
            start = 0 if effect.whole else update.offset_bytes
            update = _with(update, kind, start, payload)
        ask = fx.UpdateAsk(update, effect.version, sender.target)

        def close(done: fx.Done | None) -> None:
            if not state["open"] or sender.generation != generation or sender.replica is None:
                return
            state["open"] = False
            if done is None:
                sender.replica.on_forward_failed(effect.token, self.now_s)
            else:
                sender.perform(
                    sender.replica.on_forwarded(effect.token, done.identity, done.content_sum, self.now_s)
                )

        def deliver() -> None:
            receiver = self.nodes[effect.member.target]
            receiver.ask(
                lambda replica, ticket: replica.on_update(
                    ticket, ask, Bytes(payload), self.now_s, self.now_s + FORWARD_TIMEOUT_S
                ),
                lambda done, error: self.send(lambda: close(done)),
            )

        self.send(deliver)
        self.later(FORWARD_TIMEOUT_S, lambda: close(None))

    def pass_on(self, sender: Node, effect: fx.PassOn) -> None:
        generation = sender.generation
        state = {"open": True}

        def close(error: Fs3Error | None) -> None:
            if state["open"] and sender.generation == generation and sender.replica is not None:
                state["open"] = False
                sender.perform(sender.replica.on_decree_step(effect.token, error, self.now_s))

        def deliver() -> None:
            self.nodes[effect.member.target].ask(
                lambda replica, ticket: replica.on_decree(
                    ticket, effect.decree, effect.version, self.now_s, self.now_s + FORWARD_TIMEOUT_S
                ),
                lambda done, error: self.send(lambda: close(error)),
            )

        self.send(deliver)
        self.later(FORWARD_TIMEOUT_S, lambda: close(Unavailable("no answer")))

    # -- faults

    def _crash(self) -> None:
        alive = [n for n in self.nodes.values() if n.replica is not None]
        if alive:
            node = self.rng.choice(alive)
            node.crash()
            self.later(self.rng.random() * self.faults.down_s, lambda: self._restart(node))
        if self.faults.crash_every_s:
            self.later(self.rng.expovariate(1 / self.faults.crash_every_s), self._crash)

    def _restart(self, node: Node) -> None:
        node.start()
        generation = node.generation
        self.later(START_WAIT_S, lambda: self._renew(node, generation))

    def _renew(self, node: Node, generation: Generation) -> None:
        """What mgmtd does when the old generation's leases are over."""
        if node.generation != generation or node.replica is None:
            return
        current = {m.target: m.generation for m in self.info.members} | {node.target: generation}
        members = tuple(Member(target=t, state=TargetState.SERVING, generation=g) for t, g in current.items())
        info = self.info = ChainInfo(
            chain=CHAIN, version=ChainVersion(self.info.version + 1), members=members
        )
        for other in self.nodes.values():
            self._publish(other, info)

    def _publish(self, node: Node, info: ChainInfo) -> None:
        def arrive() -> None:
            if node.replica is None:
                return  # it learns the newest when it is renewed itself
            node.adopt(self.info if self.info.version > info.version else info)

        self.later(self.rng.random() * self.faults.delay_s * 4, arrive)

    def _lease_outage(self) -> None:
        if self.rng.random() < self.faults.leases_missing:
            node = self.rng.choice(list(self.nodes.values()))
            node.lease_outage_until_s = self.now_s + self.rng.random()
        if self.faults.leases_missing:
            self.later(0.5, self._lease_outage)

    def heal(self) -> None:
        """No faults from now on; whoever is down comes back."""
        self.faults.lost = self.faults.repeated = self.faults.crash_every_s = 0.0
        self.faults.leases_missing = 0.0
        for node in self.nodes.values():
            node.lease_outage_until_s = 0.0

    # -- readers

    def read(self, chunk: ChunkId, target: TargetId, done: Callable[[Operation | Fs3Error], None]) -> None:
        """Ask one member, as ``reading.py`` says."""
        asked_s = self.now_s
        node = self.nodes[target]
        replica = node.replica
        if replica is None or (standing := replica.gate.standing) is None:
            return done(Unavailable("down"))
        version = standing.version

        def refuse() -> Fs3Error | None:
            if node.replica is not replica:
                return Unavailable("crashed")
            return replica.gate.read_problem(version)

        def finish(identity: Identity | None) -> None:
            number = identity.update_version if identity is not None else 0
            content = node.store.bytes_of(chunk, identity)
            done(Operation(chunk, False, asked_s, self.now_s, number, content))

        def decide(answered: Identity | None, error: Fs3Error | None) -> None:
            error = error or refuse()
            if error is not None:
                return done(error)
            chosen = choose_after_answer(node.store.versions(chunk), answered)
            return finish(chosen.identity) if isinstance(chosen, Serve) else done(Busy("stale"))

        if (error := refuse()) is not None:
            return done(error)
        if replica.must_settle(chunk):
            return done(Busy("settling"))
        first = choose_at_once(
            node.store.versions(chunk), last_serving=standing.is_last_serving, relaxed=False
        )
        if isinstance(first, Ask):
            assert standing.last_serving is not None
            last = self.nodes[standing.last_serving.target]
            self.send(lambda: self._query(last, version, chunk, decide))
            return None
        return finish(first.identity)

    def _query(
        self,
        node: Node,
        version: ChainVersion,
        chunk: ChunkId,
        decide: Callable[[Identity | None, Fs3Error | None], None],
    ) -> None:
        replica = node.replica
        if replica is None:
            return
        error = replica.gate.read_problem(version)
        if error is None and replica.must_settle(chunk):
            error = Busy("settling")
        committed = node.store.versions(chunk).committed
        identity = committed.identity if committed is not None else None
        self.send(lambda: decide(identity, error))


def _payload_of(store: ModelStore, effect: fx.Forward) -> bytes:
    if effect.payload is not None and not effect.whole:
        return bytes(effect.payload.view)
    content = store.bytes_of(effect.update.chunk, effect.update.identity)
    if effect.whole:
        return content
    if effect.update.kind in (UpdateKind.WRITE, UpdateKind.REPLACE):
        return content[effect.update.offset_bytes :][: effect.update.length_bytes]
    return b""


def _with(update: Update, kind: UpdateKind, offset_bytes: int, payload: bytes) -> Update:
    return Update(
        chunk=update.chunk,
        identity=update.identity,
        kind=kind,
        offset_bytes=offset_bytes,
        length_bytes=len(payload),
        sums=sums_of(memoryview(payload), offset_bytes),
        epoch=update.epoch,
        chunk_size_bytes=update.chunk_size_bytes,
    )
