"""Real nodes: resync while clients write, members die, records change, and histories that have parted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fs3.errors import Fs3Error, MaybeApplied, Unavailable
from fs3.ids import ClientSessionId, Epoch
from fs3.routing import LocalState
from fs3.storage.resync.pace import ResyncSettings
from fs3.wire.chunk import UpdateKind
from fs3.wire.storage import (
    END_SESSION,
    RAISE_EPOCH,
    RESYNC_DONE,
    EndSessionRequest,
    RaiseEpochRequest,
    ResyncDoneRequest,
    ResyncFrom,
)

from .resync_shop import Chain, chain_of, chunk
from .storage_cluster import CHAIN, INODE, until

SLOW = ResyncSettings(rate_bytes_s=256 * 1024)
SIZE_BYTES = 65536
COUNT = 20


async def fill(c: Chain) -> None:
    for number in range(COUNT):
        await c.user.write(bytes([number]) * SIZE_BYTES, number)


class Writer:
    """One channel: writes chunk after chunk, each request again until it is answered."""

    def __init__(self, c: Chain, channel: int) -> None:
        self.c = c
        self.channel = channel
        self.last: dict[int, bytes] = {}
        self.count = 0
        self.is_over = False

    async def run(self) -> None:
        while not self.is_over:
            number = self.channel * 4 + self.count % 4
            data = f"{self.channel}.{self.count} ".encode() * (100 + 3000 * (self.count % 3))
            request = self.c.user.request(data, number, kind=UpdateKind.REPLACE, channel=self.channel)
            await self._until_answered(request, data)
            self.last[number] = data
            self.count += 1

    async def _until_answered(self, request: Any, data: bytes) -> None:
        while True:
            cluster = self.c.cluster
            head = cluster.routing.chains[CHAIN].serving[0].node
            request = msgspec.structs.replace(request, chain_version=cluster.version)
            try:
                await self.c.user.send(request, data, to=head, timeout_s=2)
                return
            except Fs3Error:
                await asyncio.sleep(0.02)


async def wait_for_writes(writers: list[Writer], more: int) -> None:
    before = [writer.count for writer in writers]
    await until(lambda: all(w.count >= b + more for w, b in zip(writers, before, strict=True)), 30)


@pytest.mark.parametrize("empty", [False, True])
async def test_clients_write_all_the_time(tmp_path: Path, empty: bool) -> None:
    async with chain_of(tmp_path) as c:
        await fill(c)
        writers = [Writer(c, channel) for channel in range(4)]
        async with asyncio.TaskGroup() as group:
            for writer in writers:
                group.create_task(writer.run())
            await wait_for_writes(writers, 4)
            await c.stop(3, empty=empty)
            await wait_for_writes(writers, 4)
            await c.start(3)
            await c.synced(3)
            await wait_for_writes(writers, 4)
            assert c.is_uptodate(3)
            c.cluster.publish()
            await wait_for_writes(writers, 4)
            for writer in writers:
                writer.is_over = True
        c.check_equal(1, 2, 3)
        for writer in writers:
            for number, data in writer.last.items():
                assert c.content(3, chunk(number)) == data


async def test_a_version_that_only_the_returning_member_had_is_gone(tmp_path: Path) -> None:
    """``chain_model`` V1: the old head staged X, its successors gave the number to Y."""
    async with chain_of(tmp_path) as c:
        await c.user.write(b"before", 0)
        await c.cluster.stop_node(2)
        lost = c.user.request(b"X", 0)
        with pytest.raises(MaybeApplied):
            await c.user.send(lost, b"X", timeout_s=1)
        assert c.store(1).pendings()
        await c.cluster.start_node(2)
        await c.cluster.stop_node(1)
        c.publish(2, 3)
        await c.user.present(2)
        await c.user.send(c.user.request(b"Y", 0, channel=1), b"Y", to=2)
        await c.cluster.start_node(1)
        c.publish(2, 3, 1, syncing=1)
        await c.synced(1)
        c.check_equal(2, 3, 1)
        assert c.content(1, chunk(0)) == b"Yefore"
        await c.all_serve()
        again = msgspec.structs.replace(lost, chain_version=c.cluster.version)
        answer = await c.user.send(again, b"X")  # at the member that had its record: not "recognised"
        assert answer.result.identity.update_version == 3
        c.check_equal(1, 2, 3)


async def test_the_sources_own_pending_version_goes_first(tmp_path: Path) -> None:
    """``chain_model`` V6: the receiver had committed it as the last member, the source has not heard."""
    async with chain_of(tmp_path) as c:
        await c.user.write(b"first", 0)
        replica = c.server(2).target.replica
        heard = replica.on_forwarded

        def deaf(token: int, identity: object, content_sum: int, now_s: float) -> list[object]:
            replica.on_forward_failed(token, now_s)
            return []

        replica.on_forwarded = deaf
        with pytest.raises(MaybeApplied):
            await c.user.send(c.user.request(b"second", 0), b"second", timeout_s=1)
        assert c.content(3, chunk(0)) == b"second" and c.content(2, chunk(0)) == b"first"
        c.server(2).static.has_lease = False  # alone, it would commit by itself
        c.leave(3)
        c.sync(3)
        await until(lambda: c.value(2, "fs3_storage_resync_failures_total") > 0, 10)
        assert c.content(3, chunk(0)) == b"second" and not c.is_uptodate(3)
        replica.on_forwarded = heard
        await c.synced(3)
        await until(lambda: not c.store(1).pendings())
        c.check_equal(1, 2, 3)
        assert c.content(3, chunk(0)) == b"second"


async def test_the_source_dies_and_another_goes_on(tmp_path: Path) -> None:
    async with chain_of(tmp_path, resync=SLOW) as c:
        await fill(c)
        await c.stop(3, empty=True)
        await c.start(3)
        await until(lambda: c.copied(2) >= 3 * SIZE_BYTES, 20)
        await c.cluster.stop_node(2)
        c.sync(3, 2)
        c.hurry()
        await c.synced(3)
        c.check_equal(1, 3)
        assert c.copied(1) <= (COUNT - 3) * SIZE_BYTES, "what the first one sent is there"


async def test_the_receiver_dies_and_goes_on_where_it_was(tmp_path: Path) -> None:
    async with chain_of(tmp_path, resync=SLOW) as c:
        await fill(c)
        await c.stop(3, empty=True)
        await c.start(3)
        await until(lambda: c.copied(2) >= 3 * SIZE_BYTES, 20)
        await c.stop(3)
        await c.user.write(b"meanwhile", 1)
        c.hurry()
        await c.start(3)
        await c.synced(3)
        c.check_equal(1, 2, 3)
        assert c.copied(2) <= (COUNT + 5) * SIZE_BYTES, "but for what was under way, and what has changed"


async def test_records_that_do_not_concern_the_receiver_cost_a_message(tmp_path: Path) -> None:
    async with chain_of(tmp_path, resync=SLOW) as c:
        await fill(c)
        await c.stop(3, empty=True)
        await c.start(3)
        await until(lambda: c.copied(2) >= 3 * SIZE_BYTES, 20)
        c.sync(3)
        c.hurry()
        await c.synced(3)
        assert c.copied(2) <= (COUNT + 4) * SIZE_BYTES, "at most what was under way goes twice"
        before, version = c.copied(2), c.cluster.version
        c.sync(3)
        assert c.report(3).state is LocalState.ONLINE, "no statement is carried over (V9)"
        await c.synced(3)
        assert c.report(3).chain_version == version + 1
        assert c.copied(2) == before
        c.check_equal(1, 2, 3)


async def test_requests_epochs_and_ends_of_sessions_come_along(tmp_path: Path) -> None:
    async with chain_of(tmp_path) as c:
        first = c.user.request(b"once", 0)
        await c.user.send(first, b"once")
        await c.stop(3)
        second = c.user.request(b"only once", 1, channel=7)
        answer = await c.user.send(second, b"only once")
        head = c.cluster.addresses[1]
        chain: dict[str, Any] = {"chain": CHAIN, "chain_version": c.cluster.version}
        ended = ClientSessionId(900)
        await c.meta.call(head, END_SESSION, EndSessionRequest(**chain, session=ended), timeout_s=5)
        await c.meta.call(
            head, RAISE_EPOCH, RaiseEpochRequest(**chain, inode=INODE, epoch=Epoch(4)), timeout_s=5
        )
        await c.start(3)
        await c.synced(3)
        c.check_equal(1, 2, 3)
        assert c.store(3).session_ended(ended) and c.store(3).epoch(INODE) == 4
        await c.all_serve()
        c.publish(3, 1, 2)
        for request, data in ((first, b"once"), (second, b"only once")):
            again = msgspec.structs.replace(request, chain_version=c.cluster.version)
            replayed = await c.user.send(again, data, to=3)
            assert data != b"only once" or replayed.result.identity == answer.result.identity


async def test_what_was_removed_and_forgotten_meanwhile_goes(tmp_path: Path) -> None:
    """The tombstones are dropped: nothing at the source says that there were such chunks."""
    async with chain_of(tmp_path) as c:
        for number in range(6):
            await c.user.write(b"file", number)
        c.cluster.publish()
        await c.stop(3)
        for number in range(3):
            await c.user.write(b"", number, kind=UpdateKind.REMOVE)
        for member in (1, 2):
            store = c.store(member)
            gone = [(one, v.identity) for one, v in c.committed(member).items() if v.removed]
            store.drop_tombstones(gone)
        await c.start(3)
        await c.synced(3)
        c.check_equal(1, 2, 3)
        assert sorted(c.committed(3)) == [chunk(n) for n in (3, 4, 5)]
        assert c.store(3).number_floor >= 2
        await c.all_serve()
        answer = await c.user.write(b"new", 0)
        assert answer.result.identity.update_version == 3
        c.check_equal(1, 2, 3)


async def test_a_member_left_out_by_force_goes_back(tmp_path: Path) -> None:
    """The only case in which a version goes back: 3 went on alone, and the others were made to serve."""
    async with chain_of(tmp_path) as c:
        for number in range(4):
            await c.user.write(b"common", number)
        c.publish(3)
        for number in (0, 0, 1, 2, 9):
            await c.user.send(c.user.request(b"lost!!", number), b"lost!!", to=3)
        c.publish(1, 2)
        await c.user.write(b"kept", 1)
        await c.user.write(b"", 2, kind=UpdateKind.REMOVE)
        c.sync(3)
        live = asyncio.gather(*(c.user.write(b"live", n, channel=n) for n in (0, 3)))
        await c.synced(3)
        await live
        c.check_equal(1, 2, 3)
        assert c.content(3, chunk(0)) == b"liveon" and c.content(3, chunk(1)) == b"kepton"
        assert chunk(9) not in c.committed(3)


async def test_only_the_predecessor_makes_the_statement(tmp_path: Path) -> None:
    async with chain_of(tmp_path, resync=SLOW) as c:
        await fill(c)
        await c.stop(3, empty=True)
        await c.start(3)
        source = ResyncFrom(chain=CHAIN, chain_version=c.cluster.version, sender=c.target(2))
        for number in (1, 3):
            client: Any = c.server(number).client
            with pytest.raises(Fs3Error):
                await client.call(
                    c.cluster.addresses[3], RESYNC_DONE, ResyncDoneRequest(source=source), timeout_s=2
                )
        assert not c.is_uptodate(3)
        c.hurry()
        await c.synced(3)


async def test_the_source_counts_what_it_does_and_not_what_it_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chain_of(tmp_path) as c:
        await fill(c)
        await c.stop(3, empty=True)
        resync: Any = c.server(2).resync
        targets: Any = c.server(2).targets

        async def nothing(*_: Any) -> None:
            raise Unavailable("nobody has the right bytes of it")

        with monkeypatch.context() as patched:
            patched.setattr(resync._sender, "bring", nothing)
            await c.start(3)
            await until(lambda: c.value(2, "fs3_storage_resync_failures_total") >= 2)
            before = resync.step_count(c.target(2))
            await until(lambda: c.value(2, "fs3_storage_resync_failures_total") >= 4)
            assert resync.step_count(c.target(2)) == before
        await c.synced(3)
        assert resync.step_count(c.target(2)) >= before + COUNT
        targets.report()
        assert c.report(2).copy_step_count == resync.step_count(c.target(2))
