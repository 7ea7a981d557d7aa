"""Calls over the small plane, on real sockets: answers, errors, deadlines, cancellation, bounds."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fs3.errors import (
    Busy,
    CorruptData,
    InternalError,
    InvalidRequest,
    MaybeApplied,
    NotFound,
    Unavailable,
    fs_error,
)
from fs3.identity.key_file import system_nonce
from fs3.rpc.bulk_client import BulkClient
from fs3.rpc.bulk_server import BulkServer
from fs3.rpc.framing import Kind, encode_frame
from fs3.rpc.network import SystemNetwork
from fs3.rpc.running import HandlerRun
from fs3.rpc.service import Call, FileRegion, Reply, Routes
from fs3.rpc.settings import ClientSettings, ServerSettings
from tests.rpc.world import (
    ECHO,
    FETCH,
    NODE,
    STORE,
    STREAM,
    UNKNOWN,
    WAIT,
    Ask,
    Bugs,
    Into,
    Tell,
    calling,
    serving,
    until,
)


def _echo(call: Call, ask: Ask) -> Tell:
    return Tell(ask.text, ask.number)


def _routes() -> Routes:
    routes = Routes()
    routes.add(ECHO, _echo)
    return routes


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_many_calls_at_once(kind: str, tmp_path: Path) -> None:
    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/rpc.sock"
    async with serving(_routes(), address) as (server, where), calling() as client:
        calls = [client.call(where, ECHO, Ask("x", n), timeout_s=5) for n in range(500)]
        assert [a.number for a in await asyncio.gather(*calls)] == list(range(500))
        assert server.counters.connections == 1 and client.counters.connections == 1
        assert server.rows[ECHO.number].ok_count == 500
    assert server.counters.connections == 0


async def test_peer_and_request_id_reach_the_handler() -> None:
    seen: list[Call] = []

    def handler(call: Call, ask: Ask) -> Tell:
        seen.append(call)
        call.connection_state["count"] = call.connection_state.get("count", 0) + 1
        return Tell(number=call.connection_state["count"])

    routes = Routes()
    routes.add(ECHO, handler)
    async with serving(routes) as (_, where), calling() as client:
        await client.call(where, ECHO, Ask(), timeout_s=5, request_id=0xABC)
        answer = await client.call(where, ECHO, Ask(), timeout_s=2)
        assert answer.number == 2
    assert (seen[0].peer.role, seen[0].peer.node, seen[0].peer.generation) == ("node", 7, 5)
    assert seen[0].request_id == 0xABC
    assert 0 < seen[1].deadline_s - asyncio.get_running_loop().time() < 2


async def test_handler_that_waits_and_one_that_does_not() -> None:
    gate = asyncio.Event()

    async def wait(call: Call, ask: Ask) -> Tell:
        if ask.number:
            await gate.wait()
            async with asyncio.timeout(5):  # in a task by now
                await asyncio.sleep(0)
        return Tell("done", ask.number)

    routes = _routes()
    routes.add(WAIT, wait)
    async with serving(routes) as (server, where), calling() as client:
        slow = asyncio.ensure_future(client.call(where, WAIT, Ask(number=1), timeout_s=5))
        assert (await client.call(where, WAIT, Ask(number=0), timeout_s=5)).text == "done"
        await client.call(where, ECHO, Ask(), timeout_s=5)
        assert len(server.scope) == 1 and not slow.done()
        gate.set()
        assert (await slow).number == 1
        await until(lambda: server.counters.in_flight == 0)


async def test_a_call_that_has_ended_leaves_nothing_to_the_collector() -> None:
    async def wait(call: Call, ask: Ask) -> Tell:
        for _ in range(ask.number):
            await asyncio.sleep(0)
        return Tell()

    routes = Routes()
    routes.add(WAIT, wait)
    async with serving(routes) as (server, where), calling() as client:
        gc.collect()
        gc.disable()
        try:
            for waits in (0, 3):
                await client.call(where, WAIT, Ask("", waits), timeout_s=5)
            await until(lambda: server.counters.in_flight == 0)
            assert not [found for found in gc.get_objects() if isinstance(found, HandlerRun)]
        finally:
            gc.enable()


async def test_errors_of_handlers_are_raised_at_the_caller() -> None:
    bugs = Bugs()

    def handler(call: Call, ask: Ask) -> Any:
        if ask.number == 1:
            raise fs_error(2, path=b"/a\xff")
        if ask.number == 2:
            raise Busy("full")
        if ask.number == 3:
            raise KeyError("bug")
        return "no response"

    routes = Routes()
    routes.add(ECHO, handler)
    async with serving(routes, bugs=bugs) as (server, where), calling() as client:
        with pytest.raises(NotFound):
            await client.call(where, ECHO, Ask(number=1), timeout_s=5)
        with pytest.raises(Busy, match="full"):
            await client.call(where, ECHO, Ask(number=2), timeout_s=5)
        with pytest.raises(InternalError, match="KeyError"):
            await client.call(where, ECHO, Ask(number=3), timeout_s=5, request_id=77)
        with pytest.raises(InternalError):
            await client.call(where, ECHO, Ask(number=4), timeout_s=5)
        with pytest.raises(InvalidRequest, match="unknown method"):
            await client.call(where, UNKNOWN, Ask(), timeout_s=5)
        assert server.counters.bugs == 2 and server.counters.bad_requests == 1
        assert client.counters.connected == 1  # none of these cost the connection
    assert bugs[0].startswith("echo 77 KeyError")


@pytest.mark.parametrize("at_once", [True, False])
async def test_handler_that_lets_a_cancellation_through_is_a_bug(at_once: bool) -> None:
    bugs = Bugs()

    async def wait(call: Call, ask: Ask) -> Tell:
        if not at_once:
            await asyncio.sleep(0)
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lost.cancel()
        await lost
        raise AssertionError

    routes = _routes()
    routes.add(WAIT, wait)
    async with serving(routes, bugs=bugs) as (_, where), calling() as client:
        with pytest.raises(InternalError):
            await client.call(where, WAIT, Ask(), timeout_s=5)
        await client.call(where, ECHO, Ask(), timeout_s=5)
    assert len(bugs) == 1 and "cancelled" in bugs[0]


async def test_deadline_ends_the_call_on_both_sides() -> None:
    ended: list[str] = []

    async def wait(call: Call, ask: Ask) -> Tell:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")
        raise AssertionError

    routes = _routes()
    routes.add(WAIT, wait)
    async with serving(routes) as (server, where), calling() as client:
        with pytest.raises(MaybeApplied, match=r"no answer|deadline"):
            await client.call(where, WAIT, Ask(), timeout_s=0.05)
        await until(lambda: bool(ended) and server.counters.in_flight == 0)
        assert (await client.call(where, ECHO, Ask("on"), timeout_s=5)).text == "on"


async def test_cancelled_call_cancels_its_handler() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(call: Call, ask: Ask) -> Tell:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    routes = _routes()
    routes.add(WAIT, wait)
    async with serving(routes) as (server, where), calling() as client:
        task = asyncio.ensure_future(client.call(where, WAIT, Ask(), timeout_s=60))
        await begun.wait()
        task.cancel()
        await asyncio.wait_for(ended.wait(), 5)
        assert server.counters.cancelled == 1
        await client.call(where, ECHO, Ask(), timeout_s=5)


async def test_parts_and_payloads(tmp_path: Path) -> None:
    path = tmp_path / "chunk"
    path.write_bytes(os.urandom(100_000))
    fd = os.open(path, os.O_RDONLY)
    released: list[int] = []

    def stream(call: Call, ask: Ask) -> Reply[Tell]:
        for number in (10, 20, 30):
            data = bytes([number]) * number
            call.send_part(Reply(Tell(number=number), [data], partial(released.append, number)))
        return Reply(Tell(number=40_000), [FileRegion(fd, 5, 39_999), memoryview(b"z")])

    routes = Routes()
    routes.add(STREAM, stream)
    async with serving(routes) as (_, where), calling() as client:
        sink = Into(40_060)
        last = await client.call(where, STREAM, Ask(), timeout_s=5, sink=sink)
        assert last.number == 40_000 and sink.parts == [10, 20, 30, 40_000]
        expected = b"\x0a" * 10 + b"\x14" * 20 + b"\x1e" * 30 + path.read_bytes()[5:40_004] + b"z"
        assert bytes(sink.data) == expected and released == [10, 20, 30]
        with pytest.raises(InvalidRequest, match="no sink"):
            await client.call(where, STREAM, Ask(), timeout_s=5)
        with pytest.raises(CorruptData, match="room"):
            await client.call(where, STREAM, Ask(), timeout_s=5, sink=Into(5))
    os.close(fd)


async def test_request_payload_is_page_aligned_and_bounded() -> None:
    import ctypes

    got: list[bytes] = []

    def store(call: Call, ask: Ask) -> Tell:
        assert call.payload is not None
        address = ctypes.addressof(ctypes.c_char.from_buffer(call.payload))
        got.append(bytes(call.payload))
        return Tell(number=address % 4096)

    routes = Routes()
    routes.add(STORE, store)
    limits = ServerSettings(small_payload_bytes_max=100_000)
    async with serving(routes, settings=limits) as (_, where), calling() as client:
        data = os.urandom(70_000)
        pieces: Sequence[bytes | memoryview] = [data[:100], memoryview(data)[100:]]
        answer = await client.call(where, STORE, Ask(), timeout_s=5, payload=pieces)
        assert answer.number == 0 and got == [data]
        with pytest.raises(InvalidRequest, match="payload"):
            await client.call(where, STORE, Ask(), timeout_s=5, payload=[bytes(100_001)])


@pytest.fixture(scope="module")
def libuv() -> None:
    """libuv keeps a pipe for the process from its first loop on: it is not what a test left behind."""
    uvloop.run(asyncio.sleep(0))


@pytest.mark.usefixtures("libuv")
def test_both_planes_under_uvloop(tmp_path: Path) -> None:
    async def run() -> None:
        routes = _routes()
        routes.add(STORE, lambda call, ask: Tell(number=len(call.payload or b"")))
        routes.add(FETCH, lambda call, ask: Reply(Tell(number=1000), [bytes(1000)]))
        bulk = BulkClient(NODE, SystemNetwork(), make_nonce=system_nonce)
        for address in ("127.0.0.1:0", f"unix:{tmp_path}/rpc.sock"):
            async with serving(routes, address, bulk=BulkServer()) as (_, where):
                async with calling(bulk=bulk) as client:
                    calls = [client.call(where, ECHO, Ask(number=n), timeout_s=5) for n in range(50)]
                    assert [a.number for a in await asyncio.gather(*calls)] == list(range(50))
                    for is_bulk in (True, False):
                        answer = await client.call(
                            where, STORE, Ask(), timeout_s=5, payload=[bytes(5000)], bulk=is_bulk
                        )
                        assert answer.number == 5000
                        await client.call(where, FETCH, Ask(), timeout_s=5, sink=Into(1000), bulk=is_bulk)
            bulk = BulkClient(NODE, SystemNetwork(), make_nonce=system_nonce)
        await bulk.aclose()

    uvloop.run(run())


async def test_nobody_listens() -> None:
    async with serving(_routes()) as (_, where):
        pass
    async with calling() as client:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await client.call(where, ECHO, Ask(), timeout_s=5)
        with pytest.raises(Unavailable, match="not an address"):
            await client.call("nonsense", ECHO, Ask(), timeout_s=5)


async def test_reconnects_after_the_server_came_back(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/rpc.sock"
    async with calling() as client:
        async with serving(_routes(), address):
            await client.call(address, ECHO, Ask(), timeout_s=5)
        with pytest.raises(Unavailable):
            await client.call(address, ECHO, Ask(), timeout_s=5)
        async with serving(_routes(), address):
            await asyncio.sleep(0.11)  # the longest pause
            assert (await client.call(address, ECHO, Ask("back"), timeout_s=5)).text == "back"


async def test_clean_stop_answers_what_is_under_way() -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def wait(call: Call, ask: Ask) -> Tell:
        begun.set()
        await gate.wait()
        return Tell("answered")

    routes = Routes()
    routes.add(WAIT, wait)
    async with calling() as client:
        async with serving(routes) as (server, where):
            task = asyncio.ensure_future(client.call(where, WAIT, Ask(), timeout_s=5))
            await begun.wait()
            stop = asyncio.ensure_future(server.aclose())
            await until(lambda: not server._is_drained() and server._is_stopping)
            gate.set()
            assert (await task).text == "answered"
            await stop
            with pytest.raises(Unavailable):
                await client.call(where, WAIT, Ask(), timeout_s=5)


async def test_lost_connection_is_maybe_applied() -> None:
    begun = asyncio.Event()

    async def wait(call: Call, ask: Ask) -> Tell:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    routes = Routes()
    routes.add(WAIT, wait)
    async with calling() as client, serving(routes) as (server, where):
        task = asyncio.ensure_future(client.call(where, WAIT, Ask(), timeout_s=5))
        await begun.wait()
        for connection in list(server._connections):
            connection.cut()
        with pytest.raises(MaybeApplied):
            await task
        await until(lambda: server.counters.in_flight == 0)


async def test_silent_server_is_given_up() -> None:
    async def wait(call: Call, ask: Ask) -> Tell:
        await asyncio.Event().wait()
        raise AssertionError

    routes = Routes()
    routes.add(WAIT, wait)
    quick = ClientSettings(keepalive_s=0.05, silence_s=0.2)
    async with calling(settings=quick) as client, serving(routes) as (server, where):
        task = asyncio.ensure_future(client.call(where, WAIT, Ask(), timeout_s=60))
        await until(lambda: server.counters.in_flight == 1)
        await asyncio.sleep(0.4)
        assert not task.done()  # PING is answered
        for connection in server._connections:
            assert connection._transport is not None
            connection._transport.pause_reading()
        with pytest.raises(MaybeApplied, match="silent"):
            await task


async def test_server_bounds_the_calls_of_a_connection() -> None:
    gate, running = asyncio.Event(), [0, 0]

    async def wait(call: Call, ask: Ask) -> Tell:
        running[0] += 1
        running[1] = max(running)
        await gate.wait()
        running[0] -= 1
        return Tell()

    routes = Routes()
    routes.add(WAIT, wait)
    async with serving(routes, settings=ServerSettings(in_flight_max=4)) as (server, where):
        async with calling() as client:
            tasks = [asyncio.ensure_future(client.call(where, WAIT, Ask(), timeout_s=5)) for _ in range(20)]
            await until(lambda: running[0] == 4)
            connection = next(iter(server._connections))
            # a client that ignores the limit is not read any further
            client_side = next(iter(client._connections))
            client_side._in_flight_max = 100
            client_side._wake_waiting()
            await until(lambda: connection._read_is_paused)
            gate.set()
            await asyncio.gather(*tasks)
            assert running == [0, 4]


async def test_process_bound_is_answered_busy() -> None:
    gate = asyncio.Event()

    async def wait(call: Call, ask: Ask) -> Tell:
        await gate.wait()
        return Tell()

    routes = Routes()
    routes.add(WAIT, wait)
    async with serving(routes, settings=ServerSettings(in_flight_total_max=3)) as (server, where):
        async with calling() as client:
            tasks = [asyncio.ensure_future(client.call(where, WAIT, Ask(), timeout_s=5)) for _ in range(5)]
            await until(lambda: server.counters.busy == 2)
            gate.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(r, Busy) for r in results) == 2


async def test_peer_that_does_not_read_its_answers_is_bounded_and_cut() -> None:
    routes = Routes()
    routes.add(FETCH, lambda call, ask: Reply(Tell(number=1 << 20), [bytes(1 << 20)]))
    limits = ServerSettings(write_buffer_bytes=1 << 20, stall_s=0.3)
    async with serving(routes, settings=limits) as (server, where), calling() as client:
        await client.call(where, FETCH, Ask(), timeout_s=5, sink=Into(1 << 20))
        (mine,) = client._connections
        assert mine._transport is not None
        mine._transport.pause_reading()
        for call in range(200):
            mine._send(encode_frame(Kind.REQUEST, b"\x92\xa0\x00", method=FETCH.number, call=1000 + call))
        (theirs,) = server._connections
        assert theirs._transport is not None
        largest = 0
        while server.counters.stalled == 0:
            if theirs._transport is not None:
                largest = max(largest, theirs._transport.get_write_buffer_size())
            await asyncio.sleep(0.01)
        assert largest < 4 << 20, largest
        # others were not hurt
        async with calling() as other:
            await other.call(where, FETCH, Ask(), timeout_s=5, sink=Into(1 << 20))


async def test_call_before_the_first_wait_of_a_handler() -> None:
    """A handler may call others before it is a task (``asyncio.timeout`` would not work there)."""
    async with serving(_routes()) as (_, behind), calling() as inner:

        async def forward(call: Call, ask: Ask) -> Tell:
            return await inner.call(behind, ECHO, ask, timeout_s=5)

        routes = Routes()
        routes.add(WAIT, forward)
        async with serving(routes) as (_, where), calling() as client:
            assert (await client.call(where, WAIT, Ask("through", 3), timeout_s=5)).text == "through"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=4))
def test_any_bytes_at_the_port(chunks: list[bytes]) -> None:
    asyncio.run(_throw(chunks))


async def _throw(chunks: list[bytes]) -> None:
    async with serving(_routes(), settings=ServerSettings(handshake_s=0.1)) as (server, where):
        host, port = where.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        for chunk in chunks:
            writer.write(chunk)
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await until(lambda: server.counters.connections == 0)
        async with calling() as client:
            await client.call(where, ECHO, Ask(), timeout_s=5)
