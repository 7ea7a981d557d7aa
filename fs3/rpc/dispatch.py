"""From a request's bytes to its handler, and from a handler's error to bytes: the same on both planes.

A handler's coroutine is stepped where the request arrived. Only if it really waits does it become a task
(``Resumed``): a task for each request would halve the rate ([dp A]).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import msgspec

from ..errors import Fs3Error, InternalError, InvalidRequest, from_wire, to_wire
from ..wire.codec import decode, decoder, encode
from .framing import MESSAGE_BYTES_MAX
from .service import RANK_MAX, Buffer, FileRegion, Handler, Method, Reply, Routes

ERROR_TEXT_MAX = 2000
"""Characters of an error's message that travel."""

DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError)

OnBug = Callable[[str, int, BaseException], None]
"""(method name, request id, error): a handler raised what no handler should. Logs; must not raise."""


class ErrorInfo(msgspec.Struct, frozen=True, array_like=True):
    """Message of an ERROR frame (``fs3.errors.to_wire``)."""

    code: int
    errno: int
    message: str
    path: str


def error_message(error: Fs3Error) -> bytes:
    """The message of the ERROR frame for an error."""
    code, number, text, path = to_wire(error)
    # surrogates (of paths that are no UTF-8) cannot be encoded as text
    shown = text[:ERROR_TEXT_MAX].encode("utf-8", "backslashreplace").decode()
    return encode(ErrorInfo(code, number, shown, path.encode("utf-8", "backslashreplace").decode()))


def error_of(message: bytes) -> Fs3Error:
    """The error in an ERROR frame."""
    try:
        info = decode(message, ErrorInfo)
    except InvalidRequest as error:
        return InternalError(f"an error that cannot be read: {error}")
    return from_wire(info.code, info.errno, info.message, info.path)


class Row:
    """A method as the server uses it: everything bound once, counters that cost an addition."""

    __slots__ = ("decode", "error_count", "handler", "in_thread", "method", "ok_count", "rank")

    def __init__(
        self,
        method: Method[Any, Any],
        handler: Handler,
        in_thread: Handler | None,
        rank: Callable[[Any], int] | None,
    ) -> None:
        self.method = method
        self.handler = handler
        self.in_thread = in_thread
        self.rank = rank
        self.decode: Callable[[bytes], Any] = decoder(method.request)
        self.ok_count = 0
        self.error_count = 0

    def rank_of(self, message: bytes) -> int:
        """The rank of a request (``Routes.add``); 0 for what cannot be read, which is refused anyway."""
        if self.rank is None:
            return 0
        try:
            return max(0, min(self.rank(self.decode(message)), RANK_MAX))
        except DECODE_ERRORS:
            return 0


def rows_of(routes: Routes) -> dict[int, Row]:
    """The rows of all methods that a process answers."""
    return {
        number: Row(method, handler, routes.thread_handlers.get(number), routes.ranks.get(number))
        for number, (method, handler) in routes.handlers.items()
    }


def as_coroutine(result: Any) -> Coroutine[Any, Any, Any]:
    """An awaitable that a handler returned, as something that can be stepped; TypeError if it is none."""
    if inspect.iscoroutine(result):
        return result
    if not inspect.isawaitable(result):
        raise TypeError(f"a handler returned {type(result).__name__}: neither response nor awaitable")

    async def wait() -> Any:
        return await result

    return wait()


class Resumed:
    """The rest of a coroutine that has been stepped to its first wait.

    ``await Resumed(coroutine, yielded)`` goes on where it stands and returns its result. ``yielded`` is
    what the first step yielded: the future that it waits for, or None.
    """

    __slots__ = ("_coroutine", "_yielded")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], yielded: Any) -> None:
        self._coroutine = coroutine
        self._yielded = yielded

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, yielded = self._coroutine, self._yielded
        while True:
            try:
                try:
                    sent = yield yielded
                except GeneratorExit:
                    coroutine.close()
                    raise
                except BaseException as error:  # border: what is thrown in goes to the handler
                    yielded = coroutine.throw(error)
                else:
                    yielded = coroutine.send(sent)
            except StopIteration as stop:
                return stop.value


def response_message(row: Row, response: Any) -> bytes:
    """The bytes of a handler's response."""
    assert isinstance(response, row.method.response), (row.method.name, type(response))
    message = encode(response)
    assert len(message) <= MESSAGE_BYTES_MAX, (row.method.name, len(message))
    return message


def payload_bytes_of(payload: tuple[Buffer | FileRegion, ...] | Any) -> int:
    """Length of a reply's payload."""
    return sum(p.length_bytes if isinstance(p, FileRegion) else memoryview(p).nbytes for p in payload)


def as_reply(result: Any) -> Reply[Any]:
    """What a handler gave back, as a reply."""
    return result if isinstance(result, Reply) else Reply(result)
