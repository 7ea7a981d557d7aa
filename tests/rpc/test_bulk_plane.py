"""Calls over the bulk plane: payloads in both directions, errors, giving up, blocks that are held."""

from __future__ import annotations

import asyncio
import ctypes
import os
import queue
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fs3.errors import (
    CorruptData,
    InternalError,
    InvalidRequest,
    MaybeApplied,
    NotFound,
    Unavailable,
    fs_error,
)
from fs3.identity.handshake import ServerIdentity
from fs3.identity.key_file import system_nonce
from fs3.ids import Generation, NodeId
from fs3.rpc.blocking import FrameSocket
from fs3.rpc.bulk_client import BulkClient, BulkClientSettings
from fs3.rpc.bulk_connection import BulkServerSettings, _unsent_bytes
from fs3.rpc.bulk_server import BulkServer
from fs3.rpc.client import RpcClient
from fs3.rpc.network import SystemNetwork
from fs3.rpc.server import RpcServer
from fs3.rpc.service import Call, FileRegion, Reply, Routes
from tests.rpc.world import (
    ECHO,
    FETCH,
    KEY,
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

MIB = 1 << 20


@contextmanager
def _file(tmp_path: Path, size_bytes: int) -> Iterator[tuple[int, bytes]]:
    data = os.urandom(size_bytes)
    path = tmp_path / "blocks"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd, data
    finally:
        os.close(fd)


@asynccontextmanager
async def _pair(
    routes: Routes,
    address: str = "127.0.0.1:0",
    *,
    server: BulkServerSettings | None = None,
    client: BulkClientSettings | None = None,
    bugs: Bugs | None = None,
) -> AsyncIterator[tuple[RpcServer, BulkServer, RpcClient, BulkClient, str]]:
    bulk_server = BulkServer(server or BulkServerSettings())
    bulk_client = BulkClient(
        NODE, SystemNetwork(), make_nonce=system_nonce, settings=client or BulkClientSettings()
    )
    async with serving(routes, address, bulk=bulk_server, bugs=bugs) as (small, where):
        async with calling(bulk=bulk_client) as caller:
            yield small, bulk_server, caller, bulk_client, where
    assert bulk_server.buffers_taken == 0 and bulk_server.counters.connections == 0


def _stream_routes(fd: int, released: list[int], in_thread: bool = True) -> Routes:
    def stream(call: Call, ask: Ask) -> Reply[Tell]:
        size = ask.number
        for part in range(3):
            region = FileRegion(fd, part * size, size)
            call.send_part(Reply(Tell(number=size), [region], partial(released.append, part)))
        return Reply(
            Tell(number=size + 1), [b"<", FileRegion(fd, 3 * size, size)], partial(released.append, 3)
        )

    routes = Routes()
    routes.add(STREAM, stream, in_thread=stream if in_thread else None)
    return routes


@pytest.mark.parametrize("in_thread", [True, False])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_answers_from_a_file_in_parts(kind: str, in_thread: bool, tmp_path: Path) -> None:
    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/rpc.sock"
    released: list[int] = []
    with _file(tmp_path, 4 * MIB) as (fd, data):
        async with _pair(_stream_routes(fd, released, in_thread), address) as (_, bulk, caller, _, where):
            sink = Into(4 * MIB + 1)
            await caller.call(where, STREAM, Ask(number=MIB), timeout_s=5, sink=sink, bulk=True)
            assert bytes(sink.data) == data[: 3 * MIB] + b"<" + data[3 * MIB :]
            assert sink.parts == [MIB, MIB, MIB, MIB + 1]
            assert bulk.counters.connections == 1
            # a rest of half a second, and the client says that it has read everything
            await until(lambda: released == [0, 1, 2, 3])


async def test_next_request_releases_the_blocks_of_the_last(tmp_path: Path) -> None:
    released: list[int] = []
    with _file(tmp_path, 4 * MIB) as (fd, _):
        async with _pair(_stream_routes(fd, released)) as (_, _, caller, _, where):
            for turn in range(6):
                sink = Into(4000 + 1)
                await caller.call(where, STREAM, Ask(number=1000), timeout_s=5, sink=sink, bulk=True)
                assert len(released) == (0 if turn < 4 else 16)  # now and then
        assert len(released) == 24


def test_why_the_unsent_count_alone_does_not_release_a_block(tmp_path: Path) -> None:
    """On this host SIOCOUTQ is 0 while the reader's queue refers to our pages: it reads what they became."""
    with _file(tmp_path, 64 << 10) as (fd, data), socket.create_server(("127.0.0.1", 0)) as listener:
        reader = socket.create_connection(listener.getsockname())
        sender, _ = listener.accept()
        with reader, sender:
            assert os.sendfile(sender.fileno(), fd, 0, len(data)) == len(data)
            end_s = time.monotonic() + 5
            while _unsent_bytes(FrameSocket(sender, time.monotonic)) and time.monotonic() < end_s:
                time.sleep(0.001)
            os.pwrite(fd, bytes(len(data)), 0)
            got = reader.recv(len(data), socket.MSG_WAITALL)
    assert got == bytes(len(data)) != data


async def test_silent_reader_is_reset_and_its_blocks_released(tmp_path: Path) -> None:
    released: list[int] = []
    quick = BulkServerSettings(held_s=0.2, tick_s=0.05)
    with _file(tmp_path, 4 * MIB) as (fd, _):
        async with _pair(_stream_routes(fd, released), server=quick) as (_, bulk, caller, client, where):
            client._timer.cancel()  # says nothing of what it has read
            sink = Into(4 * MIB + 1)
            await caller.call(where, STREAM, Ask(number=MIB), timeout_s=5, sink=sink, bulk=True)
            await until(lambda: len(released) == 4)
            assert bulk.counters.stalled == 1 and bulk.counters.connections == 0
            # the next call finds the connection ended, and takes another
            again = Into(4001)
            await caller.call(where, STREAM, Ask(number=1000), timeout_s=5, sink=again, bulk=True)


def _store_routes(gate: asyncio.Event | None = None) -> Routes:
    async def store(call: Call, ask: Ask) -> Tell:
        assert call.payload is not None
        address = ctypes.addressof(ctypes.c_char.from_buffer(call.payload))
        if gate is not None:
            await gate.wait()
        return Tell(str(sum(call.payload[:: 1 << 16])), address % 4096)

    routes = Routes()
    routes.add(STORE, store)
    return routes


async def test_payloads_of_requests(tmp_path: Path) -> None:
    async with _pair(_store_routes()) as (_, bulk, caller, _, where):
        data = os.urandom(3 * MIB)
        pieces: Sequence[bytes | memoryview] = [data[:1000], memoryview(data)[1000:]]
        calls = [caller.call(where, STORE, Ask(), timeout_s=5, payload=pieces, bulk=True) for _ in range(20)]
        for answer in await asyncio.gather(*calls):
            assert (answer.text, answer.number) == (str(sum(data[:: 1 << 16])), 0)
        assert bulk.counters.accepted <= 4  # calls to one address at a time
        with pytest.raises(InvalidRequest):
            await caller.call(where, STORE, Ask(), timeout_s=5, payload=[bytes(9 * MIB)], bulk=True)


async def test_payloads_in_flight_are_bounded() -> None:
    gate = asyncio.Event()
    settings = BulkServerSettings(payloads_max=2)
    async with _pair(_store_routes(gate), server=settings) as (_, bulk, caller, _, where):
        payload = [bytes(MIB)]
        calls = [
            asyncio.ensure_future(caller.call(where, STORE, Ask(), timeout_s=5, payload=payload, bulk=True))
            for _ in range(4)
        ]
        await until(lambda: bulk.in_flight == 4)
        assert bulk.buffers_taken == 2
        gate.set()
        await asyncio.gather(*calls)


async def test_errors_keep_the_connection() -> None:
    bugs = Bugs()

    def fast(call: Call, ask: Ask) -> Tell | None:
        if ask.number == 1:
            raise fs_error(2, path="/x")
        if ask.number == 2:
            raise KeyError("bug")
        if ask.number == 3:
            return None
        return Tell("thread")

    async def slow(call: Call, ask: Ask) -> Tell:
        await asyncio.sleep(0)
        raise fs_error(2, path="/y")

    routes = Routes()
    routes.add(ECHO, slow, in_thread=fast)
    async with _pair(routes, bugs=bugs) as (_, bulk, caller, _, where):
        with pytest.raises(NotFound, match="/x"):
            await caller.call(where, ECHO, Ask(number=1), timeout_s=5, bulk=True)
        with pytest.raises(InternalError, match="KeyError"):
            await caller.call(where, ECHO, Ask(number=2), timeout_s=5, bulk=True)
        with pytest.raises(NotFound, match="/y"):
            await caller.call(where, ECHO, Ask(number=3), timeout_s=5, bulk=True)
        with pytest.raises(InvalidRequest, match="unknown method"):
            await caller.call(where, UNKNOWN, Ask(), timeout_s=5, bulk=True)
        assert (await caller.call(where, ECHO, Ask(), timeout_s=5, bulk=True)).text == "thread"
        assert bulk.counters.accepted == 1
    assert bugs == ["echo 0 KeyError('bug')"]


async def test_sink_that_fails_ends_the_call() -> None:
    class Bad(Into):
        def received(self, response: Any) -> None:
            raise CorruptData("sum")

    routes = Routes()
    routes.add(FETCH, lambda call, ask: Reply(Tell(number=MIB), [bytes(MIB)]))
    async with _pair(routes) as (_, _, caller, client, where):
        with pytest.raises(CorruptData, match="sum"):
            await caller.call(where, FETCH, Ask(), timeout_s=5, sink=Bad(MIB), bulk=True)
        assert client._idle_count == 1  # the answer had been read: the connection lives
        with pytest.raises(CorruptData, match="room"):
            await caller.call(where, FETCH, Ask(), timeout_s=5, sink=Into(5), bulk=True)
        with pytest.raises(InvalidRequest, match="no sink"):
            await caller.call(where, FETCH, Ask(), timeout_s=5, bulk=True)
        assert client._idle_count == 0


async def test_blocking_calls_from_threads() -> None:
    routes = Routes()
    routes.add(FETCH, lambda call, ask: Reply(Tell(number=MIB), [bytes([ask.number]) * MIB]))
    async with _pair(routes) as (_, _, caller, _, where):

        def work(number: int) -> bool:
            for _ in range(5):
                sink = Into(MIB)
                caller.call_blocking(where, FETCH, Ask(number=number), timeout_s=5, sink=sink)
                if bytes(sink.data) != bytes([number]) * MIB:
                    return False
            return True

        assert all(await asyncio.gather(*(asyncio.to_thread(work, n) for n in range(6))))
        with pytest.raises(AssertionError, match="block the event loop"):
            caller.call_blocking(where, FETCH, Ask(), timeout_s=5)


async def test_server_without_bulk_plane_answers_on_the_small_one() -> None:
    routes = Routes()
    routes.add(FETCH, lambda call, ask: Reply(Tell(number=MIB), [bytes(MIB)]))
    bulk = BulkClient(NODE, SystemNetwork(), make_nonce=system_nonce)
    async with serving(routes) as (server, where), calling(bulk=bulk) as caller:
        for _ in range(2):
            await caller.call(where, FETCH, Ask(), timeout_s=5, sink=Into(MIB), bulk=True)
        await asyncio.to_thread(
            partial(caller.call_blocking, where, FETCH, Ask(), timeout_s=5, sink=Into(MIB))
        )
        assert server.counters.connections == 1


@pytest.mark.parametrize("has_bulk", [True, False], ids=["bulk", "over the loop"])
async def test_a_blocking_call_is_given_up_from_another_thread(has_bulk: bool) -> None:
    reached = asyncio.Event()
    give_ups: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()  # one

    async def wait(call: Call, ask: Ask) -> Tell:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    routes = Routes()
    routes.add(WAIT, wait)
    async with _pair(routes) as (_, _, with_bulk, _, where), calling() as without:
        caller = with_bulk if has_bulk else without
        call = partial(caller.call_blocking, where, WAIT, Ask(), timeout_s=60, begun=give_ups.put)
        waiting = asyncio.ensure_future(asyncio.to_thread(call))
        await reached.wait()
        give_up = give_ups.get()
        give_up()
        with pytest.raises(MaybeApplied):
            await waiting
        give_up()  # it is over: nothing happens
        await asyncio.sleep(0)


async def test_cancelled_call_cancels_its_handler() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(call: Call, ask: Ask) -> Tell:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    routes = Routes()
    routes.add(WAIT, wait)
    async with _pair(routes) as (_, bulk, caller, client, where):
        task = asyncio.ensure_future(caller.call(where, WAIT, Ask(), timeout_s=60, bulk=True))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(ended.wait(), 5)
        await until(lambda: bulk.counters.cancelled == 1 and bulk.in_flight == 0)
        assert client.counters.given_up == 1


async def test_deadline_in_the_server_and_the_client() -> None:
    async def wait(call: Call, ask: Ask) -> Tell:
        await asyncio.Event().wait()
        raise AssertionError

    routes = Routes()
    routes.add(WAIT, wait)
    async with _pair(routes) as (_, bulk, caller, _, where):
        with pytest.raises(MaybeApplied):
            await caller.call(where, WAIT, Ask(), timeout_s=0.1, bulk=True)
        await until(lambda: bulk.in_flight == 0)


async def test_nobody_listens() -> None:
    bulk = BulkClient(NODE, SystemNetwork(), make_nonce=system_nonce)
    async with serving(Routes()) as (_, where):
        pass
    async with calling(bulk=bulk) as caller:
        with pytest.raises(Unavailable):
            await caller.call(where, ECHO, Ask(), timeout_s=5, bulk=True)
        assert bulk.counters.failed_connects == 1


async def test_server_that_never_started_closes() -> None:
    server = RpcServer(
        Routes(),
        ServerIdentity(KEY, NodeId(1), Generation(1), lambda uid: 0),
        SystemNetwork(),
        make_nonce=system_nonce,
        on_bug=Bugs(),
        bulk=BulkServer(),
    )
    await server.aclose()
    await server.aclose()


async def test_stop_ends_all_threads() -> None:
    routes = Routes()
    routes.add(ECHO, lambda call, ask: Tell())
    async with _pair(routes) as (_, _, caller, _, where):
        await caller.call(where, ECHO, Ask(), timeout_s=5, bulk=True)
        assert any(t.name.startswith("fs3-bulk") for t in threading.enumerate())
    assert not any(t.name.startswith("fs3-bulk") for t in threading.enumerate())
