"""Three real nodes forget what is over: the last member first, none before its time, also over a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fs3.errors import CapabilityExpired, Fs3Error, InvalidRequest, StaleRouting, Unavailable
from fs3.ids import ChunkId, ClientSessionId, Epoch, Generation, TargetId
from fs3.routing import TargetState
from fs3.rpc.client import RpcClient
from fs3.storage.dropping import RetentionSettings
from fs3.storage.retention import RETENTION_MS
from fs3.wire.storage import (
    CUT,
    DROP_EXPIRED,
    END_SESSION,
    EXPIRED_MAX,
    RAISE_EPOCH,
    CutRequest,
    DropExpiredRequest,
    EndSessionRequest,
    Expired,
    RaiseEpochRequest,
)

from .storage_cluster import CHAIN, INODE, MIB, StorageCluster, User, storage_cluster, until
from .test_access import node_client

GONE_SESSION = ClientSessionId(900)
NEVER_BY_ITSELF = RetentionSettings(round_s=1e6, page_count=2, pause_s=0.0, hop_timeout_s=3.0)
AFTER_MS = 2_000
"""Long enough for what is written in a test to be older than the cut of it."""
CHUNKS = (0, 1, 2)


class Shop:
    """A chain with three removed chunks, an epoch and the end of a session, all at ``cut_ms``."""

    def __init__(self, cluster: StorageCluster, user: User, meta: RpcClient) -> None:
        self.cluster = cluster
        self.user = user
        self.meta = meta
        self.drops: list[tuple[int, str]] = []

    async def raise_epoch(self, epoch: int) -> None:
        request = RaiseEpochRequest(
            chain=CHAIN, chain_version=self.cluster.version, inode=INODE, epoch=Epoch(epoch)
        )
        await self.meta.call(self.cluster.addresses[1], RAISE_EPOCH, request, timeout_s=5)

    async def fill(self) -> None:
        for number in CHUNKS:
            for _ in range(number + 1):
                await self.user.write(b"to be removed", number)
        self.cluster.time_ms += AFTER_MS
        await self.raise_epoch(1)
        head = self.cluster.addresses[1]
        chain: dict[str, Any] = {"chain": CHAIN, "chain_version": self.cluster.version}
        cut = CutRequest(**chain, inode=INODE, epoch=Epoch(1), first_removed=0, chunk_size_bytes=MIB)
        await self.meta.call(head, CUT, cut, timeout_s=5)
        await self.meta.call(head, END_SESSION, EndSessionRequest(**chain, session=GONE_SESSION), timeout_s=5)

    def watch(self, number: int) -> None:
        """Note the order in which members drop."""
        store: Any = self.cluster.servers[number].target.store
        for name in ("drop_tombstones", "drop_epochs", "drop_sessions"):
            setattr(store, name, partial(self._noted, number, name, getattr(store, name)))

    def _noted(self, number: int, name: str, drop: Callable[[Any], None], records: Any) -> None:
        self.drops.append((number, name))
        drop(records)

    def has(self, number: int) -> tuple[int, int, bool]:
        """What a member remembers: tombstones, the file's epoch, the session's end."""
        store = self.cluster.servers[number].target.store
        chunks = [store.versions(ChunkId(INODE, n)).committed for n in CHUNKS]
        return sum(c is not None for c in chunks), store.epoch(INODE), store.session_ended(GONE_SESSION)

    async def sweep(self) -> None:
        server = self.cluster.servers[1]
        assert server.dropping is not None
        await server.dropping.sweep(server.target)

    async def sweep_again(self) -> None:
        """A later round: the caller pauses for a moment before it connects again to who was away."""
        async with asyncio.timeout(10):
            while True:
                try:
                    return await self.sweep()
                except Unavailable:
                    await asyncio.sleep(0.01)

    def age(self, ms: int = RETENTION_MS) -> None:
        self.cluster.time_ms += ms


ALL = (3, 1, True)
NOTHING = (0, 0, False)


@asynccontextmanager
async def shop(directory: Path, retention: RetentionSettings = NEVER_BY_ITSELF) -> AsyncIterator[Shop]:
    async with storage_cluster(directory, with_bulk=False, retention=retention) as cluster:
        user, meta = User(cluster), node_client(cluster)
        try:
            await user.present()
            found = Shop(cluster, user, meta)
            await found.fill()
            for number in (1, 2, 3):
                found.watch(number)
                assert found.has(number) == ALL
            yield found
        finally:
            await user.close()
            await meta.aclose()


async def test_the_last_member_forgets_first_and_none_before_its_time(tmp_path: Path) -> None:
    async with shop(tmp_path) as s:
        s.age(RETENTION_MS - 1)
        await s.sweep()
        assert [s.has(n) for n in (1, 2, 3)] == [ALL] * 3 and not s.drops
        s.age(1)
        await s.sweep()
        assert [s.has(n) for n in (1, 2, 3)] == [NOTHING] * 3
        for name, pages in (("drop_tombstones", 2), ("drop_epochs", 1), ("drop_sessions", 1)):
            assert [n for n, what in s.drops if what == name] == [3, 2, 1] * pages
        text = s.cluster.servers[2]._components.metrics.exposition().decode()
        assert 'fs3_storage_dropped_records_total{kind="tombstone"} 3' in text
        assert 'fs3_storage_dropped_records_total{kind="session"} 1' in text


async def test_numbers_go_on_above_what_was_dropped_and_late_requests_are_refused(tmp_path: Path) -> None:
    async with shop(tmp_path) as s:
        numbers = [s.cluster.servers[1].target.store.versions(ChunkId(INODE, n)) for n in CHUNKS]
        highest = max(state.committed.identity.update_version for state in numbers)
        changes = [state.change for state in numbers]
        late = s.user.capability(expires_ms=s.cluster.time_ms + RETENTION_MS - 60_000)
        await s.user.present(capability=late)
        s.age()
        await s.sweep()
        assert all(s.cluster.servers[n].target.store.number_floor >= highest for n in (1, 2, 3))
        assert s.cluster.servers[1].target.store.dropped_change >= max(changes)
        with pytest.raises(CapabilityExpired):
            await s.user.write(b"late")
        await s.user.present(capability=s.user.capability(epoch=Epoch(1)))
        answer = await s.user.write(b"again", epoch=Epoch(1))
        assert answer.result.identity.update_version > highest
        for at in (1, 2, 3):
            assert await s.user.read(0, 0, 10, at=at) == b"again"
            assert await s.user.read(2, 0, 10, at=at) == b""


async def test_a_member_that_never_had_a_record_is_no_hindrance(tmp_path: Path) -> None:
    async with shop(tmp_path) as s:
        for number in (2, 3):
            store = s.cluster.servers[number].target.store
            first = store.versions(ChunkId(INODE, 0)).committed.identity
            store.drop_tombstones([(ChunkId(INODE, 0), first)])
            store.drop_epochs(store.epochs())
        s.age()
        await s.sweep()
        assert [s.has(n) for n in (1, 2, 3)] == [NOTHING] * 3


async def test_what_one_member_still_needs_stays_with_all_before_it(tmp_path: Path) -> None:
    """The middle one put the epoch in force a little later, as after a repeated raise that got that far."""
    async with shop(tmp_path) as s:
        s.age(1000)
        middle = s.cluster.servers[2].target.store
        middle.set_epochs([replace(middle.epoch_record(INODE), raised_ms=s.cluster.time_ms)])
        s.age(RETENTION_MS - 1000)
        await s.sweep()
        assert [s.has(n) for n in (1, 2, 3)] == [(0, 1, False), (0, 1, False), NOTHING]
        s.age(1000)
        await s.sweep()
        assert [s.has(n) for n in (1, 2, 3)] == [NOTHING] * 3


async def test_an_epoch_that_is_raised_again_meanwhile_stays_in_force(tmp_path: Path) -> None:
    """Behind the head it is dropped already; meta raises it once more, and counts on it."""
    async with shop(tmp_path) as s:
        dropping: Any = s.cluster.servers[1].dropping
        behind = dropping._drop_behind

        async def raised_meanwhile(*args: Any) -> Expired:
            kept: Expired = await behind(*args)
            await s.raise_epoch(1)
            return kept

        s.age()
        dropping._drop_behind = raised_meanwhile
        await s.sweep()
        assert [s.has(n) for n in (1, 2, 3)] == [(0, 1, False)] * 3


async def test_a_middle_member_that_dies_in_between_forgets_when_it_is_back(tmp_path: Path) -> None:
    async with shop(tmp_path) as s:
        dropping: Any = s.cluster.servers[2].dropping
        behind, is_behind_done = dropping._drop_behind, asyncio.Event()

        async def then_power_fails(*args: Any) -> Expired:
            await behind(*args)
            is_behind_done.set()
            raise StaleRouting("the power is away")

        dropping._drop_behind = then_power_fails
        s.age()
        with pytest.raises(StaleRouting):
            await s.sweep()
        assert is_behind_done.is_set()
        await s.cluster.stop_node(2)
        assert [s.has(n)[0] for n in (1, 3)] == [3, 1]  # one page of two: gone at the last one only
        with pytest.raises(Fs3Error):
            await s.sweep()
        assert s.has(1) == ALL
        await s.cluster.start_node(2)
        assert s.cluster.servers[2].static.generation == Generation(2)
        s.cluster.publish()
        await s.sweep_again()
        assert [s.has(n) for n in (1, 2, 3)] == [NOTHING] * 3


async def test_nothing_goes_while_a_member_does_not_serve_or_there_is_no_lease(tmp_path: Path) -> None:
    async with shop(tmp_path) as s:
        s.age()
        s.cluster.servers[1].static.has_lease = False
        await s.sweep()
        s.cluster.servers[1].static.has_lease = True
        for state in (TargetState.SYNCING, TargetState.OFFLINE):
            set_state(s.cluster, s.cluster.target(3), state)
            await s.sweep()
            assert [s.has(n) for n in (1, 2, 3)] == [ALL] * 3
        assert not s.drops


def set_state(cluster: StorageCluster, target: TargetId, state: TargetState) -> None:
    """The present chain with one member in another state, at the next version."""
    info = cluster.routing.chains[CHAIN]
    members = tuple(
        msgspec.structs.replace(m, state=state) if m.target == target else m for m in info.members
    )
    info = msgspec.structs.replace(info, version=info.version + 1, members=members)
    cluster.routing = msgspec.structs.replace(
        cluster.routing, version=cluster.routing.version + 1, chains={CHAIN: info}
    )
    for server in cluster.servers.values():
        for adopt in server.static.callbacks:
            adopt(cluster.routing)


async def test_only_the_predecessor_may_ask_and_within_bounds(tmp_path: Path) -> None:
    async with shop(tmp_path) as s:
        s.age()
        request = DropExpiredRequest(
            chain=CHAIN, chain_version=s.cluster.version, records=Expired(sessions=(GONE_SESSION,))
        )
        for address in s.cluster.addresses.values():
            with pytest.raises(StaleRouting, match="not the predecessor"):
                await s.meta.call(address, DROP_EXPIRED, request, timeout_s=5)
        head: Any = s.cluster.servers[1].client
        old = msgspec.structs.replace(request, chain_version=s.cluster.version - 1)
        with pytest.raises(StaleRouting):
            await head.call(s.cluster.addresses[2], DROP_EXPIRED, old, timeout_s=5)
        many = tuple(ClientSessionId(n) for n in range(100, 101 + EXPIRED_MAX))
        too_many = msgspec.structs.replace(request, records=Expired(sessions=many))
        with pytest.raises(InvalidRequest):
            await head.call(s.cluster.addresses[2], DROP_EXPIRED, too_many, timeout_s=5)
        assert not s.drops


async def test_heads_do_it_by_themselves(tmp_path: Path) -> None:
    often = replace(NEVER_BY_ITSELF, round_s=0.02)
    async with shop(tmp_path, often) as s:
        s.age()
        await until(lambda: [s.has(n) for n in (1, 2, 3)] == [NOTHING] * 3)
        assert {n for n, _ in s.drops} == {1, 2, 3}
