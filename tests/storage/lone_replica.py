"""One replica machine driven by hand: its effects are performed only as a test says."""

from __future__ import annotations

from dataclasses import dataclass, field

from fs3.ids import ChainId, ChainVersion, ChunkId, ClientSessionId, Epoch, Generation, InodeId, TargetId
from fs3.ids import UpdateVersion as Number
from fs3.routing import ChainInfo, Member, TargetState
from fs3.storage import effects as fx
from fs3.storage.replica import Replica
from fs3.storage.sums import content_sum, sums_of
from fs3.wire.chunk import Identity, Update, UpdateKind, WriterTag

from .model_store import ModelStore

CHUNK = ChunkId(InodeId(5), 0)
SIZE_BYTES = 65536
SERVING, SYNCING = TargetState.SERVING, TargetState.SYNCING


class Bytes:
    """A payload."""

    def __init__(self, data: bytes) -> None:
        self.view = memoryview(data)


def chain(version: int, *states: TargetState, first: int = 1, generation: int = 1) -> ChainInfo:
    """A chain of targets ``first``, ``first + 1``, …"""
    return ChainInfo(
        chain=ChainId(1),
        version=ChainVersion(version),
        members=tuple(
            Member(target=TargetId(first + i), state=state, generation=Generation(generation))
            for i, state in enumerate(states)
        ),
    )


def tag(sequence: int = 1, session: int = 100) -> WriterTag:
    """Whose update."""
    return WriterTag(ClientSessionId(session), 0, sequence)


def identity(number: int, sequence: int = 1, version: int = 1) -> Identity:
    """A version's identity."""
    return Identity(ChainVersion(version), Number(number), tag(sequence))


@dataclass
class Lone:
    """The replica of target ``number``; everything that it wanted is in ``effects`` since the last call."""

    number: int
    info: ChainInfo
    store: ModelStore = field(default_factory=ModelStore)
    has_lease: bool = True
    now_s: float = 10.0
    tickets: int = 0

    def __post_init__(self) -> None:
        self.replica = Replica(
            TargetId(self.number), Generation(1), self.store, lambda version: self.has_lease
        )
        self.replica.on_routing(self.info, self.now_s)

    @property
    def version(self) -> ChainVersion:
        """That it has adopted."""
        assert self.replica.gate.standing is not None
        return self.replica.gate.standing.version

    def adopt(self, info: ChainInfo) -> list[fx.Effect]:
        """A newer record."""
        return self.perform(self.replica.on_routing(info, self.now_s))

    def perform(self, effects: list[fx.Effect]) -> list[fx.Effect]:
        """Commit what is to be committed."""
        for effect in effects:
            if isinstance(effect, fx.Commit):
                assert self.store.commit(effect.chunk, effect.identity)
        return effects

    def write(
        self,
        data: bytes,
        sequence: int = 1,
        *,
        version: int | None = None,
        chunk: ChunkId = CHUNK,
        kind: UpdateKind = UpdateKind.WRITE,
    ) -> list[fx.Effect]:
        """A client's update, a WRITE at offset 0 unless said otherwise."""
        self.tickets += 1
        ask = fx.WriteAsk(
            chunk,
            ChainVersion(version if version is not None else self.version),
            kind,
            0,
            len(data),
            sums_of(memoryview(data), 0),
            tag(sequence),
            Epoch(0),
            SIZE_BYTES,
        )
        return self.perform(self.replica.on_write(self.tickets, ask, Bytes(data), self.now_s, self.now_s + 5))

    def update(
        self,
        data: bytes,
        which: Identity,
        *,
        version: int | None = None,
        sender: int | None = None,
        kind: UpdateKind = UpdateKind.WRITE,
    ) -> list[fx.Effect]:
        """A numbered update from the predecessor."""
        self.tickets += 1
        update = Update(
            chunk=CHUNK,
            identity=which,
            kind=kind,
            length_bytes=len(data),
            sums=sums_of(memoryview(data), 0),
            chunk_size_bytes=SIZE_BYTES,
        )
        gate = ChainVersion(version if version is not None else self.version)
        before = TargetId(sender if sender is not None else self.number - 1)
        ask = fx.UpdateAsk(update, gate, before)
        return self.perform(
            self.replica.on_update(self.tickets, ask, Bytes(data), self.now_s, self.now_s + 5)
        )

    def stage(self, effects: list[fx.Effect]) -> list[fx.Effect]:
        """The disk does the one Stage among ``effects``."""
        (effect,) = [e for e in effects if isinstance(e, fx.Stage)]
        payload = bytes(effect.payload.view) if effect.payload is not None else b""
        version, error = self.store.stage(effect.update, payload, effect.dedup)
        return self.perform(self.replica.on_staged(effect.token, version, error, self.now_s))

    def forwarded(self, effects: list[fx.Effect], content: bytes | None = None) -> list[fx.Effect]:
        """The successor answers the one Forward among ``effects``."""
        (effect,) = [e for e in effects if isinstance(e, fx.Forward)]
        sums = effect.stored.sums if content is None else sums_of(memoryview(content), 0)
        return self.perform(
            self.replica.on_forwarded(effect.token, effect.update.identity, content_sum(sums), self.now_s)
        )

    def tick(self, after_s: float = 0.4) -> list[fx.Effect]:
        """Time passes."""
        self.now_s += after_s
        return self.perform(self.replica.on_tick(self.now_s))

    @property
    def content(self) -> bytes:
        """The committed one."""
        committed = self.store.versions(CHUNK).committed
        return self.store.bytes_of(CHUNK, committed.identity if committed is not None else None)


def kinds(effects: list[fx.Effect]) -> list[type[fx.Effect]]:
    """What is to be done, without details."""
    return [type(effect) for effect in effects]
