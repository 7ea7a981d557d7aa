"""Writers, readers and the checks of ``replica_world``."""

from __future__ import annotations

from fs3.errors import Fs3Error, StaleFile, Unavailable
from fs3.ids import ChunkId, ClientSessionId, Epoch
from fs3.rng import derived_rng
from fs3.storage import effects as fx
from fs3.storage.replica import Replica
from fs3.storage.sums import content_sum, sums_of
from fs3.wire.chunk import UpdateKind, WriterTag

from .replica_world import CHUNK_SIZE_BYTES, INODE, Bytes, Operation, World


class Writer:
    """One channel of one client session: writes, and repeats each request until it is answered."""

    def __init__(self, world: World, number: int, chunks: list[ChunkId], writes: int) -> None:
        self.world = world
        self.session = ClientSessionId(16 + number)
        self.chunks = chunks
        self.left = writes
        self.sequence = 0
        self.epoch = Epoch(0)
        self.rng = derived_rng(world.rng.getrandbits(32), f"writer {number}")
        world.later(self.rng.random() * 0.1, self.next)

    def next(self) -> None:
        if self.left == 0:
            return
        self.left -= 1
        self.sequence += 1
        chunk = self.rng.choice(self.chunks)
        text = f"<{self.session}.{self.sequence}>".encode()
        kind = self.rng.choice((UpdateKind.WRITE, UpdateKind.WRITE, UpdateKind.REPLACE, UpdateKind.TRUNCATE))
        offset = self.rng.randrange(12) if kind is UpdateKind.WRITE else 0
        payload = text if kind is not UpdateKind.TRUNCATE else b""
        length = len(payload) or self.rng.randrange(20)
        self._attempt((chunk, kind, offset, length, payload), self.world.now_s, self.sequence)

    def _attempt(
        self, what: tuple[ChunkId, UpdateKind, int, int, bytes], asked_s: float, sequence: int
    ) -> None:
        world = self.world
        chunk, kind, offset, length, payload = what
        info = world.info
        state = {"open": True}

        def ask(replica: Replica, ticket: int) -> list[fx.Effect]:
            write = fx.WriteAsk(
                chunk,
                info.version,
                kind,
                offset,
                length,
                sums_of(memoryview(payload), offset),
                WriterTag(self.session, 0, sequence),
                self.epoch,
                CHUNK_SIZE_BYTES,
            )
            return replica.on_write(ticket, write, Bytes(payload), world.now_s, world.now_s + 1.0)

        def close(done: fx.Done | None, error: Fs3Error | None) -> None:
            if not state["open"]:
                return
            state["open"] = False
            if done is not None:
                number = done.identity.update_version
                assert done.identity.writer == WriterTag(self.session, 0, sequence), done
                world.history.operations.append(Operation(chunk, True, asked_s, world.now_s, number, b""))
                world.later(self.rng.random() * 0.05, self.next)
            elif isinstance(error, StaleFile):
                self.epoch = world.nodes[info.members[0].target].store.epoch(INODE)
                world.later(0.02, lambda: self._attempt(what, asked_s, sequence))
            else:
                world.later(self.rng.random() * 0.1, lambda: self._attempt(what, asked_s, sequence))

        head = world.nodes[info.members[0].target]
        world.send(lambda: head.ask(ask, lambda done, error: world.send(lambda: close(done, error))))
        world.later(2.0, lambda: close(None, Unavailable("no answer")))


class Reader:
    """Reads one chunk after the other from members that it picks by chance."""

    def __init__(self, world: World, number: int, chunks: list[ChunkId], every_s: float = 0.02) -> None:
        self.world = world
        self.chunks = chunks
        self.every_s = every_s
        self.rng = derived_rng(world.rng.getrandbits(32), f"reader {number}")
        self.stopped = False
        self.next()

    def next(self) -> None:
        if self.stopped:
            return
        target = self.rng.choice(list(self.world.nodes))
        self.world.read(self.rng.choice(self.chunks), target, self._done)
        self.world.later(self.rng.random() * self.every_s, self.next)

    def _done(self, outcome: Operation | Fs3Error) -> None:
        if isinstance(outcome, Operation):
            self.world.history.operations.append(outcome)


def check_history(world: World) -> None:
    """Linearizable per chunk; each request applied once; what was read is what was committed."""
    by_chunk: dict[ChunkId, list[Operation]] = {}
    for operation in world.history.operations:
        by_chunk.setdefault(operation.chunk, []).append(operation)
    for chunk, operations in by_chunk.items():
        _check_order(operations)
        for operation in operations:
            if operation.number:
                identity, content = world.history.committed[chunk, operation.number]
                assert operation.is_write or operation.content == content, (operation, identity)
    tags = [identity.writer for identity, _ in world.history.committed.values()]
    assert len(tags) == len(set(tags)), "a request was applied twice"


def _check_order(operations: list[Operation]) -> None:
    """Whatever was answered before another was asked has no higher number (a write: a lower one)."""
    asked = sorted(operations, key=lambda o: o.asked_s)
    answered = sorted(operations, key=lambda o: o.answered_s)
    highest = 0
    at = 0
    for operation in asked:
        while at < len(answered) and answered[at].answered_s < operation.asked_s:
            highest = max(highest, answered[at].number)
            at += 1
        least = highest + 1 if operation.is_write else highest
        assert operation.number >= least, f"{operation} after version {highest} was seen"


def check_quiet(world: World) -> None:
    """After quiescence: nothing pending, replicas identical, nobody offline."""
    nodes = list(world.nodes.values())
    first = nodes[0].store.now
    for node in nodes:
        assert not node.offline, node.offline
        assert not node.store.now.pending, node.store.now.pending
        assert node.store.now.committed == first.committed
        assert node.store.now.epochs == first.epochs
        assert node.store.now.ended == first.ended
        for chunk, version in first.committed.items():
            content = node.store.bytes_of(chunk, version.identity)
            assert content == nodes[0].store.bytes_of(chunk, version.identity)
            assert content_sum(version.sums) == content_sum(first.committed[chunk].sums)
