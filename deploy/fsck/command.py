"""``fs3 fsck``: check a cluster while it works; repair what is safe to repair."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fs3.config import BadSettings, load_settings
from fs3.errors import Fs3Error
from fs3.meta.fsck.check import State
from fs3.meta.fsck.findings import WHAT_NEXT, Finding

from ..compose_meta import MetaDaemonSettings
from ..dev.process import ProcessFiles
from .compose import Mended, Wanted, check
from .state_file import StateFileError, load_state, save_state

CLEAN, FOUND, NOT_FINISHED = 0, 1, 2
DEV_DIRECTORY = Path.home() / ".local" / "share" / "fs3" / "dev"


@click.command(
    epilog="Exit codes: 0 clean, or everything found was repaired; 1 damage is left; 2 not finished."
)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings of a meta service.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEV_DIRECTORY,
    show_default="~/.local/share/fs3/dev",
    help="A cluster of `fs3 dev`, if there is no --config.",
)
@click.option("--repair", is_flag=True, help="Repair what is safe to repair. Without it nothing is changed.")
@click.option("--data", is_flag=True, help="Read every byte of every replica and compare it with its sum.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the progress in this file, and go on from it if it is there. Removed at the end.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option(
    "--patience", "patience_s", type=click.FloatRange(0, 86_400), default=30.0, show_default=True,
    help="Seconds that unfinished work may stay as it is before it is reported.",
)  # fmt: skip
def fsck(
    config: Path | None,
    directory: Path,
    repair: bool,
    data: bool,
    resume: Path | None,
    as_json: bool,
    patience_s: float,
) -> None:
    """Check names, inodes, sessions, chunks and replicas of a cluster, while it works.

    Runs where a meta service could: it reads the KV store and speaks to the nodes with the cluster key.

    \b
    Examples:
        fs3 fsck                                   # the cluster of `fs3 dev up`; changes nothing
        fs3 fsck --config /etc/fs3/meta.toml --resume /var/tmp/fsck.state
        fs3 fsck --repair --data
    """
    path = config or ProcessFiles("meta-1", directory.absolute()).settings
    try:
        settings = load_settings(MetaDaemonSettings, path)
        state = (load_state(resume) if resume is not None else None) or State()
        with _progress() as show:
            state, mended = asyncio.run(
                check(settings, Wanted(repair, data, patience_s), state, _saver(resume, show))
            )
    except (Fs3Error, BadSettings, StateFileError) as error:
        kept = f"; {resume} keeps what was done: run the same again" if resume and resume.exists() else ""
        click.echo(f"fs3: the check could not finish: {error}{kept}", err=True)
        sys.exit(NOT_FINISHED)
    if resume is not None:
        resume.unlink(missing_ok=True)
    if as_json:
        click.echo(json.dumps(_as_json(state, mended), indent=2))
    else:
        _tell(state, mended)
    sys.exit(_code(state, mended))


class _Bar:
    """A progress bar on standard error, if people look at it."""

    def __init__(self) -> None:
        columns = (
            TextColumn("checking"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[counts]}"), TimeElapsedColumn(),
        )  # fmt: skip
        console = Console(stderr=True)
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=1.0, counts="")

    def __enter__(self) -> Callable[[State], None]:
        self._progress.start()
        return self.show

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, state: State) -> None:
        """How far it is."""
        counts = f"{state.inodes:,} inodes, {state.chunks:,} chunks, {len(state.findings):,} findings"
        self._progress.update(self._task, completed=state.share, counts=counts)


def _progress() -> _Bar:
    return _Bar()


def _saver(resume: Path | None, show: Callable[[State], None]) -> Callable[[State], None]:
    def save(state: State) -> None:
        show(state)
        if resume is not None:
            save_state(resume, state)

    return save


def _code(state: State, mended: list[Mended]) -> int:
    if state.problems or any(one.problem for one in mended):
        return NOT_FINISHED
    done = {one.finding.identity: None for one in mended if one.done}
    left = [f for f in state.findings if not f.is_notice and f.identity not in done]
    return FOUND if left else CLEAN


def _as_json(state: State, mended: list[Mended]) -> dict[str, object]:
    outcome = {one.finding.identity: one for one in mended}

    def one(finding: Finding) -> dict[str, object]:
        result = outcome.get(finding.identity)
        return {
            "kind": finding.kind.value,
            "notice": finding.is_notice,
            "where": finding.where,
            "detail": finding.detail,
            "inode": finding.inode,
            "directory": finding.directory,
            "name": finding.name.decode(errors="backslashreplace"),
            "chain": finding.chain,
            "chunk_index": finding.chunk_index,
            "target": finding.target,
            "session": finding.session,
            "repaired": result.done if result is not None else "",
            "repair_problem": result.problem if result is not None else "",
            "what_next": WHAT_NEXT[finding.kind],
        }

    return {
        "inodes": state.inodes,
        "entries": state.entries,
        "chunks": state.chunks,
        "findings": [one(finding) for finding in state.findings],
        "problems": state.problems,
    }


def _tell(state: State, mended: list[Mended]) -> None:
    outcome = {one.finding.identity: one for one in mended}
    for finding in state.findings:
        result = outcome.get(finding.identity)
        click.echo(f"{finding.kind.value}: {finding.where}: {finding.detail}")
        if result is not None and result.done:
            click.echo(f"    repaired: {result.done}")
        else:
            if result is not None and result.problem:
                click.echo(f"    not repaired: {result.problem}")
            click.echo(f"    next: {WHAT_NEXT[finding.kind]}")
    for problem in state.problems:
        click.echo(f"not checked: {problem}")
    click.echo(
        f"{state.inodes:,} inodes, {state.entries:,} entries, {state.chunks:,} chunks: "
        f"{len(state.findings):,} findings, {sum(bool(one.done) for one in mended):,} repaired"
    )
