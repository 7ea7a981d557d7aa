"""Background work: removal, lost sessions, what operations left unfinished."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from fs3.errors import SessionLost, StaleFile, Unavailable
from fs3.ids import Epoch, Generation, InodeId, NodeId
from fs3.log import silent_logger
from fs3.meta.inode import get_inode, put_inode
from fs3.meta.intents import REMOVALS, get_cut, list_intents
from fs3.meta.workers.aged import Aged
from fs3.meta.workers.leases import WorkLeases
from fs3.meta.workers.leftovers import SettlementWorker, SpillWorker, TruncateWorker
from fs3.meta.workers.pace import WorkerLoop
from fs3.meta.workers.removal import RemovalWorker
from fs3.meta.workers.sessions import SessionWorker
from fs3.tasks import TaskScope
from fs3.wire import meta as wire
from fs3.wire.meta import OpenMode, Storage
from tests.meta.world import ALICE, BOB, CHAINS, Client, World

READ, WRITE = OpenMode.READ, OpenMode.WRITE
MIB = 1 << 20


class Workers:
    """The workers of one service; ``turn`` gives each one unit of work."""

    def __init__(self, world: World, node: int = 1) -> None:
        self.scope = TaskScope("workers", lambda name, error: None)
        self.leases = WorkLeases(world.services, NodeId(node), Generation(1))
        parts = (world.services, self.leases, world.finisher, self.scope)
        self.removal = RemovalWorker(world.services, self.leases, self.scope)
        self.sessions = SessionWorker(*parts)
        self.truncates = TruncateWorker(*parts)
        self.settlements = SettlementWorker(*parts)
        self.spills = SpillWorker(*parts)

    async def turn(self) -> None:
        for worker in (self.sessions, self.truncates, self.settlements, self.spills, self.removal):
            await worker.work_once()


async def queue(world: World) -> list[Any]:
    return await list_intents(world.kv.transaction(), REMOVALS, None, 100)


def leftovers(world: World) -> dict[str, int]:
    """Records by kind, of those that nothing may be left of when all is quiet."""
    kinds = (b"OPEN", b"SOPN", b"CUTQ", b"SPLQ", b"STLQ", b"RMVQ", b"INLN", b"SLOT", b"SREN", b"SNON")
    counts: dict[str, int] = {}
    for kind in kinds:
        keys = world.store.keys_between(kind, kind + b"\xff")
        alive = [key for key in keys if world.store.value_at(key, world.store.version) is not None]
        if alive:
            counts[kind.decode()] = len(alive)
    return counts


def test_chunks_go_before_records_and_open_files_wait() -> None:
    world = World()

    async def work() -> None:
        client, workers = await world.client(), Workers(world)
        opened = await client.chunked(b"f")
        inode = opened.attributes.inode
        client.write(opened, 0, 5 * MIB)
        await client.remove(b"f")
        await workers.turn()
        assert inode in world.chains.chunks
        await client.close(opened, 5 * MIB)
        world.chains.down = dict.fromkeys(CHAINS[:1])
        await workers.turn()
        assert (await client.stat_inode(inode)).nlink == 0
        assert inode in world.chains.chunks
        world.chains.down.clear()
        await workers.turn()
        assert inode not in world.chains.chunks
        with pytest.raises(StaleFile):
            client.write(opened, 0, 1)
        with pytest.raises(OSError, match="gone"):
            await client.stat_inode(inode)
        assert await queue(world) == []

    world.run(work())


async def forest(client: Client) -> None:
    """t/ with 3 levels, files inline and in chunks."""
    for path in (b"t", b"t/a", b"t/a/b", b"t/c"):
        await client.mkdir(path, permissions=0o777)
    for number in range(70):
        await client.create(b"t/a/%d" % number, b"x")
    for path in (b"t/a/b/big", b"t/c/big", b"t/big"):
        opened = await client.chunked(path)
        client.write(opened, 0, 3 * MIB)
        await client.close(opened, 3 * MIB)


def test_a_tree_goes_in_one_request_and_nothing_is_left() -> None:
    world = World()

    async def work() -> None:
        client, workers = await world.client(ALICE), Workers(world)
        before = (await client.call(wire.STATFS, wire.StatFsRequest())).file_count
        await forest(client)
        top = (await client.stat(b"t")).inode
        assert await client.remove(b"t", recursive=True)
        assert await client.names(b"") == []
        with pytest.raises(FileNotFoundError):
            await client.call(
                wire.CREATE,
                wire.CreateRequest(path=wire.Path(b"new", top), mutation=client.mutation(), content=b""),
            )
        for _ in range(3):
            await workers.turn()
        assert world.chains.chunks == {}
        assert (await client.call(wire.STATFS, wire.StatFsRequest())).file_count == before
        left = leftovers(world)
        assert set(left) <= {"SLOT", "SREN"}, left

    world.run(work())


def test_a_tree_that_may_not_be_deleted_is_refused_with_the_path() -> None:
    world = World()

    async def work() -> None:
        alice, bob = await world.client(ALICE), await world.client(BOB)
        await forest(alice)
        await alice.setattr(b"t/a/b", mode=0o755)
        with pytest.raises(PermissionError) as caught:
            await bob.remove(b"t", recursive=True)
        assert caught.value.filename == "t/a/b"
        await alice.setattr(b"t/a/b", mode=0o1777)
        with pytest.raises(PermissionError) as caught:
            await bob.remove(b"t", recursive=True)
        assert caught.value.filename == "t/a/b/big"
        assert len(await alice.names(b"t/a")) == 71

    world.run(work())


def test_what_has_become_undeletable_is_put_back() -> None:
    world = World()

    async def work() -> None:
        alice, bob, workers = await world.client(ALICE), await world.client(BOB), Workers(world)
        await forest(alice)
        inner = (await alice.stat(b"t/a/b")).inode
        assert await bob.remove(b"t", recursive=True)
        request = wire.SetAttrRequest(path=wire.Path(b"", inner), mutation=alice.mutation(), mode=0o755)
        await alice.call(wire.SETATTR, request)
        await bob.mkdir(b"t")  # its name is taken meanwhile
        for _ in range(3):
            await workers.turn()
        names = await alice.names(b"")
        assert len(names) == 2 and names[0] == b"t" and names[1].startswith(b"t.kept-")
        assert await alice.names(names[1] + b"/a/b") == [b"big"]
        assert "tree put back" in [event.name for event in world.events]
        assert (await alice.stat(b"")).nlink == 4
        assert await alice.remove(names[1], recursive=True)
        for _ in range(3):
            await workers.turn()
        assert await alice.names(b"") == [b"t"]

    world.run(work())


def test_a_removal_goes_on_in_another_service() -> None:
    world = World()
    second = world.another()

    async def work() -> None:
        client = await world.client()
        await forest(client)
        first, others = Workers(world, 1), Workers(second, 2)
        await first.turn()
        await client.remove(b"t", recursive=True)
        await others.turn()
        assert world.chains.chunks != {}
        for _ in range(5):  # the first is silent now
            await asyncio.sleep(5)
            await others.turn()
        assert world.chains.chunks == {}

    world.run(work())


def test_a_lost_writers_file_is_settled_and_its_writes_are_refused() -> None:
    world = World()

    async def work() -> None:
        client, other, workers = await world.client(), await world.client(), Workers(world)
        opened = await client.chunked(b"f")
        small = await client.create(b"small", b"xyz", mode=WRITE)
        spilling = await client.create(b"spill", b"content", mode=WRITE)
        await client.spill(spilling, 1)
        client.write(spilling, 0, 7)
        client.write(opened, 0, 3 * MIB + 1)
        for _ in range(16):  # 80 s, in which only the other client renews
            await asyncio.sleep(5)
            await other.call(wire.RENEW_SESSION, wire.RenewSessionRequest(session=other.session))
            await workers.turn()
        found = await other.stat(b"f")
        assert (found.length_bytes, found.settling) == (3 * MIB + 1, False)
        with pytest.raises((StaleFile, SessionLost)):
            client.write(opened, 0, 1)
        with pytest.raises(SessionLost):
            await client.mkdir(b"x")
        moved = await other.open(b"spill", READ)
        assert (moved.content, moved.attributes.storage) == (b"content", Storage.INLINE)
        assert spilling.attributes.inode not in world.chains.chunks
        assert (await other.open(b"small", READ)).content == b"xyz"
        again = await other.open(b"f", WRITE)
        other.write(again, 0, 5 * MIB)
        await other.close(again, 5 * MIB)
        assert (CHAINS[0], client.session) in world.chains.ended
        assert (CHAINS[0], other.session) not in world.chains.ended
        left = leftovers(world)
        assert set(left) == {"SLOT", "SREN", "INLN"} and left["SREN"] == 1, left
        assert small.created

    world.run(work())


def test_a_lost_writers_late_write_does_not_appear_after_its_settlement() -> None:
    """It arrives when the length was found out, and the session is not refused on the chains yet."""
    world, met = World(), list[str]()

    async def work() -> None:
        client, other, workers = await world.client(), await world.client(), Workers(world)
        opened = await client.chunked(b"f")
        client.write(opened, 0, MIB)

        async def late(call: str) -> None:
            if call != "end_session":
                world.chains.before.append(late)
                return
            met.append(call)
            with pytest.raises(StaleFile):
                client.write(opened, MIB, MIB)

        await client.call(wire.CLOSE_SESSION, wire.CloseSessionRequest(session=client.session))
        world.chains.before.append(late)
        await workers.turn()
        assert met and (await other.stat(b"f")).length_bytes == MIB

    world.run(work())


def test_nobody_is_lost_while_the_store_was_away() -> None:
    world = World()

    async def work() -> None:
        client, workers = await world.client(), Workers(world)
        for _ in range(10):
            await workers.turn()
            await asyncio.sleep(5)
        here = world.faults.at_read

        def gone() -> None:
            raise Unavailable("away")

        world.faults.at_read = gone  # type: ignore[method-assign]
        await asyncio.sleep(60)
        world.faults.at_read = here  # type: ignore[method-assign]
        for _ in range(10):
            await workers.turn()
            await asyncio.sleep(5)
        await client.mkdir(b"d")
        for _ in range(3):
            await workers.turn()
            await asyncio.sleep(5)
        with pytest.raises(SessionLost):
            await client.mkdir(b"e")

    world.run(work())


def test_renewals_are_written_once_in_twenty_seconds() -> None:
    world = World()

    async def work() -> None:
        client = await world.client()
        before = world.store.version
        for _ in range(12):
            await client.call(wire.RENEW_SESSION, wire.RenewSessionRequest(session=client.session))
            await asyncio.sleep(5)
        assert world.store.version - before == 3

    world.run(work())


def test_a_chain_that_is_away_leaves_the_file_settling_and_others_go_on() -> None:
    world = World()

    async def work() -> None:
        client, workers = await world.client(), Workers(world)
        opened = await client.chunked(b"f")
        client.write(opened, 0, MIB)
        await client.call(wire.CLOSE_SESSION, wire.CloseSessionRequest(session=client.session))
        world.chains.down = dict.fromkeys(CHAINS[:2])
        other = await world.client()
        gone = await world.client()
        await gone.call(wire.CLOSE_SESSION, wire.CloseSessionRequest(session=gone.session))
        await workers.turn()
        assert (await other.stat(b"f")).settling
        request = wire.OpenRequest(path=wire.Path(b"f"), mode=WRITE, mutation=other.mutation())
        with pytest.raises(Exception, match="chain"):
            await other.call(wire.OPEN, request, timeout_s=2)
        assert (await other.open(b"f", READ)).attributes.length_bytes == 0
        world.chains.down.clear()
        assert (await other.call(wire.OPEN, request)).attributes.length_bytes == MIB
        await workers.turn()
        assert (await other.stat(b"f")).settling is False
        left = leftovers(world)
        assert left["SREN"] == 1 and "STLQ" not in left, left

    world.run(work())


def test_an_old_cut_is_finished_by_the_worker() -> None:
    world = World()

    async def work() -> None:
        client, workers = await world.client(), Workers(world)
        opened = await client.chunked(b"f")
        client.write(opened, 0, 2 * MIB)
        await client.close(opened, 2 * MIB)
        world.chains.down = dict.fromkeys(CHAINS)
        with pytest.raises(Exception, match="chain"):
            await client.truncate(b"f", 1)
        world.chains.down.clear()
        await workers.turn()
        await asyncio.sleep(6)
        await workers.turn()
        assert leftovers(world).get("CUTQ") is None
        assert sum(world.chains.chunks[opened.attributes.inode].values()) == 1

    world.run(work())


@pytest.mark.parametrize("by_finisher", [True, False])
def test_a_cut_is_not_begun_again_if_a_finisher_had_cut(by_finisher: bool) -> None:
    world = World()

    async def work() -> None:
        client, workers = await world.client(), Workers(world)
        opened = await client.chunked(b"f")
        client.write(opened, 0, 2 * MIB)
        await client.close(opened, 2 * MIB)
        inode = opened.attributes.inode

        async def nothing(name: str) -> None: ...

        async def dies(name: str) -> None:
            intent = await get_cut(world.kv.transaction(), inode)
            assert intent is not None
            epoch = Epoch(intent.epoch + 1)
            world.chains.epochs[CHAINS[0], inode] = epoch
            if not by_finisher:  # a settlement has taken that epoch
                txn = world.kv.transaction()
                record = await get_inode(txn, inode)
                assert record is not None
                put_inode(txn, msgspec.structs.replace(record, epoch=epoch))
                await txn.commit()
            raise Unavailable("the service dies")

        world.chains.before = [nothing, nothing, dies] if by_finisher else [dies]
        with pytest.raises(Exception, match="dies"):
            await client.truncate(b"f", 1)
        del world.chains.calls[:]
        await workers.turn()
        await asyncio.sleep(6)
        await workers.turn()
        assert leftovers(world).get("CUTQ") is None
        assert sum(world.chains.chunks[inode].values()) == 1
        assert ("cut" in world.chains.calls) is not by_finisher

    world.run(work())


def test_an_old_spill_is_rolled_back_and_its_writer_told() -> None:
    world = World()

    async def work() -> None:
        client, workers = await world.client(), Workers(world)
        opened = await client.create(b"f", b"content", mode=WRITE)
        await client.spill(opened, 1)
        client.write(opened, 0, 7)
        for _ in range(5):
            await workers.turn()
            await asyncio.sleep(5)
        found = await client.stat(b"f")
        assert (found.storage, found.length_bytes) == (Storage.INLINE, 7)
        with pytest.raises(StaleFile):
            await client.spill(opened, 1, finish=True)
        with pytest.raises(StaleFile):
            client.write(opened, 0, 7)
        again = await client.open(b"f", WRITE)
        await client.spill(again, found.content_version)
        client.write(again, 0, 7)
        done = await client.spill(again, found.content_version, finish=True)
        assert done.attributes.storage is Storage.CHUNKED

    world.run(work())


def test_a_lease_is_taken_over_when_its_holder_is_silent() -> None:
    world = World()

    async def work() -> None:
        one = WorkLeases(world.services, NodeId(1), Generation(1))
        two = WorkLeases(world.another().services, NodeId(2), Generation(1))
        assert await one.hold("w")
        assert not await two.hold("w")
        for _ in range(6):
            await asyncio.sleep(5)
            assert await one.hold("w") and not await two.hold("w")
        await asyncio.sleep(10)
        assert not await two.hold("w")
        await asyncio.sleep(10)
        assert await two.hold("w")
        assert not await one.hold("w")
        assert await WorkLeases(world.services, NodeId(2), Generation(2)).hold("w")

    world.run(work())


def test_the_loop_paces_wakes_and_survives_what_can_be_retried() -> None:
    world = World()
    turns: list[float] = []

    class Flaky:
        name = "flaky"

        async def work_once(self) -> float:
            turns.append(world.clock.boot_s())
            if len(turns) == 1:
                raise Unavailable("away")
            return 100.0

    async def work() -> None:
        loop = WorkerLoop(Flaky(), silent_logger())
        scope = TaskScope("t", lambda name, error: None)
        scope.spawn("flaky", loop.run())
        await asyncio.sleep(10)
        assert [round(at_s) for at_s in turns] == [0, 1]
        loop.wake()
        await asyncio.sleep(1)
        assert len(turns) == 3 and loop.failures == 1
        await scope.aclose()

    world.run(work())


def test_entries_age_by_what_they_are_over_pages_and_laps() -> None:
    aged = Aged(5.0, page=2)
    one, two, three = ((InodeId(n), b"v") for n in (1, 2, 3))
    assert (aged.old([one, two], 0.0), aged.after) == ([], 2)
    assert (aged.old([three], 0.0), aged.after) == ([], None)
    changed = (InodeId(1), b"w")
    assert aged.old([changed, two], 5.0) == [two]
    assert aged.old([], 5.0) == []  # three is gone: the lap is over
    assert aged.old([changed, two], 6.0) == [two]
    assert aged.old([three], 6.0) == []
    assert aged.old([changed, two], 10.0) == [changed, two]
    assert aged.old([three], 11.0) == [three]
