"""The owner as a server: who may connect, what it does with bad input, bounds, a full disk, a clean stop."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import lmdb
import msgpack  # type: ignore[import-untyped]
import pytest

from fs3.clock import SystemClock
from fs3.errors import InvalidRequest, MaybeApplied, TransactionConflict, TransactionTooOld, Unavailable
from fs3.kv import owner as owner_module
from fs3.kv.lmdb_client import LmdbKv, LmdbSettings
from fs3.kv.messages import FRAME_MAX_BYTES, PROTOCOL
from fs3.kv.owner import Owner, OwnerSettings
from fs3.kv.store import FORMAT_KEY, StoreWriter, create_store
from fs3.rng import derived_rng

from .owner_process import OwnerProcess

PATIENCE_S = 10.0


class Failures:
    """What owners report."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, BaseException]] = []

    def __call__(self, name: str, error: BaseException) -> None:
        self.seen.append((name, error))


@pytest.fixture
async def owner(tmp_path: Path) -> AsyncIterator[Owner]:
    """An owner in this process."""
    failures = Failures()
    made = new_owner(tmp_path, failures)
    await made.start()
    yield made
    await made.stop()
    assert not failures.seen


def new_owner(directory: Path, failures: Failures) -> Owner:
    settings = OwnerSettings(directory)
    return Owner(settings, clock=SystemClock(), rng=derived_rng(1, "owner"), on_failure=failures)


class Raw:
    """A client that says what it likes; reads answers with msgpack, not with our codec."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "kv.sock"
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_unix_connection(self._path)

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def say(self, *messages: object) -> None:
        body = msgpack.packb(list(messages))
        self.send(struct.pack("<I", len(body)) + body)

    async def hear(self) -> list[list[object]]:
        """One frame; empty when the owner has closed the connection."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                (length,) = struct.unpack("<I", await self._reader.readexactly(4))
                answer: list[list[object]] = msgpack.unpackb(await self._reader.readexactly(length))
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return []
            return answer

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except (ConnectionResetError, BrokenPipeError):
            return


@pytest.fixture
async def raw(owner: Owner, tmp_path: Path) -> AsyncIterator[Raw]:
    client = Raw(tmp_path)
    await client.connect()
    yield client
    await client.close()


COMMIT = [1, 7, [0, [], [], [[0, b"TESTa", b"1"]], [], []]]


async def test_the_protocol_is_what_is_written_down(owner: Owner, raw: Raw) -> None:
    raw.say([0, PROTOCOL])
    ((kind, protocol, store_id, version),) = await raw.hear()
    assert (kind, protocol, version) == (0, PROTOCOL, 1)
    assert isinstance(store_id, bytes) and len(store_id) == 16
    raw.say([2, 5, b"TESTa", None], COMMIT)
    frames = await raw.hear() + await raw.hear()
    stamp = (2).to_bytes(8, "big") + bytes(2)
    assert frames == [[2, 5], [1, 7, 0, stamp, ""], [3, 5]]
    raw.say([1, 8, [1, [b"TESTa"], [], [[1, b"TESTb", b""]], [], []]])
    ((kind, number, verdict, stamp_8, message),) = await raw.hear()
    assert (kind, number, verdict, stamp_8) == (1, 8, 1, b"")
    assert isinstance(message, str) and "written since" in message


BAD = {
    "no hello": struct.pack("<I", 2) + b"\x91\xc0",
    "commit before hello": None,
    "length beyond the bound": struct.pack("<I", FRAME_MAX_BYTES + 1),
    "not msgpack": struct.pack("<I", 4) + b"\xc1\xc1\xc1\xc1",
    "unknown message": struct.pack("<I", 4) + msgpack.packb([[99, 1]]) + b"",
    "wrong types": struct.pack("<I", len(msgpack.packb([[0, "x"]]))) + msgpack.packb([[0, "x"]]),
}


@pytest.mark.parametrize("what", list(BAD))
async def test_a_client_that_breaks_the_protocol_is_cut_off(
    owner: Owner, raw: Raw, tmp_path: Path, what: str
) -> None:
    data = BAD[what]
    if data is None:
        raw.say(COMMIT)
    else:
        raw.send(data)
    assert await raw.hear() == []
    assert owner.stats.bad_frames == 1
    other = LmdbKv(LmdbSettings(tmp_path), clock=SystemClock())  # everybody else is served
    await put(other, b"TESTa")
    await other.aclose()


async def put(kv: LmdbKv, key: bytes, value: bytes = b"1") -> None:
    txn = kv.transaction()
    txn.set(key, value)
    await txn.commit()


async def test_another_protocol_is_told_and_left(owner: Owner, raw: Raw) -> None:
    raw.say([0, PROTOCOL + 1])
    assert (await raw.hear())[0][:2] == [0, PROTOCOL]
    assert await raw.hear() == []


BAD_REQUESTS = {
    "system key": [0, [], [], [[0, b"\xffversion", b"1"]], [], []],
    "empty key": [0, [], [], [[0, b"", b"1"]], [], []],
    "long key": [0, [], [], [[0, b"k" * 512, b"1"]], [], []],
    "long value": [0, [], [], [[0, b"k", bytes(100_001)]], [], []],
    "unknown kind": [0, [], [], [[10, b"k", b""]], [], []],
    "negative kind": [0, [], [], [[-1, b"k", b""]], [], []],
    "range turned round": [0, [], [], [[2, b"b", b"a"]], [], []],
    "range into the system": [0, [], [], [[2, b"b", b"\xff\x00"]], [], []],
    "stamp outside": [0, [], [], [[8, bytes(10) + b"\x01\0\0\0", b""]], [], []],
    "no stamp": [0, [], [], [[9, b"k", b"abc"]], [], []],
    "read key": [1, [b"\xff"], [], [], [], []],
    "write range": [1, [], [], [], [], [[b"b", b"a"]]],
    "too much": [0, [], [], [[0, b"k%d" % n, bytes(99_000)] for n in range(11)], [], []],
}


@pytest.mark.parametrize("what", list(BAD_REQUESTS))
async def test_a_commit_that_cannot_be_is_refused_alone(owner: Owner, raw: Raw, what: str) -> None:
    raw.say([0, PROTOCOL])
    await raw.hear()
    raw.say([1, 1, BAD_REQUESTS[what]], COMMIT)
    first, second = await raw.hear()
    assert first[:3] == [1, 1, 3] and first[4], first
    assert second[:3] == [1, 7, 0]
    assert owner.stats.invalid == 1 and owner.stats.commits == 1


async def test_another_user_is_not_admitted(owner: Owner) -> None:
    class Peer(socket.socket):
        def getsockopt(self, *_: int) -> bytes:  # type: ignore[override]
            return struct.pack("3i", 1, os.geteuid() + 1, 1)

    with Peer(socket.AF_UNIX) as peer, pytest.raises(Unavailable, match="does not own"):
        owner.admit(owner_module._Connection(owner), peer)


async def test_a_second_owner_is_refused_and_harms_nothing(owner: Owner, tmp_path: Path) -> None:
    second = new_owner(tmp_path, Failures())
    with pytest.raises(Unavailable, match=f"process {os.getpid()}"):
        await second.start()
    await second.stop()
    assert second.health()["ok"] is False
    kv = LmdbKv(LmdbSettings(tmp_path), clock=SystemClock())
    await put(kv, b"TESTa")
    await kv.aclose()
    assert owner.health() == {"ok": True, "version": 2, "connections": 1, "watches": 0}


async def test_watches_are_bounded(owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner._watches._limit = 2
    kv = LmdbKv(LmdbSettings(tmp_path), clock=SystemClock())
    kept = [await kv.watch(b"TESTa", None) for _ in range(2)]
    with pytest.raises(Exception, match="the owner keeps"):
        await kv.watch(b"TESTa", None)
    await put(kv, b"TESTa")
    for watch in kept:
        await asyncio.wait_for(watch, PATIENCE_S)
    await asyncio.wait_for(await kv.watch(b"TESTa", None), PATIENCE_S)
    await kv.aclose()


async def test_a_watch_that_is_given_up_is_forgotten_by_the_owner(owner: Owner, tmp_path: Path) -> None:
    kv = LmdbKv(LmdbSettings(tmp_path), clock=SystemClock())
    watch = await kv.watch(b"TESTa", None)
    assert owner.health()["watches"] == 1
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch, 0)
    await put(kv, b"TESTb")  # the answer to this comes after the owner has read the other
    assert owner.health()["watches"] == 0
    await kv.watch(b"TESTa", None)
    await kv.aclose()
    other = LmdbKv(LmdbSettings(tmp_path), clock=SystemClock())
    await put(other, b"TESTb")
    await other.aclose()
    assert owner.health()["watches"] == 0


async def test_conflicts_are_forgotten_and_then_too_old(tmp_path: Path) -> None:
    failures = Failures()
    settings = OwnerSettings(tmp_path, window_s=0.2)
    owner = Owner(settings, clock=SystemClock(), rng=derived_rng(1, "owner"), on_failure=failures)
    await owner.start()
    kv = LmdbKv(LmdbSettings(tmp_path), clock=SystemClock())
    await put(kv, b"TESTa")
    old, young = kv.transaction(), kv.transaction()
    await old.get(b"TESTa")
    await put(kv, b"TESTa")
    await asyncio.sleep(0.25)
    await put(kv, b"TESTb")  # the window moves on with the next batch
    await young.get(b"TESTa")
    await put(kv, b"TESTa")
    for txn, kind in ((old, TransactionTooOld), (young, TransactionConflict)):
        txn.set(b"TESTc", b"1")
        with pytest.raises(kind):
            await txn.commit()
    await kv.aclose()
    await owner.stop()


async def test_idle_snapshots_are_given_back_when_too_old(owner: Owner, tmp_path: Path) -> None:
    class Ahead(SystemClock):
        ahead_s = 0.0

        def boot_s(self) -> float:
            return super().boot_s() + self.ahead_s

    clock = Ahead()
    kv = LmdbKv(LmdbSettings(tmp_path), clock=clock)
    txn = kv.transaction()
    assert await txn.get(b"TESTa") is None
    clock.ahead_s = 6.0
    async with asyncio.timeout(PATIENCE_S):
        while kv._snapshots:  # noqa: ASYNC110 - the sweep tells nobody
            await asyncio.sleep(0.05)
    with pytest.raises(TransactionTooOld):
        await txn.get(b"TESTa")
    txn.cancel()
    await kv.aclose()


async def test_many_large_commits_at_once_come_through(owner: Owner, tmp_path: Path) -> None:
    kv = LmdbKv(LmdbSettings(tmp_path), clock=SystemClock())

    async def large(number: int) -> None:
        txn = kv.transaction()
        for part in range(9):
            txn.set(b"TEST%03d/%d" % (number, part), bytes([number]) * 100_000)
        await txn.commit()

    await asyncio.gather(*(large(number) for number in range(12)))
    txn = kv.transaction()
    assert len(await txn.range(b"TEST", b"TESU")) == 12 * 9
    txn.cancel()
    await kv.aclose()


async def test_a_long_path_is_fine(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / "with space"
    owner = new_owner(deep, Failures())
    await owner.start()
    kv = LmdbKv(LmdbSettings(deep), clock=SystemClock())
    await put(kv, b"TESTa")
    await kv.aclose()
    await owner.stop()


async def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    owner = new_owner(tmp_path / "file" / "store", Failures())
    with pytest.raises(Unavailable, match="file/store"):
        await owner.start()
    await owner.stop()


async def test_a_store_of_another_format_or_none_at_all_is_refused(tmp_path: Path) -> None:
    def newer(txn: lmdb.Transaction) -> None:
        txn.put(FORMAT_KEY, msgpack.packb([2, bytes(16)]))

    def foreign(txn: lmdb.Transaction) -> None:
        txn.delete(FORMAT_KEY)

    for name, change in (("newer", newer), ("foreign", foreign)):
        (tmp_path / name).mkdir()
        create_store(tmp_path / name, bytes(16))
        env = lmdb.open(os.fspath(tmp_path / name))
        with env.begin(write=True) as txn:
            change(txn)
        env.close()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "data.mdb").write_bytes(b"no store" * 2000)
    for name, kind, says in (
        ("newer", InvalidRequest, "format 2"),
        ("foreign", InvalidRequest, "not of fs3"),
        ("broken", Unavailable, "broken"),
    ):
        owner = new_owner(tmp_path / name, Failures())
        with pytest.raises(kind, match=says):
            await owner.start()
        await owner.stop()


async def test_a_creation_that_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "creating").mkdir()
    (tmp_path / "creating" / "data.mdb").write_bytes(b"half")
    owner = new_owner(tmp_path, Failures())
    await owner.start()
    assert not (tmp_path / "creating").exists()
    await owner.stop()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[OwnerProcess]:
    running = OwnerProcess(tmp_path)
    running.start()
    yield running
    running.stop()


async def test_a_clean_stop_is_quick_and_answers_what_has_arrived(
    process: OwnerProcess, tmp_path: Path
) -> None:
    kv = LmdbKv(LmdbSettings(tmp_path), clock=SystemClock())
    await put(kv, b"TESTa")
    began = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - began < 3.0
    assert not (tmp_path / "kv.sock").exists()
    await kv.aclose()


async def put_until_refused(kv: LmdbKv) -> int:
    """How many values of 95,000 bytes (at most 1,000) the store takes."""
    for number in range(1000):
        try:
            await put(kv, b"TEST%d" % number, bytes(95_000))
        except Unavailable:
            return number
    return 1000


async def test_a_full_disk_refuses_commits_and_nothing_else(process: OwnerProcess, tmp_path: Path) -> None:
    """A limit on the size of the owner's files stands for the disk's end."""
    kv = LmdbKv(LmdbSettings(tmp_path), clock=SystemClock())
    await put(kv, b"TESTa")
    size = (tmp_path / "data.mdb").stat().st_size
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    fitted = await put_until_refused(kv)
    assert 10 < fitted < 1000
    for _ in range(3):
        with pytest.raises(Unavailable, match="refuses to write"):
            await put(kv, b"TESTb", bytes(95_000))
    txn = kv.transaction()
    assert await txn.get(b"TESTa") == b"1"
    assert len(await txn.range(b"TEST0", b"TESTa")) == fitted
    txn.cancel()
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    conditioned = kv.transaction()  # what was refused has left no conflict behind
    assert await conditioned.get(b"TESTb") is None
    conditioned.set(b"TESTb", b"2")
    assert await conditioned.commit() is not None
    await kv.aclose()


async def test_slots_of_dead_readers_are_reclaimed(owner: Owner, tmp_path: Path) -> None:
    code = (
        "import sys, os, time; from pathlib import Path; from fs3.kv.store import open_environment;"
        "t = open_environment(Path(sys.argv[1]), writable=False).begin(); t.get(b'x'); os._exit(0)"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, os.fspath(tmp_path))
    await child.wait()
    async with asyncio.timeout(PATIENCE_S):
        while not owner.stats.readers_reclaimed:  # noqa: ASYNC110 - housekeeping tells nobody
            await asyncio.sleep(0.05)
    assert owner.stats.readers_reclaimed == 1


async def test_a_store_that_fails_leaves_doubt_and_ends_the_owner(tmp_path: Path) -> None:
    class Broken(StoreWriter):
        def begin(self) -> lmdb.Transaction:
            raise lmdb.DiskError("mdb_txn_begin", errno.EIO)

    failures = Failures()
    owner = new_owner(tmp_path, failures)
    await owner.start()
    kv = LmdbKv(LmdbSettings(tmp_path, commit_timeout_s=0.3), clock=SystemClock())
    await put(kv, b"TESTa")
    owner._store.__class__ = Broken
    with pytest.raises(MaybeApplied, match="the store failed"):
        await put(kv, b"TESTb")
    assert [name for name, _ in failures.seen] == ["kv/owner"]
    assert owner.health()["ok"] is False
    with pytest.raises(Unavailable, match="the store has failed"):  # it does not touch it again
        await put(kv, b"TESTb")
    await kv.aclose()
    await owner.stop()
