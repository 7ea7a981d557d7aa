"""The processes of the chain model: a node with its replica, and a mgmtd that changes the chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from fs3.errors import Fs3Error, StaleRouting, Unavailable
from fs3.ids import ChainId, ChainVersion, NodeId, TargetId, node_of_target
from fs3.routing import ChainInfo, LocalState, RoutingInfo
from fs3.storage.effects import (
    Adopt,
    Answer,
    Commit,
    Decree,
    Done,
    DropPendings,
    Effect,
    Fail,
    Forward,
    PassOn,
    Record,
    Stage,
    UpdateAsk,
    WriteAsk,
)
from fs3.storage.reading import Ask, Serve, choose_after_answer, choose_at_once
from fs3.wire.chunk import Identity, Update, UpdateKind, VersionInfo
from fs3.wire.mgmtd import TargetReport

from .chain_model import ChainWorld
from .chain_resync import Reply, Resync
from .chain_store import CHAIN, CHUNK, sums_of
from .lease_model import Machine, target_of
from .lease_nodes import MgmtdProcess, NodeProcess, newest

TICK_S = 0.1
CALL_S = 1.0
PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Bytes:
    """A payload."""

    view: Any


class ChainNode(NodeProcess):
    """One generation of a node, with the replica of its target."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        world = self.world
        assert isinstance(world, ChainWorld)
        self.chain_world = world
        self.target = target_of(CHAIN, self.number)
        self.store = world.stores[self.number]
        self.replica = world.parts.replica(self.target, self.generation, self.store, self._lease_valid)
        self.adopted = ChainVersion(0)
        """Newest version whose adoption is durable."""
        self._tickets: dict[int, Reply] = {}
        self._last_ticket = 0
        self._lane_free_s = 0.0
        self.resync: Resync = world.parts.resync(self)
        self.every(TICK_S, lambda: self.perform(self.replica.on_tick(self.now_s())))

    @property
    def info(self) -> ChainInfo | None:
        """The adopted record."""
        return self.leases._known.get(CHAIN)

    def _lease_valid(self, version: ChainVersion) -> bool:
        return self.leases.valid(CHAIN, version, self.now_s())

    # --- routing ---

    def _learn(self, records: tuple[ChainInfo, ...]) -> None:
        super()._learn(records)
        self.follow()

    def on_routing(self, routing: RoutingInfo) -> None:
        super().on_routing(routing)
        self.follow()

    def follow(self) -> None:
        """The replica takes what the leases have adopted."""
        if (info := self.info) is not None:
            self.perform(self.replica.on_routing(info, self.now_s()))
            self.resync.follow()

    def acknowledged(self) -> dict[ChainId, ChainVersion]:
        """What it may acknowledge now."""
        version = self.leases.version_of(CHAIN)
        may = self.adopted == version and self.leases.may_acknowledge(CHAIN, version, self.now_s())
        return {CHAIN: version} if may and version else {}

    def unreachable(self) -> tuple[NodeId, ...]:
        """The other ends of broken links."""
        links = self.chain_world.broken_links
        return tuple(NodeId(b if a == self.number else a) for a, b in links if self.number in (a, b))

    def _copy(self) -> None:
        """``Resync`` copies."""

    def reported(self, chain: ChainId) -> TargetReport:
        """What it says of its target now."""
        version = self.uptodate_at()
        state = LocalState.UPTODATE if version else LocalState.ONLINE
        return TargetReport(
            target=self.target,
            state=LocalState.OFFLINE if chain in self.failed_disks else state,
            store_id=b"store",
            clean=True,
            chain=CHAIN,
            chain_version=version,
            copy_step_count=self.resync.step_count,
        )

    def uptodate_at(self) -> ChainVersion:
        """The one version at which it has everything; 0: it has not."""
        gate = self.replica.gate
        return gate.standing.version if gate.is_complete and gate.standing is not None else ChainVersion(0)

    def _reporting(self, target: MgmtdProcess) -> Callable[[], None]:
        self.sequence += 1
        sequence, targets = self.sequence, (self.reported(CHAIN),)
        return lambda: target.run(lambda: target.on_report(self, sequence, targets))

    # --- disk ---

    def lane(self, work: Callable[[], None]) -> None:
        """One disk operation after the other; those not begun when the process dies are lost."""
        rng, world = self.chain_world.rng, self.chain_world
        delay_s = rng.uniform(0.05, 0.6) if rng.random() < world.disk_late else rng.uniform(0.001, 0.004)
        self._lane_free_s = max(self._lane_free_s, world.now_s) + delay_s
        world.at(self._lane_free_s, lambda: self.run(work))

    # --- effects ---

    def perform(self, effects: list[Effect]) -> None:
        """As the product's runner does."""
        for effect in effects:
            match effect:
                case Stage():
                    self.lane(lambda effect=effect: self._stage(effect))  # type: ignore[misc]
                case Commit():
                    self._commit(effect)
                case Answer(ticket, done, _):
                    self._settle(ticket, done)
                case Fail(ticket, error):
                    self._settle(ticket, error)
                case Forward():
                    self.forward(effect)
                case Record(token, decree):
                    self.lane(lambda t=token, d=decree: self._record(t, d))  # type: ignore[misc]
                case PassOn():
                    self._pass_on(effect)
                case Adopt(version):
                    self.lane(lambda v=version: self._adopted(v))  # type: ignore[misc]
                case DropPendings():
                    self.lane(self.drop_pendings)
                case _:
                    self.world.fail(f"N, C: node {self.number}: {effect}")

    def _stage(self, effect: Stage) -> None:
        payload = bytes(effect.payload.view) if effect.payload is not None else b""
        outcome = self.store.stage(effect.update, payload, self.record(effect), effect.replaces)
        version, error = (None, outcome) if isinstance(outcome, Fs3Error) else (outcome, None)
        self.perform(self.replica.on_staged(effect.token, version, error, self.now_s()))

    def record(self, effect: Stage) -> Any:
        """The dedup record that is stored with an update."""
        return effect.dedup

    def _commit(self, effect: Commit) -> None:
        pending = self.store.image.pending
        assert pending is not None, effect
        version = self.store.commit(effect.identity)
        is_resync = effect.identity in self.resync.brought
        content = self.store.image.content
        self.chain_world.on_commit(self.number, pending.update, version, content, resync=is_resync)

    def _settle(self, ticket: int, outcome: Any) -> None:
        if (reply := self._tickets.pop(ticket, None)) is not None:
            reply(outcome)

    def ticket(self, reply: Reply) -> int:
        self._last_ticket += 1
        self._tickets[self._last_ticket] = reply
        return self._last_ticket

    def _record(self, token: int, decree: Decree) -> None:
        self.store.keep(decree)
        self.perform(self.replica.on_decree_step(token, None, self.now_s()))

    def _adopted(self, version: ChainVersion) -> None:
        standing = self.replica.gate.standing
        if standing is None or standing.version != version:
            return
        if standing.serving:
            self.store.note(version)
        self.adopted = version

    def drop_pendings(self) -> None:
        self.store.drop_pendings()
        self.perform(self.replica.on_pendings_dropped())

    # --- messages ---

    def call(
        self, to: TargetId, work: Callable[[Any, Reply], None], done: Reply, timeout_s: float = CALL_S
    ) -> None:
        """Ask a node over a connection: ``done`` gets the answer, or an error, once."""
        call_over(self, int(node_of_target(to)), work, done, timeout_s)

    def forward(self, effect: Forward) -> None:
        """Send a pending version on, with bytes from the store."""
        sent = self.forwarded(effect)
        if sent is None:
            return self.replica.on_forward_failed(effect.token, self.now_s())
        update, payload = sent
        ask = UpdateAsk(update, effect.version, self.target)

        def done(answer: Any) -> None:
            now_s = self.now_s()
            if isinstance(answer, Done):
                identity, there = self.answered(effect, answer), answer.content_sum
                self.perform(self.replica.on_forwarded(effect.token, identity, there, now_s))
            else:
                self.replica.on_forward_failed(effect.token, now_s)

        self.call(effect.member.target, lambda peer, reply: peer.on_update(self, ask, payload, reply), done)
        return None

    def answered(self, effect: Forward, done: Done) -> Identity:
        """What the successor's answer names."""
        return done.identity

    def forwarded(self, effect: Forward) -> tuple[Update, bytes] | None:
        """The update as it is sent, and its bytes; None: it is not pending any more."""
        image, update = self.store.image, effect.update
        if image.pending is None or image.pending.version.identity != update.identity:
            return None
        content = image.pending_content
        if effect.whole:
            update = msgspec.structs.replace(
                update, kind=UpdateKind.REPLACE, offset_bytes=0, length_bytes=len(content)
            )
        if update.kind not in (UpdateKind.WRITE, UpdateKind.REPLACE):
            return update, b""
        payload = content[update.offset_bytes : update.offset_bytes + update.length_bytes]
        return msgspec.structs.replace(update, sums=sums_of(payload)), payload

    def on_update(self, sender: ChainNode, ask: UpdateAsk, payload: bytes, reply: Reply) -> None:
        if (error := self.sender_problem(sender)) is not None:
            return reply(error)
        now_s = self.now_s()
        ticket = self.ticket(reply)
        self.perform(self.replica.on_update(ticket, ask, Bytes(payload), now_s, now_s + PATIENCE_S))
        return None

    def sender_problem(self, sender: ChainNode) -> Fs3Error | None:
        """A node of another generation is no predecessor (design 2.7)."""
        standing = self.replica.gate.standing
        before = standing.predecessor if standing is not None else None
        if before is None or (before.target, before.generation) != (sender.target, sender.generation):
            return StaleRouting("not the predecessor here")
        return None

    def on_write(self, ask: WriteAsk, payload: bytes, reply: Reply) -> None:
        now_s = self.now_s()
        ticket = self.ticket(reply)
        self.perform(self.replica.on_write(ticket, ask, Bytes(payload), now_s, now_s + PATIENCE_S))

    def on_decree(self, decree: Decree, version: ChainVersion, reply: Reply) -> None:
        """Answered with None when all have it."""
        now_s = self.now_s()
        ticket = self.ticket(reply)
        self.perform(self.replica.on_decree(ticket, decree, version, now_s, now_s + 3 * PATIENCE_S))

    def _pass_on(self, effect: PassOn) -> None:
        def done(answer: Any) -> None:
            error = answer if isinstance(answer, Fs3Error) else None
            self.perform(self.replica.on_decree_step(effect.token, error, self.now_s()))

        def work(peer: ChainNode, reply: Reply) -> None:
            peer.on_decree(effect.decree, effect.version, reply)

        self.call(effect.member.target, work, done, 4 * CALL_S)

    # --- reads ---

    def on_read(self, version: ChainVersion, reply: Reply) -> None:
        """Answers with (identity or None, content), or an error."""
        self._settled(version, reply, lambda: self._read(version, reply))

    def _settled(self, version: ChainVersion, reply: Reply, work: Callable[[], None]) -> None:
        """Do it now, or when what was brought along is resolved (design 4.4)."""
        if (error := self.replica.gate.read_problem(version)) is not None:
            return reply(error)
        if not self.replica.must_settle(CHUNK):
            return work()

        def settled(outcome: Any) -> None:
            if isinstance(outcome, Fs3Error):
                reply(outcome)
            else:
                self._settled(version, reply, work)

        deadline_s = self.now_s() + PATIENCE_S
        self.perform(self.replica.on_settle(self.ticket(settled), [CHUNK], deadline_s))
        return None

    def _read(self, version: ChainVersion, reply: Reply) -> None:
        standing = self.replica.gate.standing
        assert standing is not None
        state = self.store.versions(CHUNK)
        match choose_at_once(state, last_serving=standing.is_last_serving, relaxed=False):
            case Serve(identity):
                reply((identity, self.store.image.content))
            case Ask():
                self.ask_last(version, lambda answer: self._evaluate(version, answer, reply))

    def ask_last(self, version: ChainVersion, done: Reply) -> None:
        """Ask the last serving member what is committed: after this read arrived, for this read only."""
        standing = self.replica.gate.standing
        assert standing is not None and standing.last_serving is not None
        last = standing.last_serving.target
        self.call(last, lambda peer, reply: peer.on_query(version, reply), done)

    def on_query(self, version: ChainVersion, reply: Reply) -> None:
        """Answers with (identity or None,), or an error."""

        def work() -> None:
            standing, committed = self.replica.gate.standing, self.store.image.committed
            if standing is None or not standing.is_last_serving:
                return reply(StaleRouting("not the last serving one"))
            return reply((committed.identity if committed is not None else None,))

        self._settled(version, reply, work)

    def _evaluate(self, version: ChainVersion, answer: Any, reply: Reply) -> None:
        if isinstance(answer, Fs3Error):
            return reply(answer)
        if (error := self.replica.gate.read_problem(version)) is not None:
            return reply(error)
        match choose_after_answer(self.store.versions(CHUNK), answer[0]):
            case Serve(identity):
                return reply((identity, self._content_of(identity)))
            case _:
                return reply(StaleRouting("neither committed nor pending here"))

    def _content_of(self, identity: Identity | None) -> bytes:
        image = self.store.image
        own: VersionInfo | None = image.committed
        is_own = identity is None or (own is not None and own.identity == identity)
        return image.content if is_own else image.pending_content


def call_over(
    caller: Any, to: int, work: Callable[[Any, Reply], None], done: Reply, timeout_s: float
) -> None:
    """A call over a connection. ``caller`` has a number, ``world`` and ``run``."""
    world, is_open = caller.world, [True]

    def finish(value: Any) -> None:
        if is_open[0]:
            is_open[0] = False
            done(value)

    def reply(value: Any) -> None:
        world.send("rpc", to, caller.number, lambda: caller.run(lambda: finish(value)))

    def deliver() -> None:
        peer = newest(world, NodeId(to))
        if peer is None:
            reply(Unavailable("refused"))
        else:
            peer.run(lambda: work(peer, reply))

    world.send("rpc", caller.number, to, deliver)
    world.after(timeout_s, lambda: caller.run(lambda: finish(Unavailable("no answer"))))
