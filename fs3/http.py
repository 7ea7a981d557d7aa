"""The small HTTP port of every daemon: ``/metrics`` and ``/healthz``, GET and HEAD, nothing else.

HTTP/1.0, one request a connection. It is written for scrapers and health checks, and defends itself: at most
``CONNECTIONS_MAX`` connections, ``REQUEST_BYTES_MAX`` of request, ``TIMEOUT_S`` for the whole exchange. No
task runs per connection: the answer is made inside ``data_received``. It shows nothing secret and changes
nothing, so it asks for no proof of identity; it listens on the loopback address unless told otherwise.

``/healthz`` answers 200 or 503 with a JSON object; its key ``ok`` decides.

Source: design 9, 7 (bad bytes on any port).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import cast

REQUEST_BYTES_MAX = 4 << 10
"""Request line and headers; a scraper sends about 300 bytes."""
CONNECTIONS_MAX = 16
"""More than a scraper and a few people need; further ones are closed at once."""
TIMEOUT_S = 5.0
"""From the connection to its end, whatever the peer does."""

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 431: "Too Large"}
_REASONS[503] = "Service Unavailable"

Page = Callable[[], tuple[int, str, bytes]]
"""Makes one page: status, content type, body."""


def metrics_page(exposition: Callable[[], bytes], content_type: str) -> Page:
    """The page of a metrics text."""
    return lambda: (200, content_type, exposition())


def health_page(health: Callable[[], Mapping[str, object]]) -> Page:
    """The page of a health object: 503 if its ``ok`` is false."""

    def page() -> tuple[int, str, bytes]:
        found = health()
        body = json.dumps(found, default=str, indent=2) + "\n"
        return (200 if found.get("ok", True) else 503), "application/json", body.encode()

    return page


class HttpEndpoint:
    """Serves a fixed table of pages. ``start`` binds (OSError if it cannot), ``stop`` closes everything."""

    def __init__(self, pages: Mapping[str, Page], host: str, port: int) -> None:
        self._pages = dict(pages)
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._open: dict[_Exchange, None] = {}
        self.refused_count = 0
        """Connections closed because too many were open."""

    async def start(self) -> None:
        """Listen; raises OSError if the address is taken or not ours."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Exchange(self), self._host, self._port)

    @property
    def port(self) -> int:
        """The port in use (the one chosen by the system if 0 was asked for)."""
        assert self._server is not None, "not started"
        number = self._server.sockets[0].getsockname()[1]
        assert isinstance(number, int), number
        return number

    async def stop(self) -> None:
        """Close the port and every connection. Harmless if not started."""
        if self._server is not None:
            self._server.close()
            for exchange in list(self._open):
                exchange.abort()
            await self._server.wait_closed()
            self._server = None

    def _admit(self, exchange: _Exchange) -> bool:
        if len(self._open) >= CONNECTIONS_MAX:
            self.refused_count += 1
            return False
        self._open[exchange] = None
        return True

    def _release(self, exchange: _Exchange) -> None:
        self._open.pop(exchange, None)

    def _answer(self, head: bytes) -> bytes:
        """The whole response to a request's head."""
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response(400, "text/plain", b"this port speaks HTTP/1\n")
        method, path = words[0], words[1].split(b"?", 1)[0].decode("latin-1")
        if method not in (b"GET", b"HEAD"):
            return _response(405, "text/plain", b"only GET and HEAD\n", "Allow: GET, HEAD\r\n")
        page = self._pages.get(path)
        if page is None:
            known = " ".join(self._pages)
            status, kind, body = 404, "text/plain", f"no such page; there are: {known}\n".encode()
        else:
            status, kind, body = page()
        whole = _response(status, kind, body)
        return whole if method == b"GET" else whole[: len(whole) - len(body)]


def _response(status: int, kind: str, body: bytes, extra: str = "") -> bytes:
    head = (
        f"HTTP/1.0 {status} {_REASONS.get(status, 'Error')}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n{extra}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body


class _Exchange(asyncio.Protocol):
    """One connection: a request comes in, the answer goes out, the end."""

    def __init__(self, endpoint: HttpEndpoint) -> None:
        self._endpoint = endpoint
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        if self._endpoint._admit(self):
            self._timeout = asyncio.get_running_loop().call_later(TIMEOUT_S, self.abort)
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 and len(self._received) <= REQUEST_BYTES_MAX:
            return
        if 0 <= end <= REQUEST_BYTES_MAX:
            answer = self._endpoint._answer(bytes(self._received[:end]))
        else:
            answer = _response(431, "text/plain", b"the request is too long\n")
        self._received.clear()
        self._transport.write(answer)
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
        self._endpoint._release(self)
        self._transport = None

    def abort(self) -> None:
        """Cut the connection now."""
        if self._transport is not None:
            self._transport.abort()
