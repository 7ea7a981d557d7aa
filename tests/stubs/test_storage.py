"""Calls to chains: what is repeated, what is not, and when it ends; under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from fs3.errors import Busy, DeadlineExceeded, InvalidRequest, MaybeApplied, StaleRouting, Unavailable
from fs3.ids import ChainId, ChainVersion, ClientSessionId, Epoch, Generation, InodeId, NodeId, target_id
from fs3.layout import Layout
from fs3.rng import derived_rng
from fs3.routing import ChainInfo, Member, NodeInfo, NodeKind, RoutingInfo, TargetState
from fs3.stubs.storage import ChainCaller, FileEnd, StorageStub, for_each
from fs3.tasks import TaskScope
from fs3.wire.storage import (
    CUT,
    RAISE_EPOCH,
    CutRequest,
    CutResponse,
    QueryLengthResponse,
    RaiseEpochRequest,
    RaiseEpochResponse,
)
from tests.sim.loop import SimClock, SimLoop, run_virtual

CHAINS = tuple(ChainId(i) for i in range(1, 5))


def picture(version: int, *, chain_version: int = 1) -> RoutingInfo:
    node = NodeInfo(
        node=NodeId(7), kind=NodeKind.STORAGE, generation=Generation(1), host="h", address=f"n:{version}"
    )
    member = Member(target=target_id(NodeId(7), 1), state=TargetState.SERVING, generation=Generation(1))
    return RoutingInfo(
        version=version,
        nodes={node.node: node},
        chains={
            c: ChainInfo(chain=c, version=ChainVersion(chain_version), members=(member,)) for c in CHAINS
        },
    )


SILENCE = "silence"
"""An answer that does not come."""
SILENT_S = 5.0


class World:
    """Routing and caller at once: answers come from ``answer``; each refresh moves to the next picture."""

    def __init__(self, answer: Callable[[int, str, Any], Any]) -> None:
        self.loop = SimLoop()
        self.clock = SimClock(self.loop)
        self.routing = picture(1)
        self.refreshes = 0
        self.calls: list[tuple[str, Any]] = []
        self._answer = answer
        self.scope = TaskScope("test", lambda name, error: None)
        self.chains = ChainCaller(self, self, self.clock, derived_rng(1, "calls"))
        self.stub = StorageStub(self.chains, self, self, self.clock, self.scope)

    async def refresh(self) -> None:
        self.refreshes += 1
        self.routing = picture(1 + self.refreshes, chain_version=1 + self.refreshes)

    async def call(self, address: str, method: Any, request: msgspec.Struct, **_: Any) -> Any:
        self.calls.append((address, request))
        result = self._answer(len(self.calls), method.name, request)
        if isinstance(result, Exception):
            raise result
        if result is SILENCE:
            await asyncio.sleep(SILENT_S)
            raise MaybeApplied("no answer")
        return result

    def run(self, work: Any) -> Any:
        return run_virtual(work, self.loop)


def raise_one(info: ChainInfo) -> RaiseEpochRequest:
    return RaiseEpochRequest(chain=info.chain, chain_version=info.version, inode=InodeId(9), epoch=Epoch(2))


def answers(*script: Any) -> Callable[[int, str, Any], Any]:
    return lambda count, _name, _request: script[min(count, len(script)) - 1]


DONE = RaiseEpochResponse(Epoch(2))


def test_stale_routing_is_refreshed_and_sent_again_within_100_ms() -> None:
    world = World(answers(StaleRouting("old"), DONE))
    start_s = world.clock.boot_s()
    world.run(world.chains.call_head(CHAINS[0], RAISE_EPOCH, raise_one, timeout_s=5))
    assert [(a, r.chain_version) for a, r in world.calls] == [("n:1", 1), ("n:2", 2)]
    assert world.clock.boot_s() - start_s <= 0.1


@pytest.mark.parametrize("error", [Busy("full"), Unavailable("gone")])
def test_retryable_answers_are_repeated(error: Exception) -> None:
    world = World(answers(error, error, DONE))
    assert world.run(world.chains.call_head(CHAINS[0], RAISE_EPOCH, raise_one, timeout_s=5)) == DONE
    assert world.refreshes == (2 if isinstance(error, Unavailable) else 0)


def test_what_may_have_been_applied_is_repeated_only_if_told() -> None:
    world = World(answers(MaybeApplied("lost"), DONE))
    with pytest.raises(MaybeApplied):
        world.run(world.chains.call_head(CHAINS[0], RAISE_EPOCH, raise_one, timeout_s=5))
    world = World(answers(MaybeApplied("lost"), DONE))
    call = world.chains.call_head(CHAINS[0], RAISE_EPOCH, raise_one, timeout_s=5, idempotent=True)
    assert world.run(call) == DONE


def test_a_chain_that_has_changed_is_asked_at_once_whatever_pause_was_due() -> None:
    """Else a write may wait for a second after its chain has been mended."""
    world = World(
        lambda _count, _name, request: DONE if request.chain_version == 2 else Unavailable("killed")
    )
    changed_s: list[float] = []

    async def no_news() -> None:
        return

    def change() -> None:
        world.routing = picture(2, chain_version=2)
        changed_s.append(world.clock.boot_s())

    async def run() -> Any:
        world.refresh = no_news  # type: ignore[method-assign]  # mgmtd knows of nothing yet
        asyncio.get_running_loop().call_later(4.25, change)
        return await world.chains.call_head(CHAINS[0], RAISE_EPOCH, raise_one, timeout_s=60)

    assert world.run(run()) == DONE
    assert world.clock.boot_s() - changed_s[0] <= 0.11
    assert len(world.calls) < 16  # pauses grow while nothing changes


@pytest.mark.parametrize(
    ("leaves", "idempotent", "ends_s"), [(True, True, 1.3), (True, False, 5.2), (False, True, 5.2)]
)
def test_a_silent_member_that_leaves_its_chain_is_waited_for_no_longer(
    leaves: bool, idempotent: bool, ends_s: float
) -> None:
    """Else a write may wait for two whole attempts: the second begins just before the member is given up."""
    world = World(answers(SILENCE, DONE))

    async def run() -> Any:
        if leaves:
            asyncio.get_running_loop().call_later(1.0, setattr, world, "routing", picture(2, chain_version=2))
        call = world.chains.call_head(CHAINS[0], RAISE_EPOCH, raise_one, timeout_s=9, idempotent=idempotent)
        return await call

    start_s = world.clock.boot_s()
    if idempotent:
        assert world.run(run()) == DONE
        assert len(world.calls) == 2
    else:
        with pytest.raises(MaybeApplied):  # what may happen once only is for its caller to decide
            world.run(run())
    assert ends_s - 0.4 <= world.clock.boot_s() - start_s <= ends_s


def test_the_callers_fault_is_not_repeated() -> None:
    world = World(answers(InvalidRequest("no")))
    with pytest.raises(InvalidRequest):
        world.run(world.chains.call_head(CHAINS[0], RAISE_EPOCH, raise_one, timeout_s=5))
    assert len(world.calls) == 1


@pytest.mark.parametrize(
    ("error", "end"), [(Unavailable("gone"), DeadlineExceeded), (MaybeApplied("lost"), MaybeApplied)]
)
def test_the_deadline_ends_it(error: Exception, end: type[Exception]) -> None:
    world = World(answers(error))
    start_s = world.clock.boot_s()
    call = world.chains.call_head(CHAINS[0], RAISE_EPOCH, raise_one, timeout_s=3, idempotent=True)
    with pytest.raises(end, match="chain 1"):
        world.run(call)
    assert world.clock.boot_s() - start_s <= 3.1
    assert len(world.calls) < 20


def test_a_chain_that_is_not_there_waits_for_routing() -> None:
    world = World(answers(DONE))
    with pytest.raises(DeadlineExceeded, match="not in routing"):
        world.run(world.chains.call_head(ChainId(99), RAISE_EPOCH, raise_one, timeout_s=1))
    assert world.calls == []
    assert world.refreshes > 2


def test_a_cut_names_the_boundary_on_its_chain_only_and_repeats_while_more() -> None:
    seen: list[CutRequest] = []

    def answer(_count: int, name: str, request: CutRequest) -> CutResponse:
        assert name == CUT.name
        seen.append(request)
        again = sum(r.chain == request.chain for r in seen) == 1 and request.chain == CHAINS[1]
        return CutResponse(removed_count=3, more=again)

    world = World(answer)
    layout = Layout(chunk_size_bytes=65536)
    removed = world.run(world.stub.cut(InodeId(9), layout, CHAINS, 2 * 65536 + 5, Epoch(3), timeout_s=5))
    assert removed == 15
    assert {r.first_removed for r in seen} == {3}
    assert {r.chain: r.boundary_length_bytes for r in seen} == {
        CHAINS[0]: -1, CHAINS[1]: -1, CHAINS[2]: 5, CHAINS[3]: -1
    }  # fmt: skip


def test_the_end_of_a_file_is_the_greatest_over_its_chains() -> None:
    def answer(_count: int, _name: str, request: Any) -> QueryLengthResponse:
        index = {1: 4, 2: 5, 3: -1, 4: 3}[request.chain]
        return QueryLengthResponse(chunk_index=index, length_bytes=7, chunk_count=2, used_bytes=10)

    world = World(answer)
    end = world.run(world.stub.file_end(InodeId(9), Layout(chunk_size_bytes=65536), CHAINS, timeout_s=5))
    assert end == FileEnd(5 * 65536 + 7, 8, 40)


def test_one_chain_that_fails_fails_the_whole_and_leaves_no_task() -> None:
    def answer(_count: int, _name: str, request: Any) -> Any:
        return InvalidRequest("bad") if request.chain == CHAINS[2] else DONE

    world = World(answer)
    with pytest.raises(InvalidRequest):
        world.run(world.stub.raise_epoch(InodeId(9), Epoch(2), CHAINS, timeout_s=5))
    assert len(world.scope) == 0


def test_space_leaves_out_nodes_that_do_not_answer() -> None:
    world = World(answers(Unavailable("gone")))
    assert world.run(world.stub.space(timeout_s=1)) == ()


def test_end_session_goes_to_every_chain() -> None:
    world = World(answers(DONE))
    world.run(world.stub.end_session(ClientSessionId(20), CHAINS, timeout_s=1))
    assert sorted(r.chain for _, r in world.calls) == list(CHAINS)


@pytest.mark.parametrize("items", [[], [1], list(range(10))])
def test_for_each_keeps_order_and_bound(items: Sequence[int]) -> None:
    async def work() -> None:
        active = 0

        async def one(item: int) -> int:
            nonlocal active
            active += 1
            assert active <= 3
            await asyncio.sleep(10 - item)
            active -= 1
            return item * 2

        scope = TaskScope("test", lambda name, error: None)
        assert await for_each(scope, "t", one, items, at_once=3) == [i * 2 for i in items]

    run_virtual(work())


def test_for_each_under_a_scope_that_closes_is_in_doubt_and_not_cancelled() -> None:
    async def work() -> None:
        async def one(item: int) -> int:
            await asyncio.sleep(60)
            return item

        scope, own = TaskScope("lanes", lambda name, error: None), TaskScope("own", lambda name, error: None)
        asking = own.start("asking", for_each(scope, "t", one, [1, 2, 3], at_once=2))
        await asyncio.sleep(1)
        await scope.aclose()
        with pytest.raises(MaybeApplied, match="was stopped"):
            await asking

    run_virtual(work())


def test_for_each_ends_only_when_its_lanes_have_whatever_is_cancelled_meanwhile() -> None:
    async def work() -> None:
        ended: list[int] = []

        async def one(item: int) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(5)
                ended.append(item)

        scope = TaskScope("test", lambda name, error: None)
        asking = scope.start("asking", for_each(scope, "t", one, [1, 2], at_once=2))
        for _ in range(3):
            await asyncio.sleep(1)
            asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert ended == [1, 2]

    run_virtual(work())
