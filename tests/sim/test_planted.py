"""Each checker finds what is planted for it: in a history, in a log, in a whole world."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from fs3.client.filesystem import AsyncFileSystem
from fs3.ids import ChainVersion, ChunkId, ClientSessionId, InodeId, UpdateVersion
from fs3.kv.faults import FaultRates
from fs3.kv.memory import MemoryKv
from fs3.kv.schema import key_u64
from fs3.layout import Layout
from fs3.wire.chunk import Identity, WriterTag

from . import aftermath, worker
from .blocks import BLOCK_BYTES, BLOCKS, CHUNK_BYTES, stamped, values_of
from .cluster import World, WorldShape
from .fsck import complaints
from .history import UNKNOWN
from .loop import SimLoop, run_virtual
from .outcome import Outcome
from .seen import FSCK, IDENTICAL, LEAKS, LINEARIZABLE, ONCE, ONE_HISTORY, SERVING, SURVIVE, VERSIONS, Seen
from .small_files import RECORD, SmallFiles, appended_once
from .versions import VersionWatch
from .wires import LinkFaults
from .workload import Races

CHUNK = ChunkId(InodeId(7), 0)
SHAPE = WorldShape(mgmtd_count=1, meta_count=1, storage_count=3, targets_per_node_count=1, client_count=1)


def identity(number: int, chain_version: int = 1, session: int = 9) -> Identity:
    writer = WriterTag(ClientSessionId(session), 0, number)
    return Identity(ChainVersion(chain_version), UpdateVersion(number), writer)


def found_in(seen: Seen) -> list[str]:
    return [problem.checker for problem in seen.judge()]


def test_stale_reads_and_lost_writes_are_told_apart() -> None:
    for is_final, checker in ((False, LINEARIZABLE), (True, SURVIVE)):
        seen = Seen()
        seen.add_history("/f", InodeId(7), 0, BLOCKS)
        history = seen.histories["/f", 0]
        history.begin("write", "a", 0.0, 0, (1,)).ended(1.0)
        op = history.begin("read", "b", 2.0, 0, (0,))
        op.is_final = is_final
        op.ended(3.0)
        (problem,) = seen.judge()
        assert (problem.checker, problem.chunk) == (checker, CHUNK)


def test_torn_blocks_and_blocks_of_another_place_are_seen() -> None:
    data = stamped(5, 1, 2) + stamped(6, 1, 3)
    assert values_of(data, 1, 2, 3) == (5, 6, UNKNOWN)
    assert values_of(bytes(BLOCK_BYTES), 1, 2, 1) == (0,)
    for wrong in (data[:-1], data[16:] + data[:16], b"\1" * len(data)):
        assert isinstance(values_of(wrong, 1, 2, 2), str)
    assert isinstance(values_of(data, 1, 3, 2), str)


def test_numbers_that_go_back_and_numbers_with_two_contents_are_found() -> None:
    watch = VersionWatch()
    for store in (1, 2):
        watch.committed(store, CHUNK, identity(1))
        watch.committed(store, CHUNK, identity(2))
    watch.committed(3, CHUNK, identity(1))
    assert not watch.problems
    watch.committed(3, CHUNK, identity(2, session=8))
    assert [p.checker for p in watch.problems] == [VERSIONS] and "was committed as" in watch.problems[0].text
    watch.committed(1, CHUNK, identity(1))
    assert "after" in watch.problems[1].text


def log(*values: int) -> bytes:
    return b"".join(RECORD.pack(value, ~value & (1 << 64) - 1) for value in values)


def test_logs_with_records_lost_doubled_torn_or_out_of_order_are_found() -> None:
    appended = [(1, 0.0, 1.0), (2, 0.5, 1.5), (3, 2.0, 3.0)]
    assert not appended_once(log(2, 1, 3), appended)
    for data, word in (
        (log(1, 2), "missing: [3]"),
        (log(1, 2, 3, 3), "twice: [3]"),
        (log(1, 2, 3, 4), "never appended: [4]"),
        (log(3, 1, 2), "stands before"),
        (log(1, 2, 3)[:-1], "no whole records"),
        (log(1, 2) + b"\1" * RECORD.size, "torn"),
    ):
        assert word in appended_once(data, appended)


def test_a_name_that_two_or_none_made_is_found() -> None:
    for count in (0, 1, 2):
        seen = Seen()
        races = Races(seen)
        races._winners["/r"] = count
        races.judge()
        assert found_in(seen) == ([] if count == 1 else [ONCE])


def test_a_second_history_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = iter("aab")
    monkeypatch.setattr("tests.sim.scenario.run_seed", lambda seed: Outcome(seed, trace=next(traces)))
    assert not worker._judged(1, is_twice=False).is_bad
    assert [p.checker for p in worker._judged(1, is_twice=True).outcome.problems] == [ONE_HISTORY]


def in_world(body: Callable[[World, AsyncFileSystem], Awaitable[None]]) -> None:
    """Run ``body`` with a file of three chunks."""

    async def work() -> None:
        world = World(1, SHAPE, LinkFaults(), FaultRates())
        await world.start()
        await world.clients[0].set_layout("/work", Layout(chunk_size_bytes=CHUNK_BYTES))
        await world.clients[0].write_file("/work/f", b"x" * 3 * CHUNK_BYTES)
        await body(world, world.clients[0])
        await world.stop_clients()
        await world.stop_servers()
        assert world.failures == []

    run_virtual(work(), SimLoop())


def test_a_node_that_stays_away_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aftermath, "CALM_TIMEOUT_S", 5.0)

    async def body(world: World, _: AsyncFileSystem) -> None:
        assert not await aftermath.settled(world)
        world.crash("storage0")
        assert {p.checker for p in await aftermath.settled(world)} == {SERVING}
        await world.boot("storage0")
        assert not await aftermath.settled(world)

    in_world(body)


def test_a_byte_that_differs_on_one_replica_is_found() -> None:
    async def body(world: World, _: AsyncFileSystem) -> None:
        disk = world.disks["storage1"]
        (path,) = [path for path in disk._names if disk._names[path].seen[:CHUNK_BYTES] == b"x" * CHUNK_BYTES]
        disk.flip(path, 100)
        assert {p.checker for p in await aftermath.settled(world)} == {IDENTICAL}
        disk.flip(path, 100)

    in_world(body)


def test_chunks_and_names_without_an_inode_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aftermath, "CALM_TIMEOUT_S", 2.0)

    async def body(world: World, fs: AsyncFileSystem) -> None:
        assert not await complaints(world)
        key = key_u64(b"INOD", (await fs.attributes("/work/f")).inode)
        kept = world.store.value_at(key, world.store.version)
        assert kept is not None
        await change(world, key, None)
        found = await aftermath._within(world, LEAKS, lambda: aftermath._orphans(world), 2.0)
        assert len(found) == 9 and {p.checker for p in found} == {LEAKS}
        assert {p.checker for p in await complaints(world)} == {FSCK}
        await change(world, key, kept)

    in_world(body)


async def change(world: World, key: bytes, value: bytes | None) -> None:
    """Change a record behind everybody's back."""
    kv = MemoryKv(world.store)
    txn = kv.transaction()
    if value is None:
        txn.clear(key)
    else:
        txn.set(key, value)
    await txn.commit()
    await kv.aclose()


def test_a_session_that_stays_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aftermath, "FORGET_TIMEOUT_S", 3.0)

    async def body(world: World, fs: AsyncFileSystem) -> None:
        async with await fs.open("/work/f", "r+b"):
            found = await aftermath.left_over(world)
        assert {p.checker for p in found} == {LEAKS}
        assert any("SESS" in p.text for p in found) and any("OPEN" in p.text for p in found)

    in_world(body)


def test_small_files_that_are_lost_or_changed_are_found() -> None:
    async def body(world: World, fs: AsyncFileSystem) -> None:
        seen = Seen()
        files = SmallFiles(world, fs, "/work", 0, seen)
        await files._create()
        await files._create()
        await files.check_all()
        assert not found_in(seen)
        (one, _), (other, _) = files._own.items()
        await fs.exchange(one, other)
        await files.check_all()
        assert found_in(seen) == [SURVIVE, SURVIVE]
        await fs.remove(one)
        seen.problems.clear()
        files._own.pop(other)
        await files._list()
        assert found_in(seen) == [ONCE]

    in_world(body)
