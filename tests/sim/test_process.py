"""Kills in the simulated world: a process ends where it is, takes all that is its own with it, no more."""

from __future__ import annotations

import asyncio

import pytest

from fs3.rng import derived_rng
from fs3.tasks import TaskScope

from .loop import SimLoop, run_virtual
from .network import SimInternet
from .process import SimProcess, keep_processes
from .wires import LinkFaults


async def _beat(beats: list[str], name: str) -> None:
    while True:
        beats.append(name)
        await asyncio.sleep(1)


def test_a_kill_ends_all_tasks_and_timers_of_a_process_and_of_no_other() -> None:
    beats: list[str] = []
    loop = SimLoop()

    async def server(scope: TaskScope, name: str) -> None:
        scope.start("task", _beat(beats, f"task of {name}"))

        def tick() -> None:
            beats.append(f"timer of {name}")
            loop.call_later(1, tick)

        tick()
        await asyncio.sleep(100)

    async def main() -> None:
        keep_processes(loop)
        async with TaskScope("test", lambda name, error: None) as scope:
            processes = {name: SimProcess(name) for name in "ab"}
            for name, process in processes.items():
                process.start(scope, server(scope, name))
            await asyncio.sleep(2.5)
            assert len(beats) == 12
            processes["a"].kill()
            await processes["a"].reap()
            del beats[:]
            await asyncio.sleep(2.5)
            assert beats and all(beat.endswith("b") for beat in beats), beats
            assert not processes["a"].tasks
            processes["b"].kill()
            await processes["b"].reap()

    run_virtual(main(), loop)


def test_what_a_dying_task_still_waits_for_does_not_keep_it() -> None:
    loop = SimLoop()
    ended: list[float] = []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            try:
                await asyncio.sleep(100)
            finally:
                ended.append(loop.time())

    async def main() -> None:
        keep_processes(loop)
        async with TaskScope("test", lambda name, error: None) as scope:
            process = SimProcess("a")
            process.start(scope, stubborn())
            await asyncio.sleep(1)
            process.kill()
            await process.reap()
            assert ended == [loop.time()]

    run_virtual(main(), loop)


class _Starter(asyncio.Protocol):
    """Starts a task for whatever it receives."""

    def __init__(self, scope: TaskScope, beats: list[str]) -> None:
        self._scope = scope
        self._beats = beats

    def data_received(self, data: bytes) -> None:
        self._scope.start("handler", _beat(self._beats, data.decode()))


def test_the_handler_of_a_message_belongs_to_who_received_it() -> None:
    loop = SimLoop()
    beats: list[str] = []

    async def main() -> None:
        keep_processes(loop)
        net = SimInternet(loop, derived_rng(1, "net"), LinkFaults())
        async with TaskScope("test", lambda name, error: None) as scope:
            server, client = SimProcess("server"), SimProcess("client")

            async def listen() -> None:
                await net.host("s").listen("s:1", lambda: _Starter(scope, beats))

            async def send() -> None:
                transport, _ = await net.host("c").connect("s:1", asyncio.Protocol)
                transport.write(b"hello")

            await server.start(scope, listen())
            await client.start(scope, send())
            await asyncio.sleep(1.5)
            assert beats == ["hello", "hello"]
            assert len(server.tasks) == 1 and not client.tasks
            net.crash("c")
            client.kill()
            await client.reap()
            await asyncio.sleep(1)
            assert len(beats) == 3
            server.kill()
            await server.reap()

    run_virtual(main(), loop)


def test_a_silent_host_is_told_of_only_when_it_is_back() -> None:
    loop = SimLoop()
    lost: list[tuple[float, str]] = []

    class Client(asyncio.Protocol):
        def connection_lost(self, error: Exception | None) -> None:
            lost.append((loop.time(), str(error)))

    async def main() -> None:
        net = SimInternet(loop, derived_rng(1, "net"), LinkFaults())
        before = net.host("s")
        await before.listen("s:1", asyncio.Protocol)
        transport, _ = await net.host("c").connect("s:1", Client)
        net.crash("s", silent=True)
        transport.write(b"lost")
        await asyncio.sleep(3)
        assert lost == []
        with pytest.raises(ConnectionAbortedError, match="is no more"):
            await before.connect("c:1", asyncio.Protocol)
        back_s = loop.time()
        await net.host("s").listen("s:1", asyncio.Protocol)
        await asyncio.sleep(1)
        ((lost_s, text),) = lost
        assert lost_s - back_s < 0.5 and "started again" in text

    run_virtual(main(), loop)


def test_a_paused_process_stands_still_and_what_came_meanwhile_waits_for_it() -> None:
    loop = SimLoop()
    beats: list[str] = []
    got: list[tuple[float, bytes]] = []

    class Taker(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            got.append((loop.time(), data))

    async def main() -> None:
        keep_processes(loop)
        net = SimInternet(loop, derived_rng(1, "net"), LinkFaults())
        async with TaskScope("test", lambda name, error: None) as scope:
            server = SimProcess("s")

            async def serve() -> None:
                await net.host("s").listen("s:1", Taker)
                port = await net.host("s").open_datagrams(
                    "s:2", lambda data, _: got.append((loop.time(), data))
                )
                assert port.address == "s:2"
                await _beat(beats, "s")

            server.start(scope, serve())
            await asyncio.sleep(0.5)
            transport, _ = await net.host("c").connect("s:1", asyncio.Protocol)
            server.pause()
            transport.write(b"stream")
            (await net.host("c").open_datagrams("c:2", lambda *_: None)).send(b"datagram", "s:2")
            late, _ = await net.host("c").connect("s:1", asyncio.Protocol)
            late.write(b"late")
            await asyncio.sleep(10)
            assert beats == ["s"] and not got
            server.resume()
            resumed_s = loop.time()
            await asyncio.sleep(0.5)
            assert beats == ["s", "s"]
            assert sorted(data for _, data in got) == [b"datagram", b"late", b"stream"]
            assert {at_s for at_s, _ in got} == {resumed_s}
            server.pause()
            net.crash("s")
            server.kill()
            await server.reap()
            assert not server.tasks

    run_virtual(main(), loop)
