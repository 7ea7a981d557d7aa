"""The store against a dict, step by step, with readers that hold on and processes that end."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fs3.ids import ClientSessionId
from fs3.rng import Rng
from fs3.storage.engine.versions import EngineSettings, ReadHandle

from .model import Chunk, Model, check_same, epoch_record, random_chunk, random_item
from .shop import MIB, SimShop, chunk

SEEDS = st.integers(0, 2**32)


class StoreMachine(RuleBasedStateMachine):
    """Rules draw a seed; the update itself comes from it, as in the crash tests."""

    def __init__(self) -> None:
        super().__init__()
        small_cache = EngineSettings(group_bytes=MIB, file_bytes=64 * MIB, cache_bytes=3000)
        self.shop = SimShop(settings=small_cache)
        self.store = self.shop.create()
        self.model = Model()
        self.tag = 0
        self.held: list[tuple[ReadHandle, bytes]] = []

    @rule(seed=SEEDS, count=st.integers(1, 4))
    def stage(self, seed: int, count: int) -> None:
        rng, items = Rng(seed), []
        for where in dict.fromkeys(random_chunk(rng) for _ in range(count)):
            self.tag += 1
            items.append(random_item(rng, self.model, where, self.tag))
        for item, outcome in zip(items, self.store.stage(items), strict=True):
            assert outcome.error is None and outcome.version is not None, outcome
            self.model.stage(item)

    @rule(seed=SEEDS)
    def commit(self, seed: int) -> None:
        waiting = [where for where, one in sorted(self.model.chunks.items()) if one.pending is not None]
        for where in waiting[: 1 + seed % 3]:
            pending = self.model.chunks[where].pending
            assert pending is not None
            assert self.store.commit(where, pending.identity)
            self.model.commit(where)

    @rule()
    def drop_pendings(self) -> None:
        self.store.drop_pendings()
        self.model.drop_pendings()

    @rule(number=st.integers(0, 2), inode=st.integers(5, 6))
    def drop_tombstone(self, number: int, inode: int) -> None:
        where = chunk(number, inode)
        found = self.model.chunks.get(where, Chunk())
        if found.committed is not None:
            self.store.drop_tombstones([(where, found.committed.identity)])
            if found.committed.data is None and found.pending is None:
                assert self.store.number_floor >= found.committed.identity.update_version
                self.model.drop_tombstone(where)

    @rule(seed=SEEDS, on_pending=st.booleans())
    def start_reading(self, seed: int, on_pending: bool) -> None:
        where = random_chunk(Rng(seed))
        found = self.model.chunks.get(where, Chunk())
        version = found.pending if on_pending else found.committed
        if version is not None and version.data:
            handle = self.store.read(where, version.identity, seed % len(version.data), 100_000)
            part = version.data[seed % len(version.data) :][:100_000]
            self.held.append((handle, part))

    @precondition(lambda self: self.held)
    @rule()
    def stop_reading(self) -> None:
        handle, _ = self.held.pop(0)
        handle.release()

    @rule(inode=st.integers(5, 6), epoch=st.integers(1, 5), later_ms=st.integers(0, 2))
    def raise_epoch(self, inode: int, epoch: int, later_ms: int) -> None:
        record = epoch_record(chunk(0, inode).inode, epoch)
        record = replace(record, raised_ms=record.raised_ms + later_ms)
        self.store.set_epochs([record])
        present = self.model.epochs.get(record.inode)
        if present is None or (present.epoch, present.raised_ms) < (epoch, record.raised_ms):
            self.model.epochs[record.inode] = record
        assert self.store.epoch_record(record.inode) == self.model.epochs[record.inode]
        assert self.store.epoch(record.inode) == self.model.epochs[record.inode].epoch

    @rule(session=st.integers(98, 100))
    def end_session(self, session: int) -> None:
        self.store.end_sessions([ClientSessionId(session)], cluster_ms=self.tag)
        self.model.end_session(ClientSessionId(session), self.tag)
        assert self.store.session_ended(ClientSessionId(session))

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        for handle, _ in self.held:
            handle.release()
        self.held = []
        change = self.store.change
        if clean:
            self.store.close()
        else:
            self.store.flush()
        self.shop.disk = self.shop.disk.after_power_cut()
        self.store = self.shop.open()
        assert self.store.change >= change

    @rule(wait_s=st.sampled_from((1.0, 31.0)))
    def wait(self, wait_s: float) -> None:
        self.shop.clock.now_s += wait_s

    @invariant()
    def what_is_held_stays(self) -> None:
        for handle, part in self.held:
            (region,) = handle.regions
            buffer = memoryview(bytearray(region.length_bytes))
            region.file.pread(buffer, region.offset_bytes)
            assert bytes(buffer) == part

    @invariant()
    def it_is_the_dict(self) -> None:
        check_same(self.store, self.model)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(stateful_step_count=30)
