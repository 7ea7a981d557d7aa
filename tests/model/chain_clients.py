"""Clients of the chain model: writers with sessions, channels and retries, pinned readers, and who settles.

Every client has its own idea of the chain, which may be old; it learns the newest one late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fs3.errors import Fs3Error, InvalidRequest, SessionLost, StaleFile, StaleRouting
from fs3.ids import FIRST_CLIENT_SESSION, ClientSessionId, Epoch
from fs3.routing import ChainInfo, Member
from fs3.storage.effects import Decree, Done, EpochRaise, SessionEnd, WriteAsk
from fs3.wire.chunk import UpdateKind, WriterTag

from .chain_model import ChainWorld
from .chain_nodes import call_over
from .chain_store import CHAIN, CHUNK, INODE, sums_of

WRITERS = (201, 202, 203)
READERS = (211, 212, 213)
SETTLER = 221
ZOMBIE_S = 6.0
"""So long a client goes on with a request of a session that is over."""
CHUNK_BYTES = 65_536


class Client:
    """Something outside the cluster that asks."""

    def __init__(self, world: ChainWorld, number: int) -> None:
        self.world = world
        self.number = number
        self.info: ChainInfo = world.register.routing.chains[CHAIN]

    def run(self, work: Callable[[], None]) -> None:
        """Clients neither pause nor die."""
        work()

    def soon(self, work: Callable[[], None], most_s: float = 0.2) -> None:
        self.world.after(self.world.rng.uniform(0.005, most_s), work)

    def learn(self) -> None:
        """Hear of the chain's newest record, or not yet."""
        if self.world.rng.random() < 0.7:
            self.info = self.world.register.routing.chains[CHAIN]

    def ask(self, member: Member, work: Callable[[Any, Any], None], done: Callable[[Any], None]) -> None:
        call_over(self, int(member.node), work, done, 1.5)


class Writer(Client):
    """One request at a time, repeated until it is answered for good."""

    def __init__(self, world: ChainWorld, number: int) -> None:
        self.session = ClientSessionId(FIRST_CLIENT_SESSION + number)
        self.sequence = 0
        self.epoch = Epoch(0)
        self.asked: WriteAsk | None = None
        self.payload = b""
        self.floor = 0
        self.lost_since_s: float | None = None
        """Its session is over, and it does not care."""
        self.known_length = 0
        super().__init__(world, number)
        self.soon(self.go_on)

    def go_on(self) -> None:
        """The next request."""
        rng = self.world.rng
        if self.world.now_s > self.world.quiet_from_s:
            return  # the end is compared at rest
        self.sequence += 1
        kinds = (UpdateKind.WRITE,) * 6 + (UpdateKind.TRUNCATE, UpdateKind.REPLACE, UpdateKind.REMOVE)
        kind = rng.choice(kinds)
        self.payload = b""
        offset, length = 0, 0
        if kind in (UpdateKind.WRITE, UpdateKind.REPLACE):
            self.payload = b"%d.%d;" % (self.number % 10, self.sequence)
            length = len(self.payload)
        if kind is UpdateKind.WRITE:
            offset = rng.choice((0, rng.randrange(12), min(self.known_length, 40)))
        if kind is UpdateKind.TRUNCATE:
            length = rng.randrange(16)
        self.asked = WriteAsk(
            CHUNK, self.info.version, kind, offset, length, sums_of(self.payload),
            WriterTag(self.session, self.number % 4, self.sequence), self.epoch, CHUNK_BYTES,
        )  # fmt: skip
        self.floor = self.world.complete_number
        self._send()

    def _send(self) -> None:
        asked, serving = self.asked, self.info.serving
        if asked is None:
            return
        if not serving:
            self.learn()
            self.soon(self._send)
            return
        ask = WriteAsk(
            asked.chunk, self.info.version, asked.kind, asked.offset_bytes, asked.length_bytes,
            asked.sums, asked.writer, self.epoch, CHUNK_BYTES,
        )  # fmt: skip
        payload = self.payload
        self.ask(serving[0], lambda node, reply: node.on_write(ask, payload, reply), self._answered)

    def _answered(self, answer: Any) -> None:
        world, asked = self.world, self.asked
        assert asked is not None
        if isinstance(answer, Done):
            number = int(answer.identity.update_version)
            world.completed(number, self.floor + 1, "writes", answer.identity)
            if answer.identity.writer != asked.writer:
                world.fail(f"O: {asked.writer} is answered with {answer.identity}")
            self.known_length = answer.length_bytes
            self._next()
        elif isinstance(answer, SessionLost):
            self._new_session()
        elif isinstance(answer, InvalidRequest):
            world.fail(f"O: {asked.writer}: {answer}")
        elif self.lost_since_s is not None and world.now_s - self.lost_since_s > ZOMBIE_S:
            self._new_session()
        else:
            if isinstance(answer, StaleFile) and self.lost_since_s is None:
                self.epoch = world.file_epoch
            self.learn()
            self.soon(self._send)

    def _next(self) -> None:
        self.asked = None
        self.soon(self.go_on, self.world.pause_s)

    def _new_session(self) -> None:
        """The request is given up: whether it was applied is not known."""
        self.session = ClientSessionId(self.session + 1000)
        self.sequence, self.epoch, self.lost_since_s = 0, self.world.file_epoch, None
        self._next()


class Reader(Client):
    """Sticks to one replica and to its old record of the chain for a while."""

    def __init__(self, world: ChainWorld, number: int) -> None:
        self.node = 0
        self.pinned_until_s = 0.0
        super().__init__(world, number)
        self.soon(self.go_on)

    def go_on(self) -> None:
        """The next read."""
        world, serving = self.world, self.info.serving
        if world.now_s >= self.pinned_until_s:
            self.info = world.register.routing.chains[CHAIN]
            serving = self.info.serving
            self.node = world.rng.choice(serving).node if serving else 0
            self.pinned_until_s = world.now_s + world.rng.choice((0.3, 1.0, 3.0))
        member = next((m for m in serving if m.node == self.node), None)
        if member is None:
            self.learn()
            self.soon(self.go_on)
            return
        version, floor = self.info.version, world.complete_number
        self.ask(
            member, lambda node, reply: node.on_read(version, reply), lambda answer: self._got(answer, floor)
        )

    def _got(self, answer: Any, floor: int) -> None:
        world = self.world
        if not isinstance(answer, Fs3Error):
            identity, content = answer
            number = int(identity.update_version) if identity is not None else 0
            world.completed(number, floor, "reads", identity)
            if number and world.committed[number].content != content:
                world.fail(f"C: {identity} is read with other content")
        elif isinstance(answer, StaleRouting) and world.rng.random() < 0.3:
            self.pinned_until_s = world.now_s
        self.soon(self.go_on, world.read_pause_s)


class Settler(Client):
    """Ends a writer's session now and then, and says what is settled (design 4.9)."""

    def __init__(self, world: ChainWorld, number: int, writers: list[Writer]) -> None:
        self.writers = writers
        super().__init__(world, number)
        self.go_on()

    def go_on(self) -> None:
        """The next settlement, in a while."""
        world = self.world
        self.world.after(world.rng.uniform(2.0, 8.0), self._begin)

    def _begin(self) -> None:
        world = self.world
        victim = world.rng.choice(self.writers)
        session, victim.lost_since_s = victim.session, world.now_s
        epoch = world.file_epoch = Epoch(world.file_epoch + 1)
        if not world.settles_by_epoch:  # a mutant
            world.settled(epoch)
            self.go_on()
            return

        def raised() -> None:
            world.settled(epoch)
            self._decree(SessionEnd(session), self.go_on)

        self._decree(EpochRaise(INODE, epoch), raised)

    def _decree(self, decree: Decree, done: Callable[[], None]) -> None:
        serving, version = self.info.serving, self.info.version
        again = lambda: self._decree(decree, done)  # noqa: E731
        if not serving:
            self.learn()
            self.soon(again)
            return

        def answered(answer: Any) -> None:
            if answer is None:
                done()
            else:
                self.learn()
                self.soon(again)

        self.ask(serving[0], lambda node, reply: node.on_decree(decree, version, reply), answered)


def start_clients(world: ChainWorld) -> None:
    """All of them."""
    writers = [Writer(world, number) for number in WRITERS]
    for number in READERS:
        Reader(world, number)
    Settler(world, SETTLER, writers)
