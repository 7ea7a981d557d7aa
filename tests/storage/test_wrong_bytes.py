"""A byte flips on a disk and a client reads it: it gets the right ones, and the disk gets them back.

Real nodes, real client; only the metadata is made by hand: one file, open, its chunks on the one chain.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fs3.client.core import ClientCore
from fs3.client.file import AsyncFile
from fs3.client.open_files import OpenFile
from fs3.client.open_flags import parse_mode
from fs3.client.receiving import ReadSink
from fs3.client.session import Session
from fs3.client.settings import ClientSettings, Components
from fs3.client.thread_reads import read_here
from fs3.clock import SystemClock
from fs3.errors import CorruptData, StaleRouting
from fs3.identity.key_file import system_nonce
from fs3.ids import ChunkId
from fs3.layout import Layout
from fs3.rng import Rng
from fs3.routing import RoutingInfo, TargetState
from fs3.rpc.network import SystemNetwork
from fs3.rpc.thread_calls import ThreadCaller
from fs3.tasks import TaskScope
from fs3.wire.chunk import SUM_BLOCK_BYTES
from fs3.wire.meta import Attributes, InodeKind, OpenMode, OpenSessionResponse

from .storage_cluster import CHAIN, INODE, MIB, SESSION, UID, StorageCluster, User, storage_cluster, until

CHUNK = ChunkId(INODE, 0)
DATA = Rng(5).randbytes(MIB)
REPAIRED = "fs3_storage_repaired_chunks_total"
CORRUPT = "fs3_storage_corrupt_blocks_total"
VERIFIED = "fs3_storage_verified_reads_total"


class Reading:
    """A client with the file open for reading."""

    def __init__(self, cluster: StorageCluster, user: User) -> None:
        self.cluster = cluster
        self.user = user
        self.scope = TaskScope("client", lambda name, error: cluster.failures.append((name, error)))
        clock = SystemClock()
        self.threads = ThreadCaller(
            user.credentials, SystemNetwork(), make_nonce=system_nonce, now_s=clock.boot_s
        )
        components = Components(
            caller=user.rpc,
            routing=self,
            clock=clock,
            rng=Rng(3),
            make_nonce=system_nonce,
            blocking=user.bulk,
            threads=self.threads,
        )
        # the file is not read ahead and not hedged: each read is one request to one replica
        settings = ClientSettings(readahead_bytes_max=0, hedge=False, read_timeout_s=20)
        self.core = ClientCore(components, settings, self.scope)
        opened = OpenSessionResponse(
            session=SESSION, renew_every_s=60, lost_after_s=60, slot_count=1, inline_limit_bytes=0
        )
        session = Session(opened, components, self.core.meta)
        file = OpenFile("/a", session, OpenMode.READ)
        file.capability = session.capabilities.add(user.capability())
        file.chains = (CHAIN,)
        file.attributes = Attributes(
            inode=INODE,
            kind=InodeKind.FILE,
            mode=0o644,
            uid=UID,
            gid=UID,
            nlink=1,
            length_bytes=len(DATA),
            atime_ns=0,
            mtime_ns=0,
            ctime_ns=0,
            layout=Layout(chunk_size_bytes=MIB),
        )
        flags = parse_mode("rb")
        self.file = AsyncFile(self.core, "/a", "rb", flags, file, inline_limit_bytes=0, permissions=0o644)

    @property
    def routing(self) -> RoutingInfo:
        return self.cluster.routing

    async def refresh(self) -> None:
        """The picture is always the newest."""

    def read_from(self, number: int) -> None:
        """Reads go to this node first."""
        for other, address in self.cluster.addresses.items():
            if other == number:
                self.core.reader.replicas.trust(address, self.core.clock.boot_s())
            else:
                self.core.reader.replicas.suspect(address, self.core.clock.boot_s())

    async def pread(self, offset: int, length: int) -> None:
        """Read and compare."""
        assert await self.file.pread(length, offset) == DATA[offset : offset + length]


@asynccontextmanager
async def reading(directory: Path) -> AsyncIterator[Reading]:
    """Three nodes that hold ``DATA``, and a client that every node knows."""
    async with storage_cluster(directory) as cluster:
        user = User(cluster)
        await user.present()
        await user.write(DATA)
        client = Reading(cluster, user)
        for number in cluster.servers:
            client.read_from(number)
            await client.pread(0, MIB)
        try:
            yield client
        finally:
            await client.scope.aclose()
            client.threads.close()
            await user.close()


def flip(cluster: StorageCluster, number: int, offset: int) -> None:
    """Change one byte of the chunk on a node's disk, under the store's feet."""
    handle = cluster.servers[number].target.store.read(CHUNK, None, 0, MIB)
    region = handle.regions[0]
    at = region.offset_bytes + offset
    fd = os.open(region.file.path, os.O_RDWR)
    os.pwrite(fd, bytes([os.pread(fd, 1, at)[0] ^ 1]), at)
    os.close(fd)
    handle.release()


def figure(cluster: StorageCluster, number: int, name: str) -> float:
    """A metric of a node, over all labels."""
    values = cluster.servers[number]._components.metrics.values()
    return sum(float(value) for key, value in values.items() if key.startswith(name))


async def until_right(cluster: StorageCluster, number: int) -> None:
    """Wait for the repair; then look at the node's bytes."""
    store = cluster.servers[number].target.store
    await until(lambda: not store.verify_chunk(CHUNK))
    buffer = memoryview(bytearray(MIB))
    assert store.read_into(CHUNK, None, 0, buffer, wait=True).length_bytes == MIB
    assert buffer == DATA


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    ("offset", "length", "flipped"),
    [(0, MIB, 700_000), (SUM_BLOCK_BYTES, SUM_BLOCK_BYTES, SUM_BLOCK_BYTES), (0, MIB, MIB - 1)],
)
async def test_a_reader_gets_right_bytes_and_the_replica_gets_them_back(
    tmp_path: Path, number: int, offset: int, length: int, flipped: int
) -> None:
    async with reading(tmp_path) as client:
        cluster, counters = client.cluster, client.core.reader.counters
        flip(cluster, number, flipped)
        client.read_from(number)
        await client.pread(offset, length)
        assert (counters.wrong_sums, counters.corrupt_pieces) == (1, 1)
        await until_right(cluster, number)
        await until(lambda: figure(cluster, number, REPAIRED) == 1)
        assert (figure(cluster, number, CORRUPT), figure(cluster, number, VERIFIED)) == (1, 1)
        client.read_from(number)
        await client.pread(0, MIB)
        assert counters.wrong_sums == 1


async def test_the_only_member_that_serves_gets_a_block_back_from_one_that_does_not(tmp_path: Path) -> None:
    """It was left out and has other bytes elsewhere, but this block as it still is: its sum says so."""
    async with reading(tmp_path) as client:
        cluster = client.cluster
        cluster.publish(states={2: TargetState.WAITING, 3: TargetState.WAITING})
        changed = os.urandom(100)
        await client.user.write(changed, offset=5 * SUM_BLOCK_BYTES)
        flip(cluster, 1, 2 * SUM_BLOCK_BYTES)
        flip(cluster, 2, 2 * SUM_BLOCK_BYTES)  # so that the third has to be asked
        client.read_from(1)
        await client.pread(0, 5 * SUM_BLOCK_BYTES)
        store = cluster.servers[1].target.store
        await until(lambda: not store.verify_chunk(CHUNK))
        assert await client.user.read(0, 5 * SUM_BLOCK_BYTES, 100, at=1) == changed


async def test_a_client_gets_nothing_of_a_member_that_does_not_serve(tmp_path: Path) -> None:
    async with reading(tmp_path) as client:
        client.cluster.publish(states={3: TargetState.WAITING})
        sink = await client.user.read_items([client.user.item(0, 0, 100)], at=3, by_sums=True)
        assert [result.code for result in sink.results if result] == [StaleRouting.code]


async def test_a_block_that_was_right_before_is_compared_again(tmp_path: Path) -> None:
    async with reading(tmp_path) as client:
        user = client.user
        assert await user.read(0, 5, 100, at=2) == DATA[5:105]  # verifies block 0
        flip(client.cluster, 2, 50)
        item = user.item(0, 5, 100)
        sink = await user.read_items([item], at=2)
        assert sink.results[0] is not None and sink.results[0].code == 0  # as far as it knows
        items = [item, user.item(0, SUM_BLOCK_BYTES, 10), user.item(7, 0, 10)]
        sink = await user.read_items(items, at=2, verify=True)
        assert [result.code for result in sink.results if result] == [CorruptData.code, 0, 0]
        assert sink.data[1] == DATA[SUM_BLOCK_BYTES : SUM_BLOCK_BYTES + 10]
        await until_right(client.cluster, 2)
        sink = await user.read_items(items, at=2, verify=True)
        assert sink.data[0] == DATA[5:105]


@pytest.mark.parametrize("length", [4096, MIB])
async def test_bytes_that_changed_on_the_way_are_read_again_from_the_same_replica(
    tmp_path: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(tmp_path) as client:
        real = ReadSink.received
        changed: list[bool] = []

        def received(self: Any, response: Any) -> None:
            if not changed:
                changed.append(True)
                self.views[0][17] ^= 1
            real(self, response)

        monkeypatch.setattr(ReadSink, "received", received)
        client.read_from(3)
        before = figure(client.cluster, 3, "fs3_storage_reads_total")
        await client.pread(0, length)
        counters = client.core.reader.counters
        assert (changed, counters.wrong_sums, counters.corrupt_pieces) == ([True], 1, 0)
        assert figure(client.cluster, 3, "fs3_storage_reads_total") == before + 2
        assert [figure(client.cluster, n, VERIFIED) for n in (1, 2, 3)] == [0, 0, 1]
        assert figure(client.cluster, 3, CORRUPT) == 0


async def test_a_read_in_a_thread_tells_the_replica_as_well(tmp_path: Path) -> None:
    async with reading(tmp_path) as client:
        flip(client.cluster, 1, 300_000)
        client.read_from(1)
        view = memoryview(bytearray(MIB))
        counts = await asyncio.to_thread(read_here, client.core, [(client.file, 0, MIB)], [view])
        assert counts is None  # the ordinary way does what is to be done …
        client.read_from(2)
        await client.pread(0, MIB)  # … and asks the one in doubt first
        assert client.core.reader.counters.corrupt_pieces == 1
        await until_right(client.cluster, 1)


async def test_small_reads_in_a_thread_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(tmp_path) as client:
        caller = ThreadCaller(
            client.user.credentials, SystemNetwork(), make_nonce=system_nonce, now_s=SystemClock().boot_s
        )
        client.core.components.threads = caller
        monkeypatch.setattr(ReadSink, "_is_right", staticmethod(lambda *_: False))
        client.read_from(3)
        views = [memoryview(bytearray(1000)) for _ in range(2)]
        ranges = [(client.file, 0, 1000), (client.file, 200_000, 1000)]
        assert await asyncio.to_thread(read_here, client.core, ranges, views) is None
        monkeypatch.undo()
        client.read_from(1)
        await client.pread(200_000, 1000)
        assert [figure(client.cluster, number, VERIFIED) for number in (1, 2, 3)] == [0, 0, 1]
        assert await asyncio.to_thread(read_here, client.core, ranges, views) == [1000, 1000]
        caller.close()


async def test_what_is_right_is_not_repaired(tmp_path: Path) -> None:
    async with reading(tmp_path) as client:
        target = client.cluster.servers[1].target
        assert not await target.repairs._mender.repair(CHAIN, CHUNK)
        flip(client.cluster, 1, 0)
        assert await target.repairs._mender.repair(CHAIN, CHUNK)
        assert not await target.repairs._mender.repair(CHAIN, CHUNK)
        await until_right(client.cluster, 1)


async def test_replicas_with_different_bad_blocks_mend_each_other(tmp_path: Path) -> None:
    async with reading(tmp_path) as client:
        for number in (1, 2, 3):
            flip(client.cluster, number, number * SUM_BLOCK_BYTES)
        for number in (1, 2, 3):
            client.read_from(number)
            await client.pread(number * SUM_BLOCK_BYTES, SUM_BLOCK_BYTES)
            await until_right(client.cluster, number)


async def test_bytes_that_are_wrong_everywhere_are_a_clear_error(tmp_path: Path) -> None:
    async with reading(tmp_path) as client:
        for number in (1, 2, 3):
            flip(client.cluster, number, 500_000)
        for _ in range(2):
            with pytest.raises(OSError) as caught:
                await client.file.pread(MIB, 0)
            assert (caught.value.errno, caught.value.filename) == (errno.EIO, "/a")
            assert isinstance(caught.value.__cause__, CorruptData)
        await client.pread(0, 7 * SUM_BLOCK_BYTES)  # the other blocks are there
        for number in (1, 2, 3):
            target = client.cluster.servers[number].target
            await until(lambda target=target: not target.repairs.under_way)  # type: ignore[misc]
            assert target.store.verify_chunk(CHUNK) == [500_000 // SUM_BLOCK_BYTES]
            assert figure(client.cluster, number, REPAIRED) == 0
        answer = await client.user.write(DATA)  # whole blocks build on nothing
        assert answer.result.length_bytes == MIB
        for number in (1, 2, 3):
            client.read_from(number)
            await client.pread(0, MIB)


async def test_readers_at_the_same_time_start_one_repair(tmp_path: Path) -> None:
    async with reading(tmp_path) as client:
        flip(client.cluster, 2, 0)
        mender: Any = client.cluster.servers[2].target.repairs._mender
        repair, have_read = mender.repair, asyncio.Event()

        async def when_all_have_read(*arguments: Any) -> bool:
            await have_read.wait()
            return bool(await repair(*arguments))

        mender.repair = when_all_have_read
        items = [client.user.item(0, 0, 10)] * 200
        sink = await client.user.read_items(items, at=2, verify=True)
        assert {result.code for result in sink.results if result} == {CorruptData.code}
        have_read.set()
        await until_right(client.cluster, 2)
        await until(lambda: figure(client.cluster, 2, REPAIRED) == 1)
        assert figure(client.cluster, 2, CORRUPT) == 1
