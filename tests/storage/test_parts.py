"""The pure parts of the service, the committer, and what is opened at a start."""

from __future__ import annotations

import asyncio

import crcmod.predefined
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.errors import CorruptData, Fs3Error, IncompatibleVersion, InvalidRequest
from fs3.ids import ChunkId, Generation, InodeId, NodeId
from fs3.metrics import Metrics
from fs3.rng import Rng
from fs3.storage.committer import Committer
from fs3.storage.dedup import Found, find, judge
from fs3.storage.disk import Disk, DiskFailed
from fs3.storage.disks import NodeDirectory, OpenedTarget, open_targets
from fs3.storage.engine.versions import DedupRecord, EngineSettings, StageItem, StageOutcome
from fs3.storage.lanes import InlineLanes
from fs3.storage.node_state import DiskState, NodeState, pack_disk, pack_node, unpack_disk, unpack_node
from fs3.storage.sums import block_count, check_payload, content_sum, pieces, problem_of_update, sums_of
from fs3.tasks import TaskScope
from fs3.wire.chunk import SUM_BLOCK_BYTES, UpdateKind, UpdateResult, VersionInfo
from tests.sim.disk import SimDisk
from tests.sim.index import sim_opener
from tests.sim.loop import SimClock, SimLoop, run_virtual

from .engine.shop import HandClock, chunk, write
from .lone_replica import CHUNK, identity, tag

crc32c = crcmod.predefined.mkCrcFun("crc-32c")


@given(st.integers(0, 3 * SUM_BLOCK_BYTES), st.integers(0, 2 * SUM_BLOCK_BYTES + 5))
def test_pieces_cover_a_range_and_end_at_blocks(offset: int, length: int) -> None:
    found = list(pieces(offset, length))
    assert len(found) == block_count(offset, length)
    assert [a for a, _ in found] == [0, *[b for _, b in found[:-1]]][: len(found)]
    assert (found[-1][1] if found else 0) == length
    assert all((offset + b) % SUM_BLOCK_BYTES == 0 for _, b in found[:-1])


@given(st.binary(max_size=300), st.integers(0, 5))
def test_sums_are_those_of_an_independent_program(data: bytes, offset: int) -> None:
    sums = sums_of(memoryview(data), offset)
    assert sums == ((crc32c(data),) if data else ())
    check_payload(memoryview(data), offset, sums)
    if data:
        wrong = tuple(one ^ 1 for one in sums)
        with pytest.raises(CorruptData, match="block 0"):
            check_payload(memoryview(data), offset, wrong)
    assert content_sum(sums) == crc32c(b"".join(s.to_bytes(4, "little") for s in sums))


@given(
    st.sampled_from(list(UpdateKind)),
    st.integers(-5, 1 << 40),
    st.integers(-5, 1 << 40),
    st.integers(0, 3),
    st.integers(0, 1 << 30),
    st.integers(0, 100),
)
def test_numbers_from_the_wire_are_bounded(
    kind: UpdateKind, offset: int, length: int, sums: int, size: int, payload: int
) -> None:
    if problem_of_update(kind, offset, length, sums, size, payload) is None:
        assert offset >= 0 and length >= 0 and offset + length <= size <= 1 << 26
        assert payload == (length if kind in (UpdateKind.WRITE, UpdateKind.REPLACE) else 0)


def test_what_a_record_says_to_a_request() -> None:
    result = UpdateResult(identity=identity(4, 7), length_bytes=3)
    record = DedupRecord(tag().session, 0, 7, CHUNK, result)
    assert judge(None, tag(1), CHUNK) is None
    assert judge(record, tag(8), CHUNK) is None
    assert judge(record, tag(7), CHUNK) == result
    for refused in (judge(record, tag(6), CHUNK), judge(record, tag(7), ChunkId(InodeId(5), 1))):
        assert isinstance(refused, InvalidRequest)


def test_where_a_recorded_version_is() -> None:
    def version(number: int, sequence: int) -> VersionInfo:
        return VersionInfo(identity=identity(number, sequence), length_bytes=0, sums=())

    wanted = identity(4, 7)
    assert find(wanted, version(4, 7), None, 0) is Found.COMMITTED
    assert find(wanted, version(5, 1), None, 0) is Found.COMMITTED
    assert find(wanted, version(3, 1), version(4, 7), 0) is Found.PENDING
    assert find(wanted, version(4, 8), None, 0) is Found.NOWHERE
    assert find(wanted, None, None, 3) is Found.NOWHERE
    assert find(wanted, None, None, 4) is Found.COMMITTED  # removed, and its tombstone dropped


@given(st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 2**64 - 1))
def test_node_and_disk_state(node: int, number: int, generation: int) -> None:
    state = NodeState(NodeId(node), number, Generation(generation))
    data = pack_node(state)
    assert unpack_node(data) == state
    disk = DiskState(NodeId(node), number)
    assert unpack_disk(pack_disk(disk)) == disk
    with pytest.raises(CorruptData):
        unpack_disk(data)
    with pytest.raises(CorruptData):
        unpack_node(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    assert unpack_node(bytes(4096)) is None


def test_a_newer_state_is_not_guessed_at() -> None:
    import struct

    fields = struct.pack("<4sIIIQ", b"f3ns", 2, 1, 1, 1)
    with pytest.raises(IncompatibleVersion):
        unpack_node(fields + crc32c(fields).to_bytes(4, "little"))


class _Store:
    """Notes the groups; the third group finds the disk failed."""

    def __init__(self, fail_at: int = -1) -> None:
        self.groups: list[int] = []
        self.fail_at = fail_at

    def stage(self, items: list[StageItem], *, cluster_ms: int = 0) -> list[StageOutcome]:
        self.groups.append(len(items))
        if len(self.groups) - 1 == self.fail_at:
            raise DiskFailed("injected")
        return [StageOutcome(None) for _ in items]


def _committing(store: _Store, failures: list[str], loop: SimLoop) -> Committer:
    return Committer(
        store,
        InlineLanes(lambda: 0.01),
        "lane",
        clock=SimClock(loop),
        cluster_time_ms=lambda: 0,
        on_disk_failed=failures.append,
        metrics=Metrics(),
    )


@pytest.mark.parametrize("fail_at", [-1, 1])
def test_what_arrives_while_the_disk_works_is_one_group(fail_at: int) -> None:
    loop, store = SimLoop(), _Store(fail_at)
    failures: list[str] = []
    done: list[Fs3Error | None] = []

    async def main() -> None:
        committer = _committing(store, failures, loop)
        async with TaskScope("test", lambda name, error: None) as scope:
            scope.spawn("committer", committer.run())
            committer.stage(write(chunk(0), identity(1), b"x"), lambda o: done.append(o.error))
            await asyncio.sleep(0.005)
            for i in range(1, 20):
                committer.stage(write(chunk(i), identity(1), b"x"), lambda o: done.append(o.error))
            committer.call(lambda: None, lambda _, error: done.append(error))
            await asyncio.sleep(0.1)
            committer.stage(write(chunk(30), identity(1), b"x"), lambda o: done.append(o.error))
            await asyncio.sleep(0.1)

    run_virtual(main(), loop)
    assert len(done) == 22
    if fail_at < 0:
        assert store.groups == [1, 19, 1]
        assert not failures and not any(done)
    else:
        assert store.groups == [1, 19]
        assert failures == ["injected"]
        assert [isinstance(error, DiskFailed) for error in done] == [False] + [True] * 21


def test_a_committer_that_is_stopped_tells_everybody() -> None:
    loop, store = SimLoop(), _Store()
    done: list[Fs3Error | None] = []

    async def main() -> None:
        committer = _committing(store, [], loop)
        async with TaskScope("test", lambda name, error: None) as scope:
            scope.spawn("committer", committer.run())
            for i in range(100):
                committer.stage(write(chunk(i), identity(1), b"x"), lambda o: done.append(o.error))
            await asyncio.sleep(0.005)

    run_virtual(main(), loop)
    assert len(done) == 100
    assert all(error is not None for error in done)


def _open(disk: Disk, directories: tuple[str, ...], node: int = 1) -> list[OpenedTarget]:
    home = NodeDirectory("/home", NodeId(node), disk)
    try:
        home.begin_run()
        rng = Rng(1)
        return open_targets(
            home,
            directories,
            2,
            lambda _: disk,
            lambda disk: sim_opener(disk),  # type: ignore[arg-type]  # it is a SimDisk
            EngineSettings(capacity_bytes=1 << 24, file_bytes=64 << 20),
            HandClock(),
            lambda: rng.getrandbits(64),
        )
    finally:
        home.close()


def _close(opened: list[OpenedTarget]) -> list[int]:
    ids = [one.store.store_id for one in opened if one.store is not None]
    for one in opened:
        if one.store is not None:
            one.store.close()
    return ids


def test_targets_are_made_once_and_found_again() -> None:
    disk = SimDisk(Rng(1))
    first = _open(disk, ("/a",))
    assert [one.target for one in first] == [0x10000, 0x10001]
    ids = _close(first)
    again = _open(disk, ("/a", "/b"))
    assert [one.target for one in again] == [0x10000, 0x10001, 0x10100, 0x10101]
    assert _close(again)[:2] == ids


def test_a_missing_or_foreign_disk_is_reported_not_filled() -> None:
    disk = SimDisk(Rng(1))
    _close(_open(disk, ("/a", "/b")))
    moved = _open(disk, ("/b", "/empty"))
    assert all(one.store is None for one in moved)
    assert "is disk 1 of node 1" in moved[0].reason
    assert "mounted" in moved[2].reason
    assert not disk.exists("/empty")


def test_each_run_has_a_number_of_its_own() -> None:
    disk = SimDisk(Rng(1))
    seen = []
    for _ in range(3):
        home = NodeDirectory("/home", NodeId(1), disk)
        with pytest.raises(InvalidRequest, match="in use"):
            NodeDirectory("/home", NodeId(1), disk)
        seen.append(home.begin_run())
        home.close()
    assert seen == [1, 2, 3]
    with pytest.raises(InvalidRequest, match="belongs to node 1"):
        NodeDirectory("/home", NodeId(2), disk)
