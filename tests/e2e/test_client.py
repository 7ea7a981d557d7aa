"""The blocking face and the user commands on a real cluster: threads, forks, pickles, bad input."""

from __future__ import annotations

import asyncio
import errno
import gc
import io
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvloop

import fs3.client
from fs3.client import FileSystem
from fs3.rng import derived_rng

from .dev_cluster import DevCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
MIB = 1 << 20
DATA = derived_rng(5, "data").randbytes(6 * MIB + 777)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    uvloop.new_event_loop().close()  # libuv keeps one pipe from its first loop to the end of the process
    made = DevCluster(tmp_path_factory.mktemp("client"))
    done = made.dev("up", "--storage", "3", "--targets", "1", "--replication", "3", "--meta", "2")
    assert done.code == 0, done
    yield made
    made.dev("down")


@pytest.fixture
def fs(cluster: DevCluster) -> Iterator[FileSystem]:
    with fs3.client.connect(str(cluster.directory / "client.toml")) as filesystem:
        yield filesystem
        for name in filesystem.listdir("/"):
            filesystem.rmtree(f"/{name}")


def test_a_file_is_a_raw_io_object(fs: FileSystem) -> None:
    with fs.open("/a", "wb") as file:
        for start in range(0, len(DATA), 300_000):
            assert file.write(DATA[start : start + 300_000]) > 0
    with fs.open("/a") as file:
        assert file.readable() and file.seekable() and not file.writable()
        assert isinstance(file, io.RawIOBase)
        assert file.read(10) == DATA[:10] and file.tell() == 10
        room = bytearray(MIB)
        assert file.readinto(room) == MIB and room == DATA[10 : 10 + MIB]
        assert file.seek(-7, os.SEEK_END) == len(DATA) - 7
        assert file.read() == DATA[-7:]
        assert file.pread(MIB, 3) == DATA[3 : 3 + MIB]
        two = [bytearray(5), bytearray(2 * MIB)]
        assert file.preadv(two, MIB - 5) == 2 * MIB + 5
        assert bytes(two[0]) + bytes(two[1]) == DATA[MIB - 5 : 3 * MIB]
        assert file.size == file.stat().st_size == len(DATA)
        with pytest.raises(OSError):
            file.write(b"x")
    with pytest.raises(ValueError):
        file.read(1)
    with fs.open_text("/t", "w") as text:
        text.write("first\nzweite Zeile: äöü\n")
    with fs.open_text("/t") as text:
        assert text.readlines() == ["first\n", "zweite Zeile: äöü\n"]


def test_many_threads_share_one_file_system(fs: FileSystem) -> None:
    fs.write_file("/a", DATA)

    def work(number: int) -> None:
        draw = derived_rng(number, "work")
        fs.write_file(f"/small-{number}", DATA[:number])
        with fs.open("/a") as file:
            for _ in range(20):
                ranges = [(file, draw.randrange(len(DATA)), draw.randrange(1, 200_000)) for _ in range(8)]
                for (_, offset, length), view in zip(ranges, fs.read_batch(ranges), strict=True):
                    assert view == DATA[offset : offset + length]
        assert fs.read_file(f"/small-{number}") == DATA[:number]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    assert len(fs.listdir("/")) == 17


def test_small_ranges_are_read_at_once(fs: FileSystem) -> None:
    fs.write_file("/a", DATA)
    fs.write_file("/inline", DATA[:1000])

    def work(number: int) -> None:
        draw = derived_rng(number, "small")
        with fs.open("/a") as file, fs.open("/inline") as other:
            for _ in range(20):
                sizes = [draw.choice((1, 100, 4096, 40_000)) for _ in range(draw.choice((1, 64, 300)))]
                ranges = [(file, draw.randrange(len(DATA)), size) for size in sizes]
                if draw.random() < 0.2:
                    ranges.append((other, 10, 100))
                got = fs.read_batch(ranges)
                kinds = [DATA if one is file else DATA[:1000] for one, _, _ in ranges]
                places = zip(kinds, ranges, strict=True)
                assert got == [data[offset : offset + size] for data, (_, offset, size) in places]
                offset = draw.randrange(len(DATA))
                assert file.pread(4096, offset) == DATA[offset : offset + 4096]

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, number) for number in range(4)]:
            done.result()


def test_a_file_that_outlives_its_file_system_says_so_and_nothing_else(cluster: DevCluster) -> None:
    with fs3.client.connect(str(cluster.directory / "client.toml")) as filesystem:
        file = filesystem.open("/outlives", "wb")
        file.write(b"never flushed")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="the file system is closed"):
            file.flush()
        gc.collect()
    assert not seen


def test_within_a_running_loop_and_without(fs: FileSystem, cluster: DevCluster) -> None:
    async def inside() -> bytes:
        fs.write_file("/a", b"from within a loop")
        async with await fs3.client.connect_async(str(cluster.directory / "client.toml")) as other:
            return await other.read_file("/a")

    assert asyncio.run(inside()) == b"from within a loop"


def test_pickles_and_forks(fs: FileSystem, cluster: DevCluster) -> None:
    """In a process of its own: a fork of a test process would inherit pytest."""
    fs.write_file("/a", DATA)
    program = """
import os, pickle, sys
import fs3.client
fs = fs3.client.connect(sys.argv[1])
file = fs.open("/a")
file.seek(5)
writer = fs.open("/w", "wb", create_now=True)
frozen = pickle.dumps(file)
pid = os.fork()
if pid == 0:
    code = 1
    try:
        assert file.tell() == 5 and len(file.read(100)) == 100 and len(file.pread(1 << 20, 0)) == 1 << 20
        try:
            writer.write(b"x")
        except OSError as error:
            assert error.errno == 9, error
        else:
            raise AssertionError("a child wrote into its parent's file")
        thawed = pickle.loads(frozen)
        assert thawed.tell() == 5 and thawed.read(3) == file.pread(3, 5)
        fs.write_file("/child", b"child")
        fs.close()
        code = 0
    finally:
        os._exit(code)
assert os.waitpid(pid, 0)[1] == 0, "child failed"
assert file.read(3) == file.pread(3, 5), "the parent goes on"
writer.write(b"parent")
writer.close()
assert fs.read_file("/child") == b"child" and fs.read_file("/w") == b"parent"
try:
    pickle.dumps(fs.open("/w", "r+b"))
except TypeError:
    print("ok")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(cluster.directory / "client.toml")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "ok", done.stderr
    again = pickle.loads(pickle.dumps(fs))
    assert again.read_file("/w") == b"parent"
    again.close()


def test_bad_input_is_a_clear_error(fs: FileSystem) -> None:
    fs.write_file("/file", b"x")
    cases: list[tuple[Callable[[], object], int]] = [
        (lambda: fs.open("/none"), errno.ENOENT),
        (lambda: fs.open("/file/below"), errno.ENOTDIR),
        (lambda: fs.open("/"), errno.EISDIR),
        (lambda: fs.write_file("/" + "n" * 256, b""), errno.ENAMETOOLONG),
        (lambda: fs.mkdir("/" + "d/" * 3000), errno.ENAMETOOLONG),
        (lambda: fs.mkdir("/file"), errno.EEXIST),
        (lambda: fs.mkdir("/no/parent"), errno.ENOENT),
        (lambda: fs.rmdir("/file"), errno.ENOTDIR),
        (lambda: fs.truncate("/file", -1), errno.EINVAL),
        (lambda: fs.truncate("/file", 1 << 62), errno.EFBIG),
        (lambda: fs.write_file("/a\0b", b""), errno.EINVAL),
        (lambda: fs.open("/file").pread(1, -1), errno.EINVAL),
    ]
    for number, (attempt, expected) in enumerate(cases):
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == expected, (number, caught.value)
    assert fs.read_file("/file") == b"x"


def test_a_wrong_token_and_a_foreign_cluster_are_refused(cluster: DevCluster) -> None:
    from fs3.identity.keys import ClusterKey
    from fs3.identity.token import TokenClaims, make_token

    text = (cluster.directory / "client.toml").read_text()
    name = text.split('cluster_id = "')[1].split('"')[0]
    for key in (ClusterKey(name, 1, bytes(32)), ClusterKey("foreign", 1, bytes(32))):
        token = make_token(key, TokenClaims(cluster=key.cluster, key_id=1, uid=0, gid=0, is_admin=True))
        with pytest.raises(OSError) as caught:
            fs3.client.connect(str(cluster.directory / "client.toml"), token=token.to_text())
        assert caught.value.errno in (errno.EACCES, errno.EPROTO), caught.value


def test_the_commands(cluster: DevCluster, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "big").write_bytes(DATA)
    (tree / "sub" / "odd name%41").write_bytes(b"odd")
    (tree / "empty").write_bytes(b"")
    cluster.ok("mkdir", "-p", "fs3://dev/c/d")
    cluster.ok("cp", "-r", str(tree), "fs3://dev/c/d")
    assert cluster.ok("ls", "fs3://dev/c/d/tree").out.splitlines() == ["big", "empty", "sub/"]
    assert "odd name%41" in cluster.ok("ls", "-R", "fs3://dev/c").out
    assert cluster.ok("cat", "fs3://dev/c/d/tree/sub/odd%20name%2541").out == "odd"
    assert str(len(DATA)) in cluster.ok("stat", "fs3://dev/c/d/tree/big").out
    cluster.ok("cp", "fs3://dev/c/d/tree/big", "fs3://dev/c/copy")
    cluster.ok("cp", "fs3://dev/c/copy", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == DATA
    for arguments, said in [
        (("ls", "fs3://dev/none"), "No such file"),
        (("rm", "fs3://dev/c/d"), "add -r"),
        (("cp", str(tree), "fs3://dev/c/x"), "add -r"),
        (("cp", str(tmp_path / "none"), "fs3://dev/c/x"), "No such file"),
        (("ls", "fs3://unknown/"), "no cluster 'unknown'"),
        (("rm", "-r", "fs3://dev/"), "root of the file system"),
    ]:
        done = cluster.fs3(*arguments)
        assert done.code == 1 and said in done.err, done
    assert cluster.fs3("ls", "not-a-url").code == 2
    cluster.ok("rm", "-r", "fs3://dev/c")
    assert cluster.ok("ls", "fs3://dev/").out == ""
