"""``fs3 dev``: up, down, kill, restart, logs, and every way in which they are refused."""

from __future__ import annotations

import os
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from .dev_cluster import DevCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
SHAPE = ("--storage", "3", "--targets", "1", "--replication", "3", "--meta", "1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    made = DevCluster(tmp_path_factory.mktemp("dev"))
    done = made.dev("up", *SHAPE)
    assert done.code == 0, done
    yield made
    made.dev("down")


def test_up_says_how_to_go_on_and_twice_does_no_harm(cluster: DevCluster) -> None:
    again = cluster.dev("up")
    assert again.code == 0 and "already up" in again.err and "fs3 ls fs3://dev/" in again.err
    status = cluster.status()
    assert status["ok"] and status["chains"] == {"serving": 1, "degraded": 0, "unavailable": 0}
    nodes = [p for p in status["processes"] if p["name"].startswith("storage")]
    assert nodes and all(p["offline"] == {} and len(p["scrub"]) == 1 for p in nodes)
    assert "bad blocks found" in cluster.dev("status").out


def test_another_shape_for_the_same_directory_is_refused(cluster: DevCluster) -> None:
    done = cluster.dev("up", "--storage", "4")
    assert done.code == 1 and "another shape" in done.err and "--dir" in done.err


def test_files_go_in_and_out_and_survive_down_and_up(cluster: DevCluster, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "big").write_bytes(os.urandom(3 << 20))
    (tree / "sub" / "small").write_bytes(b"hello")
    cluster.ok("cp", "-r", str(tree), "fs3://dev/tree")
    assert cluster.dev("down").code == 0
    assert cluster.dev("status").code == 1
    assert cluster.dev("up").code == 0
    cluster.ok("cp", "-r", "fs3://dev/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "big").read_bytes() == (tree / "big").read_bytes()
    assert (tmp_path / "back" / "sub" / "small").read_bytes() == b"hello"
    assert cluster.ok("cat", "fs3://dev/tree/sub/small").out == "hello"


def test_a_killed_node_costs_reads_nothing_and_writes_wait_for_it(
    cluster: DevCluster, tmp_path: Path
) -> None:
    data = os.urandom(2 << 20)
    (tmp_path / "f").write_bytes(data)
    cluster.ok("cp", str(tmp_path / "f"), "fs3://dev/before")
    assert cluster.dev("kill", "storage-2").code == 0
    cluster.ok("cp", "fs3://dev/before", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data
    assert cluster.dev("kill", "storage-2").code == 1
    assert cluster.dev("restart", "storage-2").code == 0
    cluster.ok("cp", str(tmp_path / "f"), "fs3://dev/after")
    cluster.ok("cp", "fs3://dev/after", str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == data


def test_logs_and_unknown_names(cluster: DevCluster) -> None:
    assert '"started"' in cluster.dev("logs", "meta-1", "-n", "1000").out
    for command in ("kill", "restart", "logs"):
        done = cluster.dev(command, "storage-9")
        assert done.code == 1 and "storage-9" in done.err


def test_down_twice_and_down_of_nothing(tmp_path: Path) -> None:
    nothing = DevCluster(tmp_path)
    done = nothing.dev("down")
    assert done.code == 0 and "nothing to do" in done.err
    assert nothing.dev("kill", "kv").code == 1
    assert "there is no cluster" in nothing.dev("status").err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--storage", "2", "--replication", "3"), "need as many storage nodes"),
        (("--storage", "0"), "between 1 and"),
        (("--meta", "1000"), "between 1 and"),
    ],
)
def test_shapes_that_cannot_be(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = DevCluster(tmp_path).dev("up", *words)
    assert done.code == 1 and said in done.err, done


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    # nobody can make a directory there, root neither
    done = DevCluster(tmp_path).fs3("dev", "up", "--dir", "/proc/nowhere")
    assert done.code == 1 and "not writable" in done.err and "--dir" in done.err


def test_a_port_that_somebody_took(tmp_path: Path) -> None:
    one = DevCluster(tmp_path)
    shape = ("--storage", "1", "--targets", "1", "--replication", "1", "--meta", "1")
    try:
        assert one.dev("up", *shape).code == 0
        assert one.dev("down").code == 0
        port = tomllib.loads((one.directory / "cluster.toml").read_text())["ports"][1]
        with socket.create_server(("127.0.0.1", port)):
            done = one.dev("up")
        assert done.code == 1 and f"port {port} of mgmtd-1 is taken by pid {os.getpid()}" in done.err, done
        assert one.dev("up").code == 0
    finally:
        one.dev("down")


def test_a_bad_setting_is_refused_with_its_line(tmp_path: Path) -> None:
    settings = tmp_path / "storage.toml"
    settings.write_text('node_id = 101\nlisten = "127.0.0.1:0"\ndisk = ["/x"]\n')
    done = DevCluster(tmp_path).fs3("storage", "--config", str(settings))
    assert done.code == 78 and f"{settings}:3" in done.err and "disks" in done.err, done
