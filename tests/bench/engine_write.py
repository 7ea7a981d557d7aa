"""The chunk engine alone: durable stages of 1 MiB against a raw loop of the same run, and small hot reads.

    python -m tests.bench.engine_write [--directory DIR] [--mib 256]

The raw loop writes the same page-aligned MiB with O_DIRECT into preallocated, already written space, syncs
once a batch, then writes and syncs one sector of a second file, as a log must: the ratio is what records,
sums and allocation cost.
"""

from __future__ import annotations

import argparse
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from crc32c import crc32c
from rich.console import Console

from fs3.clock import SystemClock
from fs3.ids import ChainVersion, ChunkId, ClientSessionId, InodeId, TargetId, UpdateVersion
from fs3.rng import system_rng
from fs3.storage.disk import OsDisk
from fs3.storage.engine.logged_index import index_opener
from fs3.storage.engine.store import ChunkStore
from fs3.storage.engine.versions import DedupRecord, EngineParts, EngineSettings, StageItem
from fs3.wire.chunk import SUM_BLOCK_BYTES, Identity, Update, UpdateKind, UpdateResult, WriterTag

from .harness import Row, median_of, paired, rate, row, show

MIB = 1 << 20
CHUNKS = 64
SMALL_BYTES = 4096
SMALL_READS = 20_000
LOG_SECTORS = 256


class RawLoop:
    """O_DIRECT writes of whole MiB and a grouped fdatasync; a sector of a log and its own."""

    def __init__(self, folder: str, payload: memoryview, batch: int) -> None:
        self._payload = payload
        self._batch = batch
        self._fd = os.open(f"{folder}/raw", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        os.posix_fallocate(self._fd, 0, 2 * CHUNKS * MIB)
        self._log = os.open(f"{folder}/raw.log", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        for at in range(LOG_SECTORS):
            os.pwrite(self._log, self._payload[:SMALL_BYTES], at * SMALL_BYTES)
        os.fsync(self._log)
        self._at = self._log_at = 0

    def run(self, mib: int) -> None:
        for _ in range(mib // self._batch):
            for _ in range(self._batch):
                os.pwrite(self._fd, self._payload, self._at * MIB)
                self._at = (self._at + 1) % (2 * CHUNKS)
            os.fdatasync(self._fd)
            os.pwrite(self._log, self._payload[:SMALL_BYTES], self._log_at * SMALL_BYTES)
            self._log_at = (self._log_at + 1) % LOG_SECTORS
            os.fdatasync(self._log)

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._log)


class EngineLoop:
    """Stage a batch, commit it, overwrite the same chunks again and again."""

    def __init__(self, store: ChunkStore, payload: memoryview, batch: int) -> None:
        self._store = store
        self._payload = payload
        self._batch = batch
        self._number = 0
        pieces = range(0, len(payload), SUM_BLOCK_BYTES)
        self._sums = tuple(crc32c(payload[low : low + SUM_BLOCK_BYTES]) for low in pieces)

    def run(self, mib: int) -> None:
        for _ in range(mib // self._batch):
            items = [self._next() for _ in range(self._batch)]
            for item, outcome in zip(items, self._store.stage(items), strict=True):
                assert outcome.error is None, outcome
                assert self._store.commit(item.update.chunk, item.update.identity)

    def _next(self) -> StageItem:
        self._number += 1
        where = ChunkId(InodeId(7), self._number % CHUNKS)
        writer = WriterTag(ClientSessionId(99), self._number % 8, self._number)
        which = Identity(ChainVersion(1), UpdateVersion(self._number), writer)
        update = Update(
            chunk=where,
            identity=which,
            kind=UpdateKind.WRITE,
            length_bytes=len(self._payload),
            sums=self._sums,
            chunk_size_bytes=MIB,
        )
        result = UpdateResult(identity=which, length_bytes=len(self._payload))
        dedup = DedupRecord(writer.session, writer.channel, writer.sequence, where, result)
        return StageItem(update, self._payload, dedup)


def small_reads(store: ChunkStore) -> None:
    buffer = memoryview(bytearray(SMALL_BYTES))
    for number in range(SMALL_READS):
        where = ChunkId(InodeId(7), number % CHUNKS)
        offset_bytes = number * 7 % 256 * SMALL_BYTES
        if store.read_into(where, None, offset_bytes, buffer) is None:
            store.read_into(where, None, offset_bytes, buffer, wait=True)


def look_ups(store: ChunkStore) -> None:
    for number in range(SMALL_READS):
        store.versions(ChunkId(InodeId(7), number % CHUNKS))


@contextmanager
def new_store(folder: str) -> Iterator[ChunkStore]:
    """A store with the index of production."""
    disk = OsDisk()
    parts = EngineParts(disk, index_opener(disk, system_rng()), SystemClock())
    store = ChunkStore.create(folder, TargetId(1), 1, parts, EngineSettings())
    try:
        yield store
    finally:
        store.close()
        disk.close()


def stage_row(folder: str, store: ChunkStore, batch: int, mib: int, target: float | None) -> Row:
    """Durable stages, ``batch`` in a group."""
    payload = memoryview(mmap.mmap(-1, MIB))
    payload[:] = os.urandom(MIB)
    raw, ours = RawLoop(folder, payload, batch), EngineLoop(store, payload, batch)
    try:
        ours.run(4 * CHUNKS)
        raw.run(4 * CHUNKS)
        value, limit = paired(
            lambda: rate(mib, lambda: ours.run(mib)), lambda: rate(mib, lambda: raw.run(mib))
        )
    finally:
        raw.close()
    name = f"engine: durable stage of 1 MiB, {batch} a batch"
    return row(name, value, "MiB/s", limit=limit, limit_name="raw O_DIRECT + fdatasync, twice", target=target)


def measure(folder: str, mib: int) -> Iterator[Row]:
    """All rows."""
    for batch, target in ((8, 0.85), (1, None)):
        with new_store(f"{folder}/store{batch}") as store:
            yield stage_row(folder, store, batch, mib, target)
            if batch > 1:
                small_reads(store)
                read_rate = median_of(lambda: rate(SMALL_READS, lambda: small_reads(store)))
                look_up_rate = median_of(lambda: rate(SMALL_READS, lambda: look_ups(store)))
                yield row("engine: read_into 4 KiB, hot", read_rate, "1/s", target=100_000.0)
                yield row("engine: versions(), hot", look_up_rate, "1/s", target=100_000.0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", help="on the disk to measure (default: the temporary directory)")
    parser.add_argument("--mib", type=int, default=256)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        show(measure(folder, options.mib), Console(width=150))


if __name__ == "__main__":
    main()
