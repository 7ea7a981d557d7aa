"""One committer, readers in other threads, the real disk: whole versions, and only newer ones."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from crc32c import crc32c

from fs3.errors import Busy
from fs3.rng import Rng
from fs3.storage.disk import OsDisk
from fs3.storage.engine.logged_index import index_opener
from fs3.storage.engine.store import ChunkStore
from fs3.storage.engine.versions import EngineParts

from .shop import KIB, SMALL, TARGET, HandClock, chunk, identity, sums_of, write

CHUNKS = 4
VERSIONS = 60
SIZE_BYTES = 100 * KIB


def body(number: int) -> bytes:
    """Content of a version: the same four bytes all over."""
    return number.to_bytes(4, "big") * (SIZE_BYTES // 4)


class Reader(threading.Thread):
    """Reads whatever is committed, in both ways, until it is told to stop."""

    def __init__(self, store: ChunkStore, stop: threading.Event, seed: int) -> None:
        super().__init__()
        self.store = store
        self.stop = stop
        self.seed = seed
        self.newest = dict.fromkeys(range(CHUNKS), 0)
        self.count = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self._small(self.count % CHUNKS)
                self._bulk((self.count + self.seed) % CHUNKS)
                self.count += 1
        except BaseException as error:
            self.failure = error

    def _small(self, number: int) -> None:
        buffer = memoryview(bytearray(4096))
        got = self.store.read_into(chunk(number), None, 70 * KIB, buffer)
        if got is None:
            got = self.store.read_into(chunk(number), None, 70 * KIB, buffer, wait=True)
        assert got is not None
        if got.version is not None:
            self._see(number, got.version.identity.update_version)
            assert bytes(buffer) == body(got.version.identity.update_version)[:4096]
            assert got.sums == (crc32c(buffer),)

    def _bulk(self, number: int) -> None:
        handle = self.store.read(chunk(number), None, 0, SIZE_BYTES)
        try:
            if handle.version is None:
                return
            (region,) = handle.regions
            data = os.pread(region.file.fileno(), region.length_bytes, region.offset_bytes)
            assert data == body(handle.version.identity.update_version)
            assert handle.sums == sums_of(data)
        finally:
            handle.release()

    def _see(self, number: int, version: int) -> None:
        assert version >= self.newest[number], (number, version, self.newest)
        self.newest[number] = version


def test_readers_and_a_committer(tmp_path: Path) -> None:
    disk = OsDisk()
    parts = EngineParts(disk, index_opener(disk, Rng(1)), HandClock())
    store = ChunkStore.create(str(tmp_path / "t"), TARGET, 5, parts, SMALL)
    stop = threading.Event()
    readers = [Reader(store, stop, seed) for seed in (1, 2)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, VERSIONS + 1):
            items = [write(chunk(n), identity(number), body(number), with_dedup=True) for n in range(CHUNKS)]
            assert all(outcome.error is None for outcome in store.stage(items))
            for n in range(CHUNKS):
                assert store.commit(chunk(n), identity(number))
                try:
                    store.read(chunk(n), identity(number - 1), 0, 10).release()
                except Busy:
                    continue
                raise AssertionError("a version that was replaced is still served")
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert [reader.failure for reader in readers] == [None, None]
    assert all(reader.count > 0 for reader in readers)
    store.flush()
    space = store.space()
    assert space.resting_bytes == 0 and space.used_bytes == CHUNKS * 128 * KIB
    store.close()
    disk.close()
