"""The HTTP port: the two pages, and what it does with bad bytes, slow peers and crowds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import fs3.http
from fs3.http import CONNECTIONS_MAX, REQUEST_BYTES_MAX, HttpEndpoint, health_page, metrics_page


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[HttpEndpoint]:
    pages = {
        "/metrics": metrics_page(lambda: b"x 1\n", "text/plain"),
        "/healthz": health_page(lambda: {"ok": False, "why": "test"}),
    }
    endpoint = HttpEndpoint(pages, "127.0.0.1", 0)
    await endpoint.start()
    yield endpoint
    await endpoint.stop()


async def exchange(endpoint: HttpEndpoint, request: bytes) -> bytes:
    """All that comes back; nothing if the connection is cut, whether in order or by a reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_pages(endpoint: HttpEndpoint) -> None:
    answer = await exchange(endpoint, b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nx 1\n")
    answer = await exchange(endpoint, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 503 ")
    assert json.loads(answer.split(b"\r\n\r\n")[1]) == {"ok": False, "why": "test"}
    answer = await exchange(endpoint, b"HEAD /metrics HTTP/1.0\r\n\r\n")
    assert b"Content-Length: 4\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /etc/passwd HTTP/1.0\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.0\r\n\r\n", b"405"),
        (b"\x16\x03\x01\x02\r\n\r\n", b"400"),
        (b"GET  HTTP/1.0\r\n\r\n", b"404"),
        (b"GET /\xff HTTP/9\r\n\r\n", b"400"),
        (b"a" * (REQUEST_BYTES_MAX + 1), b"431"),
    ],
)
async def test_bad_requests_get_a_clear_answer(
    endpoint: HttpEndpoint, request_bytes: bytes, status: bytes
) -> None:
    assert (await exchange(endpoint, request_bytes)).startswith(b"HTTP/1.0 " + status)


async def test_a_crowd_is_turned_away_and_room_is_given_back(endpoint: HttpEndpoint) -> None:
    held = [await asyncio.open_connection("127.0.0.1", endpoint.port) for _ in range(CONNECTIONS_MAX)]
    assert await exchange(endpoint, b"GET /metrics HTTP/1.0\r\n\r\n") == b""
    assert endpoint.refused_count == 1
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    answer = b""
    for _ in range(1000):  # the endpoint learns of the closed ones a few turns of the loop later
        answer = await exchange(endpoint, b"GET /metrics HTTP/1.0\r\n\r\n")
        if answer:
            break
    assert answer.startswith(b"HTTP/1.0 200")


async def test_a_silent_peer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fs3.http, "TIMEOUT_S", 0.01)
    endpoint = HttpEndpoint({}, "127.0.0.1", 0)
    await endpoint.start()
    try:
        assert await exchange(endpoint, b"GET /metr") == b""
    finally:
        await endpoint.stop()


async def test_stop_cuts_open_connections_and_may_come_first() -> None:
    endpoint = HttpEndpoint({}, "127.0.0.1", 0)
    await endpoint.stop()
    await endpoint.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
    await asyncio.sleep(0)
    await endpoint.stop()
    async with asyncio.timeout(10):
        await asyncio.gather(reader.read(), return_exceptions=True)
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)
