"""Where a client finds a cluster's seeds and its token.

A named cluster is a file ``NAME.toml`` in ``$FS3_CONFIG_DIR`` (else ``~/.config/fs3``)::

    cluster_id = "…"
    seeds = ["host:port", …]    # RPC addresses of some mgmtds
    token = "fs3u1.…"           # or token_file = "…"

The cluster: what was asked for; else ``$FS3_CLUSTER`` (a name, URL or file); else ``dev``.
The token: the argument; else ``$FS3_TOKEN``; else the file named by ``$FS3_TOKEN_FILE``; else the cluster's
file. For a URL with seeds, the configured cluster that has one of them gives its token.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fs3.config import BadSettings, load_settings
from fs3.errors import Unauthenticated
from fs3.identity.token import UserToken, parse_token

from .address import Address, parse_address

DEFAULT_NAME = "dev"


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """The settings of one cluster, as its file gives them."""

    seeds: tuple[str, ...]
    cluster_id: str = ""
    token: str = ""
    token_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """A cluster to connect to, and who connects."""

    seeds: tuple[str, ...]
    token: UserToken
    source: str
    """Where it was found, for errors."""


class NoCluster(OSError):
    """No cluster is known by this name, or its file or token cannot be used. The message says what to do."""


def configuration_directory(environment: Mapping[str, str]) -> Path:
    """Where the files of named clusters are."""
    named = environment.get("FS3_CONFIG_DIR")
    return Path(named) if named else Path.home() / ".config" / "fs3"


def find_profile(where: str | None, token: str | None, environment: Mapping[str, str]) -> Profile:
    """The cluster and token for ``connect(where, token=token)``; NoCluster, BadAddress (ValueError)."""
    address = parse_address(where or "")
    if address == Address(path=address.path):
        address = parse_address(environment.get("FS3_CLUSTER", "") or DEFAULT_NAME)
    if address.seeds:
        file, source = _with_seed(address.seeds, configuration_directory(environment)), "the URL"
    else:
        path = (
            Path(address.file)
            if address.file
            else configuration_directory(environment) / f"{address.name or DEFAULT_NAME}.toml"
        )
        file, source = _read(path, address.name), str(path)
    seeds = address.seeds or (file.seeds if file is not None else ())
    if not seeds:
        raise NoCluster(errno.EINVAL, "the cluster's file names no seeds", source)
    return Profile(seeds, _token(token, file, environment, source), source)


def _read(path: Path, name: str) -> ClusterFile:
    try:
        return load_settings(ClusterFile, path)
    except BadSettings as error:
        if path.exists():
            raise NoCluster(errno.EINVAL, str(error)) from error
        hint = (
            "start one with: fs3 dev up"
            if name == DEFAULT_NAME
            else "name one by fs3://host:port/, or write that file (seeds, token)"
        )
        shown = f"no cluster {name!r}: {path} does not exist" if name else f"{path} does not exist"
        raise NoCluster(errno.ENOENT, f"{shown}; {hint}") from error


def _with_seed(seeds: tuple[str, ...], directory: Path) -> ClusterFile | None:
    """The configured cluster that has one of these seeds."""
    for path in sorted(directory.glob("*.toml")) if directory.is_dir() else ():
        try:
            file = load_settings(ClusterFile, path)
        except BadSettings:
            continue  # some other cluster's broken file is no reason to fail here
        if any(seed in file.seeds for seed in seeds):
            return file
    return None


def _token(
    given: str | None, file: ClusterFile | None, environment: Mapping[str, str], source: str
) -> UserToken:
    text = given or environment.get("FS3_TOKEN") or ""
    token_file = environment.get("FS3_TOKEN_FILE")
    if not text and token_file:
        text, source = _text_of(Path(token_file)), token_file
    if not text and file is not None:
        text = file.token or (_text_of(file.token_file) if file.token_file is not None else "")
    if not text:
        raise NoCluster(
            errno.EACCES,
            f"no token for {source}: give token=…, set FS3_TOKEN or FS3_TOKEN_FILE, "
            "or put it into the cluster's file",
        )
    try:
        return parse_token(text)
    except Unauthenticated as error:
        raise NoCluster(errno.EACCES, str(error), source) from error


def _text_of(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise NoCluster(error.errno or errno.EIO, f"token file: {error.strerror}", str(path)) from error
