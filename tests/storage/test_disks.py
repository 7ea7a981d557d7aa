"""Disks that are not as they were: at the start of a node, and while it works. In virtual time."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from fs3.errors import FsError, InvalidRequest
from fs3.ids import ChainId, ChunkId, Generation, NodeId
from fs3.metrics import Metrics
from fs3.rng import Rng, derived_rng
from fs3.routing import TargetState
from fs3.rpc.settings import ServerSettings
from fs3.storage.disk import DiskFailed, OsDisk
from fs3.storage.disks import NEW_DISK, NodeDirectory, OpenedTarget, open_targets
from fs3.storage.engine.logged_index import index_opener
from fs3.storage.engine.versions import EngineSettings
from fs3.storage.lanes import InlineLanes
from fs3.storage.runner import TargetRunner
from fs3.storage.server import StorageComponents, StorageServer, StorageSettings
from fs3.wire.chunk import UpdateKind
from fs3.wire.mgmtd import CREATE_CHAIN_TABLE, CreateChainTableRequest
from tests.mgmtd.world import KEY
from tests.sim.disk import SimDisk
from tests.sim.index import sim_opener
from tests.sim.loop import SimLoop, run_virtual

from .engine.shop import HandClock
from .simulated import FIRST, INODE, StorageWorld

DISKS = ("/disk-0", "/disk-1")
NODE = NodeId(7)


# -- opening, without a server


class Node:
    """A node's disks over several runs."""

    def __init__(self, disk_count: int = 2) -> None:
        self.home = SimDisk(Rng(1))
        self.disks = [SimDisk(Rng(2 + number)) for number in range(disk_count)]
        self.ids = iter(range(100, 200))

    def open(self) -> list[OpenedTarget]:
        home = NodeDirectory("/node", NODE, self.home)
        home.begin_run()
        names = [f"/disk-{number}" for number in range(len(self.disks))]
        found = open_targets(
            home,
            names,
            1,
            lambda directory: self.disks[names.index(directory)],
            lambda disk: sim_opener(disk),  # type: ignore[arg-type]  # it is a SimDisk
            EngineSettings(),
            HandClock(),
            lambda: next(self.ids),
        )
        self.generation = home.state.generation
        self.disk_count = home.state.disk_count
        return found

    def killed(self) -> None:
        self.home = self.home.after_kill()
        self.disks = [disk.after_kill() for disk in self.disks]


def ids(found: Sequence[OpenedTarget]) -> list[int | None]:
    return [one.store.store_id if one.store is not None else None for one in found]


def test_stores_keep_their_ids() -> None:
    node = Node()
    assert ids(node.open()) == [100, 101]
    node.killed()
    assert ids(node.open()) == [100, 101] and node.generation == Generation(2)


def test_a_missing_mount_is_refused_and_the_other_disks_go_on() -> None:
    node = Node()
    node.open()
    node.killed()
    missing, node.disks[1] = node.disks[1], SimDisk(Rng(9))
    first, second = node.open()
    assert ids([first, second]) == [100, None]
    assert "/disk-1 was in use, and is empty now: is the disk mounted?" in second.reason
    assert not node.disks[1].exists("/disk-1/disk.state"), "nothing is written where the disk is not"
    node.killed()
    node.disks[1] = missing.after_kill()
    assert ids(node.open()) == [100, 101]


def test_an_empty_disk_is_taken_when_an_operator_says_so_as_another_store() -> None:
    node = Node()
    node.open()
    node.killed()
    node.disks[0] = SimDisk(Rng(9))
    node.disks[0].make_directory("/disk-0")
    node.disks[0].open(f"/disk-0/{NEW_DISK}", create=True)
    assert ids(node.open()) == [102, 101]
    assert not node.disks[0].exists(f"/disk-0/{NEW_DISK}")
    node.killed()
    assert ids(node.open()) == [102, 101]
    node.killed()
    node.disks[0] = SimDisk(Rng(10))  # what was said of the one before is not said of this one
    assert ids(node.open()) == [None, 101]


def test_disks_in_each_others_place_are_refused(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("a", "b")]

    def opened() -> list[OpenedTarget]:
        home = NodeDirectory(str(tmp_path / "home"), NODE, OsDisk())
        home.begin_run()
        found = open_targets(
            home,
            names,
            1,
            lambda _: OsDisk(),
            lambda disk: index_opener(disk, Rng(1)),
            EngineSettings(),
            HandClock(),
            lambda: 5,
        )
        for one in found:
            if one.store is not None:
                one.store.close()
        home.close()
        return found

    assert ids(opened()) == [5, 5]
    names.reverse()
    assert [one.reason for one in opened()] == [
        f"{tmp_path}/b is disk 1 of node 7",
        f"{tmp_path}/a is disk 0 of node 7",
    ]


def test_disks_that_are_ready_count_though_the_node_forgot() -> None:
    node = Node()
    node.open()
    node.killed()
    node.home = SimDisk(Rng(5))
    assert ids(node.open()) == [100, 101] and node.disk_count == 2
    node.killed()
    node.disks[1] = SimDisk(Rng(9))
    assert ids(node.open()) == [100, None]


def test_a_store_that_a_crash_left_unfinished_is_made_anew() -> None:
    node = Node(1)
    node.disks[0].fault("rename")
    (one,) = node.open()
    assert one.store is None and node.disks[0].exists(f"/disk-0/target-{one.target:x}")
    node.killed()
    node.disks[0]._failure = None  # the machine was started again
    assert ids(node.open()) == [101]


def test_chunks_without_their_index_are_not_an_empty_store() -> None:
    node = Node(1)
    node.open()
    directory = f"/disk-0/target-{NODE << 16:x}"
    node.disks[0].open(f"{directory}/data/16-0000", create=True)
    node.killed()
    node.disks[0].remove_directory(f"{directory}/index")
    (one,) = node.open()
    assert one.store is None and "chunks and no index" in one.reason


@pytest.mark.parametrize("call", ["pwrite", "sync", "create", "index", "sync_directory"])
def test_a_disk_that_fails_at_open_takes_nobody_along(call: str) -> None:
    node = Node()
    node.disks[0].fault(call)
    first, second = node.open()
    assert first.store is None and "Input/output error" in first.reason
    assert second.store is not None


# -- the operating system's disk


def test_a_file_on_another_file_system_is_none_of_the_disk(tmp_path: Path) -> None:
    disk = OsDisk()
    disk.attach("/proc")  # any other one
    with pytest.raises(DiskFailed, match="another file system"):
        disk.open(str(tmp_path / "made"), create=True)
    assert not (tmp_path / "made").exists() and disk.failure
    disk = OsDisk()
    disk.attach("/proc")
    with pytest.raises(DiskFailed, match="another file system: the disk's own was unmounted"):
        disk.probe(__file__)
    with pytest.raises(DiskFailed, match="was the disk unmounted"):
        OsDisk().probe(str(tmp_path / "disk.state"))


def test_a_place_that_is_gone_has_no_space_and_is_a_failed_disk(tmp_path: Path) -> None:
    disk = OsDisk()
    assert disk.space(str(tmp_path)).free_bytes
    assert disk.space(str(tmp_path / "gone")) == (0, 0)
    assert disk.failure is not None


def test_what_keeps_a_file_from_being_opened_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = OsDisk()
    with pytest.raises(FileNotFoundError):
        disk.open(str(tmp_path / "x"))
    assert disk.failure is None

    def failing(number: int) -> Callable[..., int]:
        def fail(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        return fail

    monkeypatch.setattr(os, "open", failing(errno.ENOSPC))
    with pytest.raises(FsError, match="full"):
        disk.open(str(tmp_path / "x"), create=True)
    assert disk.failure is None
    monkeypatch.setattr(os, "open", failing(errno.EROFS))
    with pytest.raises(DiskFailed, match="Read-only file system"):
        disk.open(str(tmp_path / "x"), create=True)
    assert disk.failure is not None


def test_a_directory_of_another_node_is_refused() -> None:
    home = SimDisk(Rng(1))
    NodeDirectory("/node", NODE, home).begin_run()
    with pytest.raises(InvalidRequest):
        NodeDirectory("/node", NodeId(8), home.after_kill())


# -- a chain of real servers


class TwoDisks(StorageWorld):
    """Three nodes of two disks with a target each; two chains."""

    def __init__(self, loop: SimLoop, seed: int) -> None:
        super().__init__(loop, seed)
        self.many: dict[int, list[SimDisk]] = {}

    async def start_storage(self, number: int) -> StorageServer:
        host = f"s{number}"
        home = self.disks.setdefault(number, SimDisk(derived_rng(self.seed, f"home {number}")))
        disks = self.many.setdefault(
            number, [SimDisk(derived_rng(self.seed, f"disk {number} {i}")) for i in range(len(DISKS))]
        )
        rng = derived_rng(self.rng.getrandbits(64), f"run of {host}")
        of = dict(zip(DISKS, disks, strict=True))
        server = StorageServer(
            StorageSettings(
                node=NodeId(number),
                directory="/node",
                disks=DISKS,
                listen=(f"{host}:7000",),
                seeds=("m1:9000",),
                host=host,
                beacon_address=f"{host}:7001",
                target_capacity_bytes=64 << 20,
            ),
            StorageComponents(
                clock=self.clock(host),
                rng=rng,
                network=self.net.host(host),
                key=KEY,
                log=self.log(host=host),
                metrics=Metrics(),
                lanes=InlineLanes(lambda: rng.random() * 0.004),
                open_disk=lambda directory: of.get(directory, home),
                open_index=lambda disk: sim_opener(disk),  # type: ignore[arg-type]  # it is a SimDisk
                make_nonce=self.nonce,
                fail=self._fail_unless_dead(home),
                rpc=ServerSettings(small_payload_bytes_max=64 << 20),
            ),
        )
        self.servers[number] = server
        await server.start()
        return server

    async def stopped(self, number: int) -> None:
        """In order; the disks as the next process finds them."""
        await self.servers.pop(number).stop()
        self.disks[number] = self.disks[number].after_kill()
        self.many[number] = [disk.after_kill() for disk in self.many[number]]

    async def two_chains(self) -> None:
        await self.start_mgmtd(1)
        for number in range(FIRST, FIRST + 3):
            await self.start_storage(number)
        agent = self.servers[FIRST].agent
        assert agent is not None
        request = CreateChainTableRequest(replication=3, wait_for_targets=6)
        await agent.mgmtd.call(CREATE_CHAIN_TABLE, request, timeout_s=10.0)
        await self.until(self.all_serve, 20.0, "all members serve")

    def all_serve(self) -> bool:
        """Every target of every node serves, under a lease, and its chain has nobody left out."""
        picture = max((s.agent.routing for s in self.servers.values() if s.agent), key=lambda r: r.version)
        whole = [
            info
            for info in picture.chains.values()
            if all(m.state is TargetState.SERVING and not m.joining for m in info.members)
        ]
        return len(whole) == len(DISKS) and all(
            (runner := self.on(number, info.chain)) is not None
            and runner.replica.gate.read_problem(info.version) is None
            for info in whole
            for number in self.servers
        )

    def on(self, number: int, chain: ChainId) -> TargetRunner | None:
        targets = self.servers[number].targets
        return targets.by_chain.get(chain) if targets is not None else None

    def chains_of(self, number: int) -> dict[ChainId, bool]:
        """Whether the node serves each chain."""
        targets = self.servers[number].targets
        assert targets is not None
        found = {}
        for chain, runner in targets.by_chain.items():
            standing = runner.replica.gate.standing
            problem = runner.replica.gate.read_problem(standing.version) if standing is not None else ""
            found[chain] = problem is None
        return found

    def member_states(self, number: int) -> list[TargetState]:
        """Of the node's targets, in the newest picture of another node."""
        other = next(s for n, s in sorted(self.servers.items()) if n != number)
        assert other.agent is not None
        members = [m for info in other.agent.routing.chains.values() for m in info.members]
        return [m.state for m in sorted(members, key=lambda m: m.target) if m.node == number]


def run(scenario: Callable[[TwoDisks], Coroutine[Any, Any, None]]) -> TwoDisks:
    loop = SimLoop()

    async def main() -> TwoDisks:
        world = TwoDisks(loop, 1)
        try:
            await scenario(world)
        finally:
            await world.close()
        return world

    return run_virtual(main(), loop)


OUT = [TargetState.OFFLINE, TargetState.SERVING]


@pytest.mark.parametrize("fault", ["pwrite", "sync", "index", "probe", "unmounted"])
def test_one_failed_disk_leaves_its_chain_and_the_other_serves(fault: str) -> None:
    async def scenario(world: TwoDisks) -> None:
        await world.two_chains()
        disk = world.many[FIRST][0]
        if fault == "unmounted":
            disk.is_unmounted = True
        else:
            disk.fault(fault)
        user = world.user(100)
        for index in range(8):
            await user.write(ChunkId(INODE, index), UpdateKind.WRITE, 0, b"x" * 3000)
        await world.until(lambda: world.member_states(FIRST) == OUT, 30.0, "it has left its chain")
        assert sorted(world.chains_of(FIRST).values()) == [False, True]
        health = world.servers[FIRST].health()
        assert len(health["offline"]) == 1  # type: ignore[arg-type]
        for _ in range(4):
            await user.write(ChunkId(INODE, 1), UpdateKind.WRITE, 0, b"y" * 3000)
        assert not world.failures
        await user.close()

    run(scenario)


@pytest.mark.parametrize("how", ["missing", "fails"])
def test_a_disk_that_is_not_there_at_the_start(how: str) -> None:
    async def scenario(world: TwoDisks) -> None:
        await world.two_chains()
        await world.stopped(FIRST)
        there = world.many[FIRST][0]
        if how == "missing":
            world.many[FIRST][0] = SimDisk(Rng(1))
        else:
            there.fault("index")
        await world.start_storage(FIRST)
        await world.until(lambda: world.member_states(FIRST) == OUT, 30.0, "it has left its chain")
        user = world.user(100)
        await user.write(ChunkId(INODE, 1), UpdateKind.WRITE, 0, b"y" * 3000)
        await user.close()
        await world.stopped(FIRST)
        there = there if how == "missing" else world.many[FIRST][0]
        there._failure = None
        world.many[FIRST][0] = there
        await world.start_storage(FIRST)
        await world.until(world.all_serve, 60.0, "it is back")

    run(scenario)


def test_an_empty_disk_in_its_place_is_filled_by_the_chain() -> None:
    async def scenario(world: TwoDisks) -> None:
        await world.two_chains()
        user = world.user(100)
        for index in range(8):
            await user.write(ChunkId(INODE, index), UpdateKind.WRITE, 0, bytes([index]) * 3000)
        await user.close()
        chains = world.chains_of(FIRST)
        full = next(r for c in chains if (r := world.on(FIRST, c)) is not None and r.store.list_chunks())
        place = full.target % 2**16 >> 8  # the disk's number
        await world.stopped(FIRST)
        empty = world.many[FIRST][place] = SimDisk(Rng(1))
        empty.make_directory(DISKS[place])
        empty.open(f"{DISKS[place]}/{NEW_DISK}", create=True)
        await world.start_storage(FIRST)
        await asyncio.sleep(0.5)
        seen = [world.member_states(FIRST)[place]]

        def is_back() -> bool:
            seen.append(world.member_states(FIRST)[place])
            return world.all_serve()

        await world.until(is_back, 60.0, "it is back")
        assert TargetState.SYNCING in seen, "it served without having been copied to"
        assert full.chain is not None
        stores = [r.store for n in world.servers if (r := world.on(n, full.chain)) is not None]
        contents = [
            [(c, s.committed.sums) for c, s in store.list_chunks() if s.committed] for store in stores
        ]
        assert len(contents[0]) == 8 and contents.count(contents[0]) == 3

    run(scenario)
