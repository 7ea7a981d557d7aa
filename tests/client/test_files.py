"""Files through the asynchronous face: what is written is read, small and large, over every way to write."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest

from fs3.client.filesystem import AsyncFileSystem
from fs3.rng import derived_rng
from fs3.wire.meta import Storage
from tests.client.world import ClientWorld

MIB = 1 << 20
LIMIT = 16 * 1024
DATA = derived_rng(1, "data").randbytes(5 * MIB + 12_345)


def run(work: Callable[[AsyncFileSystem], Awaitable[None]], world: ClientWorld | None = None) -> ClientWorld:
    """Run a test body with a file system."""
    used = world or ClientWorld()

    async def whole() -> None:
        async with used.filesystem() as fs:
            await work(fs)

    used.run(whole())
    return used


@pytest.mark.parametrize("size", [0, 1, LIMIT, LIMIT + 1, MIB, MIB + 1, 5 * MIB + 12_345])
def test_a_file_reads_back_as_written(size: int) -> None:
    async def work(fs: AsyncFileSystem) -> None:
        await fs.write_file("/a", DATA[:size])
        assert await fs.read_file("/a") == DATA[:size]
        found = await fs.attributes("/a")
        assert found.length_bytes == size
        assert found.storage is (Storage.INLINE if size <= LIMIT else Storage.CHUNKED)
        assert (await fs.stat("/a")).st_size == size

    run(work)


def test_a_small_file_is_one_request_to_write_and_one_to_read() -> None:
    async def work(fs: AsyncFileSystem) -> None:
        await fs.write_file("/warm", b"")  # opens the session
        before = len(world.calls)
        await fs.write_file("/a", b"small")
        assert [name for _, name in world.calls[before:]] == ["create"]
        before = len(world.calls)
        assert await fs.read_file("/a") == b"small"
        assert [name for _, name in world.calls[before:]] == ["open"]

    world = ClientWorld()
    run(work, world)


def test_small_writes_are_sent_by_chunks() -> None:
    async def work(fs: AsyncFileSystem) -> None:
        async with await fs.open("/a", "wb") as file:
            for start in range(0, 3 * MIB, 1000):
                await file.write(DATA[start : start + 1000])
        assert await fs.read_file("/a") == DATA[: 3 * MIB // 1000 * 1000 + 1000]

    world = run(work)
    assert world.count("write") <= 6, world.count("write")


def test_writes_at_offsets_and_holes() -> None:
    async def work(fs: AsyncFileSystem) -> None:
        async with await fs.open("/a", "w+b") as file:
            await file.pwrite(b"tail", 3 * MIB)
            await file.pwrite(b"head", 0)
            assert await file.pread(4, 0) == b"head"
            assert await file.pread(8, 3 * MIB - 4) == b"\0\0\0\0tail"
            assert await file.pread(100, 3 * MIB + 2) == b"il"
            assert await file.pread(100, 4 * MIB) == b""
            await file.pwrite(b"XX", 3 * MIB + 1)
        content = await fs.read_file("/a")
        assert content == b"head" + bytes(3 * MIB - 4) + b"tXXl"

    run(work)


def test_a_small_file_grows_out_of_the_metadata_store() -> None:
    async def work(fs: AsyncFileSystem) -> None:
        await fs.write_file("/a", b"x" * 100)
        async with await fs.open("/a", "r+b") as file:
            await file.pwrite(b"yy", 10)
            await file.seek(0, 2)
            await file.write(DATA[:LIMIT])
            assert file.size == 100 + LIMIT
        expected = b"x" * 10 + b"yy" + b"x" * 88 + DATA[:LIMIT]
        assert await fs.read_file("/a") == expected
        assert (await fs.attributes("/a")).storage is Storage.CHUNKED

    run(work)


@pytest.mark.parametrize("size", [10, LIMIT, 2 * MIB])
def test_appends_of_several_handles_follow_one_another(size: int) -> None:
    async def work(fs: AsyncFileSystem) -> None:
        one = await fs.open("/a", "ab")
        other = await fs.open("/a", "ab")
        for start in range(0, size, size // 2):
            await one.write(DATA[start : start + size // 2])
            await one.flush()
            await other.write(b"other")
            await other.flush()
        await one.close()
        await other.close()
        half = size // 2
        assert await fs.read_file("/a") == DATA[:half] + b"other" + DATA[half:size] + b"other"

    run(work)


@pytest.mark.parametrize("size", [1000, 3 * MIB])
@pytest.mark.parametrize("cut", [0, 10, 100_000, 2 * MIB, 4 * MIB])
def test_truncate_of_an_open_file_and_by_name(size: int, cut: int) -> None:
    async def work(fs: AsyncFileSystem) -> None:
        expected = DATA[:size][:cut].ljust(cut, b"\0")
        await fs.write_file("/a", DATA[:size])
        async with await fs.open("/a", "r+b") as file:
            assert await file.truncate(cut) == cut
            assert await file.pread(8 * MIB, 0) == expected
            await file.pwrite(b"!", cut)
        assert await fs.read_file("/a") == expected + b"!"
        await fs.write_file("/b", DATA[:size])
        await fs.truncate("/b", cut)
        assert await fs.read_file("/b") == expected

    run(work)


def test_modes() -> None:
    async def work(fs: AsyncFileSystem) -> None:
        async with await fs.open("/a", "xb") as file:
            await file.write(b"one")
        with pytest.raises(FileExistsError) as caught:
            await fs.open("/a", "xb")
        assert (caught.value.errno, caught.value.filename) == (errno.EEXIST, "/a")
        async with await fs.open("/a", "a+b") as file:
            await file.write(b" two")
            await file.seek(0)
            assert await file.read() == b"one two"
        async with await fs.open("/a", "r+b") as file:
            await file.write(b"ONE")
        assert await fs.read_file("/a") == b"ONE two"
        async with await fs.open("/a", "wb") as file:
            with pytest.raises(OSError) as bad:
                await file.read()
            assert bad.value.errno == errno.EBADF
        assert await fs.read_file("/a") == b""
        with pytest.raises(FileNotFoundError) as missing:
            await fs.open("/none", "rb")
        assert missing.value.filename == "/none"
        with pytest.raises(ValueError, match="text"):
            await fs.open("/a", "r")
        with pytest.raises(ValueError):
            await fs.open("/a", "rwb")

    run(work)


def test_a_name_is_given_at_the_first_flush() -> None:
    async def work(fs: AsyncFileSystem) -> None:
        file = await fs.open("/a", "wb")
        await file.write(b"now")
        assert not await fs.exists("/a")
        await file.fsync()
        assert await fs.read_file("/a") == b"now"
        await file.write(b" and then")
        assert (await file.stat()).st_size == 12
        await file.close()
        await file.close()
        assert await fs.read_file("/a") == b"now and then"
        lost = await fs.open("/no/such", "wb")
        await lost.write(b"x")
        with pytest.raises(FileNotFoundError) as caught:
            await lost.close()
        assert caught.value.filename == "/no/such"
        early = await fs.open("/early", "wb", create_now=True)
        assert await fs.exists("/early")
        await early.close()

    run(work)


def test_overwriting_a_large_file_with_a_small_one() -> None:
    async def work(fs: AsyncFileSystem) -> None:
        await fs.write_file("/a", DATA)
        await fs.write_file("/a", b"tiny")
        assert await fs.read_file("/a") == b"tiny"
        await fs.write_file("/a", DATA)
        assert await fs.read_file("/a") == DATA

    run(work)


def test_a_batch_reads_many_ranges_of_many_files() -> None:
    async def work(fs: AsyncFileSystem) -> None:
        await fs.write_file("/large", DATA)
        await fs.write_file("/small", DATA[:100])
        large, small = await fs.open("/large"), await fs.open("/small")
        draw = derived_rng(2, "ranges")
        ranges = [(large, draw.randrange(len(DATA)), draw.randrange(1, 70_000)) for _ in range(300)]
        ranges += [(small, 50, 100), (large, len(DATA), 10), (large, 0, 3 * MIB)]
        views = await fs.read_batch(ranges)
        for (file, offset, length), view in zip(ranges, views, strict=True):
            source = DATA if file is large else DATA[:100]
            assert view == source[offset : offset + length]
        out = [bytearray(10), bytearray(2 * MIB)]
        views = await fs.read_batch([(small, 0, 10), (large, 7, 2 * MIB)], out)
        assert (bytes(out[0]), bytes(out[1])) == (DATA[:10], DATA[7 : 7 + 2 * MIB])
        with pytest.raises(ValueError):
            await fs.read_batch([(small, 0, 10)], [])
        with pytest.raises(ValueError):
            await fs.read_batch([(small, 0, 10)], [bytearray(9)])
        await large.close()
        await small.close()

    run(work)


def test_sequential_reads_are_read_ahead_and_random_ones_are_not() -> None:
    async def work(fs: AsyncFileSystem) -> None:
        await fs.write_file("/a", DATA)
        async with await fs.open("/a") as file:
            parts = []
            while part := await file.read(100_000):
                parts.append(part)
            assert b"".join(parts) == DATA
        sequential = sum(count for _, count in world.storage.reads)
        assert len(world.storage.reads) < 30, len(world.storage.reads)  # 52 reads of the application
        async with await fs.open("/a") as file:
            for start in range(4 * MIB, 0, -MIB):
                await file.seek(start)
                assert await file.read(1000) == DATA[start : start + 1000]
        assert sum(count for _, count in world.storage.reads) == sequential + 4

    world = ClientWorld()
    run(work, world)


def test_what_others_append_is_seen_within_a_second() -> None:
    async def work(fs: AsyncFileSystem) -> None:
        await fs.write_file("/a", DATA[:MIB])
        async with await fs.open("/a") as reader:
            assert len(await reader.read()) == MIB
            async with await fs.open("/a", "ab") as writer:
                await writer.write(b"more")
            world.loop.advance(1.1)
            assert await reader.read() == b"more"

    world = ClientWorld()
    run(work, world)


def test_a_copy_is_equal() -> None:
    async def work(fs: AsyncFileSystem) -> None:
        await fs.write_file("/a", DATA, permissions=0o640)
        assert await fs.copy("/a", "/b") == len(DATA)
        assert await fs.read_file("/b") == DATA
        assert (await fs.stat("/b")).st_mode & 0o777 == 0o640

    run(work)
