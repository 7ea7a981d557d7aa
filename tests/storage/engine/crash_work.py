"""The workload of the power cut tests, and what a cut may leave of it.

Allowed after a cut: the state at the last durable call that returned; that state with the commit marks that
waited; and, if a durable call was under way, the state that it makes. Nothing in between: a batch is whole
or absent.
"""

from __future__ import annotations

from fs3.errors import Fs3Error
from fs3.ids import ClientSessionId
from fs3.rng import Rng
from fs3.storage.engine.store import ChunkStore

from .model import Model, check_same, epoch_record, random_chunk, random_item
from .shop import chunk


class Run:
    """A workload from a seed; ``allowed`` says what a cut at this moment may leave."""

    def __init__(self, seed: int, store: ChunkStore, model: Model, tag: int) -> None:
        self.rng = Rng(seed)
        self.store = store
        self.model = model
        self.allowed = [model.copy()]
        self.tag = tag

    def durable(self, after: Model) -> None:
        """A durable call that leads to ``after`` begins."""
        self.allowed = [self.allowed[0], self.model.copy(), after.copy()]
        self.changed()

    def done(self, after: Model) -> None:
        """It returned."""
        self.model = after
        self.allowed = [after.copy()]
        self.changed()

    def changed(self) -> None:
        """Called when ``allowed`` is another."""

    def step(self) -> None:
        """Do one thing."""
        match self.rng.choice("ssssccccdes"):
            case "s":
                self._stage()
            case "c":
                self._commit()
            case "d":
                after = self.model.copy()
                after.drop_pendings()
                self.durable(after)
                self.store.drop_pendings()
                self.done(after)
            case "e":
                self._records()

    def _stage(self) -> None:
        after, items = self.model.copy(), []
        for where in dict.fromkeys(random_chunk(self.rng) for _ in range(self.rng.randint(1, 3))):
            self.tag += 1
            item = random_item(self.rng, self.model, where, self.tag)
            items.append(item)
            after.stage(item)
        self.durable(after)
        outcomes = self.store.stage(items)
        assert all(outcome.error is None for outcome in outcomes), outcomes
        self.done(after)

    def _commit(self) -> None:
        for where, one in sorted(self.model.chunks.items()):
            if one.pending is not None:
                assert self.store.commit(where, one.pending.identity)
                self.model.commit(where)
                return

    def _records(self) -> None:
        after = self.model.copy()
        record = epoch_record(chunk(0).inode, self.tag + 1)
        if record.inode not in after.epochs or after.epochs[record.inode].epoch < record.epoch:
            after.epochs[record.inode] = record
        self.durable(after)
        self.store.set_epochs([record])
        self.done(after)
        after = self.model.copy()
        after.end_session(ClientSessionId(99), self.tag)
        self.durable(after)
        self.store.end_sessions([ClientSessionId(99)], cluster_ms=self.tag)
        self.done(after)


def matches(store: ChunkStore, allowed: list[Model]) -> Model:
    """The allowed state that the store is in."""
    failures = []
    for model in allowed:
        try:
            check_same(store, model)
            return model
        except (AssertionError, Fs3Error) as error:
            failures.append(str(error))
    raise AssertionError("\n----\n".join(failures))
