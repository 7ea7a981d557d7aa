"""``fs3 fsck`` on a real cluster: clean under load, damage of each kind, repair, a kill in the middle."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import uvloop

import fs3.client
from fs3.clock import SystemClock
from fs3.errors import Fs3Error
from fs3.ids import ROOT_INODE, ChunkId, InodeId, TargetId
from fs3.kv.open import open_kv
from fs3.kv.run import run
from fs3.kv.schema import key_u64
from fs3.kv.transaction import Transaction
from fs3.meta.dirent import Dirent, decode_dirent, dirent_key
from fs3.meta.inode import decode_inode, encode, inode_key
from fs3.rng import derived_rng, system_rng
from fs3.storage.disk import OsDisk
from fs3.storage.engine.format import committed_key
from fs3.storage.engine.index import Batch
from fs3.storage.engine.logged_index import index_opener
from fs3.storage.engine.store import ChunkStore
from fs3.storage.engine.versions import EngineParts, EngineSettings
from fs3.wire.meta import InodeKind

from .dev_cluster import DevCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
MIB = 1 << 20
DATA = derived_rng(5, "data").randbytes(3 * MIB + 777)
NOBODY, GONE = InodeId(0x4242), 0x9999
SHAPE = ("--storage", "3", "--targets", "1", "--replication", "3", "--meta", "1")
FILES = 400


@pytest.fixture(scope="module", autouse=True)
def first_loop() -> None:
    uvloop.new_event_loop().close()  # libuv keeps one pipe from its first loop to the end of the process


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DevCluster]:
    made = DevCluster(tmp_path)
    done = made.dev("up", *SHAPE)
    assert done.code == 0, done
    yield made
    made.dev("down")


def fsck(cluster: DevCluster, *words: str, patience: str = "2") -> tuple[int, dict[str, Any]]:
    """Exit code and what ``--json`` said."""
    done = cluster.fs3("fsck", "--dir", str(cluster.directory), "--json", "--patience", patience, *words)
    assert done.out, done
    return done.code, json.loads(done.out)


def kinds(report: dict[str, Any]) -> list[str]:
    """The kinds found, sorted."""
    return sorted(finding["kind"] for finding in report["findings"])


def fill(cluster: DevCluster, count: int) -> None:
    """Small files, large files, directories."""
    with fs3.client.connect(str(cluster.directory / "client.toml")) as fs:
        fs.mkdir("/d")
        fs.mkdir("/d/e")
        for number in range(count):
            fs.write_file(f"/d/small-{number}", b"content")
        for name in ("/big", "/lost", "/long"):
            fs.write_file(name, DATA)


def change(cluster: DevCluster, body: Callable[[Transaction], Any]) -> Any:
    """Run ``body`` in a transaction of the cluster's store."""

    async def work() -> Any:
        clock = SystemClock()
        kv = open_kv(f"lmdb://{quote(str(cluster.directory / 'kv'))}", clock=clock)
        try:
            return await run(kv, body, clock=clock, rng=system_rng(), deadline_s=clock.boot_s() + 10)
        finally:
            await kv.aclose()

    return asyncio.run(work())


def inode_of(cluster: DevCluster, directory: InodeId, name: bytes) -> InodeId:
    """What a name stands for."""

    async def body(txn: Transaction) -> InodeId:
        data = await txn.get(dirent_key(directory, name))
        assert data is not None, name
        return decode_dirent(data).inode

    found = change(cluster, body)
    assert isinstance(found, int)
    return InodeId(found)


def test_clean_under_load_and_after(cluster: DevCluster) -> None:
    fill(cluster, 50)
    stop = threading.Event()
    errors: list[BaseException] = []

    def load(number: int) -> None:
        draw = derived_rng(number, "load")
        try:
            with fs3.client.connect(str(cluster.directory / "client.toml")) as fs:
                fs.mkdir(f"/l{number}")
                turn = 0
                while not stop.is_set():
                    turn += 1
                    path = f"/l{number}/f{draw.randrange(20)}"
                    fs.write_file(path, DATA[: draw.choice((10, 100_000, 2 * MIB))])
                    fs.rename(path, f"/d/e/{number}-{draw.randrange(20)}")
                    fs.mkdir(f"/l{number}/dir{turn}")
                    fs.rename(f"/l{number}/dir{turn}", f"/d/dir{number}-{turn}")
                    fs.write_file(f"/d/dir{number}-{turn}/in", DATA[:70_000])
                    fs.rmtree(f"/d/dir{number}-{turn}")
        except (OSError, Fs3Error) as error:
            errors.append(error)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        reports = [fsck(cluster, *words, patience="20") for words in ((), ("--data",))]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors
    reports.append(fsck(cluster, "--data", patience="20"))
    for code, report in reports:
        assert (code, kinds(report), report["problems"]) == (0, [], []), report
    assert reports[0][1]["chunks"] >= 12


def test_records_that_are_wrong_are_found_and_repaired(cluster: DevCluster) -> None:
    fill(cluster, 3)
    directory = inode_of(cluster, ROOT_INODE, b"d")
    lost, long, big = (inode_of(cluster, ROOT_INODE, name) for name in (b"lost", b"long", b"big"))
    small = inode_of(cluster, directory, b"small-1")

    async def damage(txn: Transaction) -> None:
        for inode, more in ((big, {"nlink": 3}), (long, {"length_bytes": MIB})):
            data = await txn.get(inode_key(inode))
            assert data is not None
            txn.set(inode_key(inode), encode(msgspec.structs.replace(decode_inode(inode, data), **more)))
        txn.clear(inode_key(lost))  # its chunks stay
        txn.clear(dirent_key(ROOT_INODE, b"lost"))
        txn.clear(dirent_key(directory, b"small-1"))
        txn.set(dirent_key(directory, b"ghost"), encode(Dirent(NOBODY, InodeKind.FILE)))
        txn.set(key_u64(b"DSUB", directory), (9).to_bytes(8, "little"))
        txn.set(key_u64(b"DPAR", inode_e), (1).to_bytes(8, "big"))
        txn.set(key_u64(b"INLN", NOBODY), b"x")
        txn.set(key_u64(b"SLOT", GONE, 1), b"x")
        txn.set(key_u64(b"OPEN", big, GONE), b"x")

    inode_e = inode_of(cluster, directory, b"e")
    change(cluster, damage)
    code, report = fsck(cluster)
    found = set(kinds(report))
    assert code == 1 and found == {
        "wrong-nlink", "beyond-end", "orphan-chunk", "no-entry", "dangling-entry", "wrong-subdirectories",
        "wrong-parent", "stray-record", "no-session",
    }, report  # fmt: skip
    assert {f["inode"] for f in report["findings"] if f["kind"] == "no-entry"} == {small}
    assert fsck(cluster)[1]["findings"] == report["findings"], "without --repair nothing changes"
    code, report = fsck(cluster, "--repair")
    assert {f["kind"] for f in report["findings"] if not f["repaired"]} == {"no-entry"}, report
    code, report = fsck(cluster, patience="30")  # the workers have gone on meanwhile
    assert (code, kinds(report)) == (1, ["no-entry"]), report
    with fs3.client.connect(str(cluster.directory / "client.toml")) as fs:
        assert fs.read_file("/big") == DATA and fs.read_file("/long") == DATA


def flip_a_byte(path: Path, target: TargetId, chunk: ChunkId) -> None:
    """In the stored bytes of a chunk, with its node down."""
    disk = OsDisk()
    parts = EngineParts(disk, index_opener(disk, system_rng()), SystemClock())
    store = ChunkStore.open(str(path), target, parts, EngineSettings())
    handle = store.read(chunk, None, 0, 64 * 1024)
    region = handle.regions[0]
    block = bytearray(4096)
    region.file.pread(memoryview(block), region.offset_bytes)
    block[17] ^= 1
    region.file.pwrite(memoryview(block), region.offset_bytes)
    region.file.sync()
    handle.release()
    store.close()
    disk.close()


def forget(path: Path, target: TargetId, chunk: ChunkId) -> None:
    """The record of a chunk, with its node down."""
    disk = OsDisk()
    index = index_opener(disk, system_rng())(str(path / "index"))
    batch = Batch()
    batch.delete(committed_key(chunk))
    index.apply(batch, durable=True)
    index.close()
    parts = EngineParts(disk, index_opener(disk, system_rng()), SystemClock())
    store = ChunkStore.open(str(path), target, parts, EngineSettings())
    assert store.versions(chunk).committed is None
    store.close()
    disk.close()


def until_all_serve(cluster: DevCluster) -> None:
    """Every member of the chain serves: no check says that one was left out."""
    for _ in range(60):
        if fsck(cluster)[1]["problems"] == []:
            return
    raise AssertionError(cluster.status())


def test_replicas_that_are_wrong_are_found_and_mended_by_their_node(cluster: DevCluster) -> None:
    fill(cluster, 3)
    big = inode_of(cluster, ROOT_INODE, b"big")
    # It comes back as a new member: from now on only what changes later is compared when it is away.
    assert cluster.dev("kill", "storage-2").code == cluster.dev("restart", "storage-2").code == 0
    until_all_serve(cluster)
    assert cluster.dev("kill", "storage-2").code == 0
    (path,) = (cluster.directory / "storage-2").rglob("target-*")
    target = TargetId(int(path.name.removeprefix("target-"), 16))
    flip_a_byte(path, target, ChunkId(big, 1))
    forget(path, target, ChunkId(big, 2))
    code, report = fsck(cluster)
    assert (code, kinds(report)) == (2, []) and f"target {target:x}" in str(report["problems"]), report
    assert cluster.dev("restart", "storage-2").code == 0
    until_all_serve(cluster)
    code, report = fsck(cluster, "--data")
    assert (code, kinds(report)) == (1, ["bad-bytes", "replica-missing"]), report
    places = {f["kind"]: (f["target"], f["chunk_index"]) for f in report["findings"]}
    assert places == {"bad-bytes": (target, 1), "replica-missing": (target, 2)}
    code, report = fsck(cluster)
    assert kinds(report) == ["replica-missing"], "bytes are read with --data only"
    fsck(cluster, "--data", "--repair")
    for _ in range(10):  # its node mends it on its own time
        code, report = fsck(cluster, "--data")
        if kinds(report) == ["replica-missing"]:
            break
    assert (code, kinds(report)) == (1, ["replica-missing"]), report
    # What the report says to do next:
    assert cluster.dev("kill", "storage-2").code == 0
    assert fsck(cluster)[0] == 2, "it has left the chain: else all would serve until its restart is noticed"
    path.rename(cluster.home / "moved away")
    assert cluster.dev("restart", "storage-2").code == 0
    until_all_serve(cluster)
    assert fsck(cluster, "--data")[0] == 0


KILLED = """
import os, signal, sys
from fs3.deploy.fsck import command
kept, count = command.save_state, 0
def save(path, state):
    global count
    kept(path, state)
    count += 1
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)
command.save_state = save
command.fsck(sys.argv[1:])
"""


def test_a_check_that_is_killed_goes_on(cluster: DevCluster) -> None:
    fill(cluster, FILES)
    big = inode_of(cluster, ROOT_INODE, b"big")
    change(cluster, lambda txn: _set(txn, key_u64(b"OPEN", big, GONE), b"x"))
    state = cluster.home / "state"
    words = ["--dir", str(cluster.directory), "--resume", str(state), "--patience", "1", "--json"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *words], env=cluster.environment, check=False, timeout=60
    )
    assert killed.returncode == -9
    half = json.loads(state.read_bytes())
    assert 0 < half["inodes"] < FILES and 0 < half["next_inode"] < 1 << 64
    code, report = fsck(cluster, "--resume", str(state))
    assert (code, kinds(report)) == (1, ["no-session"]), report
    assert report["inodes"] == FILES + 6 and report["chunks"] == 12, report
    assert not state.exists()


async def _set(txn: Transaction, key: bytes, value: bytes) -> None:
    txn.set(key, value)


def test_what_cannot_be_checked_is_said(cluster: DevCluster, tmp_path: Path) -> None:
    fill(cluster, 1)
    assert cluster.dev("down").code == 0
    done = cluster.fs3("fsck", "--dir", str(cluster.directory))
    assert done.code == 2 and "could not finish" in done.err, done
    bad = tmp_path / "bad"
    bad.write_text("{}x")
    done = cluster.fs3("fsck", "--dir", str(cluster.directory), "--resume", str(bad))
    assert done.code == 2 and "remove it to start anew" in done.err, done
    done = cluster.fs3("fsck", "--dir", str(tmp_path / "none"))
    assert done.code == 2 and "cannot be read" in done.err, done
