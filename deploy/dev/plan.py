"""Which processes a development cluster has, and with which settings. Pure but for the plan's file format.

A plan is made once, at the first ``up``, and kept in ``cluster.toml`` of the cluster's directory: later ups
bring the same cluster back, on the same ports, with its data. Everything is a settings file that a
deployment over several machines would use in the same form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from fs3.ids import NodeId

PLAN_VERSION = 1
FIRST_MGMTD_NODE = 1
FIRST_META_NODE = 11
FIRST_STORAGE_NODE = 101
COUNT_MAX = 64
MGMTD_COUNT_MAX = FIRST_META_NODE - FIRST_MGMTD_NODE
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ClusterShape:
    """What ``fs3 dev up`` is asked for."""

    storage_count: int = 5
    targets_per_node_count: int = 2
    replication: int = 3
    meta_count: int = 2
    mgmtd_count: int = 1
    """One is primary, the others stand by. On a laptop, which dies with all of them, one is enough."""
    link_quarantine_s: int = 30
    """How long a link that was broken has to hold before its two ends are in a chain together again."""

    def problem(self) -> str:
        """Why this shape cannot be, or ""."""
        counts = (
            ("storage nodes", self.storage_count, COUNT_MAX),
            ("targets a node", self.targets_per_node_count, COUNT_MAX),
            ("replicas", self.replication, COUNT_MAX),
            ("meta services", self.meta_count, COUNT_MAX),
            ("mgmtds", self.mgmtd_count, MGMTD_COUNT_MAX),
        )
        for name, count, count_max in counts:
            if not 1 <= count <= count_max:
                return f"{count} {name}: must be between 1 and {count_max}"
        if self.replication > self.storage_count:
            return (
                f"{self.replication} replicas need as many storage nodes; there are {self.storage_count}: "
                f"use --storage {self.replication} or --replication {self.storage_count}"
            )
        return ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs, if it shares neither address nor disk with all others of this machine.

    Who makes a cluster of such places (namespaces, disks of their own) hands them in each time.
    """

    host: str = HOST
    """The address that it listens at."""
    before: tuple[str, ...] = ()
    """Words in front of its command, which must become the process (``exec``), not its parent."""
    disk: Path | None = None
    """Data directory of a storage node; None: in the cluster's directory."""


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """One process."""

    name: str
    """``kv``, ``mgmtd-1``, ``meta-2``, ``storage-5``."""
    role: str
    """The ``fs3`` command that it runs."""
    node: NodeId
    """0 for ``kv``, which is no member."""
    port: int
    """Of its RPC server (TCP) and its beacons (UDP); 0 for ``kv``."""
    http_port: int
    place: Place = Place()

    @property
    def address(self) -> str:
        """``host:port`` of its RPC server."""
        return f"{self.place.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A whole cluster."""

    shape: ClusterShape
    processes: tuple[ProcessPlan, ...]
    """In the order in which they are started."""

    def process(self, name: str) -> ProcessPlan | None:
        """The process of this name."""
        return next((p for p in self.processes if p.name == name), None)

    def ports(self) -> list[int]:
        """Every port that the cluster needs."""
        return [port for p in self.processes for port in (p.port, p.http_port) if port]

    def address(self, name: str) -> str:
        """RPC address of a process."""
        found = self.process(name)
        assert found is not None and found.port, name
        return found.address

    def placed(self, places: Mapping[str, Place]) -> ClusterPlan:
        """The same cluster, the processes named in ``places`` there."""
        return replace(
            self,
            processes=tuple(replace(p, place=places.get(p.name, p.place)) for p in self.processes),
        )

    def mgmtds(self) -> tuple[str, ...]:
        """RPC addresses of all mgmtds."""
        return tuple(p.address for p in self.processes if p.role == "mgmtd")


def port_count(shape: ClusterShape) -> int:
    """How many ports a cluster of this shape needs."""
    return 1 + 2 * (shape.mgmtd_count + shape.meta_count + shape.storage_count)


def make_plan(shape: ClusterShape, ports: Sequence[int]) -> ClusterPlan:
    """The plan of a new cluster; ``ports`` are ``port_count`` free ones."""
    left = list(ports)
    processes = [ProcessPlan("kv", "kv", NodeId(0), 0, left.pop(0))]

    def add(name: str, role: str, node: int) -> None:
        processes.append(ProcessPlan(name, role, NodeId(node), left.pop(0), left.pop(0)))

    for i in range(shape.mgmtd_count):
        add(f"mgmtd-{i + 1}", "mgmtd", FIRST_MGMTD_NODE + i)
    for i in range(shape.meta_count):
        add(f"meta-{i + 1}", "meta", FIRST_META_NODE + i)
    for i in range(shape.storage_count):
        add(f"storage-{i + 1}", "storage", FIRST_STORAGE_NODE + i)
    return ClusterPlan(shape, tuple(processes))


def settings_text(plan: ClusterPlan, process: ProcessPlan, directory: Path, owner: tuple[int, int]) -> str:
    """The settings file of one process of the cluster in ``directory``; ``owner``: uid and gid of ``/``."""
    kv_url = f"lmdb://{quote(str(directory / 'kv'))}"
    lines: list[str]
    if process.role == "kv":
        lines = [f"directory = {_text(directory / 'kv')}"]
    else:
        lines = [
            f"node_id = {process.node}",
            f"listen = {_text(process.address)}",
            f"cluster_key = {_text(directory / 'cluster.key')}",
            f"mgmtd = [{', '.join(map(_text, plan.mgmtds()))}]",
        ]
        if process.role == "storage":
            lines += [
                f"directory = {_text(directory / process.name)}",
                f"disks = [{_text(process.place.disk or directory / process.name / 'disk-0')}]",
                f"targets_per_disk_count = {plan.shape.targets_per_node_count}",
            ]
        elif process.role == "meta":
            lines += [f"kv = {_text(kv_url)}", f"root_uid = {owner[0]}", f"root_gid = {owner[1]}"]
        else:
            lines += [f"kv = {_text(kv_url)}", f"link_quarantine_s = {plan.shape.link_quarantine_s}.0"]
    lines += ["", "[daemon]", f"http_port = {process.http_port}"]
    if process.place.host != HOST:
        lines.append(f"http_host = {_text(process.place.host)}")
    lines.append("")
    return "\n".join(lines)


def plan_text(plan: ClusterPlan) -> str:
    """The plan as the text of ``cluster.toml``."""
    shape = plan.shape
    head = [
        "# Made by `fs3 dev up`; later ups bring this cluster back as it was.",
        f"version = {PLAN_VERSION}",
        f"storage_count = {shape.storage_count}",
        f"targets_per_node_count = {shape.targets_per_node_count}",
        f"replication = {shape.replication}",
        f"meta_count = {shape.meta_count}",
        f"mgmtd_count = {shape.mgmtd_count}",
        f"link_quarantine_s = {shape.link_quarantine_s}",
        f"ports = {list(_all_ports(plan))}",
    ]
    return "\n".join(head) + "\n"


def plan_from(values: dict[str, object]) -> ClusterPlan:
    """Inverse of ``plan_text``, from the parsed file; ValueError if it is not a plan of this version."""
    try:
        version, ports = values["version"], values["ports"]
        shape = ClusterShape(
            storage_count=_whole(values["storage_count"]),
            targets_per_node_count=_whole(values["targets_per_node_count"]),
            replication=_whole(values["replication"]),
            meta_count=_whole(values["meta_count"]),
            # plans of earlier versions lack what came later
            mgmtd_count=_whole(values.get("mgmtd_count", 1)),
            link_quarantine_s=_whole(values.get("link_quarantine_s", 30)),
        )
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is missing") from error
    if version != PLAN_VERSION:
        raise ValueError(f"version {version} is not {PLAN_VERSION}")
    if not isinstance(ports, list) or len(ports) != port_count(shape):
        raise ValueError("ports do not fit the number of processes")
    return make_plan(shape, [_whole(port) for port in ports])


def _all_ports(plan: ClusterPlan) -> list[int]:
    kv, *members = plan.processes
    return [kv.http_port, *(port for p in members for port in (p.port, p.http_port))]


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _text(value: object) -> str:
    return json.dumps(str(value))  # JSON strings are TOML strings
