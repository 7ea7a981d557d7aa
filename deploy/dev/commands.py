"""``fs3 dev up|status|down|kill|restart|logs``."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec

import click
import msgspec
from rich.console import Console
from rich.table import Table

from fs3.errors import Fs3Error
from fs3.ids import node_of_target
from fs3.wire.mgmtd import MemberStatus

from .client_file import NAME
from .cluster import Cluster, ClusterError, ProcessStatus
from .plan import ClusterShape
from .process import log_tail
from .table import fetch_status

P = ParamSpec("P")

DEFAULT_SHAPE = ClusterShape()
STATUS_TIMEOUT_S = 2.0
FOLLOW_POLL_S = 0.2
MEMBERS_SHOWN = 20
SHOWN_HEALTH = ("offline", "resync", "scrub")
"""What a storage node says of its targets, by target; ``--json`` shows it with its process."""

DIRECTORY = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: Path.home() / ".local" / "share" / "fs3" / "dev",
    show_default="~/.local/share/fs3/dev",
    help="Where the cluster's data, settings and logs lie.",
)


def say(text: str) -> None:
    """One line for people, on standard error."""
    click.echo(text, err=True)


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what the user can mend into one message and exit code 1."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (ClusterError, Fs3Error) as error:
            raise click.ClickException(str(error)) from error

    return run


@click.group()
def dev() -> None:
    """A whole cluster of real processes on this machine.

    \b
    Examples:
        fs3 dev up                          # 5 storage nodes, 3 replicas
        fs3 dev up --mgmtds 3               # two stand by; "fs3 dev status" names the primary
        fs3 ls fs3://dev/
        fs3 dev kill storage-2              # as if its machine had died
        fs3 dev restart storage-2
        fs3 dev down                        # data stay; the next up brings them back
    """


@dev.command()
@click.option("--storage", type=int, help=f"Storage nodes.  [default: {DEFAULT_SHAPE.storage_count}]")
@click.option(
    "--targets", type=int, help=f"Targets a storage node.  [default: {DEFAULT_SHAPE.targets_per_node_count}]"
)
@click.option("--replication", type=int, help=f"Replicas.  [default: {DEFAULT_SHAPE.replication}]")
@click.option("--meta", type=int, help=f"Meta services.  [default: {DEFAULT_SHAPE.meta_count}]")
@click.option(
    "--mgmtds", type=int, help=f"Mgmtds; all but one stand by.  [default: {DEFAULT_SHAPE.mgmtd_count}]"
)
@click.option("--link-quarantine", type=int, help="Seconds that a link which was broken has to hold.")
@DIRECTORY
@reported
def up(
    storage: int | None,
    targets: int | None,
    replication: int | None,
    meta: int | None,
    mgmtds: int | None,
    link_quarantine: int | None,
    directory: Path,
) -> None:
    """Start the cluster in a directory; a new one if there is none. Twice does no harm."""
    asked = {
        "storage_count": storage,
        "targets_per_node_count": targets,
        "replication": replication,
        "meta_count": meta,
        "mgmtd_count": mgmtds,
        "link_quarantine_s": link_quarantine,
    }
    given = {name: count for name, count in asked.items() if count is not None}
    shape = replace(DEFAULT_SHAPE, **given) if given else None
    began = time.monotonic()
    cluster = Cluster(directory)
    cluster.up(shape, say)
    say(f"cluster {NAME!r} serves after {time.monotonic() - began:.1f} s. Go on with:")
    say(f"    fs3 ls fs3://{NAME}/")
    say(f"    fs3 cp -r SOME_DIRECTORY fs3://{NAME}/data")
    say("    fs3 dev status")


@dev.command()
@click.option("--json", "as_json", is_flag=True, help="For programs, on standard output.")
@DIRECTORY
@reported
def status(as_json: bool, directory: Path) -> None:
    """Show the processes, and the chains as mgmtd sees them. Exit code 0 only if all is well."""
    cluster = Cluster(directory)
    rows = cluster.status()
    chains: dict[str, int] | None = None
    members: tuple[MemberStatus, ...] = ()
    try:
        seen = fetch_status(cluster.key(), cluster.plan(), STATUS_TIMEOUT_S)
        chains = {
            "serving": seen.serving_chain_count,
            "degraded": seen.degraded_chain_count,
            "unavailable": seen.unavailable_chain_count,
        }
        members = seen.members
    except Fs3Error as error:
        say(f"mgmtd cannot be asked: {error}")
    well = all(r.state == "healthy" for r in rows) and chains is not None and not chains["unavailable"]
    if as_json:
        processes = [
            {
                "name": r.name,
                "state": r.state,
                "role": r.role,
                "pid": r.pid,
                "port": r.port,
                "http_port": r.http_port,
                **{key: r.health[key] for key in SHOWN_HEALTH if r.health is not None and key in r.health},
            }
            for r in rows
        ]
        out = [msgspec.structs.asdict(m) for m in members]
        found = {"ok": well, "processes": processes, "chains": chains, "members": out}
        click.echo(json.dumps(found, indent=2))
    else:
        table = Table("process", "state", "pid", "port", "metrics and health")
        for r in rows:
            http = f"http://127.0.0.1:{r.http_port}/"
            state = f"{r.state}, {r.role}" if r.role else r.state
            table.add_row(r.name, state, str(r.pid or ""), str(r.port or ""), http)
        Console().print(table)
        if chains is not None:
            click.echo(
                f"chains: {chains['serving']} serving, {chains['degraded']} degraded (some members do not "
                f"serve), {chains['unavailable']} unavailable"
            )
        _show_members(members)
        for r in rows:
            _show_disks(r)
    sys.exit(0 if well else 1)


def _show_members(members: tuple[MemberStatus, ...]) -> None:
    """Those that do not simply serve, and what they wait for."""
    if not members:
        return
    table = Table("chain", "version", "node", "target", "state", "why")
    for m in members[:MEMBERS_SHOWN]:
        node = str(node_of_target(m.target))
        table.add_row(str(m.chain), str(m.version), node, f"{m.target:x}", m.state, m.why)
    Console().print(table)
    if len(members) > MEMBERS_SHOWN:
        say(f"and {len(members) - MEMBERS_SHOWN} more (--json has them)")


def _show_disks(row: ProcessStatus) -> None:
    """Of a storage node: targets that are out of use, and what its scrubs found."""
    offline, scrub = ((row.health or {}).get(key) for key in ("offline", "scrub"))
    for target, reason in offline.items() if isinstance(offline, dict) else ():
        click.echo(f"{row.name}: target {target} is offline: {reason}")
    if not isinstance(scrub, dict) or not scrub:
        return
    bad, lost = (sum(found[key] for found in scrub.values()) for key in ("bad_blocks", "unmended_chunks"))
    states = ", ".join(dict.fromkeys(found["state"] for found in scrub.values()))
    click.echo(f"{row.name}: scrub {states}; {bad} bad blocks found, {lost} chunks could not be mended")


@dev.command()
@DIRECTORY
@reported
def down(directory: Path) -> None:
    """Stop all processes; data stay. Twice does no harm."""
    cluster = Cluster(directory)
    if not cluster.exists:
        say(f"there is no cluster in {cluster.directory}: nothing to do")
        return
    if all(row.pid is None for row in cluster.status()):
        say(f"the cluster in {cluster.directory} is not running: nothing to do")
        return
    cluster.down(say)


@dev.command()
@click.argument("node")
@DIRECTORY
@reported
def kill(node: str, directory: Path) -> None:
    """SIGKILL a process, as if its machine had died (see "fs3 dev status" for names)."""
    say(f"killed {node} (pid {Cluster(directory).kill(node)}). `fs3 dev restart {node}` brings it back")


@dev.command()
@click.argument("node")
@DIRECTORY
@reported
def restart(node: str, directory: Path) -> None:
    """Stop a process if it runs, start it, wait until it is healthy."""
    Cluster(directory).restart(node, say)


@dev.command()
@click.argument("node")
@click.option("-n", "line_count", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("-f", "follow", is_flag=True, help="Go on as the log grows (Ctrl-C ends).")
@DIRECTORY
@reported
def logs(node: str, line_count: int, follow: bool, directory: Path) -> None:
    """Show the end of a process's log."""
    cluster = Cluster(directory)
    if cluster.plan().process(node) is None:
        raise ClusterError(f"there is no process {node!r}: see `fs3 dev status`")
    files = cluster.files(node)
    click.echo(log_tail(files, line_count))
    if follow:
        with files.log.open("rb") as log:
            log.seek(0, 2)
            while True:
                click.echo(log.read().decode(errors="replace"), nl=False)
                time.sleep(FOLLOW_POLL_S)
