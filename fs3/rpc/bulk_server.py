"""The bulk plane of a server: connections for payloads above 64 KiB, a thread for each (design 5.2, 5.3).

Connections arrive and prove themselves on the event loop like any other, so a stranger never holds a thread;
then their socket is taken out of the loop and handed over here.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable

from ..errors import Fs3Error
from ..identity.handshake import ServerIdentity, Welcome
from ..tasks import TaskScope
from ..wire.codec import encode
from .blocking import FrameSocket
from .buffers import BufferPool
from .bulk_connection import BulkConnection, BulkServerSettings
from .counters import ServerCounters
from .dispatch import OnBug, Row
from .framing import Kind, encode_frame
from .service import RANK_MAX, PeerIdentity
from .settings import ServerSettings

DEFAULT = BulkServerSettings()
CLOSE_S = 1.5
STEP_S = 0.005


class BulkServer:
    """Threads that answer bulk connections. Handed to ``RpcServer``, which starts and stops it."""

    def __init__(
        self, settings: BulkServerSettings = DEFAULT, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.now_s = now_s
        """The loop's clock, readable in any thread (a loop's own ``time`` may be that of its last turn)."""
        self._pools = [
            BufferPool(settings.payloads_max, settings.payload_bytes_max) for _ in range(RANK_MAX + 1)
        ]
        self.counters = ServerCounters()
        """Added to under a lock."""
        self.rows: dict[int, Row] = {}
        self.loop: asyncio.AbstractEventLoop
        self.on_bug: OnBug
        self.scope = TaskScope("bulk-server", self._task_failed)
        self.call_s_max = 0.0
        self.is_stopping = False
        self._identity: ServerIdentity
        self._lock = threading.Lock()
        self._connections: dict[BulkConnection, None] = {}

    # --- for RpcServer, on the event loop ---

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return sum(connection.is_busy for connection in self._snapshot())

    def start(
        self, rows: dict[int, Row], identity: ServerIdentity, settings: ServerSettings, on_bug: OnBug
    ) -> None:
        """Ready to take connections."""
        self.loop = asyncio.get_running_loop()
        self.rows = rows
        self.on_bug = on_bug
        self.call_s_max = settings.call_s_max
        self._identity = identity

    def has_room(self) -> bool:
        """Another connection can be taken."""
        return not self.is_stopping and len(self._connections) < self.settings.connections_max

    def adopt(self, sock: socket.socket, peer: PeerIdentity) -> None:
        """Take a connection whose peer has proved who it is."""
        welcome = Welcome(in_flight_max=1, small_payload_bytes_max=self.settings.payload_bytes_max)
        frame = encode_frame(Kind.WELCOME, encode(welcome))
        connection = BulkConnection(self, FrameSocket(sock, self.now_s), peer, frame)
        with self._lock:
            self._connections[connection] = None
            self.counters.connections += 1
            self.counters.accepted += 1
        connection.thread.start()

    def go_away(self) -> None:
        """Take no further requests; connections that have none under way end."""
        self.is_stopping = True
        for connection in self._snapshot():
            if not connection.is_busy:
                connection.shut()

    def revalidate(self) -> None:
        """Cut the connections of users whose token has been revoked."""
        for connection in self._snapshot():
            try:
                self._identity.check_revoked(connection.peer)
            except Fs3Error:
                connection.shut()

    def close(self) -> None:
        """End all connections."""
        self.is_stopping = True
        for connection in self._snapshot():
            connection.shut()

    async def wait_closed(self) -> None:
        """Until all threads have ended. RuntimeError names how many did not."""
        await self.scope.aclose()
        loop = asyncio.get_running_loop()
        end_s = loop.time() + CLOSE_S
        threads = [connection.thread for connection in self._snapshot()]
        while any(thread.is_alive() for thread in threads):  # threads set no event of ours
            if loop.time() > end_s:
                raise RuntimeError(f"{sum(t.is_alive() for t in threads)} bulk connections did not end")
            await asyncio.sleep(STEP_S)

    def _snapshot(self) -> list[BulkConnection]:
        with self._lock:
            return list(self._connections)

    def _task_failed(self, name: str, error: BaseException) -> None:
        self.on_bug(name, 0, error)

    # --- for connections, in their threads (bulk_connection.BulkParts) ---

    def pool_of(self, rank: int) -> BufferPool:
        return self._pools[rank]

    @property
    def buffers_taken(self) -> int:
        """Payloads' buffers in use now."""
        return sum(pool.taken for pool in self._pools)

    def count(self, name: str) -> None:
        with self._lock:
            setattr(self.counters, name, getattr(self.counters, name) + 1)

    def ended(self, connection: BulkConnection) -> None:
        with self._lock:
            self._connections.pop(connection, None)
            self.counters.connections -= 1

    def served(self, received_bytes: int, sent_bytes: int) -> None:
        with self._lock:
            self.counters.received_bytes += received_bytes
            self.counters.sent_bytes += sent_bytes
