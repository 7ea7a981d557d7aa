"""One suite for every index of the chunk store: order, atomic batches, what waits, a full disk."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.errors import FsError
from fs3.rng import Rng
from fs3.storage.disk import DiskFailed, OsDisk
from fs3.storage.engine.index import Batch, Index
from fs3.storage.engine.lmdb_records import LmdbRecords
from fs3.storage.engine.logged_index import LoggedIndex

from ...sim.disk import SimDisk
from ...sim.index import SimIndex, SimRecords

LOG_BYTES = 4 * 4096
"""Four small batches: checkpoints are part of every test."""


class Bench:
    """One implementation: opens, re-opens after a kill, fills, breaks."""

    def __init__(self, open_index: Callable[[], Index], kill: Callable[[], None]) -> None:
        self.open = open_index
        self.kill = kill
        """The process ends without closing; the machine stays up."""


class LmdbBench(Bench):
    """The pair of production: a log in front of LMDB."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.disk = OsDisk()
        self._opened: LoggedIndex | None = None
        super().__init__(self._open, self._kill)

    def _open(self) -> Index:
        path = str(self._folder / "index")
        below = LmdbRecords(self.disk, path, 8 * 1024 * 1024)
        self._opened = LoggedIndex(below, self.disk, path, Rng(2), LOG_BYTES)
        return self._opened

    def _kill(self) -> None:
        assert self._opened is not None
        self._opened.abandon()

    def close(self) -> None:
        if self._opened is not None:
            self._opened.abandon()


class SimBench(Bench):
    """The one of the simulated world; or a log on its disk in front of simulated records."""

    def __init__(self, *, logged: bool = False) -> None:
        self.disk = SimDisk(Rng(1))
        self._logged = logged
        super().__init__(self._open, self._kill)

    def _open(self) -> Index:
        if self._logged:
            below = SimRecords(self.disk, "/index")
            return LoggedIndex(below, self.disk, "/index", Rng(2), LOG_BYTES)
        return SimIndex(self.disk, "/index")

    def _kill(self) -> None:
        self.disk = self.disk.after_power_cut()

    def close(self) -> None:
        pass


@pytest.fixture(params=["lmdb", "sim", "logged sim"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LmdbBench | SimBench]:
    lmdb = request.param == "lmdb"
    made = LmdbBench(tmp_path) if lmdb else SimBench(logged=request.param == "logged sim")
    yield made
    made.close()


def batch(*changes: tuple[bytes, bytes | None]) -> Batch:
    made = Batch()
    for key, value in changes:
        if value is None:
            made.delete(key)
        else:
            made.put(key, value)
    return made


def everything(index: Index) -> list[tuple[bytes, bytes]]:
    return index.page(b"", b"\xff", 10_000)


def test_what_waits_is_visible_and_lost_by_a_kill(bench: LmdbBench | SimBench) -> None:
    index = bench.open()
    index.apply(batch((b"a", b"1"), (b"b", b"2"), (b"c", b"3")), durable=True)
    index.apply(batch((b"b", None), (b"d", b"4"), (b"a", b"9")), durable=False)
    assert index.get(b"a") == b"9" and index.get(b"b") is None and index.get(b"x") is None
    assert everything(index) == [(b"a", b"9"), (b"c", b"3"), (b"d", b"4")]
    bench.kill()
    assert everything(bench.open()) == [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]


def test_what_waits_rides_in_front_of_the_next_durable_batch(bench: LmdbBench | SimBench) -> None:
    index = bench.open()
    index.apply(batch((b"a", b"1"), (b"b", b"1")), durable=False)
    index.apply(batch((b"a", b"2"), (b"a", b"3")), durable=True)
    bench.kill()
    assert everything(bench.open()) == [(b"a", b"3"), (b"b", b"1")]


def test_flush_and_close_make_it_durable(bench: LmdbBench | SimBench) -> None:
    index = bench.open()
    index.apply(batch((b"a", b"1")), durable=False)
    index.flush()
    index.flush()
    bench.kill()
    index = bench.open()
    index.apply(batch((b"b", b"1")), durable=False)
    index.close()
    assert everything(bench.open()) == [(b"a", b"1"), (b"b", b"1")]


def test_pages_from_either_end(bench: LmdbBench | SimBench) -> None:
    index = bench.open()
    index.apply(batch(*((bytes([n]), b"%d" % n) for n in range(0, 40, 2))), durable=True)
    index.apply(batch(*((bytes([n]), b"w") for n in range(1, 40, 4)), (bytes([4]), None)), durable=False)
    whole = [(key[0], value) for key, value in everything(index)]
    assert [key for key, _ in whole] == sorted({n for n in range(0, 40, 2) if n != 4} | set(range(1, 40, 4)))
    for low, high, limit in [(0, 40, 5), (3, 20, 100), (10, 10, 5), (39, 60, 3), (50, 60, 3), (0, 1, 1)]:
        part = [key for key, _ in whole if low <= key < high]
        up = index.page(bytes([low]), bytes([high]), limit)
        down = index.page(bytes([low]), bytes([high]), limit, reverse=True)
        assert [key[0] for key, _ in up] == part[:limit]
        assert [key[0] for key, _ in down] == part[::-1][:limit]


def test_a_full_disk_applies_nothing_and_keeps_what_waits(tmp_path: Path) -> None:
    lmdb = LmdbBench(tmp_path)
    sim_disk = SimDisk(Rng(1))
    sim = SimIndex(sim_disk, "/index")
    for index in (lmdb.open(), sim):
        index.apply(batch((b"a", b"1")), durable=False)
        sim.is_full = True
        with pytest.raises(FsError) as caught:
            index.apply(batch(*((b"k%d" % n, bytes(4000)) for n in range(3000))), durable=True)
        assert caught.value.errno == errno.ENOSPC
        assert everything(index) == [(b"a", b"1")]
        sim.is_full = False
        index.apply(batch((b"b", b"2")), durable=True)
        assert everything(index) == [(b"a", b"1"), (b"b", b"2")]
    lmdb.kill()
    assert everything(lmdb.open()) == [(b"a", b"1"), (b"b", b"2")]
    lmdb.close()


def test_a_failed_disk_takes_no_durable_batch(bench: LmdbBench | SimBench) -> None:
    index = bench.open()
    index.apply(batch((b"a", b"1")), durable=True)
    bench.disk.fail("another file of the disk could not be synced")
    with pytest.raises(DiskFailed):
        index.apply(batch((b"a", b"2")), durable=True)
    index.apply(batch((b"a", b"3")), durable=False)
    assert index.get(b"a") == b"3"
    index.close()


_CHANGES = st.lists(st.tuples(st.binary(max_size=2), st.none() | st.binary(max_size=3)), max_size=6)


@given(st.lists(st.tuples(_CHANGES, st.booleans()), max_size=8))
def test_it_is_a_dict(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[object, bool]]) -> None:
    lmdb, sim, logged = LmdbBench(tmp_path_factory.mktemp("index")), SimBench(), SimBench(logged=True)
    model: dict[bytes, bytes] = {}
    durable_model: dict[bytes, bytes] = {}
    indexes = [lmdb.open(), sim.open(), logged.open()]
    for changes, durable in steps:
        keyed = [(b"k" + key, value) for key, value in changes]  # type: ignore[attr-defined]
        for key, value in keyed:
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
        for index in indexes:
            index.apply(batch(*keyed), durable=durable)
            assert everything(index) == sorted(model.items())
            assert index.page(b"", b"\xff", 100, reverse=True) == sorted(model.items(), reverse=True)
        if durable:
            durable_model = dict(model)
    for bench in (lmdb, sim, logged):
        bench.kill()
        assert everything(bench.open()) == sorted(durable_model.items())
    lmdb.close()
