"""What ``fs3 mgmtd`` is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import fs3
from fs3.config import Complaint
from fs3.daemon import Components, DaemonSettings, Server, run_daemon
from fs3.identity.key_file import system_nonce
from fs3.ids import NodeId
from fs3.member.timing import TIMING, Timing
from fs3.mgmtd.server import MgmtdComponents, MgmtdServer, MgmtdSettings
from fs3.rpc.network import SystemNetwork

from .node_parts import WithKv, cluster_key, host_name, store


@dataclass(frozen=True, slots=True)
class MgmtdDaemonSettings:
    """The settings file of ``fs3 mgmtd``."""

    node_id: NodeId
    """Unique in the cluster, for ever."""
    listen: str
    """``host:port`` for RPC and, with the same number, for beacons (UDP)."""
    cluster_key: Path
    """The key file that all nodes of the cluster have a copy of."""
    kv: str
    """``lmdb://DIR`` on one machine, ``fdb://CLUSTERFILE`` in a cluster."""
    mgmtd: tuple[str, ...] = ()
    """RPC addresses of the other mgmtds."""
    zone: str = ""
    link_quarantine_s: float = TIMING.link_quarantine_s
    """How long a link that was broken has to hold before its two ends are in a chain together again."""
    daemon: DaemonSettings = field(default_factory=DaemonSettings)


def timing_of(settings: MgmtdDaemonSettings) -> Timing:
    """All times, with those that are settings."""
    return replace(TIMING, link_quarantine_s=settings.link_quarantine_s)


def timings_fit(settings: MgmtdDaemonSettings) -> Iterator[Complaint]:
    """What is wrong with the times of a settings file, and at which key (design 2.10)."""
    if (problem := timing_of(settings).problem()) is not None:
        yield Complaint("link_quarantine_s", problem)


def compose(settings: MgmtdDaemonSettings, components: Components) -> Server:
    """The server, with the machine's network."""
    kv = store(settings.kv, components.clock, components.metrics)
    server = MgmtdServer(
        MgmtdSettings(
            node=settings.node_id,
            host=host_name(),
            address=settings.listen,
            beacon_address=settings.listen,
            seeds=settings.mgmtd,
            zone=settings.zone,
            version=fs3.__version__,
            timing=timing_of(settings),
        ),
        MgmtdComponents(
            clock=components.clock,
            rng=components.rng,
            kv=kv,
            network=SystemNetwork(),
            key=cluster_key(settings.cluster_key),
            make_nonce=system_nonce,
            log=components.log,
            fail=components.fail,
        ),
    )
    server.describe(components.metrics)
    return WithKv(server, kv)


def run(settings_path: Path) -> int:
    """Run the daemon; returns its exit code."""
    return run_daemon("mgmtd", MgmtdDaemonSettings, settings_path, compose, timings_fit)
