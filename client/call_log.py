"""Each call of a client to a server as a line of a log: for whoever wonders what a file system waits for.

On when ``$FS3_CLIENT_LOG`` names a file, which lines are added to (``fs3.log``; several processes may share
it). A line tells of a call when it is over: method, server, what it was about, how long it took, and why it
failed. Calls that threads make by themselves are told likewise; what they cost is why this is off by default.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from fs3.clock import Clock
from fs3.log import LineWriter, Logger, make_logger
from fs3.rpc.service import Caller, Method
from fs3.rpc.thread_calls import ThreadCall

from .settings import BulkThreadCaller

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

VARIABLE = "FS3_CLIENT_LOG"
SUBJECTS = ("chain", "chain_version", "chunk", "offset_bytes", "length_bytes")
"""What of a request is told, if it has it."""


class CallLog:
    """The log of one client, at the end of a file. OSError: it cannot be written."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        write = LineWriter(lambda line: os.write(self._number, line))
        self.log = make_logger(write, clock, level="debug", pid=os.getpid())

    def close(self) -> None:
        """Lines that come later are lost."""
        os.close(self._number)
        self._number = -1


def call_log(environment: Mapping[str, str], clock: Clock) -> CallLog | None:
    """The log that the environment asks for; None: none. OSError: the file cannot be written."""
    path = environment.get(VARIABLE)
    return CallLog(path, clock) if path else None


def told(
    caller: Caller, bulk: BulkThreadCaller, threads: BulkThreadCaller, log: Logger | None, clock: Clock
) -> tuple[Caller, BulkThreadCaller, BulkThreadCaller]:
    """The same callers, their calls told to ``log`` if there is one."""
    if log is None:
        return caller, bulk, threads
    return (
        LoggedCaller(caller, log, clock),
        LoggedThreadCaller(bulk, log, clock),
        LoggedThreadCaller(threads, log, clock),
    )


class LoggedCaller:
    """A ``Caller`` whose calls are told."""

    def __init__(self, caller: Caller, log: Logger, clock: Clock) -> None:
        self._caller = caller
        self._log = log
        self._clock = clock

    async def call(self, address: str, method: Method[Q, R], request: Q, **options: Any) -> R:
        """See ``Caller.call``."""
        began_s = self._clock.boot_s()
        error: BaseException | None = None
        try:
            return await self._caller.call(address, method, request, **options)
        except BaseException as failure:
            error = failure
            raise
        finally:
            tell(self._log, address, method.name, request, self._clock.boot_s() - began_s, error)


class LoggedThreadCaller:
    """A ``BulkThreadCaller`` whose calls are told."""

    def __init__(self, caller: BulkThreadCaller, log: Logger, clock: Clock) -> None:
        self._caller = caller
        self._log = log
        self._clock = clock

    def call_all(self, calls: Sequence[ThreadCall], timeout_s: float) -> None:
        """See ``ThreadCaller.call_all``."""
        began_s = self._clock.boot_s()
        try:
            self._caller.call_all(calls, timeout_s)
        finally:
            all_s = self._clock.boot_s() - began_s
            for call in calls:
                took_s = call.took_s or all_s  # one that could not be sent has no time of its own
                tell(self._log, call.address, call.method.name, call.request, took_s, call.error)


def tell(
    log: Logger, address: str, method: str, request: object, took_s: float, error: BaseException | None
) -> None:
    """One line of a call that is over."""
    subject = request
    items = getattr(request, "items", ())
    if items:
        subject = items[0]  # of a read, which is about several ranges: the first says where it went
    fields = {name: getattr(subject, name) for name in SUBJECTS if hasattr(subject, name)}
    if "chunk" in fields:
        fields["chunk"] = str(fields["chunk"])
    if len(items) > 1:
        fields["items"] = len(items)
    if isinstance(error, asyncio.CancelledError):
        fields["error"] = "given up"
    elif error is not None:
        fields["error"] = f"{type(error).__name__}: {error}"
    log.debug("call", method=method, server=address, took_ms=round(took_s * 1000, 1), **fields)
