"""Which faults a run draws, and what they ask of the machine; nothing is broken here."""

from __future__ import annotations

import errno
import math
from collections import Counter
from pathlib import Path

import pytest

from fs3.deploy.dev.cluster import Cluster
from fs3.deploy.dev.plan import make_plan, plan_text, port_count
from fs3.rng import Rng

from .faults import Faults, Struck
from .ground import Ground
from .history import Operation
from .kinds import EVERYTHING, KINDS, Kind, possible
from .machine import Machine
from .network import HARNESS, Cut, filter_text
from .registers import registers
from .report import excuse
from .run import SHAPE, chunk_of
from .volumes import failing_table, good_table

HOSTS = {"a": "198.18.213.10", "b": "198.18.213.11"}
BY_NAME = {kind.name: kind for kind in KINDS}


def faults_of(directory: Path, kinds: list[Kind], seed: int) -> Faults:
    directory.mkdir(exist_ok=True)
    (directory / "cluster.toml").write_text(plan_text(make_plan(SHAPE, range(port_count(SHAPE)))))
    return Faults(Ground(Cluster(directory), None, None, ("client-1",)), kinds, Rng(seed))


def drawn(faults: Faults, count: int) -> list[Struck]:
    found: list[Struck] = []
    while len(found) < count:
        found += faults._draw(2)
    return found


NO_TOOLS = Machine(has_network=False, has_volumes=False, has_xfs=False, has_mapper=False)


def test_a_seed_draws_the_same_faults_again_and_all_kinds_come(tmp_path: Path) -> None:
    kinds = [kind for kind in possible(NO_TOOLS) if not kind.wants_primary]
    first, again = (drawn(faults_of(tmp_path / "c", kinds, 7), 100) for _ in range(2))
    assert [one.as_row() for one in first] == [one.as_row() for one in again]
    seen = Counter(one.kind.name for one in first)
    deck = sum(kind.weight for kind in kinds)
    for kind in kinds:
        assert seen[kind.name] >= (100 // deck) * kind.weight, kind.name


def test_two_faults_at_a_time_are_of_two_processes_and_everything_comes_alone(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, [k for k in possible(NO_TOOLS) if not k.wants_primary], 3)
    for _ in range(200):
        names = [one.name for one in faults._draw(2)]
        assert len(set(names)) == len(names)
        assert names == [""] or "" not in names


def test_kinds_that_need_what_is_not_there_are_left_out() -> None:
    assert {kind.needs for kind in possible(NO_TOOLS)} == {""}
    assert EVERYTHING in {kind.name for kind in possible(NO_TOOLS)}
    assert possible(Machine(True, True, True, True)) == list(KINDS)
    assert all(kind.roles or kind.name == EVERYTHING for kind in KINDS)
    assert len(BY_NAME) == len(KINDS)


@pytest.mark.parametrize(
    ("cut", "rules"),
    [
        (Cut("a"), [f'iif != "lo" ip saddr != {HARNESS} drop', f'oif != "lo" ip daddr != {HARNESS} drop']),
        (Cut("a", ("b",), incoming=False), ["ip daddr { 198.18.213.11 } drop"]),
        (
            Cut("a", ("b",), protocol="udp", outgoing=False),
            ["ip saddr { 198.18.213.11 } meta l4proto udp drop"],
        ),
        (
            Cut("a", ("b",), reset=True, outgoing=False),
            ["ip saddr { 198.18.213.11 } tcp flags & rst == 0 reject with tcp reset"],
        ),
        (
            Cut("a", ("a", "b"), percent=30, outgoing=False),
            ["ip saddr { 198.18.213.10, 198.18.213.11 } numgen random mod 100 < 30 drop"],
        ),
    ],
)
def test_a_cut_is_a_table_of_the_packet_filter(cut: Cut, rules: list[str]) -> None:
    text = filter_text("cut1", cut, HOSTS)
    lines = [line.strip() for line in text.splitlines()]
    assert [line for line in lines if line.endswith(("drop", "tcp reset"))] == rules
    assert [line for line in lines if line.startswith("type")] == [
        f"type filter hook {hook} priority 0;"
        for hook, wanted in (("input", cut.incoming), ("output", cut.outgoing))
        if wanted
    ]


def test_tables_of_the_device_mapper() -> None:
    assert good_table("/dev/loop1", 8) == "0 8 linear /dev/loop1 0\n"
    assert failing_table(8) == "0 8 error\n"


@pytest.mark.parametrize(
    ("kind", "number", "fault", "counted_as"),
    [
        ("write", errno.ENOSPC, "disk filled", "enospc"),
        ("write", errno.ENOSPC, "storage killed", ""),
        ("names", errno.ETIMEDOUT, "kv stopped", "metadata deadline"),
        ("write", errno.ETIMEDOUT, "kv stopped", ""),
        ("names", errno.ESTALE, "kv stopped", ""),
    ],
)
def test_which_errors_are_counted_apart(kind: str, number: int, fault: str, counted_as: str) -> None:
    struck = Struck(BY_NAME[fault], "x", 4.0, began_s=10.0, ended_s=20.0)
    during = Operation(kind, "r", 12.0, math.inf, error="X", errno=number, failed_s=25.0)
    later = Operation(kind, "r", 40.0, math.inf, error="X", errno=number, failed_s=41.0)
    before = Operation(kind, "r", 1.0, math.inf, error="X", errno=number, failed_s=2.0)
    assert excuse(during, [struck]) == counted_as
    assert excuse(later, [struck]) == excuse(before, [struck]) == ""


def test_slots_are_told_to_their_chunks() -> None:
    assert [chunk_of(slot, 5, 1 << 20).chunk_index for slot in registers("/x")[:4]] == [0, 1, 2, 3]
