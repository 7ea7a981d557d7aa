"""The log in front of the records: crashes at every call, full disks, damaged and foreign logs."""

from __future__ import annotations

import errno
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.errors import CorruptData, FsError
from fs3.rng import Rng, derived_rng
from fs3.storage.disk import DiskFailed, OsDisk
from fs3.storage.engine import logged_index
from fs3.storage.engine.format import HEADER_KEY, MAGIC, seal, unpack_header
from fs3.storage.engine.index import Batch
from fs3.storage.engine.index_log import MARK_KEY
from fs3.storage.engine.lmdb_records import LmdbRecords
from fs3.storage.engine.log_file import RECORD_BYTES_MAX
from fs3.storage.engine.logged_index import LoggedIndex
from fs3.storage.engine.store import ChunkStore

from ...sim.disk import PowerCut, SimDisk
from ...sim.index import SimRecords
from .shop import SMALL, TARGET, HandClock, chunk, identity, os_parts, write

LOG_BYTES = 4 * 4096


def open_index(disk: SimDisk, log_bytes: int = LOG_BYTES) -> LoggedIndex:
    return LoggedIndex(SimRecords(disk, "/i"), disk, "/i", Rng(5), log_bytes)


def put(index: LoggedIndex, *changes: tuple[bytes, bytes | None], durable: bool = True) -> None:
    batch = Batch()
    batch.changes = list(changes)
    index.apply(batch, durable=durable)


def fill_log(index: LoggedIndex) -> None:
    """So many batches that there is a checkpoint."""
    for number in range(5):
        put(index, (b"b", b"%d" % number))


def everything(index: LoggedIndex) -> dict[bytes, bytes]:
    return dict(index.page(b"", b"\xff", 100_000))


def below(disk: SimDisk) -> dict[bytes, bytes]:
    return {key: value for key, value in disk.indexes["/i"].items() if key != MARK_KEY}


class Walk:
    """Random batches; ``allowed`` is what a power cut at this moment may leave: a batch takes with it all
    that waited, or nothing happens."""

    def __init__(self, disk: SimDisk, seed: int, model: dict[bytes, bytes]) -> None:
        self.rng = Rng(seed)
        self.disk = disk
        self.model = model
        self.allowed = [dict(model)]

    def run(self, steps: int) -> None:
        """Open and walk, perhaps to a cut."""
        try:
            index = open_index(self.disk)
            for _ in range(steps):
                self._step(index)
                assert everything(index) == self.model
        except PowerCut:
            pass

    def _step(self, index: LoggedIndex) -> None:
        after = dict(self.model)
        changes: list[tuple[bytes, bytes | None]] = []
        for _ in range(self.rng.randint(0, 4)):
            key = b"k%d" % self.rng.randrange(12)
            value = self.rng.randbytes(self.rng.choice((3, 700, 5000))) if self.rng.random() < 0.7 else None
            changes.append((key, value))
            after.pop(key, None)
            if value is not None:
                after[key] = value
        kind = self.rng.choice("ddddwwf")
        if kind == "w":
            put(index, *changes, durable=False)
            self.model = after
            return
        if kind == "f":
            after = self.model
        self.allowed.append(after)
        if kind == "f":
            index.flush()
        else:
            put(index, *changes)
        self.model, self.allowed = after, [dict(after)]


def survive(seed: int, cut_at: int | None) -> int:
    """Walk to a cut, open, compare, three times on the same disk; the steps of the first walk."""
    disk = SimDisk(derived_rng(seed, f"disk {cut_at}"), 1 << 24)
    model: dict[bytes, bytes] = {}
    first = 0
    for round_number in range(3):
        disk.cut_at = None if cut_at is None else max(1, cut_at // (round_number + 1))
        walk = Walk(disk, seed + round_number, model)
        walk.run(30)
        first = first or disk.step_count
        disk = disk.after_power_cut()
        model = everything(open_index(disk))
        assert model in walk.allowed, (seed, cut_at, round_number)
        assert below(disk) == model, "an open moves below what it finds"
        disk = disk.after_power_cut()
        assert everything(open_index(disk)) == model, "what was read once stays"
        disk = disk.after_power_cut()
    return first


@pytest.mark.parametrize("seed", range(6))
def test_a_cut_at_a_sample_of_steps(seed: int) -> None:
    last = survive(seed, None)
    for cut_at in sorted(derived_rng(seed, "cuts").sample(range(1, last + 1), 25)):
        survive(seed, cut_at)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 130))
def test_a_cut_at_every_step(seed: int) -> None:
    for cut_at in range(1, survive(seed, None) + 1):
        survive(seed, cut_at)


@given(st.data())
def test_a_cut_in_a_checkpoint_at_each_step(data: st.DataObject) -> None:
    """Four batches fill the log; the fifth goes below with them."""
    for cut_in in range(1, 6):
        disk = SimDisk(Rng(data.draw(st.integers(0, 2**32))), 1 << 24)
        index = open_index(disk)
        for number in range(4):
            put(index, (b"%d" % number, b"v"))
        put(index, (b"w", b"waits"), durable=False)
        assert below(disk) == {}
        disk.cut_at = disk.step_count + cut_in
        acknowledged = False
        try:
            put(index, (b"0", None), (b"4", b"v"))
            acknowledged = True
            assert below(disk) == everything(index)
            put(index, (b"5", b"v"))  # over the first record of before
        except PowerCut:
            pass
        old = {b"%d" % number: b"v" for number in range(4)}
        new = {b"1": b"v", b"2": b"v", b"3": b"v", b"4": b"v", b"w": b"waits"}
        disk = disk.after_power_cut()
        found = everything(open_index(disk))
        assert found in ([new, {**new, b"5": b"v"}] if acknowledged else [old, new]), cut_in


def test_no_space_for_a_checkpoint() -> None:
    """Nothing of the batch happens, what waits waits, what is in the log is not lost."""
    disk = SimDisk(Rng(1))
    records = SimRecords(disk, "/i")
    index = LoggedIndex(records, disk, "/i", Rng(5), LOG_BYTES)
    for number in range(4):
        put(index, (b"%d" % number, b"v"))
    put(index, (b"w", b"waits"), durable=False)
    before = everything(index)
    records.index.is_full = True
    for _ in range(2):
        with pytest.raises(FsError) as caught:
            put(index, (b"0", None), (b"4", b"v"))
        assert caught.value.errno == errno.ENOSPC
        assert everything(index) == before
    with pytest.raises(FsError):
        index.flush()
    assert everything(index) == before
    disk = disk.after_power_cut()
    del before[b"w"]
    full = SimRecords(disk, "/i")
    full.index.is_full = True
    index = LoggedIndex(full, disk, "/i", Rng(5), LOG_BYTES)  # a full disk can be read
    assert everything(index) == before
    full.index.is_full = False
    put(index, (b"4", b"v"))
    assert below(disk) == everything(index) == {**before, b"4": b"v"}


def test_a_full_disk_does_not_keep_an_index_from_closing() -> None:
    disk = SimDisk(Rng(1))
    records = SimRecords(disk, "/i")
    index = LoggedIndex(records, disk, "/i", Rng(5), LOG_BYTES)
    put(index, (b"a", b"1"))
    put(index, (b"w", b"waits"), durable=False)
    records.index.is_full = True
    index.close()
    assert below(disk) == {}
    assert everything(open_index(disk.after_power_cut())) == {b"a": b"1", b"w": b"waits"}


def test_no_space_for_a_log() -> None:
    """Batches go below one by one; the next open makes the log."""
    disk = SimDisk(Rng(1), 1 << 20)
    disk.fill(LOG_BYTES)
    index = open_index(disk)
    put(index, (b"w", b"1"), durable=False)
    put(index, (b"a", b"1"))
    assert below(disk) == everything(index) == {b"w": b"1", b"a": b"1"}
    index.close()
    assert disk.list_directory("/i") == []
    disk.fill(1 << 19)
    index = open_index(disk)
    put(index, (b"b", b"1"))
    assert below(disk) == {b"w": b"1", b"a": b"1"}
    assert everything(open_index(disk.after_power_cut())) == {b"w": b"1", b"a": b"1", b"b": b"1"}


@pytest.mark.parametrize("call", ["pwrite", "sync", "index"])
def test_a_failed_call_ends_the_index(call: str) -> None:
    disk = SimDisk(Rng(1))
    index = open_index(disk)
    put(index, (b"a", b"1"))
    disk.fault(call)

    def put_until_it_fails() -> None:
        for number in range(5):  # the log has place for fewer
            put(index, (b"b", b"%d" % number))

    with pytest.raises(DiskFailed, match=call):
        put_until_it_fails()
    steps = disk.step_count
    with pytest.raises(DiskFailed, match=call):
        put(index, (b"c", b"1"))
    with pytest.raises(DiskFailed, match=call):
        index.flush()
    assert disk.step_count == steps, "the disk was asked again"
    assert index.get(b"a") == b"1"
    index.close()


def test_a_batch_that_is_too_long_for_a_record_goes_below() -> None:
    disk = SimDisk(Rng(1))
    index = open_index(disk, 4 * RECORD_BYTES_MAX)
    put(index, (b"a", b"1"))
    put(index, (b"long", bytes(RECORD_BYTES_MAX)), (b"a", b"2"))
    assert below(disk) == everything(index)
    put(index, (b"a", b"3"))
    disk = disk.after_power_cut()
    assert everything(open_index(disk)) == {b"long": bytes(RECORD_BYTES_MAX), b"a": b"3"}


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logged_index, "OVERLAY_BYTES_MAX", 10_000)
    disk = SimDisk(Rng(1))
    index = open_index(disk, 1 << 20)
    put(index, *((b"%d" % number, b"") for number in range(100)))
    assert below(disk) == {}
    put(index, (b"next", b""))
    assert len(below(disk)) == 101 == len(everything(index))


class BusyDisk(SimDisk):
    """Before each call, something is done."""

    before: Callable[[], None] | None = None

    def step(self, call: str) -> None:
        if self.before is not None:
            self.before()
        super().step(call)


def test_a_change_that_comes_while_a_batch_is_written_is_newer() -> None:
    disk = BusyDisk(Rng(1))
    index = open_index(disk)
    disk.before = lambda: put(index, (b"a", b"newer"), durable=False)
    for _ in range(6):  # through the log, and with a checkpoint
        put(index, (b"a", b"older"), (b"b", b"1"))
        assert everything(index) == {b"a": b"newer", b"b": b"1"}
    disk.before = None
    index.flush()
    assert everything(open_index(disk.after_power_cut())) == {b"a": b"newer", b"b": b"1"}


def test_reads_do_not_wait_for_a_batch() -> None:
    disk = BusyDisk(Rng(1))
    index = open_index(disk)
    seen: list[tuple[bytes | None, dict[bytes, bytes]]] = []
    for number in range(6):
        put(index, (b"a", b"%d" % number), durable=False)
        disk.before = lambda: seen.append((index.get(b"a"), everything(index)))
        put(index, (b"b", b"%d" % number))
        disk.before = None
        assert len(seen) >= 2
        for value, page in seen:
            assert value == b"%d" % number and page[b"a"] == value
        seen.clear()


def test_a_log_that_is_gone_cut_or_anothers() -> None:
    disk = SimDisk(Rng(1))
    put(open_index(disk), (b"a", b"1"))
    disk.open("/i/log").truncate(LOG_BYTES)
    with pytest.raises(CorruptData, match="bytes, 20480 expected"):
        open_index(disk)
    disk.remove("/i/log")
    with pytest.raises(CorruptData, match="/i/log is missing: acknowledged changes may be lost"):
        open_index(disk)
    LoggedIndex(SimRecords(disk, "/j"), disk, "/j", Rng(6), LOG_BYTES).close()
    disk.rename("/j/log", "/i/log")
    with pytest.raises(CorruptData, match="belongs to another index"):
        open_index(disk)


def test_a_damaged_record_before_a_whole_one_is_said() -> None:
    disk = SimDisk(Rng(1))
    index = open_index(disk)
    for number in range(3):
        put(index, (b"%d" % number, b"v"))
    disk.flip("/i/log", 2 * 4096 + 30)
    with pytest.raises(CorruptData, match=r"record 2 is damaged .* but record 3"):
        open_index(disk.after_kill())


def test_a_store_without_a_log_gets_one_and_says_so_below_first(tmp_path: Path) -> None:
    """A program that does not know of the log must not open a store that has one."""
    parts = os_parts(HandClock())
    store = ChunkStore.create(str(tmp_path / "t"), TARGET, 5, parts, SMALL)
    assert store.stage([write(chunk(0), identity(1), b"x")])[0].error is None
    store.close()
    disk = OsDisk()
    records = LmdbRecords(disk, str(tmp_path / "t" / "index"))
    old = struct.pack(">8sIQQQ", MAGIC, 1, 5, TARGET, SMALL.file_bytes)
    records.write({HEADER_KEY: seal(HEADER_KEY, old), MARK_KEY: None})
    records.close()
    (tmp_path / "t" / "index" / "log").unlink()
    store = ChunkStore.open(str(tmp_path / "t"), TARGET, parts, SMALL)
    assert store.stage([write(chunk(1), identity(1), b"y")])[0].error is None
    shutil.copytree(tmp_path / "t", tmp_path / "killed")
    store.close()
    records = LmdbRecords(disk, str(tmp_path / "killed" / "index"))
    value = records.get(HEADER_KEY)
    assert value is not None and unpack_header(value, TARGET).version == 2
    assert len(records.page(b"p", b"q", 10)) == 1, "the second chunk is in the log only"
    records.close()
    store = ChunkStore.open(str(tmp_path / "killed"), TARGET, parts, SMALL)
    assert [where for where, _ in store.pendings()] == [chunk(0), chunk(1)]
    store.close()
