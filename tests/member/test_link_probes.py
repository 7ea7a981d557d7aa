"""When the connection to a node counts as broken: calls fail, and so does every new connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from fs3.errors import Busy, DeadlineExceeded, Fs3Error, Unavailable
from fs3.identity.keys import ClusterKey
from fs3.ids import ChainId, ChainVersion, Generation, NodeId, target_id
from fs3.log import silent_logger
from fs3.member.link_probes import LinkProbes
from fs3.member.settings import AgentComponents
from fs3.member.timing import TIMING
from fs3.rng import derived_rng
from fs3.routing import ChainInfo, Member, NodeInfo, NodeKind, RoutingInfo, TargetState
from fs3.tasks import TaskScope
from tests.sim.loop import SimClock, SimLoop, run_virtual

T = TypeVar("T")
OWN, OTHER, STRANGER = NodeId(1), NodeId(2), NodeId(3)


class Wire:
    """A caller and a network: what becomes of calls, and of the n-th new connection."""

    def __init__(self, call: Fs3Error | None, connect: Callable[[int], OSError | str | None]) -> None:
        self._call, self._connect = call, connect
        self.called: list[str] = []
        self.connect_count = 0
        self.closed_count = 0

    async def call(self, address: str, *_: Any, **__: Any) -> None:
        self.called.append(address)
        if self._call is not None:
            raise self._call

    async def connect(self, address: str, make_protocol: Callable[[], Any]) -> tuple[Any, Any]:
        self.connect_count += 1
        outcome = self._connect(self.connect_count)
        if outcome == "silence":
            await asyncio.sleep(1000.0)
        if isinstance(outcome, OSError):
            raise outcome
        return self, make_protocol()

    def close(self) -> None:
        """Of a transport."""
        self.closed_count += 1


def _routing(*nodes: NodeId) -> RoutingInfo:
    """One chain over these nodes, and a node more."""
    infos = {
        n: NodeInfo(node=n, kind=NodeKind.STORAGE, generation=Generation(1), host=f"n{n}", address=f"n{n}:1")
        for n in (OWN, OTHER, STRANGER)
    }
    members = tuple(
        Member(target=target_id(n, 0), state=TargetState.OFFLINE, generation=Generation(1)) for n in nodes
    )
    info = ChainInfo(chain=ChainId(1), version=ChainVersion(1), members=members)
    return RoutingInfo(version=1, nodes=infos, chains={info.chain: info})


def in_scope(wire: Any, scenario: Callable[[LinkProbes, SimClock], Coroutine[Any, Any, T]]) -> T:
    """What ``scenario`` returns, with one node's probes in virtual time; none of their tasks fails."""
    loop = SimLoop()
    clock = SimClock(loop)

    def failed(name: str, error: BaseException) -> None:
        raise AssertionError(name) from error

    async def whole() -> T:
        components = AgentComponents(
            clock=clock,
            rng=derived_rng(1, "probes"),
            network=wire,
            caller=wire,
            key=ClusterKey("alpha", 1, bytes(32)),
            log=silent_logger(),
            fail=failed,
        )
        async with TaskScope("probes", failed) as scope:
            return await scenario(LinkProbes(OWN, components, TIMING, scope), clock)

    return run_virtual(whole(), loop)


def broken_after(wire: Any, seconds: float, nodes: tuple[NodeId, ...] = (OWN, OTHER)) -> list[NodeId]:
    """Who is named after some seconds of tries."""

    async def scenario(probes: LinkProbes, clock: SimClock) -> list[NodeId]:
        probes.adopt(_routing(*nodes), clock.boot_s())
        end_s = clock.boot_s() + seconds
        while clock.boot_s() < end_s:
            probes.look(clock.boot_s())
            await asyncio.sleep(TIMING.repeat_s)
        return probes.broken(clock.boot_s())

    return in_scope(wire, scenario)


NO_ANSWER = DeadlineExceeded("no answer")


@pytest.mark.parametrize("connect", [lambda n: "silence", lambda n: ConnectionRefusedError()])
def test_it_is_broken_when_calls_and_all_new_connections_fail(connect: Any) -> None:
    wire = Wire(NO_ANSWER, connect)
    assert broken_after(wire, TIMING.hint_s) == []  # not long enough
    assert broken_after(wire, TIMING.link_probe_s + 2 * TIMING.hint_s + 1.0) == [OTHER]


@pytest.mark.parametrize("answer", [None, Busy("later")])
def test_an_answer_is_an_answer(answer: Fs3Error | None) -> None:
    wire = Wire(answer, lambda n: "silence")
    assert broken_after(wire, 10.0) == [] and wire.connect_count == 0
    assert 6 <= len(wire.called) <= 8  # one each period


def test_one_new_connection_of_many_is_enough() -> None:
    """As under heavy loss: the old connection stands still, and most first packets are lost."""
    wire = Wire(NO_ANSWER, lambda n: None if n % 8 == 0 else "silence")
    assert broken_after(wire, 10.0) == []
    assert wire.closed_count > 3


def test_it_heals_with_the_next_try() -> None:
    wire = Wire(Unavailable("refused"), lambda n: None if n > 32 else ConnectionResetError())
    assert broken_after(wire, 10.0) == []


def test_only_nodes_of_own_chains_are_tried() -> None:
    wire = Wire(None, lambda n: None)
    assert broken_after(wire, 5.0) == []
    assert set(wire.called) == {"n2:1"}
    nobody = Wire(None, lambda n: None)
    broken_after(nobody, 5.0, (OTHER, STRANGER))
    assert nobody.called == []


def test_a_node_may_leave_the_chain_in_the_moment_in_which_its_try_begins() -> None:
    wire = Wire(None, lambda n: "silence")

    async def scenario(probes: LinkProbes, clock: SimClock) -> None:
        probes.adopt(_routing(OWN, OTHER), clock.boot_s())
        await asyncio.sleep(TIMING.link_probe_s)
        probes.look(clock.boot_s())
        probes.adopt(_routing(OWN), clock.boot_s())
        await asyncio.sleep(1.0)

    in_scope(wire, scenario)
    assert wire.called == ["n2:1"]


def test_a_refusal_speaks_for_all_connections_and_a_reset_for_itself() -> None:
    refused = Wire(NO_ANSWER, lambda n: ConnectionRefusedError())
    assert broken_after(refused, 10.0) == [OTHER]
    assert len(refused.called) - 1 <= refused.connect_count <= len(refused.called)  # one may be under way
    reset = Wire(NO_ANSWER, lambda n: ConnectionResetError())
    assert broken_after(reset, 10.0) == [OTHER]
    assert 8 * (len(reset.called) - 1) <= reset.connect_count <= 8 * len(reset.called)
