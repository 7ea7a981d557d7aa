"""Engine ``lmdb://DIR``: reads in this process from LMDB's pages, commits through the owner's socket.

A snapshot is one LMDB read transaction; its version is read inside of it. It is given back before the
commit is sent, and at the latest when it has become too old: pages that an open snapshot sees cannot be
used again, so an idle one makes the file grow, nothing worse.

All attempts of the process share one connection. What is committed in one pass of the event loop goes out
in one write. The connection is made when it is needed and again after it was lost:

===============================================  =================================
the owner is away, or says Hello to nobody       Unavailable, nothing was sent
the connection is lost with a commit under way   MaybeApplied
no answer within ``commit_timeout_s``            MaybeApplied; the owner may yet do it, but before anything
                                                 that this client sends later
===============================================  =================================

Reads go on without the owner. Not usable in a forked child: open another one there.

Source: design 1 (Embedded LMDB).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

import lmdb

from ..clock import Clock
from ..errors import Unavailable
from .attempt import Attempt
from .mutations import CommitRequest, check_key
from .owner_link import LinkSettings, LinkStats, OwnerLink
from .store import LMDB_LIMITS, LmdbSnapshot, close_environment, open_environment, read_format
from .transaction import KvLimits, Transaction

SWEEP_S = 0.5
"""How often snapshots are looked over for their age while there are any."""


@dataclass(frozen=True, slots=True)
class LmdbSettings:
    """Settings of a client."""

    directory: Path
    connect_timeout_s: float = 1.0
    """How long a commit waits for the owner's Welcome."""
    commit_timeout_s: float = 5.0
    """How long a commit waits for its answer."""


class LmdbKv:
    """``Kv`` (see there). Belongs to the event loop that is running when it first commits or watches."""

    def __init__(self, settings: LmdbSettings, *, clock: Clock, limits: KvLimits = LMDB_LIMITS) -> None:
        self._directory = settings.directory
        self.clock = clock
        self.limits = limits
        link = LinkSettings(settings.directory, settings.connect_timeout_s, settings.commit_timeout_s)
        self._link = OwnerLink(link, self._check_store)
        self._env: lmdb.Environment | None = None
        self._store_id = b""
        self._snapshots: dict[LmdbSnapshot, None] = {}  # oldest first
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._pid = os.getpid()

    @property
    def stats(self) -> LinkStats:
        """Counters of the connection."""
        return self._link.stats

    def transaction(self) -> Transaction:
        return Attempt(self)

    def open_snapshot(self) -> LmdbSnapshot:
        """For attempts. Unavailable when there is no store."""
        self._check_usable()
        env = self._env or self._open()
        snapshot = LmdbSnapshot(env, self.clock.boot_s(), self._forget)
        self._snapshots[snapshot] = None
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        return snapshot

    def _forget(self, snapshot: LmdbSnapshot) -> None:
        del self._snapshots[snapshot]

    def _sweep(self) -> None:
        self._sweeper = None
        oldest_s = self.clock.boot_s() - self.limits.transaction_s
        for snapshot in list(self._snapshots):
            if snapshot.opened_s >= oldest_s:
                break
            snapshot.close()
        if self._snapshots:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    async def commit(self, request: CommitRequest, size_bytes: int) -> bytes:
        """For attempts."""
        self._check_usable()
        return await self._link.commit(request, size_bytes)

    async def watch(self, key: bytes, seen: bytes | None) -> Awaitable[None]:
        self._check_usable()
        check_key(self.limits, key)
        return await self._link.watch(key, seen)

    async def aclose(self) -> None:
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._link.close(Unavailable("the store was closed"))
        self._close_environment()

    def _check_usable(self) -> None:
        assert os.getpid() == self._pid, f"store opened in process {self._pid}, used in {os.getpid()}"
        if self._closed:
            raise Unavailable("the store was closed")

    def _open(self) -> lmdb.Environment:
        env = open_environment(self._directory, writable=False)
        try:
            with env.begin() as txn:
                found = read_format(txn)
            if found is None:
                raise Unavailable(f"the store in {self._directory} has not been initialised yet")
        except BaseException:
            close_environment(env)
            raise
        self._env, self._store_id = env, found.store_id
        return env

    def _check_store(self, store_id: bytes) -> None:
        """The owner has another store than the one that is open here (made anew under us): open that one."""
        if self._env is not None and store_id != self._store_id:
            self._close_environment()

    def _close_environment(self) -> None:
        for snapshot in list(self._snapshots):
            snapshot.close()
        if self._env is not None:
            close_environment(self._env)
            self._env = None
