"""Several mgmtds: the primary is killed, a standby takes over, and clients notice nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .dev_cluster import DevCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
SHAPE = ("--storage", "2", "--targets", "1", "--replication", "2", "--meta", "1", "--mgmtds", "3")
TAKE_OVER_TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    made = DevCluster(tmp_path_factory.mktemp("mgmtds"))
    done = made.dev("up", *SHAPE)
    assert done.code == 0, done
    yield made
    made.dev("down")


def roles(cluster: DevCluster) -> dict[str, str]:
    """Of each mgmtd: "primary", "standby" or ""."""
    return {p["name"]: p["role"] for p in cluster.status()["processes"] if p["name"].startswith("mgmtd")}


def primary(cluster: DevCluster) -> str:
    """The name of the primary, once there is one."""
    deadline_s = time.monotonic() + TAKE_OVER_TIMEOUT_S
    while time.monotonic() < deadline_s:
        found = [name for name, role in roles(cluster).items() if role == "primary"]
        if found:
            assert len(found) == 1, found
            return found[0]
    raise AssertionError("nobody is primary")


def test_two_primaries_are_killed_in_turn(cluster: DevCluster, tmp_path: Path) -> None:
    local = tmp_path / "f"
    local.write_bytes(b"x" * 3_000_000)
    assert sorted(roles(cluster).values()) == ["primary", "standby", "standby"]
    killed = []
    for _ in range(2):
        killed.append(primary(cluster))
        assert cluster.dev("kill", killed[-1]).code == 0
        cluster.ok("cp", str(local), f"fs3://dev/{killed[-1]}")  # the chains have not stopped
    third = primary(cluster)
    assert third not in killed
    cluster.ok("cp", str(local), "fs3://dev/last")
    for name in killed:
        assert cluster.dev("restart", name).code == 0
    assert primary(cluster) == third  # whoever comes back stands by
    status = cluster.status()
    assert status["ok"] and status["chains"]["serving"] == 1, status
    assert f"mgmtd-{third[-1]}" in cluster.dev("status").out


def test_down_and_up_bring_all_of_them_back(cluster: DevCluster) -> None:
    assert cluster.dev("down").code == 0
    assert cluster.dev("up").code == 0
    primary(cluster)
    assert sorted(roles(cluster).values()) == ["primary", "standby", "standby"]
