"""``fs3 kv`` and the other daemons: each reads one settings file and serves until it is told to stop.

What a daemon is made of stands in ``compose_<daemon>.py``; how it runs and its exit codes in ``fs3.daemon``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

CONFIG = click.option(
    "--config",
    "settings_path",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The settings file (TOML).",
)
EXITS = "Exit codes: 0 stopped by a signal, 1 failed, 69 cannot start, 78 bad settings."


@click.command(epilog=EXITS)
@CONFIG
def kv(settings_path: Path) -> None:
    """Own the embedded key-value store of one machine.

    Other processes of the same user read the store directly and send their commits here. There is one owner
    for a store; a second one is refused. A cluster over several machines uses FoundationDB instead.

    \b
    Settings:
        directory = "…"          # of the store; made if it is missing
        conflict_window_s = 5.0  # how old a read version may be
        [daemon]                 # http_host, http_port, log_level, slow_operation_ms
    """
    from .compose_kv import run  # imported only by the process that is one

    sys.exit(run(settings_path))


@click.command(epilog=EXITS)
@CONFIG
def mgmtd(settings_path: Path) -> None:
    """Manage a cluster: membership, leases, chain tables, routing. Several stand by for one another.

    \b
    Settings:
        node_id = 1                      # unique in the cluster, for ever
        listen = "10.0.0.1:7001"         # RPC, and beacons by UDP
        cluster_key = "/etc/fs3/cluster.key"
        kv = "fdb:///etc/foundationdb/fdb.cluster"   # or "lmdb:///srv/fs3/kv" on one machine
        mgmtd = ["10.0.0.2:7001"]        # the others
        link_quarantine_s = 30.0         # a link that was broken has to hold for this long
        [daemon]                         # http_host, http_port, log_level, slow_operation_ms
    """
    from .compose_mgmtd import run

    sys.exit(run(settings_path))


@click.command(epilog=EXITS)
@CONFIG
def meta(settings_path: Path) -> None:
    """Serve names and attributes. Any number of them; they keep no state of their own.

    \b
    Settings:
        node_id = 11
        listen = "10.0.0.1:7011"
        cluster_key = "/etc/fs3/cluster.key"
        kv = "fdb:///etc/foundationdb/fdb.cluster"
        mgmtd = ["10.0.0.1:7001", "10.0.0.2:7001"]
        [daemon]                         # http_host, http_port, log_level, slow_operation_ms
    """
    from .compose_meta import run

    sys.exit(run(settings_path))


@click.command(epilog=EXITS)
@CONFIG
def storage(settings_path: Path) -> None:
    """Serve chunks from the disks of one machine.

    \b
    Settings:
        node_id = 101
        listen = "10.0.0.3:7101"
        cluster_key = "/etc/fs3/cluster.key"
        mgmtd = ["10.0.0.1:7001", "10.0.0.2:7001"]
        directory = "/var/lib/fs3/storage"
        disks = ["/srv/disk0/fs3", "/srv/disk1/fs3"]
        targets_per_disk_count = 2
        [daemon]                         # http_host, http_port, log_level, slow_operation_ms
    """
    from .compose_storage import run

    sys.exit(run(settings_path))
