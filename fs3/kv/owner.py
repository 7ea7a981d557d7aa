"""The owner of the embedded store's writes: the server behind ``lmdb://DIR`` (process ``fs3 kv``).

One loop: whatever commits have arrived on all connections become one batch; the resolver judges it; one
LMDB write transaction with default sync stores it; then all are answered. While the disk syncs, the next
batch gathers in the sockets. What one round of the loop can read bounds what is held here.

If a batch cannot be stored: a full store or disk refuses it (Unavailable, nothing was applied, the owner
goes on); anything else is not understood, so the clients are told "unknown" and the owner fails.

Source: design 1 (Embedded LMDB).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never, cast

import lmdb
import msgspec

from ..clock import Clock
from ..errors import InvalidRequest, Unavailable
from ..rng import Rng
from .conflicts import WINDOW_S
from .messages import (
    PROTOCOL,
    Answer,
    Commit,
    FrameReader,
    Hello,
    ToClient,
    ToOwner,
    Unwatch,
    Watch,
    WatchFired,
    WatchRefused,
    WatchSet,
    Welcome,
    decode_to_owner,
    frame,
)
from .mutations import CommitRequest
from .resolver import BATCH_COMMITS_MAX, Decision, Resolution, Resolver, Verdict
from .store import LMDB_LIMITS, LOCK_NAME, SOCKET_NAME, StoreWriter, socket_address
from .watches import WatchTable

CONNECTIONS_MAX = 512
WATCHES_MAX = 20_000
"""Over all connections."""
BATCH_BYTES_MAX = 16 * 1024 * 1024
"""Commits of one LMDB transaction: what is more goes into the next one."""
GATHER_FROM_S = 0.004
"""When a batch takes this long, the next one is worth waiting for …"""
GATHER_SHARE = 0.4
"""… for up to this share of the time that the last one took,"""
GATHER_GOAL = 0.9
"""until this share of those that were under way has come back. Otherwise clients split into two halves that
take turns, and each sync serves one half."""
ANSWERS_HELD_MAX_BYTES = 1024 * 1024
"""Answers that a client does not take; beyond this nothing more is read from it."""
HOUSEKEEPING_S = 1.0
BACKLOG = 128
_PEER = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class OwnerSettings:
    """Settings of the owner."""

    directory: Path
    window_s: float = WINDOW_S
    """How long conflicts are remembered, and so how old a read version may be."""


@dataclass(slots=True)
class OwnerStats:
    """Plain counters; the daemon makes metrics of them."""

    commits: int = 0
    conflicts: int = 0
    too_old: int = 0
    invalid: int = 0
    batches: int = 0
    """Batches that were stored, each with one sync."""
    batch_s: float = 0.0
    """Seconds spent in batches, sync included."""
    batch_max_s: float = 0.0
    refused_batches: int = 0
    watches_fired: int = 0
    readers_reclaimed: int = 0
    connections_refused: int = 0
    bad_frames: int = 0


class Owner:
    """The server. ``start`` and ``stop`` once each; ``stop`` works after a start that failed."""

    def __init__(
        self,
        settings: OwnerSettings,
        *,
        clock: Clock,
        rng: Rng,
        on_failure: Callable[[str, BaseException], None],
        stats: OwnerStats | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._on_failure = on_failure
        self.stats = stats or OwnerStats()
        self._lock_fd = -1
        self._directory_fd = -1
        self._server: asyncio.AbstractServer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._connections: dict[int, _Connection] = {}
        self._connections_made = 0
        self._waiting: list[tuple[_Connection, Commit, int]] = []  # with its share of its frame, bytes
        self._round: asyncio.Handle | None = None
        self._last_batch_s = 0.0
        self._last_batch_commits = 0
        self._gather_goal = 0
        self._failed = False
        self._watches = WatchTable(WATCHES_MAX)
        self._store: StoreWriter
        self._resolver: Resolver

    async def start(self) -> None:
        """Open the store and listen. Unavailable: another owner runs, or the directory cannot be used."""
        directory = self._settings.directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            self._take_lock()
            self._store = StoreWriter(directory, lambda: self._rng.randbytes(16))
            self._new_resolver()
            listener = self._listen()
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: _Connection(self), sock=listener, backlog=BACKLOG
            )
        except OSError as error:
            raise Unavailable(f"cannot own the store in {directory}: {error}") from error
        self._housekeeping()

    def _take_lock(self) -> None:
        self._lock_fd = os.open(
            LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._directory_fd
        )
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._lock_fd, 32, 0).decode(errors="replace").strip()
            raise Unavailable(
                f"the store in {self._settings.directory} has an owner already: process {holder}"
            ) from error
        os.truncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, b"%d\n" % os.getpid(), 0)

    def _listen(self) -> socket.socket:
        """The listening socket; a left-over of a dead owner is replaced (we hold the lock)."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET_NAME, dir_fd=self._directory_fd)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(socket_address(self._directory_fd))
            os.chmod(SOCKET_NAME, 0o600, dir_fd=self._directory_fd)
        except OSError:
            listener.close()
            raise
        return listener

    async def stop(self) -> None:
        """Commit and answer what has arrived, close everything."""
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
            if self._round is not None:
                self._round.cancel()
            self._commit_waiting()
            for connection in list(self._connections.values()):
                connection.close()
            await asyncio.sleep(0)  # lets the transports close
            with contextlib.suppress(FileNotFoundError):
                os.unlink(SOCKET_NAME, dir_fd=self._directory_fd)
            self._server = None
        if hasattr(self, "_store"):
            self._store.close()
            del self._store
        for descriptor in (self._lock_fd, self._directory_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock_fd = self._directory_fd = -1

    def health(self) -> dict[str, object]:
        """State for ``/healthz``."""
        ready = self._server is not None and not self._failed
        return {
            "ok": ready,
            "version": self._resolver.version if ready else 0,
            "connections": len(self._connections),
            "watches": len(self._watches),
        }

    def _new_resolver(self) -> None:
        self._resolver = Resolver(LMDB_LIMITS, self._store.version(), self._settings.window_s)

    def _housekeeping(self) -> None:
        self._resolver.expire(self._clock.boot_s())
        self.stats.readers_reclaimed += self._store.reclaim_readers()
        self._timer = asyncio.get_running_loop().call_later(HOUSEKEEPING_S, self._housekeeping)

    # ---- connections

    def admit(self, connection: _Connection, peer: socket.socket) -> int:
        """Number for a new connection; Unavailable when it may not be here."""
        _, uid, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid != os.geteuid():
            raise Unavailable(f"user {uid} does not own this store")
        if len(self._connections) >= CONNECTIONS_MAX:
            raise Unavailable(f"{CONNECTIONS_MAX} connections already")
        self._connections_made += 1
        self._connections[self._connections_made] = connection
        return self._connections_made

    def forget(self, number: int) -> None:
        """A connection is gone; commits of it that have arrived are still made."""
        if self._connections.pop(number, None) is not None:
            self._watches.drop_connection(number)

    def welcome(self) -> Welcome:
        """For a new client."""
        return Welcome(PROTOCOL, self._store.store_id, self._resolver.version)

    def watch(self, connection: int, request: Watch) -> ToClient:
        """Take a watch; fires at once if the value is another already."""
        if not request.key or self._store.get(request.key) != request.seen:
            return WatchFired(request.id)
        if not self._watches.add((connection, request.id), request.key, request.seen):
            return WatchRefused(request.id, f"the owner keeps {WATCHES_MAX} watches")
        return WatchSet(request.id)

    def unwatch(self, connection: int, request: Unwatch) -> None:
        """Drop a watch."""
        self._watches.drop((connection, request.id))

    def submit(self, connection: _Connection, commit: Commit, size_bytes: int) -> None:
        """Take a commit into the round that is being gathered; ``size_bytes``: about what came for it."""
        if self._failed:
            connection.tell(Answer(commit.id, Verdict.UNAVAILABLE, b"", "the store has failed"))
            return
        self._waiting.append((connection, commit, size_bytes))
        if self._round is None:
            # After this pass of the loop every socket that was readable has been read.
            self._round = asyncio.get_running_loop().call_soon(self._consider_round)
        elif self._gather_goal and len(self._waiting) >= self._gather_goal:
            self._round.cancel()
            self._commit_waiting()

    # ---- commits

    def _consider_round(self) -> None:
        """Commit what waits, or wait a little for the clients of the last batch to come back."""
        patience_s = self._last_batch_s * GATHER_SHARE if self._last_batch_s >= GATHER_FROM_S else 0.0
        goal = int((len(self._waiting) + self._last_batch_commits) * GATHER_GOAL)
        if not patience_s or len(self._waiting) >= goal:
            self._commit_waiting()
            return
        self._gather_goal = goal
        self._round = asyncio.get_running_loop().call_later(patience_s, self._commit_waiting)

    def _commit_waiting(self) -> None:
        self._round = None
        self._gather_goal = 0
        while self._waiting and not self._failed:
            count = batch_bytes = 0
            for _, _, size_bytes in self._waiting[:BATCH_COMMITS_MAX]:
                batch_bytes += size_bytes
                if count and batch_bytes > BATCH_BYTES_MAX:
                    break
                count += 1
            batch, self._waiting = self._waiting[:count], self._waiting[count:]
            self._commit(batch)
        unserved, self._waiting = self._waiting, []
        for connection, commit, size_bytes in unserved:  # the store has failed meanwhile
            self.submit(connection, commit, size_bytes)
            connection.flush()

    def _commit(self, batch: list[tuple[_Connection, Commit, int]]) -> None:
        start_s = self._clock.boot_s()
        decisions, stored = self._decide([commit.request for _, commit, _ in batch], start_s)
        touched: dict[_Connection, None] = {}  # in order of their first answer
        for (connection, commit, _), decision in zip(batch, decisions, strict=True):
            connection.tell(Answer(commit.id, decision.verdict, decision.stamp, decision.message))
            touched[connection] = None
        if stored is not None:
            for number, watch in self._watches.fired_by(stored, self._store.get):
                self.stats.watches_fired += 1
                watcher = self._connections[number]
                watcher.tell(WatchFired(watch))
                touched[watcher] = None
        for connection in touched:
            connection.flush()
        self._last_batch_s = self._clock.boot_s() - start_s
        self._last_batch_commits = len(batch)
        self._count(decisions, self._last_batch_s, stored is not None)

    def _decide(
        self, requests: list[CommitRequest], now_s: float
    ) -> tuple[list[Decision], Resolution | None]:
        """Verdicts, and the resolution if the store was changed. Durable on return."""
        try:
            txn = self._store.begin()
        except lmdb.Error as error:
            return self._fail(requests, error), None
        try:
            resolution = self._resolver.resolve(requests, now_s, self._store.reader(txn))
            if not resolution.committed_count:
                txn.abort()
                return resolution.decisions, None
            self._store.reserve(resolution)
            self._store.write(txn, resolution)
        except (lmdb.Error, OSError) as error:  # nothing was applied yet
            txn.abort()
            return self._refuse(requests, error), None
        try:
            txn.commit()
        except lmdb.Error as error:
            return self._fail(requests, error), None
        return resolution.decisions, resolution

    def _refuse(self, requests: list[CommitRequest], error: Exception) -> list[Decision]:
        """The store is full or the disk is: nothing of the batch was applied."""
        self.stats.refused_batches += 1
        self._new_resolver()  # the old one knows of writes that never happened
        refused = Decision(Verdict.UNAVAILABLE, message=f"the store refuses to write: {error}")
        return [refused] * len(requests)

    def _fail(self, requests: list[CommitRequest], error: lmdb.Error) -> list[Decision]:
        """It is not known what the store holds now. The owner ends; the next one sees what is there."""
        self._failed = True
        self._on_failure("kv/owner", error)
        unknown = Decision(Verdict.UNKNOWN, message=f"the store failed: {error}")
        return [unknown] * len(requests)

    def _count(self, decisions: list[Decision], took_s: float, stored: bool) -> None:
        stats = self.stats
        for decision in decisions:
            if decision.verdict is Verdict.COMMITTED:
                stats.commits += 1
            elif decision.verdict is Verdict.CONFLICT:
                stats.conflicts += 1
            elif decision.verdict is Verdict.TOO_OLD:
                stats.too_old += 1
            elif decision.verdict is Verdict.INVALID:
                stats.invalid += 1
        stats.batches += stored
        stats.batch_s += took_s
        stats.batch_max_s = max(stats.batch_max_s, took_s)


class _Connection(asyncio.Protocol):
    """One client. A client that breaks the protocol is cut off; so is one that is not welcome."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._number = 0
        self._greeted = False
        self._frames = FrameReader()
        self._answers: list[ToClient] = []
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._transport.set_write_buffer_limits(high=ANSWERS_HELD_MAX_BYTES)
        try:
            self._number = self._owner.admit(self, transport.get_extra_info("socket"))
        except Unavailable:
            self._owner.stats.connections_refused += 1
            self._transport.abort()

    def connection_lost(self, _error: BaseException | None) -> None:
        self._owner.forget(self._number)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if not self._number:
            return
        try:
            for body in self._frames.feed(data):
                messages = decode_to_owner(body)
                for message in messages:
                    self._take(message, len(body) // len(messages))
        except (InvalidRequest, msgspec.DecodeError):
            self._owner.stats.bad_frames += 1
            self._transport.abort()
            return
        self.flush()

    def _take(self, message: ToOwner, size_bytes: int) -> None:
        if not self._greeted:
            if not isinstance(message, Hello):
                raise InvalidRequest("the first message is Hello")
            self._greeted = True
            self.tell(self._owner.welcome())
            if message.protocol != PROTOCOL:
                self.flush()
                raise InvalidRequest(f"protocol {message.protocol}; this owner speaks {PROTOCOL}")
            return
        match message:
            case Commit():
                self._owner.submit(self, message, size_bytes)
            case Watch():
                self.tell(self._owner.watch(self._number, message))
            case Unwatch():
                self._owner.unwatch(self._number, message)
            case Hello():
                raise InvalidRequest("Hello comes once")
            case _:
                assert_never(message)

    def tell(self, message: ToClient) -> None:
        """Put a message into the next frame."""
        self._answers.append(message)

    def flush(self) -> None:
        """Send what was told."""
        if self._answers and not self._transport.is_closing():
            self._transport.write(frame(self._answers))
        self._answers = []

    def close(self) -> None:
        """Send what was told and close."""
        self.flush()
        self._transport.close()
