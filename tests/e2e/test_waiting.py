"""Real processes are killed under a program: it waits, single calls keep their deadlines, and it goes on."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvloop

import fs3.client
from fs3.rng import derived_rng

from .dev_cluster import DevCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
MIB = 1 << 20
DATA = derived_rng(6, "data").randbytes(4 * MIB)
STORAGE, META = ("storage-1", "storage-2", "storage-3"), ("meta-1", "meta-2")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    uvloop.new_event_loop().close()  # libuv keeps one pipe from its first loop to the end of the process
    made = DevCluster(tmp_path_factory.mktemp("waiting"))
    done = made.dev("up", "--storage", "3", "--targets", "1", "--replication", "3", "--meta", "2")
    assert done.code == 0, done
    yield made
    made.dev("down")


def all_of(cluster: DevCluster, command: str, names: tuple[str, ...]) -> None:
    """``fs3 dev COMMAND`` for each."""
    for name in names:
        done = cluster.dev(command, name)
        assert done.code == 0, done


def test_programs_wait_for_what_was_killed(cluster: DevCluster) -> None:
    where = str(cluster.directory / "client.toml")
    with fs3.client.connect(where) as fs, ThreadPoolExecutor(4) as threads:
        fs.write_file("/a", DATA)
        with fs.open("/a") as file, fs.open("/a", "r+b") as writer:
            all_of(cluster, "kill", ("storage-1",))
            assert file.pread(len(DATA), 0) == DATA, "one replica less is not seen"
            writer.pwrite(b"one", 0)
            writer.fsync()
            all_of(cluster, "kill", (*META, *STORAGE[1:]))
            writer.pwrite(b"two", 0)
            making = threads.submit(fs.mkdir, "/d")
            reading = threads.submit(file.pread, MIB, MIB)
            syncing = threads.submit(writer.fsync)
            calls: list[Callable[[], object]] = [
                lambda: fs.stat("/a"),
                lambda: file.pread(10, 0),
                lambda: fs.mkdir("/e"),
            ]
            for late in calls:
                with fs3.client.deadline(0.5), pytest.raises(TimeoutError) as caught:
                    late()
                assert caught.value.errno == errno.ETIMEDOUT
            assert not any((making.done(), reading.done(), syncing.done()))
            all_of(cluster, "restart", (*STORAGE, *META))
            assert reading.result() == DATA[MIB : 2 * MIB]
            making.result()
            syncing.result()
            assert file.pread(3, 0) == b"two"
        assert fs.isdir("/d")
