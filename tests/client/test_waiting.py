"""Calls wait until they are done, or for as long as was asked; what a lost session ends, and what not."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fs3.client.file import AsyncFile
from fs3.client.filesystem import AsyncFileSystem
from fs3.client.settings import BOUNDED
from fs3.errors import SessionLost, StaleFile
from fs3.wire.meta import CLOSE_SESSION, MKDIRS, CloseSessionRequest
from tests.client.test_faults import DATA, MIB, timed, with_file
from tests.client.world import META_NODES, STORAGE_NODES, ClientWorld

HOUR_S = 3600.0
NODES = range(1, STORAGE_NODES + 1)


def take_away(world: ClientWorld, numbers: tuple[int, ...], back_s: float) -> None:
    """These nodes are dead for so long."""
    for number in numbers:
        world.node(number).is_dead = True
    world.loop.call_later(back_s, world.revive)


async def lose_session(world: ClientWorld, fs: AsyncFileSystem) -> None:
    """The cluster ends the client's session; the client hears of it at its next renewal."""
    session = await fs.core.sessions.current()
    await world.meta.call(world.peer, CLOSE_SESSION, CloseSessionRequest(session=session.id))


# -- until it is done


def test_without_any_storage_reads_and_writes_wait_for_its_return() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        async with await fs.open("/a", "r+b") as writer:
            take_away(world, tuple(NODES), HOUR_S)
            started_s = world.clock.boot_s()
            read = fs.core.scope.start("read", file.pread(1000, MIB))
            await writer.pwrite(b"later", 0)
            await writer.fsync()
            assert await read == DATA[MIB : MIB + 1000]
            assert HOUR_S <= world.clock.boot_s() - started_s < HOUR_S + 3
        assert await file.pread(5, 0) == b"later"

    with_file(body)


def test_without_any_metadata_service_names_wait_for_its_return() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        take_away(world, META_NODES, HOUR_S)
        await fs.mkdir("/d")
        assert await fs.listdir("/d") == []
        assert world.clock.boot_s() >= HOUR_S

    with_file(body)


def test_limits_of_a_file_system_hold_for_each_call() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        take_away(world, (*NODES, *META_NODES), HOUR_S)
        calls: list[tuple[Callable[[], Awaitable[Any]], float]] = [
            (lambda: fs.stat("/a"), BOUNDED.meta_timeout_s),
            (lambda: file.pread(10, 0), BOUNDED.read_timeout_s),
        ]
        for call, limit_s in calls:
            started_s = world.clock.boot_s()
            with pytest.raises(TimeoutError) as caught:
                await call()
            assert caught.value.errno == errno.ETIMEDOUT
            assert limit_s - 2 < world.clock.boot_s() - started_s <= limit_s + 0.1
        world.revive()

    with_file(body, BOUNDED)


def test_a_deadline_of_one_call_leaves_the_file_usable() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        async with await fs.open("/a", "r+b") as writer:
            take_away(world, (*NODES, *META_NODES), HOUR_S)
            await writer.pwrite(b"taken", 0)
            for call in (writer.fsync, lambda: file.pread(5, 0), lambda: fs.mkdir("/d")):
                started_s = world.clock.boot_s()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(2):
                        await call()
                assert world.clock.boot_s() - started_s == pytest.approx(2)
            world.revive()
            await writer.fsync()
        assert await file.pread(5, 0) == b"taken"
        await fs.mkdir("/d")

    with_file(body)


def test_a_write_waits_for_a_cut_whose_epoch_is_in_force_on_the_chains_only() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        async with await fs.open("/a", "r+b") as writer:
            for number in NODES:
                world.node(number).refuse_writes = [StaleFile("epoch is over")] * 6
            await writer.pwrite(b"after", 0)
        assert await file.pread(5, 0) == b"after"

    with_file(body)


# -- a lost session


def test_files_that_are_open_for_reading_go_on_in_the_next_session() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        before = (await fs.core.sessions.current()).id
        await lose_session(world, fs)
        await asyncio.sleep(20)
        assert await timed(world, file) < 1.0
        assert (await fs.core.sessions.current()).id != before
        async with await fs.open("/a") as other:
            views = await fs.read_batch([(file, 0, 10), (other, 10, 10)])
            assert b"".join(views) == DATA[:20]

    with_file(body)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_file_that_was_written_says_that_its_session_was_lost(is_known: bool) -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        writer = await fs.open("/a", "r+b")
        await writer.pwrite(b"x", 0)
        await writer.flush()
        await lose_session(world, fs)
        if is_known:
            await asyncio.sleep(20)
            for call in (lambda: writer.pread(1, 0), lambda: writer.pwrite(b"y", 0), writer.fsync):
                with pytest.raises(OSError) as caught:
                    await call()
                assert caught.value.errno == errno.ESTALE
        with pytest.raises(OSError) as caught:
            await writer.close()
        assert (caught.value.errno, caught.value.filename) == (errno.ESTALE, "/a")
        assert isinstance(caught.value.__cause__, SessionLost)
        async with await fs.open("/a", "r+b") as again:
            await again.pwrite(b"y", 0)

    with_file(body)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_file_of_which_nothing_can_be_missing_closes_in_a_lost_session(is_known: bool) -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        unchanged, synced = await fs.open("/a", "r+b"), await fs.open("/a", "r+b")
        await synced.pwrite(b"x", 0)
        await synced.fsync()
        await lose_session(world, fs)
        if is_known:
            await asyncio.sleep(20)
        await unchanged.close()
        await synced.close()

    with_file(body)


def test_a_mutation_whose_answer_and_session_were_lost_may_have_happened() -> None:
    async def body(world: ClientWorld, fs: AsyncFileSystem, file: AsyncFile) -> None:
        answer = world._answer

        async def ending(address: str, method: Any, request: Any, payload: bytes, sink: Any) -> Any:
            found = await answer(address, method, request, payload, sink)
            if method is MKDIRS:
                await lose_session(world, fs)
            return found

        setattr(world, "_answer", ending)  # noqa: B010  # a method for this test
        for number in META_NODES:
            world.node(number).lost_answers = 1
        with pytest.raises(TimeoutError) as caught:
            await fs.mkdir("/d")
        assert "may have been applied" in str(caught.value)
        setattr(world, "_answer", answer)  # noqa: B010
        assert await fs.isdir("/d")
        await fs.mkdir("/e")

    with_file(body)
