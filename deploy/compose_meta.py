"""What ``fs3 meta`` is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fs3.daemon import Components, DaemonSettings, Server, run_daemon
from fs3.identity.key_file import system_nonce
from fs3.ids import NodeId
from fs3.meta.server import MetaComponents, MetaServer, MetaSettings
from fs3.rpc.network import SystemNetwork

from .node_parts import WithKv, cluster_key, host_name, store


@dataclass(frozen=True, slots=True)
class MetaDaemonSettings:
    """The settings file of ``fs3 meta``."""

    node_id: NodeId
    """Unique in the cluster, for ever."""
    listen: str
    """``host:port`` for RPC and, with the same number, for beacons (UDP)."""
    cluster_key: Path
    """The key file that all nodes of the cluster have a copy of."""
    kv: str
    """``lmdb://DIR`` on one machine, ``fdb://CLUSTERFILE`` in a cluster."""
    mgmtd: tuple[str, ...]
    """RPC addresses of some mgmtds."""
    zone: str = ""
    root_uid: int = 0
    """Owner of the root directory of a new file system."""
    root_gid: int = 0
    daemon: DaemonSettings = field(default_factory=DaemonSettings)


def compose(settings: MetaDaemonSettings, components: Components) -> Server:
    """The server, with the machine's network."""
    kv = store(settings.kv, components.clock, components.metrics)
    server = MetaServer(
        MetaSettings(
            node=settings.node_id,
            listen=(settings.listen,),
            seeds=settings.mgmtd,
            host=host_name(),
            beacon_address=settings.listen,
            zone=settings.zone,
            root_uid=settings.root_uid,
            root_gid=settings.root_gid,
        ),
        MetaComponents(
            clock=components.clock,
            rng=components.rng,
            kv=kv,
            network=SystemNetwork(),
            key=cluster_key(settings.cluster_key),
            log=components.log,
            metrics=components.metrics,
            slow=components.slow,
            make_nonce=system_nonce,
            fail=components.fail,
        ),
    )
    return WithKv(server, kv)


def run(settings_path: Path) -> int:
    """Run the daemon; returns its exit code."""
    return run_daemon("meta", MetaDaemonSettings, settings_path, compose)
