"""The client when servers fail: nothing wrong is returned, nothing is applied twice, and it goes on."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import NoReturn

import pytest

from fs3.client.file import AsyncFile
from fs3.client.filesystem import AsyncFileSystem
from fs3.client.settings import ClientSettings
from fs3.errors import (
    Busy,
    CapabilityExpired,
    CorruptData,
    Fs3Error,
    MaybeApplied,
    SessionLost,
    StaleFile,
    Unavailable,
)
from fs3.ids import ClientSessionId
from fs3.rng import derived_rng
from fs3.wire.storage import ReadItem, ReadResult
from tests.client.world import META_NODES, STORAGE_NODES, ClientWorld, address_of, picture

MIB = 1 << 20
DATA = derived_rng(1, "data").randbytes(8 * MIB)
Body = Callable[[ClientWorld, AsyncFileSystem, AsyncFile], Awaitable[None]]


def with_file(body: Body, settings: ClientSettings | None = None) -> ClientWorld:
    """Run ``body`` with a file of eight chunks, open for reading, its capability known to all servers."""
    world = ClientWorld(settings)

    async def whole() -> None:
        async with world.filesystem() as fs:
            await fs.write_file("/a", DATA)
            async with await fs.open("/a") as file:
                for _ in range(6):
                    assert await file.pread(len(DATA), 0) == DATA
                await body(world, fs, file)

    world.run(whole())
    return world


async def timed(world: ClientWorld, file: AsyncFile, offset: int = 0, size: int = len(DATA)) -> float:
    """Read and check; how long it took."""
    started_s = world.clock.boot_s()
    assert await file.pread(size, offset) == DATA[offset : offset + size]
    return world.clock.boot_s() - started_s


@pytest.mark.parametrize("number", range(1, STORAGE_NODES + 1))
def test_a_dead_node_costs_a_read_nothing(number: int) -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        world.node(number).is_dead = True
        for _ in range(5):
            assert await timed(world, file) < 0.1

    with_file(body)


@pytest.mark.parametrize("number", range(1, STORAGE_NODES + 1))
def test_a_silent_node_stalls_a_read_less_than_a_second(number: int) -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        world.node(number).is_silent = True
        assert await timed(world, file) < 0.5
        later = [await timed(world, file) for _ in range(10)]
        assert sorted(later)[7] < 0.02, later  # it is avoided, and tried again now and then

    world = with_file(body)
    assert world.failures == []


def test_a_node_that_dies_within_an_answer_loses_only_what_has_not_arrived() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        ranges = [(file, start, 4096) for start in range(0, MIB, 4096)]
        for number in range(1, STORAGE_NODES + 1):
            world.node(number).dead_after_parts = 2
        world.storage.reads.clear()
        views = await fs.read_batch(ranges)
        for (_, offset, size), view in zip(ranges, views, strict=True):
            assert view == DATA[offset : offset + size]
        sizes = [count for _, count in world.storage.reads]
        assert sizes[0] == 256 and sum(sizes[1:3]) == 250, sizes  # 6 had arrived, the others hold the rest

    with_file(body)


def test_a_slow_replica_is_hedged() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for _ in range(100):
            await timed(world, file, 0, 4096)
        for number in (1, 2, 3, 4, 5):
            world.node(number).delay_s = 2.0 if number != 4 else 0.001
        took = [await timed(world, file, start, 4096) for start in range(0, len(DATA), MIB)]
        hedgeable = [s for s in took if s < 1.0]
        assert hedgeable and max(hedgeable) < 0.5, took
        assert fs.core.reader.counters.hedges_won > 0

    with_file(body)


def test_without_hedging_a_slow_replica_is_waited_for() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for number in range(1, STORAGE_NODES + 1):
            world.node(number).delay_s = 2.0
        assert await timed(world, file, 0, 4096) >= 2.0
        assert fs.core.reader.counters.hedges == 0

    with_file(body, ClientSettings(hedge=False))


def test_wrong_bytes_are_read_elsewhere_and_never_returned() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for number in range(1, STORAGE_NODES + 1):
            world.node(number).corrupt_reads = 2
        assert await timed(world, file) < 1.0
        assert fs.core.reader.counters.corrupt_pieces >= 2

    with_file(body)


@pytest.mark.parametrize("fault", ["is_dead", "is_silent", "stale_reads"])
def test_a_replica_whose_bytes_were_wrong_and_that_cannot_be_asked_again_is_left(fault: str) -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        answer = world.storage.read_item

        def read_item(address: str, session: ClientSessionId, item: ReadItem) -> tuple[ReadResult, bytes]:
            behaviour = world.behaviour(address)
            had_wrong_bytes = behaviour.corrupt_reads
            found = answer(address, session, item)
            if had_wrong_bytes and not behaviour.corrupt_reads:
                setattr(behaviour, fault, 1000)
            return found

        setattr(world.storage, "read_item", read_item)  # noqa: B010  # a method for this test
        world.node(2).corrupt_reads = 1
        for _ in range(6):
            assert await timed(world, file) < 0.5
        counters = fs.core.reader.counters
        assert (counters.wrong_sums, counters.corrupt_pieces) == (1, 0)

    with_file(body)


def test_bytes_that_are_wrong_at_every_replica_are_an_error() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for number in range(1, STORAGE_NODES + 1):
            world.node(number).corrupt_reads = 1000
        with pytest.raises(OSError) as caught:
            await file.pread(4096, 0)
        assert (caught.value.errno, caught.value.filename) == (errno.EIO, "/a")
        assert isinstance(caught.value.__cause__, CorruptData)

    with_file(body)


def test_stale_routing_is_fetched_within_100_ms() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        world.meta.routing = world.routing = picture(1)  # what servers know …
        world.next_routing = picture(2, chain_version=2)
        for number in range(1, STORAGE_NODES + 1):
            world.node(number).stale_reads = 1
            world.node(number).stale_writes = 1
        assert await timed(world, file, 0, 4096) < 0.1
        assert world.routing.version == 2
        await fs.write_file("/b", DATA[:MIB])
        assert await fs.read_file("/b") == DATA[:MIB]

    with_file(body)


def test_a_restarted_node_is_presented_the_capability_again() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for number in range(1, STORAGE_NODES + 1):
            world.storage.forget_capabilities(address_of(number))
        assert await timed(world, file) < 0.1
        async with await fs.open("/a", "r+b") as writer:
            await writer.pwrite(b"one", 0)
            await writer.flush()
            for number in range(1, STORAGE_NODES + 1):
                world.storage.forget_capabilities(address_of(number))
            await writer.pwrite(b"two", 0)
        assert await file.pread(3, 0) == b"two"

    with_file(body)


def test_a_restarted_node_that_does_not_know_the_time_yet_is_waited_for() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        async with await fs.open("/a", "r+b") as writer:
            await writer.pwrite(b"one", 0)
            await writer.flush()
            for number in range(1, STORAGE_NODES + 1):
                world.storage.forget_capabilities(address_of(number))
                world.node(number).refuse_presents = [Unavailable("cluster time is not known yet")] * 20
            await writer.pwrite(b"two", 0)
        assert await file.pread(3, 0) == b"two"

    with_file(body)


@pytest.mark.parametrize("is_write", [False, True])
def test_a_capability_that_is_over_is_got_anew(is_write: bool) -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        async with await fs.open("/a", "r+b") as writer:
            await writer.pwrite(b"one", 0)
            await writer.flush()
            refused: list[Fs3Error] = [CapabilityExpired("over")] * (1 if is_write else 5)
            for number in range(1, STORAGE_NODES + 1):
                world.storage.forget_capabilities(address_of(number))
                world.node(number).refuse_presents = refused
            opened_count = world.count("open")
            if is_write:
                await writer.pwrite(b"two", 0)
                await writer.flush()
            else:
                assert await file.pread(3, 0) == b"one"
            assert world.count("open") == opened_count + 1

    with_file(body)


def test_reads_end_at_their_deadline() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for number in range(1, STORAGE_NODES + 1):
            world.node(number).is_dead = True
        started_s = world.clock.boot_s()
        with pytest.raises(TimeoutError) as caught:
            await file.pread(4096, 0)
        assert caught.value.errno == errno.ETIMEDOUT
        assert 2.5 < world.clock.boot_s() - started_s <= 3.2

    with_file(body, ClientSettings(read_timeout_s=3.0))


@pytest.mark.parametrize("lost", [1, 3])
def test_a_write_whose_answer_is_lost_is_applied_once(lost: int) -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for number in range(1, STORAGE_NODES + 1):
            world.node(number).lost_answers = lost
            world.node(number).refuse_writes = [Busy("full"), CorruptData("damaged on its way")]
        world.storage.applied.clear()
        await fs.write_file("/b", DATA)
        assert sorted(world.storage.applied) == sorted(dict.fromkeys(world.storage.applied))
        assert len(world.storage.applied) == 8
        assert await fs.read_file("/b") == DATA

    with_file(body)


def test_a_write_waits_for_a_dead_head_and_goes_on() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for number in range(1, STORAGE_NODES + 1):
            world.node(number).is_dead = True
        world.loop.call_later(20.0, world.revive)
        started_s = world.clock.boot_s()
        await fs.write_file("/b", DATA)
        assert 20 <= world.clock.boot_s() - started_s < 22
        assert await fs.read_file("/b") == DATA

    with_file(body, ClientSettings(read_timeout_s=3.0))


def test_a_write_that_is_given_up_cannot_overtake_the_next_one() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        writer = await fs.open("/a", "r+b")
        await writer.pwrite(b"first", 0)
        await writer.flush()
        for number in range(1, STORAGE_NODES + 1):
            world.node(number).is_silent = True
        await writer.pwrite(b"lost!", 0)
        with pytest.raises(TimeoutError):
            await writer.flush()
        with pytest.raises(TimeoutError):
            await writer.close()
        for number in range(1, STORAGE_NODES + 1):
            world.node(number).is_silent = False
        channels = [key[2] for key in world.storage._records if key[0]]
        async with await fs.open("/a", "r+b") as again:
            await again.pwrite(b"again", 0)
        assert [
            key[2] for key in world.storage._records if key[0]
        ] == channels  # the same channel, a newer number

    with_file(body, ClientSettings(write_timeout_s=3.0, meta_timeout_s=3.0))


def test_a_metadata_service_that_dies_is_failed_over_and_operations_apply_once() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for number in META_NODES:
            world.node(number).lost_answers = 2
        await fs.mkdir("/d")
        await fs.rename("/a", "/d/a")
        await fs.write_file("/d/b", b"small")
        assert await fs.listdir("/d") == ["a", "b"]
        world.node(META_NODES[0]).is_dead = True
        started_s = world.clock.boot_s()
        for number in range(4):
            await fs.mkdir(f"/d/{number}")
        assert world.clock.boot_s() - started_s < 0.5
        world.node(META_NODES[0]).is_dead = False
        world.node(META_NODES[1]).is_silent = True
        await fs.remove("/d/b")
        assert not await fs.exists("/d/b")

    with_file(body)


def test_metadata_waits_to_its_deadline_then_says_so() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for number in META_NODES:
            world.node(number).is_dead = True
        with pytest.raises(TimeoutError) as caught:
            await fs.stat("/a")
        assert (caught.value.errno, caught.value.filename) == (errno.ETIMEDOUT, "/a")
        assert "nothing was applied" in str(caught.value)
        assert await timed(world, file) < 0.1  # data of open files goes on
        for number in META_NODES:
            world.node(number).is_dead = False

    with_file(body, ClientSettings(meta_timeout_s=3.0))


def test_a_file_that_was_cut_by_another_client_is_written_under_the_new_epoch() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        async with world.filesystem("other") as other, await fs.open("/a", "r+b") as writer:
            await writer.pwrite(b"before", 0)
            await writer.flush()
            await other.truncate("/a", 3 * MIB)
            await writer.pwrite(b"after", 4 * MIB)
            await writer.fsync()
            assert (await other.stat("/a")).st_size == 4 * MIB + 5
        assert await fs.read_file("/a") == b"before" + DATA[6 : 3 * MIB] + bytes(MIB) + b"after"

    world = with_file(body)
    assert world.count("truncate") == 1


def test_an_fsync_that_tells_of_a_later_epoch_brings_its_capability() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        async with world.filesystem("other") as other, await fs.open("/a", "r+b") as writer:
            assert writer._file is not None
            await other.truncate("/a", 3 * MIB)
            before = world.count("open")
            await writer.fsync()
            assert writer._file.epoch == (await fs.attributes("/a")).epoch
            assert world.count("open") == before + 1, "opened again, for the capability of its epoch"

    with_file(body)


def test_reads_wait_for_a_cut_whose_epoch_is_in_force_on_the_chains_only() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for number in range(1, STORAGE_NODES + 1):
            world.node(number).refuse_reads = [StaleFile("epoch is over")] * 4
        assert 0.1 < await timed(world, file, 0, 100) < 5

    with_file(body)


def test_a_read_behind_the_length_that_is_known_gets_all_that_is_there() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        async with world.filesystem("other") as other, await other.open("/a", "ab") as longer:
            await longer.write(b"more bytes")
        await asyncio.sleep(2)
        assert await file.pread(100, len(DATA) + 5) == b"bytes"
        async with world.filesystem("other") as other, await other.open("/a", "ab") as longer:
            await longer.write(b", and more")
        await asyncio.sleep(2)
        await file.seek(len(DATA) + 10)
        assert await file.read(100) == b", and more"

    with_file(body)


def test_a_file_that_was_removed_cannot_be_written_any_more() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        for number in range(1, STORAGE_NODES + 1):
            world.node(number).refuse_writes = [StaleFile("epoch is over")] * 10_000
        writer = await fs.open("/a", "r+b")
        await writer.pwrite(b"x", 0)
        with pytest.raises(OSError) as caught:
            await writer.close()
        assert caught.value.errno == errno.ESTALE

    with_file(body)


def test_a_lost_session_is_opened_anew_for_names_and_ends_open_files() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        session = await fs.core.sessions.current()
        writer = await fs.open("/a", "r+b")
        await writer.pwrite(b"x", 0)
        await fs.core.sessions.close()
        session.is_lost = False  # the client does not know
        fs.core.sessions._session = session
        await fs.mkdir("/d")
        assert (await fs.core.sessions.current()).id != session.id
        with pytest.raises(OSError) as caught:
            await writer.fsync()
        assert caught.value.errno == errno.ESTALE
        with pytest.raises(OSError):
            await writer.close()

    with_file(body)


def test_a_lost_session_is_told_as_one_also_after_a_lost_answer() -> None:
    """Whether the file was opened again before the session ended matters to nobody (seed 12)."""

    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        writer = await fs.open("/a", "r+b")
        async with world.filesystem("other") as other:
            await other.truncate("/a", 3 * MIB)  # another epoch: writes need another capability

        async def mutate(*_: object, **__: object) -> NoReturn:
            raise MaybeApplied("the session ended before an answer came") from SessionLost("it is over")

        fs.core.meta.mutate = mutate  # type: ignore[method-assign]
        await writer.pwrite(b"x", 0)
        with pytest.raises(OSError) as caught:
            await writer.flush()
        assert caught.value.errno == errno.ESTALE
        with pytest.raises(OSError):
            await writer.close()

    with_file(body)


def test_sessions_are_renewed_and_capabilities_at_half_of_their_life() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        before = world.count("present")
        await asyncio.sleep(320)
        assert world.count("renew_session") >= 60
        assert world.count("renew_capabilities") == 1
        assert await timed(world, file) < 0.1
        assert world.count("present") > before

    with_file(body)
