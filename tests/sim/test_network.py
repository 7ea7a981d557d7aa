"""The simulated network behaves as the real one does, as far as fs3 can tell."""

from __future__ import annotations

import asyncio

import pytest

from fs3.rng import derived_rng

from .loop import SimLoop, run_virtual
from .network import SimInternet
from .wires import BROKEN_AFTER_S, LinkFaults


class Recorder(asyncio.Protocol):
    """Notes what happens to a connection."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


def world(seed: int = 1, **faults: float) -> tuple[SimLoop, SimInternet]:
    """A loop and its internet."""
    loop = SimLoop()
    return loop, SimInternet(loop, derived_rng(seed, "net"), LinkFaults(**faults))  # type: ignore[arg-type]


async def pair(net: SimInternet) -> tuple[Recorder, Recorder]:
    """A connection from host a to host b."""
    served: list[Recorder] = []

    def make() -> Recorder:
        served.append(Recorder())
        return served[-1]

    listener = await net.host("b").listen("b:1", make)
    _, near = await net.host("a").connect("b:1", Recorder)
    listener.close()
    return near, served[0]


def test_bytes_arrive_in_order_and_a_close_comes_after_them() -> None:
    loop, net = world(slow_rate=0.5)

    async def main() -> None:
        near, far = await pair(net)
        for i in range(200):
            near.transport.write(bytes([i]))
        near.transport.close()
        await asyncio.sleep(100)
        assert far.received == bytes(range(200))
        assert far.lost == [None] and near.lost == [None]

    run_virtual(main(), loop)


def test_nobody_listens() -> None:
    loop, net = world()

    async def main() -> None:
        with pytest.raises(ConnectionRefusedError):
            await net.host("a").connect("b:2", Recorder)

    run_virtual(main(), loop)


def test_a_cut_delays_a_stream_and_a_long_one_breaks_it() -> None:
    loop, net = world()

    async def main() -> None:
        near, far = await pair(net)
        net.cut("a", "b")
        near.transport.write(b"kept")
        await asyncio.sleep(5)
        assert not far.received
        net.heal()
        await asyncio.sleep(1)
        assert far.received == b"kept"
        net.cut("a", "b")
        near.transport.write(b"lost")
        await asyncio.sleep(BROKEN_AFTER_S + 1)
        assert isinstance(near.lost[0], TimeoutError)

    run_virtual(main(), loop)


def test_a_crashed_host_resets_its_peers_unless_it_lost_its_power() -> None:
    loop, net = world()

    async def main() -> None:
        near, far = await pair(net)
        net.crash("b")
        await asyncio.sleep(1)
        assert isinstance(near.lost[0], ConnectionResetError) and not far.lost
        near, _ = await pair(net)
        net.crash("b", silent=True)
        await asyncio.sleep(1)
        assert not near.lost

    run_virtual(main(), loop)


def test_one_seed_gives_one_history_of_datagrams() -> None:
    def history(seed: int) -> list[tuple[bytes, float]]:
        loop, net = world(seed, datagram_loss_rate=0.3, datagram_copy_rate=0.2, slow_rate=0.3)
        seen: list[tuple[bytes, float]] = []

        async def main() -> None:
            await net.host("b").open_datagrams("b:1", lambda data, _: seen.append((data, loop.time())))
            port = await net.host("a").open_datagrams("a:1", lambda *_: None)
            for i in range(100):
                port.send(bytes([i]), "b:1")
            await asyncio.sleep(10)

        run_virtual(main(), loop)
        return seen

    first = history(7)
    assert first == history(7) != history(8)
    arrived = [data[0] for data, _ in first]
    assert arrived != sorted(arrived) and len(set(arrived)) < 100 and len(arrived) > len(set(arrived))


def test_what_is_held_back_on_one_way_comes_late_and_the_other_way_does_not_know() -> None:
    loop, net = world()

    async def main() -> None:
        near, far = await pair(net)
        net.hold_back("a", "b", "streams", 3.0)
        near.transport.write(b"late")
        far.transport.write(b"soon")
        await asyncio.sleep(1)
        assert (bytes(near.received), bytes(far.received)) == (b"soon", b"")
        await asyncio.sleep(2.1)
        assert far.received == b"late"
        net.let_pass("a", "b")
        near.transport.write(b" and soon")
        await asyncio.sleep(0.1)
        assert far.received == b"late and soon"

    run_virtual(main(), loop)


def test_forged_resets_end_all_connections_of_two_hosts_and_a_firewall_refuses_new_ones() -> None:
    loop, net = world()

    async def main() -> None:
        near, far = await pair(net)
        assert net.reset("b", "a") == 2
        await asyncio.sleep(0.1)
        assert len(near.lost) == len(far.lost) == 1
        listener = await net.host("b").listen("b:1", Recorder)
        net.refuse("a", "b")
        with pytest.raises(ConnectionRefusedError):
            await net.host("a").connect("b:1", Recorder)
        net.mend("a", "b")
        await net.host("a").connect("b:1", Recorder)
        listener.close()

    run_virtual(main(), loop)
