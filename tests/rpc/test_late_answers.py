"""No late byte: once a call has ended, nothing is written to a buffer that its sink handed out.

The server here is a plain thread that proves itself and then misbehaves as it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fs3.errors import CorruptData, MaybeApplied, Unavailable
from fs3.identity.handshake import ServerHandshake, ServerIdentity, Welcome
from fs3.identity.key_file import system_nonce
from fs3.ids import Generation, NodeId
from fs3.rpc.blocking import FrameSocket, PeerClosed, Stalled
from fs3.rpc.bulk_client import BulkClient
from fs3.rpc.client import RpcClient
from fs3.rpc.framing import Frame, FrameError, Kind, encode_frame
from fs3.rpc.network import SystemNetwork
from fs3.wire.codec import encode
from tests.rpc.world import FETCH, KEY, NODE, Ask, Into, Tell, calling, until

Answer = Callable[[FrameSocket, Frame], None]
SIZE_BYTES = 64 << 10


class Misbehaving:
    """Takes connections, shakes hands, and gives each request to ``answer``."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()
        self.address = f"{host}:{port}"
        self.requests: list[Frame] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[FrameSocket] = []
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                found = FrameSocket(sock, time.monotonic)
                found.send_within(5.0)
                self._sockets.append(found)
                self._threads.append(threading.Thread(target=self._serve, args=(found,)))
                self._threads[-1].start()

    def _serve(self, sock: FrameSocket) -> None:
        identity = ServerIdentity(KEY, NodeId(1), Generation(1), lambda uid: 0, bulk=True)
        handshake = ServerHandshake(identity, system_nonce())
        with contextlib.suppress(PeerClosed, Stalled, FrameError, OSError):
            sock.send(encode_frame(Kind.CHALLENGE, handshake.on_hello(sock.read(_bounds).message)))
            handshake.on_proof(sock.read(_bounds).message)
            welcome = Welcome(in_flight_max=8, small_payload_bytes_max=1 << 20)
            sock.send(encode_frame(Kind.WELCOME, encode(welcome)))
            while True:
                frame = sock.read(_bounds)
                if frame.kind == Kind.REQUEST:
                    self.requests.append(frame)
                    self._answer(sock, frame)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            sock.shut()
        for thread in self._threads:
            thread.join(5)
        for sock in self._sockets:
            sock.close()


def _bounds(kind: int, method: int) -> tuple[int, int]:
    return 1 << 16, 1 << 20


def _head(frame: Frame, size_bytes: int, kind: Kind = Kind.RESPONSE) -> bytes:
    message = encode(Tell(number=size_bytes))
    return encode_frame(kind, message, method=frame.method, call=frame.call, payload_bytes=size_bytes)


def _byte_by_byte(first_bytes: int, pause_s: float) -> Answer:
    """Sends the head and the first bytes at once, then a byte at a time, for ever if need be."""

    def answer(sock: FrameSocket, frame: Frame) -> None:
        sock.send(_head(frame, SIZE_BYTES) + b"x" * first_bytes)
        for _ in range(SIZE_BYTES - first_bytes):
            time.sleep(pause_s)
            sock.send(b"x")

    return answer


@asynccontextmanager
async def _against(answer: Answer) -> AsyncIterator[tuple[Misbehaving, RpcClient, BulkClient]]:
    server = Misbehaving(answer)
    bulk = BulkClient(NODE, SystemNetwork(), make_nonce=system_nonce)
    try:
        async with calling(bulk=bulk) as caller:
            yield server, caller, bulk
    finally:
        await asyncio.to_thread(server.close)


async def _no_change(sink: Into) -> None:
    before = bytes(sink.data)
    await asyncio.sleep(0.1)
    assert bytes(sink.data) == before


@pytest.mark.parametrize("bulk", [True, False])
@pytest.mark.parametrize("first_bytes", [0, 100, 40_000])
async def test_deadline_in_the_middle_of_a_trickling_answer(bulk: bool, first_bytes: int) -> None:
    async with _against(_byte_by_byte(first_bytes, 0.001)) as (server, caller, _):
        sink = Into(SIZE_BYTES)
        began_s = time.monotonic()
        with pytest.raises(MaybeApplied, match="in time"):
            await caller.call(server.address, FETCH, Ask(), timeout_s=0.3, sink=sink, bulk=bulk)
        assert time.monotonic() - began_s < 1.0
        await _no_change(sink)


async def test_cancelled_in_the_middle_and_the_buffer_given_on() -> None:
    """A hedge: the first attempt is given up, the second receives into the same buffer."""
    calls = 0

    def answer(sock: FrameSocket, frame: Frame) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            _byte_by_byte(40_000, 0.0005)(sock, frame)
        else:
            sock.send(_head(frame, SIZE_BYTES) + b"y" * SIZE_BYTES)

    async with _against(answer) as (server, caller, bulk):
        sink = Into(SIZE_BYTES)
        first = asyncio.ensure_future(
            caller.call(server.address, FETCH, Ask(), timeout_s=30, sink=sink, bulk=True)
        )
        await until(lambda: sink.data[1000] == ord("x"))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await _no_change(sink)
        sink.at = 0
        await caller.call(server.address, FETCH, Ask(), timeout_s=5, sink=sink, bulk=True)
        await asyncio.sleep(0.1)
        assert bytes(sink.data) == b"y" * SIZE_BYTES
        assert bulk.counters.given_up == 1 and len(server.requests) == 2


async def test_blocking_call_ends_at_its_deadline() -> None:
    async with _against(_byte_by_byte(100, 0.001)) as (server, caller, _):
        sink = Into(SIZE_BYTES)

        def work() -> float:
            began_s = time.monotonic()
            with pytest.raises(MaybeApplied, match="in time"):
                caller.call_blocking(server.address, FETCH, Ask(), timeout_s=0.3, sink=sink)
            return time.monotonic() - began_s

        assert await asyncio.to_thread(work) < 1.0
        await _no_change(sink)


async def test_cancelled_while_the_sink_works_waits_for_it() -> None:
    """The receiving thread still reads the buffers: ``call`` ends only after it."""
    entered, leave = threading.Event(), threading.Event()

    class Slow(Into):
        def received(self, response: Any) -> None:
            entered.set()
            leave.wait(5)
            super().received(response)

    def answer(sock: FrameSocket, frame: Frame) -> None:
        sock.send(_head(frame, SIZE_BYTES) + b"y" * SIZE_BYTES)

    async with _against(answer) as (server, caller, _):
        sink = Slow(SIZE_BYTES)
        task = asyncio.ensure_future(
            caller.call(server.address, FETCH, Ask(), timeout_s=30, sink=sink, bulk=True)
        )
        await asyncio.to_thread(entered.wait, 5)
        task.cancel()
        await asyncio.sleep(0.05)
        task.cancel()  # once more: it still waits
        await asyncio.sleep(0.05)
        assert not task.done()
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sink.parts == [SIZE_BYTES]


async def test_silent_server_leaves_others_their_share() -> None:
    def nothing(sock: FrameSocket, frame: Frame) -> None:
        pass

    def answer(sock: FrameSocket, frame: Frame) -> None:
        sock.send(_head(frame, SIZE_BYTES) + b"y" * SIZE_BYTES)

    good = Misbehaving(answer)
    try:
        async with _against(nothing) as (silent, caller, _):
            stuck = [
                asyncio.ensure_future(
                    caller.call(silent.address, FETCH, Ask(), timeout_s=1.0, sink=Into(0), bulk=True)
                )
                for _ in range(20)
            ]
            await until(lambda: len(silent.requests) == 4)
            for _ in range(10):
                await caller.call(good.address, FETCH, Ask(), timeout_s=0.9, sink=Into(SIZE_BYTES), bulk=True)
            results = await asyncio.gather(*stuck, return_exceptions=True)
            assert [type(r) for r in results[:4]] == [MaybeApplied] * 4
            assert all(isinstance(r, MaybeApplied | Unavailable) for r in results)
    finally:
        await asyncio.to_thread(good.close)


@pytest.mark.parametrize("bulk", [True, False])
async def test_connection_lost_in_the_middle(bulk: bool) -> None:
    def answer(sock: FrameSocket, frame: Frame) -> None:
        sock.send(_head(frame, SIZE_BYTES) + b"y" * 1000)
        sock.reset()

    async with _against(answer) as (server, caller, _):
        sink = Into(SIZE_BYTES)
        with pytest.raises(MaybeApplied):
            await caller.call(server.address, FETCH, Ask(), timeout_s=5, sink=sink, bulk=bulk)


@pytest.mark.parametrize("bulk", [True, False])
async def test_answers_that_are_no_answers(bulk: bool) -> None:
    answers: list[Callable[[Frame], bytes]] = [
        lambda frame: encode_frame(Kind.RESPONSE, b"\xc1", call=frame.call),
        lambda frame: encode_frame(Kind.RESPONSE, encode(Tell("other call")), call=frame.call + 1000),
        lambda frame: encode_frame(77, b"whatever", call=frame.call, payload_bytes=3) + b"abc",
        lambda frame: encode_frame(Kind.PART, encode(Tell())),
        lambda frame: b"no frame at all, and long enough to be taken for one: this is where it ends",
        lambda frame: encode_frame(Kind.ERROR, b"\x90", call=frame.call),
    ]

    def answer(sock: FrameSocket, frame: Frame) -> None:
        sock.send(answers[len(server.requests) % len(answers) - 1](frame))

    async with _against(answer) as (server, caller, _):
        kinds = []
        for _ in answers:
            try:
                await caller.call(server.address, FETCH, Ask(), timeout_s=0.2, sink=Into(0), bulk=bulk)
            except Exception as error:
                kinds.append(type(error).__name__)
        late = "MaybeApplied"
        assert kinds == [CorruptData.__name__, late, late, late, late, "InternalError"]
