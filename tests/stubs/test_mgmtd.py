"""Looking for the primary among several mgmtds: hints, standbys, and nobody at all."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from fs3.clock import Clock
from fs3.errors import Busy, Unavailable
from fs3.rng import derived_rng
from fs3.stubs.mgmtd import MgmtdStub
from fs3.wire.mgmtd import GET_ROUTING, GetRoutingRequest, GetRoutingResponse
from tests.sim.loop import START_S, SimClock, SimLoop, run_virtual

SEEDS = ("m1:1", "m2:1", "m3:1")


class Mgmtds:
    """Answers as each of them would; those that are not named cannot be reached."""

    def __init__(self, answers: dict[str, GetRoutingResponse]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def call(self, address: str, method: Any, request: Any, **_: Any) -> Any:
        self.asked.append(address)
        if address not in self.answers:
            raise Unavailable(f"cannot connect to {address}")
        return self.answers[address]


def find(answers: dict[str, GetRoutingResponse]) -> tuple[str, list[str]]:
    """Who is found, and who was asked for it."""
    mgmtds = Mgmtds(answers)

    async def scenario(clock: Clock) -> str:
        stub = MgmtdStub(mgmtds, SEEDS, clock, derived_rng(1, "stub"))
        await stub.get_routing(0, 0.0)
        return stub.primary.address

    loop = SimLoop()
    return run_virtual(scenario(SimClock(loop)), loop), mgmtds.asked


def standby(hint: str = "") -> GetRoutingResponse:
    return GetRoutingResponse(is_primary=False, primary_address=hint)


PRIMARY = GetRoutingResponse(is_primary=True)


@pytest.mark.parametrize("where", SEEDS)
def test_the_primary_is_found_wherever_it_is(where: str) -> None:
    answers = {seed: standby() for seed in SEEDS} | {where: PRIMARY}
    assert find(answers)[0] == where


def test_hints_are_followed_also_to_one_that_is_no_seed() -> None:
    found, asked = find({seed: standby("m9:1") for seed in SEEDS} | {"m9:1": PRIMARY})
    assert found == "m9:1" and sorted(asked) == sorted((*SEEDS, "m9:1", "m9:1"))  # then for routing


def test_standbys_without_a_primary_are_worth_waiting_for() -> None:
    with pytest.raises(Busy):  # both name the dead one, which is asked once only
        find({"m2:1": standby("m1:1"), "m3:1": standby("m1:1")})


def test_nobody_at_all_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        find({})


def test_while_there_is_no_primary_it_is_looked_for_more_and_more_rarely() -> None:
    mgmtds, looks = Mgmtds({seed: standby() for seed in SEEDS}), dict[float, None]()

    async def scenario(loop: SimLoop) -> None:
        stub = MgmtdStub(mgmtds, SEEDS, SimClock(loop), derived_rng(1, "stub"))
        follow = asyncio.ensure_future(stub.call(GET_ROUTING, GetRoutingRequest(), timeout_s=60.0))
        for _ in range(2000):
            before = len(mgmtds.asked)
            await asyncio.sleep(0.01)
            if len(mgmtds.asked) > before:
                looks[loop.time()] = None
        mgmtds.answers["m2:1"] = PRIMARY
        await follow

    loop = SimLoop()
    run_virtual(scenario(loop), loop)
    times = list(looks)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[0] <= 0.11 and all(0.19 <= pause <= 0.41 for pause in pauses[3:]), pauses
    assert loop.time() - times[-1] <= 0.42  # and yet it is soon found


def test_all_tasks_of_a_process_share_a_search_and_learn_what_one_of_them_finds() -> None:
    mgmtds = Mgmtds({seed: standby() for seed in SEEDS})

    async def scenario(loop: SimLoop) -> None:
        stub = MgmtdStub(mgmtds, SEEDS, SimClock(loop), derived_rng(1, "stub"))
        work = [
            asyncio.ensure_future(stub.call(GET_ROUTING, GetRoutingRequest(), timeout_s=60.0))
            for _ in range(20)
        ]
        await asyncio.sleep(10.0)
        assert len(mgmtds.asked) <= len(SEEDS) * (10.0 / 0.2 + 3)  # twenty times as often without sharing
        mgmtds.answers["m2:1"] = PRIMARY
        stub.primary.found("m2:1")  # as its grant said
        began_s = loop.time()
        await asyncio.gather(*work)
        assert loop.time() - began_s < 0.1

    loop = SimLoop()
    run_virtual(scenario(loop), loop)


def test_who_wants_routing_at_once_is_not_kept_by_a_pause_between_searches() -> None:
    mgmtds = Mgmtds({})

    async def scenario(loop: SimLoop) -> None:
        stub = MgmtdStub(mgmtds, SEEDS, SimClock(loop), derived_rng(1, "stub"))
        for _ in range(3):
            with pytest.raises(Unavailable):
                await stub.get_routing(0, 0.0)
        assert len(mgmtds.asked) == len(SEEDS) and loop.time() == START_S

    loop = SimLoop()
    run_virtual(scenario(loop), loop)


def test_a_search_that_is_given_up_leaves_the_next_one_to_others() -> None:
    class Slow(Mgmtds):
        async def call(self, address: str, method: Any, request: Any, **options: Any) -> Any:
            await asyncio.sleep(0.4)
            return await super().call(address, method, request, **options)

    mgmtds = Slow({"m1:1": PRIMARY})

    async def scenario(loop: SimLoop) -> None:
        stub = MgmtdStub(mgmtds, SEEDS, SimClock(loop), derived_rng(1, "stub"))
        first = asyncio.ensure_future(stub.primary.find(9.0, waits=True))
        second = asyncio.ensure_future(stub.primary.find(9.0, waits=True))
        await asyncio.sleep(0.1)
        first.cancel()
        assert await second == "m1:1"

    loop = SimLoop()
    run_virtual(scenario(loop), loop)
