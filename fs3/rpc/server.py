"""The RPC server: listens, authenticates, answers (design 5.2, 5.3).

One event loop; the bulk plane's threads, if there are any, are ``bulk_server``'s. Constructors take settings
and components, so a simulated world makes the same server over its own network.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from ..errors import Busy, DeadlineExceeded, Fs3Error, InvalidRequest
from ..identity.handshake import ServerHandshake, ServerIdentity
from ..tasks import TaskScope
from .counters import ServerCounters
from .dispatch import OnBug, Row, rows_of
from .network import Listener, Network
from .server_connection import ServerConnection, State
from .service import PeerIdentity, Routes
from .settings import ServerSettings

HOUSEKEEPING_S = 1.0
DRAIN_STEP_S = 0.01
DEFAULT = ServerSettings()


class BulkPlane(Protocol):
    """Connections for payloads, in threads (``bulk_server.BulkServer``)."""

    now_s: Callable[[], float]
    """The loop's clock, readable in any thread."""

    @property
    def in_flight(self) -> int: ...

    def start(
        self, rows: dict[int, Row], identity: ServerIdentity, settings: ServerSettings, on_bug: OnBug
    ) -> None: ...

    def has_room(self) -> bool: ...

    def adopt(self, sock: socket.socket, peer: PeerIdentity) -> None: ...

    def go_away(self) -> None: ...

    def revalidate(self) -> None: ...

    def close(self) -> None: ...

    async def wait_closed(self) -> None: ...


class RpcServer:
    """Answers the methods of ``routes`` at some addresses.

    ``identity``: what it proves to clients. ``make_nonce``: 16 unpredictable bytes each time
    (``identity.key_file.system_nonce``; a simulated world draws them from its seed). ``on_bug`` logs what a
    handler raised and should not have. ``bulk``: the bulk plane, or None: everything goes over the small one.
    """

    def __init__(
        self,
        routes: Routes,
        identity: ServerIdentity,
        network: Network,
        *,
        make_nonce: Callable[[], bytes],
        on_bug: OnBug,
        settings: ServerSettings = DEFAULT,
        bulk: BulkPlane | None = None,
    ) -> None:
        self._routes = routes
        self._identity = replace(identity, bulk=bulk is not None and network.has_threads)
        self._network = network
        self._make_nonce = make_nonce
        self._bulk = bulk if network.has_threads else None
        self.settings = settings
        self.on_bug = on_bug
        self.counters = ServerCounters()
        self.rows: dict[int, Row] = {}
        self.scope = TaskScope("rpc-server", self._task_failed)
        self._listeners: list[Listener] = []
        self._connections: dict[ServerConnection, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopping = False

    async def start(self, addresses: Sequence[str]) -> tuple[str, ...]:
        """Listen; returns the addresses as they are (port 0: the one taken). OSError: one cannot be had."""
        self.rows = rows_of(self._routes)
        if self._bulk is not None:
            self._bulk.start(self.rows, self._identity, self.settings, self.on_bug)
        try:
            for address in addresses:
                self._listeners.append(await self._network.listen(address, self._accept))
        except BaseException:
            await self.aclose()
            raise
        self._timer = asyncio.get_running_loop().call_later(HOUSEKEEPING_S, self._keep_house)
        return tuple(listener.address for listener in self._listeners)

    async def aclose(self) -> None:
        """Stop: no new connections, GOAWAY to all, calls under way get ``drain_s``, then everything ends."""
        self._is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
        for listener in self._listeners:
            listener.close()
        for connection in self._connections:
            connection.go_away()
        if self._bulk is not None:
            self._bulk.go_away()
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self.settings.drain_s
        while loop.time() < end_s and not self._is_drained():  # noqa: ASYNC110  # calls end in threads too
            await asyncio.sleep(DRAIN_STEP_S)
        for connection in list(self._connections):
            connection.close()
        if self._bulk is not None:
            self._bulk.close()
        await self.scope.aclose()
        await asyncio.sleep(0)  # transports report their loss in the next turn
        if self._bulk is not None:
            await self._bulk.wait_closed()

    def revalidate(self) -> None:
        """Cut the connections of users whose token has been revoked: called when key generations change."""
        for connection in list(self._connections):
            try:
                self._identity.check_revoked(connection.peer)
            except Fs3Error as error:
                connection.refuse(error)
        if self._bulk is not None:
            self._bulk.revalidate()

    def _is_drained(self) -> bool:
        bulk_in_flight = self._bulk.in_flight if self._bulk is not None else 0
        return not bulk_in_flight and all(connection.is_idle for connection in self._connections)

    def _accept(self) -> ServerConnection:
        return ServerConnection(self)

    def _task_failed(self, name: str, error: BaseException) -> None:
        self.on_bug(name, 0, error)

    def _keep_house(self) -> None:
        """Cut connections that never prove themselves, do not take their answers, or are not used."""
        loop = asyncio.get_running_loop()
        now_s, settings = loop.time(), self.settings
        for connection in list(self._connections):
            age_s = now_s - connection.since_s
            if connection.state in (State.HELLO, State.PROOF) and age_s > settings.handshake_s:
                self.counters.refused_handshakes += 1
                connection.refuse(DeadlineExceeded(f"no handshake within {settings.handshake_s} s"))
            elif connection.stalled_since_s is not None:
                if now_s - connection.stalled_since_s > settings.stall_s:
                    connection.cut()
            elif connection.state is State.OPEN and age_s > settings.idle_s and connection.is_idle:
                connection.go_away()
                connection.close()
        self._timer = loop.call_later(HOUSEKEEPING_S, self._keep_house)

    # --- what connections need (server_connection.ServerParts) ---

    def new_handshake(self) -> ServerHandshake:
        return ServerHandshake(self._identity, self._make_nonce())

    def adopt_bulk(self, transport: asyncio.Transport, peer: PeerIdentity) -> None:
        if self._bulk is None:
            raise InvalidRequest("this server has no bulk plane")
        if not self._bulk.has_room():
            self.counters.refused_connections += 1
            raise Busy("too many bulk connections")
        self._bulk.adopt(self._network.take_socket(transport), peer)

    def opened(self, connection: ServerConnection, transport: asyncio.Transport) -> None:
        self._network.tune(transport)
        self._connections[connection] = None
        self.counters.accepted += 1
        self.counters.connections += 1
        if self._is_stopping or len(self._connections) > self.settings.connections_max:
            self.counters.refused_connections += 1
            connection.refuse(Busy("too many connections"))

    def closed(self, connection: ServerConnection) -> None:
        self._connections.pop(connection, None)
        self.counters.connections -= 1
