"""What ``fs3 storage`` is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fs3.config import Between
from fs3.daemon import Components, DaemonSettings, Server, run_daemon
from fs3.identity.handshake import NodeCredentials
from fs3.identity.key_file import system_nonce
from fs3.ids import NodeId
from fs3.rpc.bulk_client import BulkClient, BulkClientSettings
from fs3.rpc.bulk_server import BulkServer
from fs3.rpc.exported import export_bulk_client, export_server
from fs3.rpc.network import SystemNetwork
from fs3.storage.disk import OsDisk
from fs3.storage.engine.logged_index import index_opener
from fs3.storage.lanes import ThreadLanes
from fs3.storage.resync.pace import RESYNC, ResyncSettings
from fs3.storage.scrub_round import SCRUB, ScrubSettings
from fs3.storage.server import StorageComponents, StorageServer, StorageSettings

from .node_parts import cluster_key, host_name


@dataclass(frozen=True, slots=True)
class StorageDaemonSettings:
    """The settings file of ``fs3 storage``."""

    node_id: NodeId
    """Unique in the cluster, for ever."""
    listen: str
    """``host:port`` for RPC and, with the same number, for beacons (UDP)."""
    cluster_key: Path
    """The key file that all nodes of the cluster have a copy of."""
    mgmtd: tuple[str, ...]
    """RPC addresses of some mgmtds."""
    directory: Path
    """The node's own: its run number. On a disk that survives."""
    disks: tuple[Path, ...]
    """A directory on each disk; their order is theirs for good."""
    targets_per_disk_count: Annotated[int, Between(1, 64)] = 1
    """Targets that a new disk is given."""
    target_capacity_bytes: int = 0
    """Most that a target may hold; 0: what its disk has room for."""
    zone: str = ""
    resync_bytes_s: Annotated[int, Between(1 << 20, 1 << 40)] = RESYNC.rate_bytes_s
    """Most that this node sends a second to members that come back, less what clients read and write
    meanwhile, but always a sixteenth. More heals chains sooner; less leaves disks and network to clients."""
    scrub_bytes_s: Annotated[int, Between(0, 1 << 40)] = SCRUB.rate_bytes_s
    """Most that is read of each disk a second to find bytes that went bad; 0: none are looked for."""
    scrub_every_s: Annotated[int, Between(3600, 1 << 30)] = int(SCRUB.every_s)
    """From the end of one look at all chunks of a target to the start of the next."""
    daemon: DaemonSettings = field(default_factory=DaemonSettings)


FORWARDS = BulkClientSettings(in_flight_max=256, in_flight_peer_max=256)
"""Forwards are bounded by the payloads that come in, rank by rank; a second bound for all ranks together
would let nodes wait for each other in a ring."""


def compose(settings: StorageDaemonSettings, components: Components) -> Server:
    """The server, with the machine's network, disks and threads."""
    network = SystemNetwork()
    bulk_server = BulkServer()
    export_server(components.metrics, bulk_server.counters, plane="bulk")

    def bulk_client(credentials: NodeCredentials) -> BulkClient:
        client = BulkClient(credentials, network, make_nonce=system_nonce, settings=FORWARDS)
        export_bulk_client(components.metrics, client.counters)
        return client

    return StorageServer(
        StorageSettings(
            node=settings.node_id,
            directory=str(settings.directory),
            disks=tuple(map(str, settings.disks)),
            listen=(settings.listen,),
            seeds=settings.mgmtd,
            targets_per_disk_count=settings.targets_per_disk_count,
            target_capacity_bytes=settings.target_capacity_bytes,
            host=host_name(),
            beacon_address=settings.listen,
            zone=settings.zone,
            resync=ResyncSettings(settings.resync_bytes_s),
            scrub=ScrubSettings(settings.scrub_bytes_s, settings.scrub_every_s),
        ),
        StorageComponents(
            clock=components.clock,
            rng=components.rng,
            network=network,
            key=cluster_key(settings.cluster_key),
            log=components.log,
            metrics=components.metrics,
            lanes=ThreadLanes(),
            open_disk=lambda _: OsDisk(),
            open_index=lambda disk: index_opener(disk, components.rng),
            make_nonce=system_nonce,
            fail=components.fail,
            bulk_server=bulk_server,
            make_bulk_client=bulk_client,
        ),
    )


def run(settings_path: Path) -> int:
    """Run the daemon; returns its exit code."""
    return run_daemon("storage", StorageDaemonSettings, settings_path, compose)
