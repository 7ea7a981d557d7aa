"""One client's connection to the owner of the embedded store: many commits under way, answers by number.

Works on the socket itself, without tasks: connecting to a Unix socket never waits, and sending and
receiving are a call each per pass of the event loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import msgspec

from ..errors import (
    Busy,
    Fs3Error,
    IncompatibleVersion,
    InvalidRequest,
    MaybeApplied,
    TransactionConflict,
    TransactionTooOld,
    Unavailable,
)
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
    decode_to_client,
    frame,
)
from .mutations import CommitRequest
from .resolver import Verdict
from .store import socket_address

COMMITS_MAX = 4096
"""Commits of this process that wait for their answers."""
UNSENT_MAX_BYTES = 16 * 1024 * 1024
"""Bytes that the socket has not taken yet."""
FRAME_GOAL_BYTES = 1024 * 1024
"""Messages are put into one frame until their keys and values come to this."""
RECEIVE_BYTES = 256 * 1024
NOT_FRAMED = 1 << 63
CHECK_S = 0.1
"""How often what waits is looked over for its age."""

_ERRORS: dict[int, type[Fs3Error]] = {
    Verdict.CONFLICT: TransactionConflict,
    Verdict.TOO_OLD: TransactionTooOld,
    Verdict.INVALID: InvalidRequest,
    Verdict.UNKNOWN: MaybeApplied,
    Verdict.UNAVAILABLE: Unavailable,
    Verdict.BUSY: Busy,
}


def verdict_error(verdict: int, message: str) -> Fs3Error:
    """The error for a verdict that is no commit; one that we do not know may have been applied."""
    return _ERRORS.get(verdict, MaybeApplied)(message)


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """See ``LmdbSettings``."""

    directory: Path
    connect_timeout_s: float
    commit_timeout_s: float


@dataclass(slots=True)
class LinkStats:
    """Plain counters."""

    connects: int = 0
    losses: int = 0
    commits: int = 0
    unknown_results: int = 0
    timeouts: int = 0


class _Waiting:
    """A commit or a watch registration that has no answer yet."""

    __slots__ = ("frame_end", "future", "since_s", "size_bytes")

    def __init__(self, future: asyncio.Future[bytes], since_s: float, size_bytes: int) -> None:
        self.future = future
        self.since_s = since_s
        self.size_bytes = size_bytes
        self.frame_end = NOT_FRAMED
        """Where its frame ends in the connection's stream. The owner acts on whole frames only."""


class OwnerLink:
    """The connection; made when something is to be sent, given up when anything about it is wrong."""

    def __init__(self, settings: LinkSettings, on_store: Callable[[bytes], None]) -> None:
        self._settings = settings
        self._on_store = on_store
        self.stats = LinkStats()
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop
        self._welcomed = False
        self._last_id = 0
        self._queued: dict[int, ToOwner] = {}  # not sent yet
        self._waiting: dict[int, _Waiting] = {}  # oldest first
        self._watches: dict[int, asyncio.Future[None]] = {}
        self._unsent = bytearray()
        self._sent_bytes = 0
        """Position in the stream up to which the kernel has taken it."""
        self._writer_on = False
        self._flush_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._frames = FrameReader()

    async def commit(self, request: CommitRequest, size_bytes: int) -> bytes:
        """The stamp; raises what ``Transaction.commit`` raises."""
        self.stats.commits += 1
        self._connect()
        if len(self._waiting) >= COMMITS_MAX or len(self._unsent) >= UNSENT_MAX_BYTES:
            raise Busy(f"{len(self._waiting)} commits wait for the owner")
        number = self._next_id()
        return await self._ask(number, Commit(number, request), size_bytes)

    async def watch(self, key: bytes, seen: bytes | None) -> Awaitable[None]:
        """See ``Kv.watch``."""
        self._connect()
        number = self._next_id()
        fired: asyncio.Future[None] = self._loop.create_future()
        self._watches[number] = fired
        fired.add_done_callback(lambda future: self._watch_done(number, future))
        try:
            await self._ask(number, Watch(number, key, seen), len(key) + len(seen or b""))
        except BaseException:
            fired.cancel()
            raise
        return fired

    def _watch_done(self, number: int, future: asyncio.Future[None]) -> None:
        known = self._watches.pop(number, None) is not None
        if known and future.cancelled() and self._socket is not None:
            self._queue(self._next_id(), Unwatch(number))

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    async def _ask(self, number: int, message: ToOwner, size_bytes: int) -> bytes:
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting[number] = _Waiting(future, self._loop.time(), size_bytes)
        self._queue(number, message)
        if self._timer is None:
            self._timer = self._loop.call_later(CHECK_S, self._check_ages)
        try:
            return await future
        finally:
            self._waiting.pop(number, None)
            self._queued.pop(number, None)

    def _queue(self, number: int, message: ToOwner) -> None:
        self._queued[number] = message
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    # ---- the socket

    def _connect(self) -> None:
        """Connected on return (perhaps not yet welcomed); Unavailable when nobody listens."""
        if self._socket is not None:
            return
        self._loop = asyncio.get_running_loop()
        directory = self._settings.directory
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                opened.connect(socket_address(place))
            finally:
                os.close(place)
        except OSError as error:
            opened.close()
            raise Unavailable(
                f"no owner of the store in {directory} (does `fs3 kv` run?): {error}"
            ) from error
        self.stats.connects += 1
        self._socket = opened
        self._welcomed = False
        self._frames = FrameReader()
        self._unsent = bytearray()
        self._sent_bytes = 0
        self._loop.add_reader(opened.fileno(), self._readable)
        self._send(frame([Hello(PROTOCOL)]))

    def _flush(self) -> None:
        """Send what is queued, once welcome."""
        self._flush_is_due = False
        if not self._welcomed or not self._queued:
            return
        queued, self._queued = self._queued, {}
        batch: dict[int, ToOwner] = {}
        batch_bytes = 0
        for number, message in queued.items():
            waiting = self._waiting.get(number)
            size_bytes = waiting.size_bytes if waiting is not None else 0
            if batch and batch_bytes + size_bytes > FRAME_GOAL_BYTES:
                self._send_batch(batch)
                batch, batch_bytes = {}, 0
            batch[number] = message
            batch_bytes += size_bytes
        self._send_batch(batch)

    def _send_batch(self, batch: dict[int, ToOwner]) -> None:
        data = frame(list(batch.values()))
        end = self._sent_bytes + len(self._unsent) + len(data)
        for number in batch:
            waiting = self._waiting.get(number)
            if waiting is not None:
                waiting.frame_end = end
        self._send(data)

    def _send(self, data: bytes) -> None:
        if self._socket is None:  # lost while sending an earlier frame; who waits has been told
            return
        self._unsent += data
        if not self._writer_on:
            self._writable()

    def _writable(self) -> None:
        assert self._socket is not None
        try:
            sent = self._socket.send(self._unsent)
            del self._unsent[:sent]
            self._sent_bytes += sent
        except BlockingIOError:
            pass
        except OSError as error:
            self._lose(f"cannot send: {error}")
            return
        if bool(self._unsent) != self._writer_on:
            self._writer_on = bool(self._unsent)
            if self._writer_on:
                self._loop.add_writer(self._socket.fileno(), self._writable)
            else:
                self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(f"cannot receive: {error}")
            return
        if not data:
            self._lose("the owner closed the connection")
            return
        try:
            for body in self._frames.feed(data):
                for message in decode_to_client(body):
                    self._take(message)
        except (InvalidRequest, IncompatibleVersion, msgspec.DecodeError) as error:
            self._lose(f"the owner is not understood: {error}")

    def _take(self, message: ToClient) -> None:
        match message:
            case Answer():
                waiting = self._waiting.get(message.id)
                if waiting is not None:
                    self._settle(waiting, message.verdict, message.stamp, message.message)
            case Welcome():
                if message.protocol != PROTOCOL:
                    raise IncompatibleVersion(f"it speaks protocol {message.protocol}, we {PROTOCOL}")
                self._welcomed = True
                self._on_store(message.store_id)
                self._flush()
            case WatchSet():
                self._settle_watch(message.id, None)
            case WatchFired():
                self._settle_watch(message.id, None)
                fired = self._watches.pop(message.id, None)
                if fired is not None and not fired.done():
                    fired.set_result(None)
            case WatchRefused():
                self._settle_watch(message.id, Busy(message.message))
            case _:
                assert_never(message)

    def _settle_watch(self, number: int, error: Fs3Error | None) -> None:
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.future.done():
            if error is None:
                waiting.future.set_result(b"")
            else:
                waiting.future.set_exception(error)

    def _settle(self, waiting: _Waiting, verdict: int, stamp: bytes, message: str) -> None:
        if waiting.future.done():
            return
        if verdict == Verdict.COMMITTED:
            waiting.future.set_result(stamp)
            return
        error = verdict_error(verdict, message)
        self.stats.unknown_results += isinstance(error, MaybeApplied)
        waiting.future.set_exception(error)

    # ---- what goes wrong

    def _check_ages(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        if self._queued and not self._welcomed and self._waiting:
            oldest = next(iter(self._waiting.values()))
            if now_s - oldest.since_s > self._settings.connect_timeout_s:
                self._lose("the owner does not answer")
        for number, waiting in list(self._waiting.items()):
            if now_s - waiting.since_s <= self._settings.commit_timeout_s:
                break
            why = f"no answer within {self._settings.commit_timeout_s} s"
            self._give_up(number, waiting, why, sent=waiting.frame_end != NOT_FRAMED)
            self.stats.timeouts += 1
        if self._waiting:
            self._timer = self._loop.call_later(CHECK_S, self._check_ages)

    def _give_up(self, number: int, waiting: _Waiting, why: str, *, sent: bool) -> None:
        """``sent``: the owner may have, or may yet get, all of it."""
        if waiting.future.done():
            return
        if not sent or number in self._watches:
            waiting.future.set_exception(Unavailable(why))
            return
        self.stats.unknown_results += 1
        waiting.future.set_exception(MaybeApplied(why))

    def _give_up_all(self, why: str) -> None:
        """The connection is over: what it has not taken whole will never be applied."""
        for number, waiting in list(self._waiting.items()):
            self._give_up(number, waiting, why, sent=waiting.frame_end <= self._sent_bytes)
        self._queued = {}

    def _lose(self, why: str) -> None:
        """The connection is over: what was sent is in doubt, what was not is refused, watches end."""
        self.stats.losses += 1
        self._drop_socket()
        self._give_up_all(why)
        self._end_watches(Unavailable(why))

    def _end_watches(self, error: Fs3Error) -> None:
        watches, self._watches = self._watches, {}
        for fired in watches.values():
            if not fired.done():
                fired.set_exception(error)
                fired.exception()  # nobody may be waiting: then it is not worth a warning

    def _drop_socket(self) -> None:
        if self._socket is None:
            return
        self._loop.remove_reader(self._socket.fileno())
        if self._writer_on:
            self._loop.remove_writer(self._socket.fileno())
            self._writer_on = False
        self._socket.close()
        self._socket = None
        self._welcomed = False

    def close(self, error: Fs3Error) -> None:
        """End everything that waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._drop_socket()
        self._give_up_all(str(error))
        self._end_watches(error)
