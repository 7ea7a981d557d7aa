"""``fs3 cp``: into fs3, out of it, and within it; recursive, parallel, verified.

Every file is summed while it is read, and again from what was stored, read back: both sums and lengths must
be equal. Progress is shown on a terminal only.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from crc32c import crc32c

from fs3.errors import fs_error
from fs3.stubs.storage import for_each
from fs3.tasks import TaskScope

from ..address import is_url
from .places import LocalPlace, Place, RemotePlace
from .running import EPILOG, Clusters, Failed, describe, run, split_url

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES_AT_ONCE = 8
ERRORS_SHOWN_MAX = 20


@dataclass(slots=True)
class Job:
    """One file to copy."""

    source: Place
    destination: Place
    length_bytes: int
    mode: int


@click.command(epilog=EPILOG)
@click.argument("sources", nargs=-1, required=True)
@click.argument("destination")
@click.option("-r", "--recursive", is_flag=True, help="Copy directories with everything below them.")
@click.option("--verify/--no-verify", default=True, help="Read back what was stored and compare sums.")
@click.option("-j", "--jobs", default=FILES_AT_ONCE, type=click.IntRange(1, 64), help="Files at a time.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, no summary.")
def cp(
    sources: tuple[str, ...], destination: str, recursive: bool, verify: bool, jobs: int, quiet: bool
) -> None:
    """Copy files and directories: at least one side is an fs3:// path.

    Into a directory that exists (or is written with a slash at its end) under their own names, else to the
    name given.

    \b
    Examples:
        fs3 cp model.bin fs3://dev/models/
        fs3 cp -r dataset fs3://dev/data
        fs3 cp -r fs3://dev/data/part-0 .
        fs3 cp fs3://dev/a fs3://dev/b
    """
    if not is_url(destination) and not all(is_url(source) for source in sources):
        raise click.UsageError("neither side is an fs3:// path: use cp for local files")

    async def work(clusters: Clusters) -> None:
        places = [await _place(clusters, source) for source in sources]
        target = await _place(clusters, destination)
        plan = await _plan(places, target, recursive, into=destination.endswith("/") or len(sources) > 1)
        await _copy_all(plan, jobs, verify, quiet)

    run("cannot copy", work)


async def _place(clusters: Clusters, text: str) -> Place:
    if not is_url(text):
        return LocalPlace(text)
    filesystem, path = await clusters.at(text)
    return RemotePlace(filesystem, split_url(text)[0], path)


async def _plan(sources: list[Place], target: Place, recursive: bool, *, into: bool) -> list[Job]:
    """Make the directories that are needed; the files to copy."""
    there = await target.look()
    if into and there is None:
        await target.make_directory()
    into = into or (there is not None and there.is_directory)
    jobs: list[Job] = []
    for source in sources:
        found = await source.look()
        if found is None:
            raise fs_error(errno.ENOENT, "", source.shown)
        to = target.below(source.name) if into else target
        if not found.is_directory:
            jobs.append(Job(source, to, found.length_bytes, found.mode))
            continue
        if not recursive:
            raise fs_error(errno.EISDIR, "", source.shown)
        await to.make_directory()
        async for entry in source.tree():
            here, there_to = source.below(entry.relative), to.below(entry.relative)
            if entry.is_directory:
                await there_to.make_directory()
            else:
                jobs.append(Job(here, there_to, entry.length_bytes, entry.mode))
    return jobs


async def _copy_all(jobs: list[Job], at_once: int, verify: bool, quiet: bool) -> None:
    errors: list[str] = []
    scope = TaskScope("cp", lambda name, error: errors.append(f"{name}: {error!r}"))
    total_bytes = sum(job.length_bytes for job in jobs)
    with _progress(total_bytes * (2 if verify else 1), quiet) as advance:

        async def one(job: Job) -> None:
            try:
                await copy_file(job, verify, advance)
            except OSError as error:
                errors.append(describe(f"cannot copy {job.source.shown}", error))

        async with scope:
            await for_each(scope, "cp", one, jobs, at_once=at_once)
    if errors:
        for text in errors[:ERRORS_SHOWN_MAX]:
            click.echo(f"fs3: {text}", err=True)
        raise Failed(f"{len(errors)} of {len(jobs)} files were not copied")
    if not quiet and sys.stderr.isatty():
        how = "copied and verified" if verify else "copied"
        click.echo(f"{how} {len(jobs)} files, {total_bytes} bytes", err=True)


async def copy_file(job: Job, verify: bool, advance: Callable[[int], None]) -> None:
    """Copy one file. OSError; EIO when what is read back is not what was written."""
    storing = job.destination.storing(job.mode)
    value, length_bytes = 0, 0
    try:
        async for block in job.source.blocks():
            await storing.write(block)
            value, length_bytes = crc32c(block, value), length_bytes + len(block)
            advance(len(block))
        await storing.commit()
    except BaseException:
        await storing.discard()
        raise
    if not verify:
        return
    stored, stored_bytes = 0, 0
    async for block in job.destination.blocks():
        stored, stored_bytes = crc32c(block, stored), stored_bytes + len(block)
        advance(len(block))
    if (stored, stored_bytes) != (value, length_bytes):
        raise fs_error(
            errno.EIO,
            f"read back {stored_bytes} bytes with sum {stored:08x}, wrote {length_bytes} with {value:08x}",
            job.destination.shown,
        )


@contextmanager
def _progress(total_bytes: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal."""
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("copy", total=total_bytes)
        yield lambda count: bars.advance(task, count)
