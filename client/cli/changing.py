"""``fs3 mkdir`` and ``fs3 rm``."""

from __future__ import annotations

import errno

import click

from fs3.errors import fs_error

from .running import EPILOG, URL, Clusters, run


@click.command(epilog=EPILOG)
@click.argument("urls", metavar="fs3://…", nargs=-1, required=True, type=URL)
@click.option("-p", "--parents", is_flag=True, help="Those above as well; no error if it exists.")
def mkdir(urls: tuple[str, ...], parents: bool) -> None:
    """Make directories.

    \b
    Examples:
        fs3 mkdir fs3://dev/data
        fs3 mkdir -p fs3://dev/runs/2024/a
    """

    async def work(clusters: Clusters) -> None:
        for url in urls:
            filesystem, path = await clusters.at(url)
            if parents:
                await filesystem.makedirs(path, exist_ok=True)
            else:
                await filesystem.mkdir(path)

    run("cannot make", work)


@click.command(epilog=EPILOG)
@click.argument("urls", metavar="fs3://…", nargs=-1, required=True, type=URL)
@click.option("-r", "--recursive", is_flag=True, help="Directories with everything below them.")
@click.option("-f", "--force", is_flag=True, help="No error if it does not exist.")
def rm(urls: tuple[str, ...], recursive: bool, force: bool) -> None:
    """Remove files, or with -r whole trees (one request each; space is freed in the background).

    \b
    Examples:
        fs3 rm fs3://dev/data/old
        fs3 rm -r fs3://dev/runs/2023
    """

    async def work(clusters: Clusters) -> None:
        for url in urls:
            filesystem, path = await clusters.at(url)
            if not path.strip("/"):
                raise fs_error(errno.EBUSY, "this is the root of the file system: name what is below it", url)
            if recursive:
                await filesystem.rmtree(path, missing_ok=force)
            else:
                await filesystem.remove(path, missing_ok=force)

    run("cannot remove", work)
