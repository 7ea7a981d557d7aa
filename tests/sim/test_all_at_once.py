"""Everything is killed at once, or loses its power: within seconds it serves again and has lost nothing."""

from __future__ import annotations

import asyncio

import pytest

from fs3.kv.faults import FaultRates

from .aftermath import left_over, settled
from .cluster import World, WorldShape
from .loop import SimLoop, run_virtual
from .seen import Seen
from .wires import LinkFaults
from .workload import ClientActor, Races, bursts, prepare

SERVING_WITHIN_S = 15.0


@pytest.mark.parametrize(("seed", "power"), [(1, False), (2, True)])
def test_everything_at_once(seed: int, power: bool) -> None:
    async def scenario(loop: SimLoop) -> None:
        world, seen = World(seed, WorldShape(), LinkFaults(), FaultRates()), Seen()
        await world.start()
        await prepare(world, seen)
        races = Races(seen)
        actors = [ClientActor(world, i, seen, races) for i in range(len(world.clients))]
        schedule = bursts(world.rng("bursts"), count=20, span_s=1.0)
        works = [world.scope.start(f"actor {i}", actor.run(schedule, 2)) for i, actor in enumerate(actors)]
        await asyncio.sleep(0.3)
        assert 10 < seen.operation_count < 200, "they are at work"
        hosts = [*world.mgmtd_hosts, *world.meta_hosts, *world.storage_hosts]
        for host in hosts:
            world.crash(host, power=power)
        await asyncio.sleep(3)
        for host in hosts:
            await world.boot(host)
        began_s = loop.time()
        assert not await settled(world)
        assert loop.time() - began_s < SERVING_WITHIN_S
        for work in works:
            await work
        for actor in actors:
            await actor.read_everything()
        races.judge()
        assert not seen.judge() + await settled(world) and not world.failures
        await world.stop_clients()
        assert not await left_over(world)
        await world.stop_servers()

    loop = SimLoop()
    run_virtual(scenario(loop), loop)
