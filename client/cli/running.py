"""How every command runs: a connection, an event loop, and errors that help."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import NoReturn

import click

from ..address import SCHEME, BadAddress, is_url, parse_address
from ..connecting import connect_async
from ..filesystem import AsyncFileSystem
from ..profile import NoCluster
from ..settings import BOUNDED

EPILOG = "Exit codes: 0 done, 1 failed, 2 wrong usage."

_NEXT = {
    errno.ENOENT: "look at what there is: fs3 ls, on a directory above",
    errno.ENOTDIR: "look at what there is: fs3 ls, on a directory above",
    errno.EEXIST: "choose another name, or remove what is there first",
    errno.EISDIR: "it is a directory: add -r",
    errno.ENOTEMPTY: "it is not empty: add -r",
    errno.EACCES: "ask the owner, or use another token (FS3_TOKEN, FS3_TOKEN_FILE)",
    errno.EPERM: "ask the owner, or use another token (FS3_TOKEN, FS3_TOKEN_FILE)",
    errno.ETIMEDOUT: 'see whether the cluster is up ("fs3 dev status" for one on this machine), then repeat',
    errno.ENOSPC: "free or add space, then repeat",
    errno.EIO: "repeat; if it stays, some chunk is damaged on all of its replicas",
}


class Failed(click.ClickException):
    """A command failed; exit code 1."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        """Print it to standard error."""
        click.echo(f"fs3: {self.format_message()}", err=True)


class Url(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """An ``fs3://`` path."""

    name = "fs3://…"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check that it is one."""
        text = str(value)
        if not is_url(text):
            self.fail(f"{text!r} is no fs3:// path; for example: fs3://dev/data", param, ctx)
        try:
            parse_address(text)
        except BadAddress as error:
            self.fail(str(error), param, ctx)
        return text


URL = Url()


def split_url(url: str) -> tuple[str, str]:
    """(cluster part of the URL, path within the file system)."""
    cluster, _, _ = url.removeprefix(SCHEME).partition("/")
    return f"{SCHEME}{cluster}/", parse_address(url).path


def join_url(cluster: str, path: str) -> str:
    """The URL of a path; what a URL cannot hold as it is, is escaped."""
    return cluster + path.lstrip("/").replace("%", "%25")


class Clusters:
    """Connections of one command, one for each cluster that its arguments name."""

    def __init__(self) -> None:
        self._open: dict[str, AsyncFileSystem] = {}

    async def at(self, url: str) -> tuple[AsyncFileSystem, str]:
        """The file system of a URL, and the path in it."""
        cluster, path = split_url(url)
        found = self._open.get(cluster)
        if found is None:
            found = self._open[cluster] = await connect_async(cluster, settings=BOUNDED)
        return found, path

    async def close(self) -> None:
        """Close all."""
        for filesystem in self._open.values():
            await filesystem.close()


def run(what: str, work: Callable[[Clusters], Awaitable[None]]) -> None:
    """Run a command's coroutine; ``what`` begins its error ("cannot list")."""

    async def whole() -> None:
        clusters = Clusters()
        try:
            await work(clusters)
        finally:
            await clusters.close()

    try:
        asyncio.run(whole())
    except OSError as error:
        fail(what, error)
    except KeyboardInterrupt:
        raise Failed("interrupted; what was not finished is missing") from None


def fail(what: str, error: OSError) -> NoReturn:
    """Raise the error for people: what, why, what next."""
    raise Failed(describe(what, error)) from error


def describe(what: str, error: OSError) -> str:
    """One line or two."""
    why = error.strerror or str(error)
    if isinstance(error, NoCluster):
        return f"{what}: {why}"  # says itself what to do
    where = f" {error.filename}" if error.filename else ""
    hint = _NEXT.get(error.errno or 0, "")
    return f"{what}{where}: {why}" + (f"\n     next: {hint}" if hint else "")
