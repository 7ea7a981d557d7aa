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
