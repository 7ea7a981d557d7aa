"""The RPC client: calls methods at addresses (``service.Caller``; design 5.2, 5.3).

One connection of the small plane for each address, made when first needed, kept, dropped when idle; large
payloads go over the bulk plane's threads if there are any, else over the same connection.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec

from ..errors import Fs3Error, MaybeApplied, Unavailable, again
from ..identity.handshake import ClientHandshake, Credentials, NoBulkPlane
from ..rng import Rng
from ..tasks import TaskScope
from .client_connection import ClientConnection, wait_until
from .counters import ClientCounters
from .network import Network
from .service import BlockingCaller, Buffer, Method, Sink
from .settings import ClientSettings

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

HOUSEKEEPING_S = 5.0
PEERS_MAX = 16_384
DEFAULT = ClientSettings()


class BulkCaller(BlockingCaller, Protocol):
    """Calls with large payloads, in threads (``bulk_client.BulkClient``)."""

    async def call(
        self,
        address: str,
        method: Method[Q, R],
        request: Q,
        *,
        timeout_s: float,
        payload: Sequence[Buffer] = (),
        sink: Sink | None = None,
        request_id: int = 0,
    ) -> R: ...

    def shut(self) -> None: ...

    async def aclose(self) -> None: ...


class _Peer:
    """What is known of one address."""

    __slots__ = ("attempt", "backoff_s", "connection", "error", "not_before_s", "waiting")

    def __init__(self) -> None:
        self.connection: ClientConnection | None = None
        self.attempt: asyncio.Task[None] | None = None
        self.waiting: list[asyncio.Future[ClientConnection]] = []
        self.backoff_s = 0.0
        self.not_before_s = 0.0
        self.error: Fs3Error = Unavailable("never tried")


class RpcClient:
    """Calls servers with one identity. Belongs to the event loop that it was made in.

    ``rng`` draws the jitter of pauses; ``make_nonce`` gives 16 unpredictable bytes each time; ``on_failure``
    is told of a background task that failed (a bug).
    """

    def __init__(
        self,
        credentials: Credentials,
        network: Network,
        *,
        rng: Rng,
        make_nonce: Callable[[], bytes],
        on_failure: Callable[[str, BaseException], None],
        settings: ClientSettings = DEFAULT,
        bulk: BulkCaller | None = None,
    ) -> None:
        self._credentials = credentials
        self._network = network
        self._rng = rng
        self._make_nonce = make_nonce
        self._settings = settings
        self._bulk = bulk if network.has_threads else None
        self.counters = ClientCounters()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._scope = TaskScope("rpc-client", on_failure)
        self._peers: dict[str, _Peer] = {}
        self._connections: dict[ClientConnection, None] = {}  # those that still finish calls included
        self._without_bulk: dict[str, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

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
        """See ``service.Caller.call``."""
        deadline_s = self._loop.time() + timeout_s
        if bulk and self._bulk is not None and address not in self._without_bulk:
            try:
                return await self._bulk.call(
                    address,
                    method,
                    request,
                    timeout_s=timeout_s,
                    payload=payload,
                    sink=sink,
                    request_id=request_id,
                )
            except NoBulkPlane:
                self._without_bulk[address] = None
        peer = self._peers.get(address)
        connection = peer.connection if peer is not None else None
        while connection is None or not connection.is_open or not connection.has_room:
            if connection is None or not connection.is_open:
                connection = await self._connected(address, deadline_s)
            else:
                await connection.wait_for_room(deadline_s)
        pending = connection.send(method, request, payload, sink, deadline_s, request_id)
        try:
            return await pending.future  # type: ignore[no-any-return]  # decoded as the method's response
        except asyncio.CancelledError:
            connection.give_up(pending)
            raise

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
        """A bulk call in the calling thread, without a hop to the event loop (about 100 us less).

        See ``service.BlockingCaller``. For threads other than the loop's. Over the loop after all if there is
        no bulk plane.
        """
        assert threading.get_ident() != self._thread, "this would block the event loop"
        if self._bulk is not None and address not in self._without_bulk:
            try:
                return self._bulk.call_blocking(
                    address,
                    method,
                    request,
                    timeout_s=timeout_s,
                    payload=payload,
                    sink=sink,
                    request_id=request_id,
                    begun=begun,
                )
            except NoBulkPlane:
                pass
        work = self.call(
            address,
            method,
            request,
            timeout_s=timeout_s,
            payload=payload,
            sink=sink,
            bulk=True,
            request_id=request_id,
        )
        if begun is not None:
            work = self._to_be_given_up(work, begun, f"{method.name} to {address}")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _to_be_given_up(
        self, work: Coroutine[Any, Any, R], begun: Callable[[Callable[[], object]], None], what: str
    ) -> R:
        """See ``service.BlockingCaller``; for calls over the loop."""
        task = asyncio.current_task()
        assert task is not None
        begun(partial(self._loop.call_soon_threadsafe, task.cancel))
        try:
            return await work
        except asyncio.CancelledError:
            raise MaybeApplied(f"{what}: given up") from None

    def shut_bulk(self) -> None:
        """Give up all calls of the bulk plane, and take no more: threads that wait in one go on at once."""
        if self._bulk is not None:
            self._bulk.shut()

    async def aclose(self) -> None:
        """Close all connections; calls under way end with MaybeApplied."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._connections):
            connection.close()
        await self._scope.aclose()
        if self._bulk is not None:
            await self._bulk.aclose()
        await asyncio.sleep(0)  # transports report their end in the next turn

    # --- connections ---

    async def _connected(self, address: str, deadline_s: float) -> ClientConnection:
        """The open connection to an address, made if there is none. Fails at once during a pause."""
        if self._is_closed:
            raise Unavailable("the client is closed")
        peer = self._peers.get(address)
        if peer is None:
            if len(self._peers) >= PEERS_MAX:
                raise Unavailable(f"more than {PEERS_MAX} peers")
            peer = self._peers[address] = _Peer()
        if peer.connection is not None and peer.connection.is_open:
            return peer.connection
        if peer.attempt is None:
            if self._loop.time() < peer.not_before_s:
                raise again(peer.error)
            peer.attempt = self._scope.start(f"connect {address}", self._connect(address, peer))
        future: asyncio.Future[ClientConnection] = self._loop.create_future()
        peer.waiting.append(future)
        try:
            found = await wait_until(future, deadline_s, f"no connection to {address} in time")
            assert isinstance(found, ClientConnection), found
            return found
        finally:
            if future in peer.waiting:
                peer.waiting.remove(future)

    async def _connect(self, address: str, peer: _Peer) -> None:
        """One attempt; its outcome goes to all who wait."""
        connection: ClientConnection | None = None
        error: Fs3Error = Unavailable(f"connecting to {address} was cancelled")
        try:
            handshake = ClientHandshake(self._credentials, self._make_nonce())
            async with asyncio.timeout(self._settings.connect_s):
                _, connection = await self._network.connect(
                    address,
                    lambda: self._new_connection(address, handshake),
                )
                await connection.welcomed
        except Fs3Error as refused:
            error = refused
        except TimeoutError:
            error = Unavailable(f"{address} did not answer within {self._settings.connect_s} s")
        except OSError as failed:
            error = Unavailable(f"cannot connect to {address}: {failed}")
        finally:
            peer.attempt = None
            waiting, peer.waiting = peer.waiting, []
            if connection is not None and connection.is_open:
                self._opened(peer, connection)
            else:
                self._pause(peer, error)
                if connection is not None:
                    connection.drop(str(error))
            for future in waiting:
                if future.done():
                    continue
                if connection is not None and connection.is_open:
                    future.set_result(connection)
                else:
                    future.set_exception(again(error))

    def _opened(self, peer: _Peer, connection: ClientConnection) -> None:
        peer.connection = connection
        peer.backoff_s = 0.0
        if self._timer is None:
            self._timer = self._loop.call_later(HOUSEKEEPING_S, self._keep_house)

    def _pause(self, peer: _Peer, error: Fs3Error) -> None:
        settings = self._settings
        peer.error = error
        peer.backoff_s = min(max(peer.backoff_s * 2, settings.backoff_s_min), settings.backoff_s_max)
        peer.not_before_s = self._loop.time() + peer.backoff_s * self._rng.uniform(0.5, 1.0)
        self.counters.failed_connects += 1

    def _new_connection(self, address: str, handshake: ClientHandshake) -> ClientConnection:
        connection = ClientConnection(address, handshake, self._settings, self.counters, self._closed)
        self._connections[connection] = None
        return connection

    def _closed(self, connection: ClientConnection) -> None:
        self._connections.pop(connection, None)
        peer = self._peers.get(connection.address)
        if peer is not None and peer.connection is connection:
            peer.connection = None

    def _keep_house(self) -> None:
        """Close idle connections; forget addresses that are neither connected nor tried."""
        now_s = self._loop.time()
        self._timer = None
        self._without_bulk.clear()  # asked again now and then
        for address, peer in list(self._peers.items()):
            connection = peer.connection
            if connection is not None:
                if connection.is_idle and now_s - connection.used_s > self._settings.idle_s:
                    connection.close()
            elif peer.attempt is None and now_s > peer.not_before_s + self._settings.idle_s:
                del self._peers[address]
        if self._peers and not self._is_closed:
            self._timer = self._loop.call_later(HOUSEKEEPING_S, self._keep_house)
