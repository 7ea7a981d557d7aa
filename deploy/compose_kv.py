"""What ``fs3 kv`` is made of: the owner of the embedded store."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fs3.config import Between
from fs3.daemon import Components, DaemonSettings, Server, run_daemon
from fs3.kv.conflicts import WINDOW_S
from fs3.kv.owner import Owner, OwnerSettings

from .bindings import export_owner


@dataclass(frozen=True, slots=True)
class KvDaemonSettings:
    """The settings file of ``fs3 kv``."""

    directory: Path
    """Of the store; made, mode 0700, if it is missing."""
    conflict_window_s: Annotated[float, Between(1, 60)] = WINDOW_S
    """How long conflicts are remembered, and so how old a read version may be."""
    daemon: DaemonSettings = field(default_factory=DaemonSettings)


def compose(settings: KvDaemonSettings, components: Components) -> Server:
    """The owner, with its counters exported."""
    owner = Owner(
        OwnerSettings(settings.directory, settings.conflict_window_s),
        clock=components.clock,
        rng=components.rng,
        on_failure=components.fail,
    )
    export_owner(components.metrics, owner)
    return owner


def run(settings_path: Path) -> int:
    """Run the daemon; returns its exit code."""
    return run_daemon("kv", KvDaemonSettings, settings_path, compose)
