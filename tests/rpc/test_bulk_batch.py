"""Batches of bulk calls by a thread, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fs3.errors import CorruptData, InvalidRequest, MaybeApplied, Unavailable
from fs3.identity.key_file import system_nonce
from fs3.rpc.bulk_client import BulkClient, BulkClientSettings
from fs3.rpc.bulk_server import BulkServer
from fs3.rpc.network import SystemNetwork
from fs3.rpc.service import Call, Reply, Routes
from fs3.rpc.thread_calls import ThreadCall

from .world import FETCH, NODE, Ask, Into, Tell, serving, until

MIB = 1 << 20


def _fetch(call: Call, ask: Ask) -> Reply[Tell]:
    if ask.text == "refuse":
        raise InvalidRequest("refused")
    if ask.text == "sleep":
        time.sleep(1.0)
    return Reply(Tell(number=MIB), [bytes([ask.number]) * MIB])


def _routes() -> Routes:
    routes = Routes()
    routes.add(FETCH, _fetch, in_thread=_fetch)
    return routes


@asynccontextmanager
async def _servers(count: int, **settings: Any) -> AsyncIterator[tuple[BulkClient, list[str]]]:
    client = BulkClient(
        NODE, SystemNetwork(), make_nonce=system_nonce, settings=BulkClientSettings(**settings)
    )
    async with asyncio.TaskGroup() as group:
        stop, ready = asyncio.Event(), asyncio.Queue[str]()

        async def serve() -> None:
            async with serving(_routes(), bulk=BulkServer()) as (_, where):
                ready.put_nowait(where)
                await stop.wait()

        for _ in range(count):
            group.create_task(serve())
        try:
            yield client, [await ready.get() for _ in range(count)]
        finally:
            await client.aclose()
            stop.set()


def _call(where: str, number: int = 1, text: str = "", sink: Into | None = None) -> ThreadCall:
    return ThreadCall(where, FETCH, Ask(number=number, text=text), sink or Into(MIB))


def _is_right(call: ThreadCall) -> bool:
    sink: Any = call.sink
    return call.error is None and bytes(sink.data) == bytes([call.request.number]) * MIB


@pytest.mark.parametrize("threads", [1, 3])
async def test_every_call_of_a_batch_is_answered(threads: int) -> None:
    async with _servers(3, batch_threads_max=threads) as (client, where):
        for _ in range(3):
            calls = [_call(where[n % 3], n) for n in range(7)]
            await asyncio.to_thread(client.call_all, calls, 5.0)
            assert all(_is_right(call) and call.took_s > 0 for call in calls)
        assert client.counters.calls == 21 and client.counters.connected <= 7


async def test_more_calls_than_permits_wait_for_their_turn() -> None:
    async with _servers(2, in_flight_max=3, in_flight_peer_max=2) as (client, where):

        def work(first: int) -> bool:
            calls = [_call(where[n % 2], first + n) for n in range(9)]
            client.call_all(calls, 10.0)
            return all(map(_is_right, calls))

        assert all(await asyncio.gather(*(asyncio.to_thread(work, n * 10) for n in range(4))))


async def test_errors_stay_with_their_calls() -> None:
    class Bad(Into):
        def received(self, response: Any) -> None:
            raise CorruptData("sum")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
    async with _servers(2) as (client, where):
        calls = [
            _call(where[0], 5),
            _call(where[0], text="refuse"),
            _call(nobody),
            _call(where[1], sink=Bad(MIB)),
            _call(where[1], 6),
        ]
        await asyncio.to_thread(client.call_all, calls, 5.0)
        assert _is_right(calls[0]) and _is_right(calls[4])
        errors = [type(call.error) for call in calls[1:4]]
        assert errors == [InvalidRequest, Unavailable, CorruptData]


async def test_a_server_that_sleeps_costs_only_its_own_call() -> None:
    async with _servers(2, batch_threads_max=1) as (client, where):
        calls = [_call(where[0], text="sleep"), _call(where[1], 6)]
        await asyncio.to_thread(client.call_all, calls, 0.3)
        assert isinstance(calls[0].error, MaybeApplied)
        assert _is_right(calls[1])
        sink: Any = calls[0].sink
        await asyncio.sleep(1.0)  # as long as the server sleeps: what it sends then arrives nowhere
        assert not any(sink.data)


async def test_a_failure_ends_every_call_and_is_raised() -> None:
    class Broken(Into):
        def received(self, response: Any) -> None:
            raise ZeroDivisionError("a bug of the sink")

    async with _servers(2, in_flight_max=4) as (client, where):
        for _ in range(3):  # all permits came back
            calls = [_call(where[n % 2], sink=Broken(MIB) if n == 1 else None) for n in range(4)]
            with pytest.raises(ZeroDivisionError):
                await asyncio.to_thread(client.call_all, calls, 5.0)
        calls = [_call(where[n % 2], n) for n in range(4)]
        await asyncio.to_thread(client.call_all, calls, 5.0)
        assert all(map(_is_right, calls))


async def test_closing_the_client_ends_a_batch() -> None:
    async with _servers(1) as (client, where):
        calls = [_call(where[0], text="sleep")]
        thread = threading.Thread(target=client.call_all, args=(calls, 30.0))
        thread.start()
        await until(lambda: client.counters.calls == 1)
        await client.aclose()
        await asyncio.to_thread(thread.join, 5)
        assert not thread.is_alive() and isinstance(calls[0].error, MaybeApplied)
