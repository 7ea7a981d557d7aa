"""What the metadata service counts on when it talks to storage: one body for the double and the real stub.

``double``: ``FakeChains``, as the tests of the metadata service use it. ``stub``: ``StorageStub`` and its
messages over the simulated network.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fs3.errors import InvalidRequest, SessionLost, StaleFile
from fs3.ids import ClientSessionId, Epoch, InodeId
from fs3.layout import Layout, file_chains
from fs3.meta.services import Chains
from fs3.stubs.storage import FileEnd
from tests.meta.cluster import Cluster
from tests.meta.fake_chains import FakeChains
from tests.meta.world import CHAINS
from tests.sim.loop import run_virtual

LAYOUT = Layout(chunk_size_bytes=1 << 16, seed=7)
ORDER = file_chains(LAYOUT, CHAINS)
FILE, OTHER = InodeId(77), InodeId(78)
SESSION = ClientSessionId(20)
SIZE = LAYOUT.chunk_size_bytes
Body = Callable[[Chains, FakeChains], Awaitable[None]]


@pytest.fixture(params=["double", "stub"])
def run(request: pytest.FixtureRequest) -> Callable[[Body], None]:
    """Runs a body on one of the two; ``FakeChains`` is also where writes come from."""

    def with_double(body: Body) -> None:
        async def work() -> None:
            chains = FakeChains()
            await body(chains, chains)

        run_virtual(work())

    def with_stub(body: Body) -> None:
        cluster = Cluster(meta_count=0)

        async def work() -> None:
            await cluster.start()
            try:
                await body(cluster.stub(), cluster.chains)
            finally:
                await cluster.stop()

        run_virtual(work(), cluster.loop)
        assert cluster.failures == []

    return with_double if request.param == "double" else with_stub


def write(disk: FakeChains, offset: int, length: int, epoch: int, inode: InodeId = FILE) -> None:
    disk.write(inode, LAYOUT, ORDER, offset, length, Epoch(epoch), SESSION)


def test_an_epoch_fences_older_writes_and_only_grows(run: Any) -> None:
    async def body(chains: Chains, disk: FakeChains) -> None:
        write(disk, 0, 10, 0)
        assert await chains.raise_epoch(FILE, Epoch(2), ORDER, timeout_s=5) == 2
        with pytest.raises(StaleFile):
            write(disk, 0, 10, 1)
        write(disk, 0, 10, 2)
        write(disk, 0, 10, 0, OTHER)
        assert await chains.raise_epoch(FILE, Epoch(1), ORDER, timeout_s=5) == 2

    run(body)


def test_the_end_is_found_over_all_chains(run: Any) -> None:
    async def body(chains: Chains, disk: FakeChains) -> None:
        assert await chains.file_end(FILE, LAYOUT, ORDER, timeout_s=5) == FileEnd(0, 0, 0)
        write(disk, 0, 3 * SIZE + 5, 0)
        write(disk, 9 * SIZE + 1, 6, 0)
        end = await chains.file_end(FILE, LAYOUT, ORDER, timeout_s=5)
        assert (end.length_bytes, end.chunk_count) == (9 * SIZE + 7, 5)

    run(body)


@pytest.mark.parametrize("length", [0, 1, SIZE, SIZE + 1, 7 * SIZE - 1, 7 * SIZE, 20 * SIZE])
def test_a_cut_leaves_what_is_below_the_length(run: Any, length: int) -> None:
    async def body(chains: Chains, disk: FakeChains) -> None:
        write(disk, 0, 13 * SIZE + 9, 0)
        write(disk, 0, 13 * SIZE + 9, 0, OTHER)
        await chains.raise_epoch(FILE, Epoch(1), ORDER, timeout_s=5)
        removed = await chains.cut(FILE, LAYOUT, ORDER, length, Epoch(1), timeout_s=5)
        end = await chains.file_end(FILE, LAYOUT, ORDER, timeout_s=5)
        assert end.length_bytes == min(length, 13 * SIZE + 9)
        assert removed == 14 - end.chunk_count
        assert await chains.cut(FILE, LAYOUT, ORDER, length, Epoch(1), timeout_s=5) == 0
        assert (await chains.file_end(OTHER, LAYOUT, ORDER, timeout_s=5)).chunk_count == 14

    run(body)


def test_a_cut_needs_its_own_epoch_in_force(run: Any) -> None:
    async def body(chains: Chains, disk: FakeChains) -> None:
        write(disk, 0, 5, 0)
        with pytest.raises(InvalidRequest):
            await chains.cut(FILE, LAYOUT, ORDER, 0, Epoch(1), timeout_s=5)
        await chains.raise_epoch(FILE, Epoch(2), ORDER, timeout_s=5)
        with pytest.raises(StaleFile):
            await chains.cut(FILE, LAYOUT, ORDER, 0, Epoch(1), timeout_s=5)
        assert (await chains.file_end(FILE, LAYOUT, ORDER, timeout_s=5)).length_bytes == 5

    run(body)


def test_an_ended_session_writes_no_more(run: Any) -> None:
    async def body(chains: Chains, disk: FakeChains) -> None:
        await chains.end_session(SESSION, ORDER, timeout_s=5)
        await chains.end_session(SESSION, ORDER, timeout_s=5)
        with pytest.raises(SessionLost):
            write(disk, 0, 10, 0)

    run(body)
