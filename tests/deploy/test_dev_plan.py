"""The plan of a development cluster: its processes, who knows which mgmtds, and plans of earlier versions."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fs3.deploy.dev.plan import (
    MGMTD_COUNT_MAX,
    ClusterShape,
    Place,
    make_plan,
    plan_from,
    plan_text,
    port_count,
    settings_text,
)

SHAPE = ClusterShape(storage_count=3, targets_per_node_count=1, replication=3, meta_count=2, mgmtd_count=3)


def test_a_plan_comes_back_as_it_was() -> None:
    plan = make_plan(SHAPE, range(7000, 7000 + port_count(SHAPE)))
    assert plan_from(tomllib.loads(plan_text(plan))) == plan
    assert [p.name for p in plan.processes if p.role == "mgmtd"] == ["mgmtd-1", "mgmtd-2", "mgmtd-3"]
    assert len({p.node for p in plan.processes}) == len(plan.processes)
    assert len(set(plan.ports())) == port_count(SHAPE)


def test_every_process_knows_all_mgmtds() -> None:
    plan = make_plan(SHAPE, range(7000, 7000 + port_count(SHAPE)))
    for process in plan.processes:
        settings = tomllib.loads(settings_text(plan, process, Path("/d"), (1, 1)))
        if process.role != "kv":
            assert settings["mgmtd"] == list(plan.mgmtds()), process
    assert len(plan.mgmtds()) == 3


def test_a_plan_of_an_earlier_version_is_read() -> None:
    values = tomllib.loads(plan_text(make_plan(ClusterShape(), range(port_count(ClusterShape())))))
    del values["mgmtd_count"], values["link_quarantine_s"]
    assert plan_from(values).shape == ClusterShape()


def test_places_change_addresses_and_disks_and_nothing_else() -> None:
    plan = make_plan(SHAPE, range(7000, 7000 + port_count(SHAPE)))
    placed = plan.placed({"storage-2": Place("10.0.0.9", ("nsenter",), Path("/disk"))})
    node = placed.process("storage-2")
    assert node is not None and placed.address("storage-2") == f"10.0.0.9:{node.port}"
    settings = tomllib.loads(settings_text(placed, node, Path("/d"), (1, 1)))
    assert settings["disks"] == ["/disk"] and settings["directory"] == "/d/storage-2"
    assert settings["listen"] == placed.address("storage-2") and settings["daemon"]["http_host"] == "10.0.0.9"
    assert placed.mgmtds() == plan.mgmtds() and plan_text(placed) == plan_text(plan)


@pytest.mark.parametrize("count", [0, MGMTD_COUNT_MAX + 1])
def test_numbers_of_mgmtds_that_cannot_be(count: int) -> None:
    assert f"must be between 1 and {MGMTD_COUNT_MAX}" in ClusterShape(mgmtd_count=count).problem()
