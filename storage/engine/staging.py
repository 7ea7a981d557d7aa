"""Staging: bytes into blocks, a sync a file, one index transaction; and what turns a pending version into a
committed one.

The order is the whole point. Bytes go only where no stored version and no reader has any (``plan``); they
are on the disk before the transaction that names them begins; blocks that it sets free are given back after
it is durable. A crash in between leaves free space with unused bytes, nothing else.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from fs3.errors import CorruptData, FsError, InvalidRequest, fs_error
from fs3.ids import ChunkId
from fs3.wire.chunk import Identity, UpdateKind, VersionInfo

from ..disk import DiskFile
from .allocate import Block
from .core import StoreCore
from .format import (
    StoredPending,
    StoredVersion,
    committed_key,
    dedup_key,
    high_key,
    pack_committed,
    pack_dedup,
    pack_number,
    pack_pending,
    pending_key,
)
from .index import Batch
from .plan import Plan, plan_update
from .versions import StageItem, StageOutcome


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An item whose bytes are written (not synced)."""

    chunk: ChunkId
    pending: StoredPending
    committed: StoredVersion | None
    """What it builds on, its high-water mark raised if a replaced pending version shared its block."""
    taken: Block | None
    replaced: Block | None
    """Block of the pending version whose place it takes, if nothing else uses it."""
    file: DiskFile | None
    """Where bytes were written."""


class Stager:
    """Stages, commits and drops versions."""

    def __init__(self, core: StoreCore) -> None:
        self._core = core

    # -- stage

    def stage(self, items: Sequence[StageItem], cluster_ms: int) -> list[StageOutcome]:
        """As ``ChunkStore.stage``."""
        outcomes: list[StageOutcome] = []
        with self._core.writer:
            run: list[StageItem] = []
            chunks: dict[ChunkId, None] = {}
            for item in items:
                if item.update.chunk in chunks:  # it builds on what the run makes: that must be there
                    outcomes += self._stage_run(run, cluster_ms)
                    run, chunks = [], {}
                run.append(item)
                chunks[item.update.chunk] = None
            return outcomes + self._stage_run(run, cluster_ms)

    def _stage_run(self, items: Sequence[StageItem], cluster_ms: int) -> list[StageOutcome]:
        try:
            return self._stage_items(items, cluster_ms)
        finally:
            with self._core.lock:
                self._core.replacing.clear()

    def _stage_items(self, items: Sequence[StageItem], cluster_ms: int) -> list[StageOutcome]:
        core, batch = self._core, Batch()
        results: list[_Prepared | StageOutcome] = []
        with core.composer.batch(core.disk.writes()):
            for item in items:
                try:
                    results.append(self._prepare(item, cluster_ms, batch))
                except (FsError, InvalidRequest, CorruptData) as error:
                    results.append(StageOutcome(None, error))
        prepared = [result for result in results if isinstance(result, _Prepared)]
        if not prepared:
            return [result for result in results if isinstance(result, StageOutcome)]
        files = {result.file.path: result.file for result in prepared if result.file is not None}
        for file in files.values():
            file.sync()
        try:
            core.apply(batch, [result.replaced for result in prepared if result.replaced is not None])
        except FsError as error:
            self._give_back(prepared)
            return [
                StageOutcome(None, error) if isinstance(result, _Prepared) else result for result in results
            ]
        self._publish(prepared)
        return [
            StageOutcome(result.pending.version.info) if isinstance(result, _Prepared) else result
            for result in results
        ]

    def _prepare(self, item: StageItem, cluster_ms: int, batch: Batch) -> _Prepared | StageOutcome:
        core, update = self._core, item.update
        with core.lock:
            entry = core.entry(update.chunk)
            committed, old = entry.committed, entry.pending
            if old is not None:
                core.replacing[update.chunk] = None
        again = old is not None and old.version.info.identity == update.identity
        if old is not None and again and item.replaces != update.identity:
            with core.lock:
                del core.replacing[update.chunk]
            return StageOutcome(old.version.info, already=True)
        _check_number(item, committed)
        replaced = old.version.block if old is not None else None
        if old is not None and committed is not None and replaced == committed.block:
            replaced = None
            committed = committed.with_high_water(old.version.high_water_bytes)
        plan = plan_update(update, len(item.payload), committed)
        if item.from_client and plan.size_class and (committed is None or committed.block is None):
            self._refuse_if_full(1 << plan.size_class)
        taken, version = self._write(item, plan, committed)
        if plan.removed:
            version.removed_ms = cluster_ms
        pending = StoredPending(version, msgspec.structs.replace(update, sums=()))
        self._put_records(batch, item, pending, committed if old is not None else None, taken)
        file = None
        if version.block is not None and plan.write_from < plan.length_bytes:
            file = core.place(version.block).file
        return _Prepared(update.chunk, pending, committed, taken, replaced, file)

    def _write(
        self, item: StageItem, plan: Plan, committed: StoredVersion | None
    ) -> tuple[Block | None, StoredVersion]:
        """Write the bytes of a plan: (the block taken for it, if any; the version)."""
        core, base, dest = self._core, None, None
        high_water_bytes = plan.length_bytes
        if committed is not None and committed.block is not None:
            base = (committed, core.place(committed.block))
        taken = core.take(plan.size_class) if plan.size_class else None
        block = taken
        if plan.shares_base:
            assert committed is not None and committed.block is not None, plan
            block = committed.block
            high_water_bytes = max(high_water_bytes, committed.high_water_bytes)
        if block is not None:
            dest = core.place(block)
        try:
            sums = core.composer.compose(plan, item.update, item.payload, base, dest)
        except CorruptData:
            if taken is not None:
                with core.lock:
                    core.allocator.give_back(taken)
            raise
        info = VersionInfo(
            identity=item.update.identity, length_bytes=plan.length_bytes, sums=sums, removed=plan.removed
        )
        return taken, StoredVersion(info, block, high_water_bytes, core.next_change())

    def _put_records(
        self,
        batch: Batch,
        item: StageItem,
        pending: StoredPending,
        raised: StoredVersion | None,
        taken: Block | None,
    ) -> None:
        chunk = item.update.chunk
        if raised is not None:
            key = committed_key(chunk)
            batch.put(key, pack_committed(key, raised))
        key = pending_key(chunk)
        batch.put(key, pack_pending(key, pending))
        if item.dedup is not None:
            key = dedup_key(item.dedup.session, item.dedup.channel)
            batch.put(key, pack_dedup(key, item.dedup))
        if taken is not None:
            self.put_high(batch, taken)

    def put_high(self, batch: Batch, taken: Block) -> None:
        """Add to a batch that blocks up to this one were handed out."""
        high = self._core.allocator.high(taken.size_class)
        if self._core.high_marks.get(taken.size_class) != high:
            self._core.high_marks[taken.size_class] = high
            key = high_key(taken.size_class)
            batch.put(key, pack_number(key, high))

    def _refuse_if_full(self, wanted_bytes: int) -> None:
        core = self._core
        limit_bytes = core.settings.full_ratio * core.capacity_bytes()
        if core.allocator.used_bytes + wanted_bytes > limit_bytes:
            raise fs_error(errno.ENOSPC, f"target {core.target:#x} takes no new chunks", core.directory)

    def _give_back(self, prepared: Sequence[_Prepared]) -> None:
        with self._core.lock:
            for result in prepared:
                if result.taken is not None:
                    self._core.allocator.give_back(result.taken)

    def _publish(self, prepared: Sequence[_Prepared]) -> None:
        core = self._core
        with core.lock:
            for result in prepared:
                entry = core.entry(result.chunk)
                entry.committed = result.committed
                entry.pending = core.pending[result.chunk] = result.pending
                core.cache.put(result.chunk, entry)

    # -- commit and drop

    def commit(self, chunk: ChunkId, identity: Identity) -> bool:
        """As ``ChunkStore.commit``."""
        core = self._core
        with core.lock:
            entry = core.entry(chunk)
            old, pending = entry.committed, entry.pending
            if pending is None or pending.version.info.identity != identity or chunk in core.replacing:
                return old is not None and old.info.identity == identity
            version = pending.version
            core.counters.change += 1
            version.change = core.counters.change
            batch, key = Batch(), committed_key(chunk)
            batch.put(key, pack_committed(key, version))
            batch.delete(pending_key(chunk))
            core.index.apply(batch, durable=False)
            if old is not None and old.block is not None and old.block != version.block:
                core.freed.append(old.block)  # until the mark is durable a crash would bring it back
            core.chunk_count += (not version.info.removed) - (old is not None and not old.info.removed)
            entry.committed, entry.pending = version, None
            del core.pending[chunk]
            core.cache.put(chunk, entry)
            return True

    def drop_pendings(self, batch: Batch) -> None:
        """Drop every pending version, with what else is in ``batch``, in one transaction."""
        core = self._core
        with core.lock:
            dropped = list(core.pending.items())
            committed = {chunk: core.entry(chunk).committed for chunk, _ in dropped}
            core.replacing.update(dict.fromkeys(committed))
        try:
            self._drop(dropped, committed, batch)
        finally:
            with core.lock:
                core.replacing.clear()

    def _drop(
        self,
        dropped: Sequence[tuple[ChunkId, StoredPending]],
        committed: dict[ChunkId, StoredVersion | None],
        batch: Batch,
    ) -> None:
        core, frees = self._core, list[Block]()
        raised: dict[ChunkId, StoredVersion] = {}
        for chunk, pending in dropped:
            batch.delete(pending_key(chunk))
            block, below = pending.version.block, committed[chunk]
            if below is not None and block is not None and below.block == block:
                key = committed_key(chunk)
                raised[chunk] = below.with_high_water(pending.version.high_water_bytes)
                batch.put(key, pack_committed(key, raised[chunk]))
            elif block is not None:
                frees.append(block)
        core.put_counters(batch)  # the records that bore the newest change numbers are gone
        core.apply(batch, frees)
        with core.lock:
            for chunk, _ in dropped:
                entry = core.entry(chunk)
                entry.pending = None
                entry.committed = raised.get(chunk, entry.committed)
                del core.pending[chunk]
                core.cache.put(chunk, entry)

    def tombstones(self, chunks: Sequence[tuple[ChunkId, Identity]]) -> list[tuple[ChunkId, int, int]]:
        """The (chunk, number, change) of those that are tombstones of this identity without a pending one."""
        found: list[tuple[ChunkId, int, int]] = []
        with self._core.lock:
            for chunk, identity in dict.fromkeys(chunks):
                entry = self._core.entry(chunk)
                committed = entry.committed
                if committed is None or entry.pending is not None or not committed.info.removed:
                    continue
                if committed.info.identity == identity:
                    found.append((chunk, identity.update_version, committed.change))
        return found

    def repair(self, chunk: ChunkId, version: VersionInfo, payload: memoryview) -> bool:
        """As ``ChunkStore.repair``."""
        core = self._core
        if len(payload) != version.length_bytes or not payload:
            raise InvalidRequest(
                f"repair of chunk {chunk}: {len(payload)} bytes, {version.length_bytes} wanted"
            )
        with core.writer:
            with core.lock:
                entry = core.entry(chunk)
                old, pending = entry.committed, entry.pending
            if old is None or old.block is None or old.info.identity != version.identity:
                return False
            if pending is not None and pending.version.block == old.block:
                return False
            block = core.written(payload)
            stored = StoredVersion(version, block, len(payload), old.change)
            if not self._put_in_place(chunk, old, stored):
                return False
            core.apply_repair()
            return True

    def _put_in_place(self, chunk: ChunkId, old: StoredVersion, new: StoredVersion) -> bool:
        """Let ``new`` be the committed version unless a commit came in between, as ``commit`` does it."""
        core = self._core
        assert new.block is not None and old.block is not None, chunk
        with core.lock:
            entry = core.entry(chunk)
            if entry.committed is None or entry.committed.info.identity != old.info.identity:
                core.allocator.give_back(new.block)
                return False
            batch, key = Batch(), committed_key(chunk)
            batch.put(key, pack_committed(key, new))
            self.put_high(batch, new.block)
            core.index.apply(batch, durable=False)
            core.freed.append(old.block)
            entry.committed = new
            core.cache.put(chunk, entry)
            return True


def _check_number(item: StageItem, committed: StoredVersion | None) -> None:
    identity = item.update.identity
    if committed is None or identity.update_version > committed.info.identity.update_version:
        return
    named = item.replaces == committed.info.identity
    if not (named and item.update.kind in (UpdateKind.REPLACE, UpdateKind.REMOVE)):
        raise InvalidRequest(
            f"chunk {item.update.chunk}: number {identity.update_version} is not above the committed "
            f"{committed.info.identity.update_version}"
        )
