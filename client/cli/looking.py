"""``fs3 ls``, ``fs3 stat`` and ``fs3 cat``."""

from __future__ import annotations

import datetime
import stat
import sys

import click

from fs3.wire.meta import Attributes

from ..filesystem import DirEntry
from ..stat import stat_of
from .running import EPILOG, URL, Clusters, run

CAT_STEP_BYTES = 4 << 20


@click.command(epilog=EPILOG)
@click.argument("urls", metavar="fs3://…", nargs=-1, required=True, type=URL)
@click.option("-l", "--long", "is_long", is_flag=True, help="Mode, owner, size and time as well.")
@click.option("-R", "--recursive", is_flag=True, help="Everything below, too.")
@click.option("-h", "--human", is_flag=True, help="Sizes in KiB, MiB, … (with -l).")
def ls(urls: tuple[str, ...], is_long: bool, recursive: bool, human: bool) -> None:
    """List directories, or show files.

    \b
    Examples:
        fs3 ls fs3://dev/
        fs3 ls -lh fs3://dev/data
        fs3 ls -R fs3://node1:7300/models
    """

    async def work(clusters: Clusters) -> None:
        for url in urls:
            filesystem, path = await clusters.at(url)
            found = await filesystem.attributes(path)
            if not stat.S_ISDIR(stat_of(found).st_mode):
                click.echo(_line(path, found, is_long, human))
                continue
            if recursive:
                async for directory, inner, others in filesystem.walk(path):
                    for entry in sorted([*inner, *others], key=lambda entry: entry.name):
                        shown = f"{directory.rstrip('/')}/{entry.name}"
                        click.echo(_line(_marked(shown, entry), entry.attributes, is_long, human))
                continue
            async for entry in filesystem.scandir(path):
                click.echo(_line(_marked(entry.name, entry), entry.attributes, is_long, human))

    run("cannot list", work)


def _marked(text: str, entry: DirEntry) -> str:
    return text + "/" if entry.is_dir() else text


def _line(name: str, found: Attributes, is_long: bool, human: bool) -> str:
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if not is_long:
        return shown
    status = stat_of(found)
    size = size_text(status.st_size) if human else str(status.st_size)
    when = time_text(found.mtime_ns)[:16]
    return f"{stat.filemode(status.st_mode)} {found.uid:>5} {found.gid:>5} {size:>12} {when} {shown}"


def size_text(size_bytes: int) -> str:
    """A size for people."""
    value, units = float(size_bytes), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{size_bytes} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def time_text(time_ns: int) -> str:
    """A time for people, local, with its offset."""
    when = datetime.datetime.fromtimestamp(time_ns // 1_000_000_000, datetime.UTC).astimezone()
    return when.isoformat(sep=" ")


@click.command("stat", epilog=EPILOG)
@click.argument("urls", metavar="fs3://…", nargs=-1, required=True, type=URL)
def stat_command(urls: tuple[str, ...]) -> None:
    """Show what the metadata service knows of files and directories.

    \b
    Example:
        fs3 stat fs3://dev/data/shard-0
    """

    async def work(clusters: Clusters) -> None:
        for url in urls:
            filesystem, path = await clusters.at(url)
            found = await filesystem.attributes(path, follow_symlinks=False)
            for name, value in _facts(url, found):
                click.echo(f"{name:>12}: {value}")

    run("cannot look at", work)


def _facts(url: str, found: Attributes) -> list[tuple[str, str]]:
    status = stat_of(found)
    facts = [
        ("path", url),
        ("kind", found.kind.name.lower()),
        ("size", f"{found.length_bytes} ({size_text(found.length_bytes)})"),
        ("mode", f"{stat.filemode(status.st_mode)} ({found.mode:04o})"),
        ("owner", f"uid {found.uid}, gid {found.gid}"),
        ("links", str(found.nlink)),
        ("inode", f"{found.inode:x}"),
        ("modified", time_text(found.mtime_ns)),
        ("changed", time_text(found.ctime_ns)),
    ]
    if stat.S_ISREG(status.st_mode):
        facts.append(("content", "beside the inode" if found.storage.name == "INLINE" else "in chunks"))
    if found.layout is not None:
        layout = found.layout
        stripe = str(layout.stripe) if layout.stripe else "all"
        size = size_text(layout.chunk_size_bytes)
        facts.append(
            (
                "layout",
                f"chunks of {size} over {stripe} chains of table {layout.table}",
            )
        )
    return facts


@click.command(epilog=EPILOG)
@click.argument("urls", metavar="fs3://…", nargs=-1, required=True, type=URL)
def cat(urls: tuple[str, ...]) -> None:
    """Write files to standard output; every byte's checksum has been verified.

    \b
    Example:
        fs3 cat fs3://dev/data/part-0 fs3://dev/data/part-1 > whole
    """

    async def work(clusters: Clusters) -> None:
        for url in urls:
            filesystem, path = await clusters.at(url)
            async with await filesystem.open(path) as file:
                while data := await file.read(CAT_STEP_BYTES):
                    sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    run("cannot read", work)
