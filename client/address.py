"""Which cluster and which path a text names. PURE.

==============================  =======================================================================
``fs3://host:port,host/path``   the mgmtds at these addresses (default port ``DEFAULT_PORT``)
``fs3://NAME/path``             the cluster NAME of the user's configuration (a name has no dot or colon)
``NAME``                        the same
``some/client.toml``            the cluster that this file describes
==============================  =======================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

SCHEME = "fs3://"
DEFAULT_PORT = 7300


class BadAddress(ValueError):
    """The text names no cluster; the message says what would."""


@dataclass(frozen=True, slots=True)
class Address:
    """One of ``seeds``, ``name`` and ``file`` says which cluster; none: the default one."""

    seeds: tuple[str, ...] = ()
    name: str = ""
    file: str = ""
    path: str = "/"
    """Within the file system."""


def is_url(text: str) -> bool:
    """Whether the text is an ``fs3://`` URL."""
    return text.startswith(SCHEME)


def parse_address(text: str) -> Address:
    """BadAddress."""
    if not text:
        return Address()
    if not is_url(text):
        if text.endswith(".toml") or "/" in text:
            return Address(file=text)
        return Address(name=_name(text))
    cluster, slash, path = text.removeprefix(SCHEME).partition("/")
    path = slash + unquote(path, errors="surrogateescape") if slash else "/"
    if not cluster:
        return Address(path=path)
    parts = cluster.split(",")
    if len(parts) == 1 and not set(cluster) & set(".:[") and cluster != "localhost":
        return Address(name=_name(cluster), path=path)
    return Address(seeds=tuple(_seed(part, text) for part in parts), path=path)


def _name(text: str) -> str:
    if not text.replace("-", "").replace("_", "").isalnum():
        raise BadAddress(f"{text!r} is no name of a cluster: letters, digits, - and _ only")
    return text


def _seed(part: str, text: str) -> str:
    host, colon, port = part.rpartition(":")
    if not colon or part.endswith("]"):
        host, port = part, str(DEFAULT_PORT)
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise BadAddress(f"{part!r} in {text!r} is no host:port")
    return f"{host}:{port}"
