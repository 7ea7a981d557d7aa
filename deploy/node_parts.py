"""What the compositions of the member daemons (mgmtd, meta, storage) share."""

from __future__ import annotations

import socket
from pathlib import Path

from fs3.clock import Clock
from fs3.daemon import Server
from fs3.errors import InvalidRequest
from fs3.identity.key_file import KeyFileError, read_cluster_key
from fs3.identity.keys import ClusterKey
from fs3.kv.lmdb_client import LmdbKv
from fs3.kv.open import open_kv
from fs3.kv.transaction import Kv
from fs3.metrics import Metrics

from .bindings import export_link


def cluster_key(path: Path) -> ClusterKey:
    """The key in a settings file's ``cluster_key``. InvalidRequest: it cannot be used, and why."""
    try:
        return read_cluster_key(path)
    except KeyFileError as error:
        raise InvalidRequest(str(error)) from error


def host_name() -> str:
    """This machine's name, shown to people."""
    return socket.gethostname()


class WithKv:
    """A server together with the store that it was handed: closed after it."""

    def __init__(self, server: Server, kv: Kv) -> None:
        self._server = server
        self._kv = kv

    async def start(self) -> None:
        """See ``fs3.daemon.Server``."""
        await self._server.start()

    async def stop(self) -> None:
        """See ``fs3.daemon.Server``."""
        try:
            await self._server.stop()
        finally:
            await self._kv.aclose()

    def health(self) -> dict[str, object]:
        """See ``fs3.daemon.Server``."""
        return self._server.health()


def store(url: str, clock: Clock, metrics: Metrics) -> Kv:
    """The key-value store of a settings file's ``kv``; one of this process's own makes no cluster."""
    if url.startswith("mem:"):
        raise InvalidRequest('kv = "mem://" lives in one process only: use lmdb:// or fdb://')
    kv = open_kv(url, clock=clock)
    if isinstance(kv, LmdbKv):
        export_link(metrics, kv.stats)
    return kv
