"""What a service is, and what caller and handler agree on.

A service is a table of methods (``fs3/wire/{meta,storage,mgmtd}.py``); a method is a number, a request and
a response type. Bulk bytes travel beside the message, never inside it: a request may be followed by one
payload, and so may each part of the answer (design 5.1, 5.2).

A handler is a plain function ``(call, request) -> Reply | response | awaitable of either``. A handler that
does not wait costs no task; one that returns an awaitable is stepped until it first waits, and becomes a
task only then. So before its first real wait a handler must not use ``asyncio.timeout`` or
``current_task``; its deadline is enforced by the server.

A method marked ``streams`` answers in parts: the handler calls ``call.send_part(reply)`` for each and
returns the last; the caller sees each part in its ``Sink``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from ..errors import Unauthenticated
from ..ids import Generation, NodeId

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

NO_GENERATION = Generation(0)

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, R]):
    """One row of a service's table. ``number`` (u16) is unique over all services and never reused."""

    name: str
    number: int
    request: type[Q]
    response: type[R]
    streams: bool = False
    request_bytes_max: int = 1 << 20
    """Bound of the encoded request message (without payload)."""
    payload_bytes_max: int = 0
    """Bound of the payload that a request may carry; 0: none."""


@dataclass(frozen=True, slots=True)
class Service:
    """A named table of methods."""

    name: str
    methods: tuple[Method[Any, Any], ...]


@dataclass(frozen=True, slots=True)
class FileRegion:
    """Bytes of a file that the server sends from the page cache (``os.sendfile``)."""

    fd: int
    offset_bytes: int
    length_bytes: int


@dataclass(slots=True)
class Reply(Generic[R]):
    """A response, perhaps with bulk bytes behind it."""

    response: R
    payload: Sequence[Buffer | FileRegion] = ()
    released: Callable[[], None] | None = None
    """Called once, from any thread, when no byte of ``payload`` can be read any more by a send: all of it
    has left the socket, or the connection is gone (design 4.1: a block is reused only after that). None: the
    buffers of ``payload`` are never changed again."""


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who is at the other end of a connection, as proved by its handshake (design 7)."""

    role: str
    """"node" (knows the cluster key) or "user" (holds a token)."""
    node: NodeId | None = None
    uid: int = -1
    gid: int = -1
    groups: tuple[int, ...] = ()
    is_admin: bool = False
    """May administer the cluster, and act as any uid (a mount, a gateway)."""
    key_generation: int = 0
    """Of the user's token: one below the user's present generation is revoked."""
    generation: Generation = NO_GENERATION
    """Of a node: the run that opened the connection."""

    def require_node(self) -> None:
        """Unauthenticated unless it is a node of this cluster."""
        if self.role != "node":
            raise Unauthenticated("only nodes of the cluster may ask this")


class Call(Protocol):
    """What a handler learns beside the request."""

    peer: PeerIdentity
    connection_state: dict[str, Any]
    """Lives as long as the connection: what was presented on it once (capabilities by number)."""
    request_id: int
    """Of the caller; goes into logs."""
    deadline_s: float
    """On the loop's clock (``loop.time()``)."""
    payload: memoryview | None
    """Bulk bytes of the request, page aligned; valid until the reply is sent."""

    def send_part(self, reply: Reply[Any]) -> None:
        """Send one part of the answer of a method that ``streams``; not after the handler has returned."""
        ...


class ThreadedCall(Call, Protocol):
    """What a handler that runs in its connection's thread learns besides."""

    def peer_has_gone(self) -> bool:
        """Nobody waits for the answer any more. A system call."""
        ...


Handler = Callable[[Any, Any], Any]
"""(Call, request) -> response | Reply | Awaitable[response | Reply]; see the module's text."""


class Sink(Protocol):
    """Where the payload of an answer goes.

    ``buffers`` is called with each part's decoded response before its payload is read: the bytes go
    straight there. ``received`` is called after them, on the receiving thread, while they are hot in
    cache: the place to verify checksums. An error that either raises ends the call with that error.

    Once ``call`` has returned or raised, no byte is written to any buffer that the sink handed out.
    """

    def buffers(self, response: Any) -> Sequence[memoryview]: ...

    def received(self, response: Any) -> None: ...


class Caller(Protocol):
    """The client half of the RPC layer: calls methods at addresses.

    Addresses are text: ``host:port`` or ``unix:/path``. Connections are made when needed, authenticated,
    kept, and dropped when idle; two for each peer: one for small messages, one or more for payloads above
    64 KiB (design 5.2, 5.3).
    """

    async def call(
        self,
        address: str,
        method: Method[Q, R],
        request: Q,
        *,
        timeout_s: float,
        payload: Sequence[Buffer] = (),
        sink: Sink | None = None,
        bulk: bool = False,
        request_id: int = 0,
    ) -> R:
        """The (last part of the) response.

        ``bulk``: the payload of request or answer is large: use the bulk plane. ``sink`` is required when
        the answer may carry payload.

        Raises what the server answered (``fs3.errors``); Unavailable when the request was certainly not
        delivered; MaybeApplied when it was sent and the connection was lost or the deadline passed
        before an answer.
        """
        ...


class BlockingCaller(Protocol):
    """``Caller`` for threads that wait themselves; their payloads are large."""

    def call_blocking(
        self,
        address: str,
        method: Method[Q, R],
        request: Q,
        *,
        timeout_s: float,
        payload: Sequence[Buffer] = (),
        sink: Sink | None = None,
        request_id: int = 0,
        begun: Callable[[Callable[[], object]], None] | None = None,
    ) -> R:
        """As ``Caller.call``, in the calling thread, which is not the event loop's.

        ``begun`` is called before anything is sent, with what gives the call up, from any thread: then it
        ends soon, with Unavailable or MaybeApplied.
        """
        ...


RANK_MAX = 8
"""Of requests, see ``Routes.add``."""


@dataclass(slots=True)
class Routes:
    """Method number -> (method, handler) of everything that one server process answers."""

    handlers: dict[int, tuple[Method[Any, Any], Handler]] = field(default_factory=dict)
    thread_handlers: dict[int, Handler] = field(default_factory=dict)
    """Those of ``handlers`` that also have a way to answer in a thread of the bulk plane."""
    ranks: dict[int, Callable[[Any], int]] = field(default_factory=dict)

    def add(
        self,
        method: Method[Q, R],
        handler: Callable[[Call, Q], R | Reply[R] | Awaitable[R | Reply[R]]],
        *,
        in_thread: Callable[[ThreadedCall, Q], R | Reply[R] | None] | None = None,
        rank: Callable[[Q], int] | None = None,
    ) -> None:
        """Register the handler of a method; each number once.

        ``in_thread``: what the bulk plane calls in the connection's own thread, without a hop to the event
        loop; it must be thread-safe, and waits at most as long as the call's deadline and the time limits of
        what it asks others. It returns None to have ``handler`` called on the loop instead (before it has
        sent a part).

        ``rank``: for requests that hold a payload's buffer while they wait for others: they wait for requests
        of lower ranks only (0 … ``RANK_MAX``). Each rank has buffers of its own, else servers that wait for
        each other in a ring could fill them all. Others have rank 0: they wait for nobody.
        """
        assert method.number not in self.handlers, method
        self.handlers[method.number] = (method, handler)
        if in_thread is not None:
            self.thread_handlers[method.number] = in_thread
        if rank is not None:
            self.ranks[method.number] = rank
