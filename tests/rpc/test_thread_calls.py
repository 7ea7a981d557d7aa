"""Small calls by threads, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fs3.errors import Busy, CorruptData, InvalidRequest, MaybeApplied, Unavailable
from fs3.identity.key_file import system_nonce
from fs3.rpc import thread_calls
from fs3.rpc.network import SystemNetwork
from fs3.rpc.service import Call, Reply, Routes
from fs3.rpc.thread_calls import ThreadCall, ThreadCaller

from .world import ECHO, FETCH, NODE, STREAM, WAIT, Ask, Into, Tell, serving, until

SIZE = 50_000


def routes() -> Routes:
    found = Routes()

    def fetch(call: Call, ask: Ask) -> Reply[Tell]:
        return Reply(Tell(number=ask.number), [bytes([ask.number % 251]) * ask.number])

    def stream(call: Call, ask: Ask) -> Reply[Tell]:
        for number in range(1, ask.number):
            call.send_part(Reply(Tell(number=number), [bytes([number]) * number]))
        return Reply(Tell(number=ask.number), [bytes([ask.number]) * ask.number])

    async def wait(call: Call, ask: Ask) -> Tell:
        await asyncio.sleep(ask.number / 1000)
        return Tell(text=ask.text)

    def echo(call: Call, ask: Ask) -> Tell:
        if ask.text == "refuse":
            raise InvalidRequest("refused")
        return Tell(ask.text, ask.number)

    found.add(FETCH, fetch)
    found.add(STREAM, stream)
    found.add(WAIT, wait)
    found.add(ECHO, echo)
    return found


@contextmanager
def thread_caller() -> Iterator[ThreadCaller]:
    caller = ThreadCaller(NODE, SystemNetwork(), make_nonce=system_nonce, now_s=time.monotonic)
    try:
        yield caller
    finally:
        caller.close()


async def call_all(caller: ThreadCaller, calls: list[ThreadCall], timeout_s: float = 5.0) -> None:
    await asyncio.to_thread(caller.call_all, calls, timeout_s)


async def test_calls_to_many_servers_at_once() -> None:
    async with serving(routes()) as (_, one), serving(routes()) as (_, other):
        with thread_caller() as caller:
            for _ in range(3):
                sinks = [Into(SIZE + n) for n in range(6)]
                calls = [
                    ThreadCall(one if n % 2 else other, FETCH, Ask(number=SIZE + n), sink)
                    for n, sink in enumerate(sinks)
                ]
                await call_all(caller, calls)
                assert [call.error for call in calls] == [None] * 6
                for n, sink in enumerate(sinks):
                    assert sink.data == bytes([(SIZE + n) % 251]) * (SIZE + n)


async def test_parts_and_answers_without_payload() -> None:
    async with serving(routes()) as (_, where):
        with thread_caller() as caller:
            sink = Into(21)
            calls = [ThreadCall(where, STREAM, Ask(number=6), sink), ThreadCall(where, ECHO, Ask("a"))]
            await call_all(caller, calls)
            assert [call.error for call in calls] == [None, None]
            assert sink.parts == [1, 2, 3, 4, 5, 6]
            assert sink.data == b"".join(bytes([n]) * n for n in range(1, 7))


async def test_errors_are_those_of_their_calls() -> None:
    async with serving(routes()) as (_, where):
        with thread_caller() as caller:
            calls = [
                ThreadCall(where, ECHO, Ask("refuse")),
                ThreadCall(where, ECHO, Ask("fine")),
                ThreadCall(where, FETCH, Ask(number=5)),  # payload, and no sink
                ThreadCall("127.0.0.1:1", ECHO, Ask("nobody")),
                ThreadCall(where, ECHO, Ask("x" * (2 << 20))),
                ThreadCall(where, ECHO, Ask("fine again")),
            ]
            await call_all(caller, calls)
            kinds = [type(call.error) for call in calls]
            none = type(None)
            assert kinds == [InvalidRequest, none, CorruptData, Unavailable, InvalidRequest, none]


async def test_a_late_answer_reaches_nobody() -> None:
    async with serving(routes()) as (_, where):
        with thread_caller() as caller:
            late = ThreadCall(where, WAIT, Ask("late", 400))
            started_s = time.monotonic()
            await call_all(caller, [late], 0.1)
            assert isinstance(late.error, MaybeApplied) and time.monotonic() - started_s < 0.35
            good = ThreadCall(where, ECHO, Ask("good"))
            await call_all(caller, [good])
            assert good.error is None


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    with thread_caller() as caller:
        async with serving(routes()) as (_, where):
            call = ThreadCall(where, ECHO, Ask())
            await call_all(caller, [call])
            assert call.error is None
        await asyncio.sleep(thread_calls.FRESH_S)
        async with serving(routes(), where):
            call = ThreadCall(where, ECHO, Ask())
            await call_all(caller, [call])
            assert call.error is None


async def test_a_silent_server_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, thread_caller() as caller:
        call = ThreadCall(f"127.0.0.1:{silent.getsockname()[1]}", ECHO, Ask())
        await call_all(caller, [call], 0.1)
        assert isinstance(call.error, Unavailable)


async def test_closing_ends_calls_under_way() -> None:
    async with serving(routes()) as (_, where):
        with thread_caller() as caller:
            call = ThreadCall(where, WAIT, Ask("x", 3000))
            running = asyncio.create_task(call_all(caller, [call], 10.0))
            await until(lambda: bool(caller._in_use))
            caller.close()
            await running
            assert isinstance(call.error, MaybeApplied | Unavailable)


async def test_too_many_threads_are_refused() -> None:
    with thread_caller() as caller:
        caller._caller_count = thread_calls.CALLERS_MAX
        try:
            caller.call_all([], 1.0)
        except Busy:
            return
    raise AssertionError("it was not refused")
