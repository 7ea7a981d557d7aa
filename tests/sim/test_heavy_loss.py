"""A network that loses a third of what it carries, for ten minutes: everybody stays, and stays in service.

The beacons and lease exchanges of the design repeat every 100 ms while they are unanswered, over both planes
(2.1); loss must not look like death. What a stream loses is sent again: that is late.
"""

from __future__ import annotations

import asyncio

import pytest

from fs3.ids import ChainId, ChainVersion
from fs3.kv.faults import FaultRates

from .aftermath import settled
from .cluster import World, WorldShape
from .loop import SimLoop, run_virtual
from .wires import LinkFaults

WITHOUT_LEASE_MAX_S = 1.0
LOOK_S = 0.1


def versions(world: World) -> dict[ChainId, ChainVersion]:
    """The newest version of each chain that any node knows."""
    found: dict[ChainId, ChainVersion] = {}
    for server in world.storages.values():
        assert server.agent is not None
        for chain, info in server.agent.routing.chains.items():
            found[chain] = max(info.version, found.get(chain, info.version))
    return found


def longest_lack_s(world: World) -> float:
    """For how long, at most, a serving member of any chain has had no lease now."""
    now = [(server.agent, world.clock(host).boot_s()) for host, server in world.storages.items()]
    return max(
        (s for agent, at in now if agent is not None for _, s in agent.leases.chains_without(at)), default=0.0
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_minutes_of_loss(seed: int) -> None:
    async def scenario(loop: SimLoop) -> None:
        world = World(seed, WorldShape(), LinkFaults(), FaultRates())
        await world.start()
        assert not await settled(world)
        before, longest_s = versions(world), 0.0
        world.net.weather.faults = lossy = LinkFaults(datagram_loss_rate=0.3, slow_rate=0.3, slow_s=0.6)
        until_s = loop.time() + 600
        while loop.time() < until_s:
            await asyncio.sleep(LOOK_S)
            longest_s = max(longest_s, longest_lack_s(world))
        assert lossy.counts["datagram loss"] > 10_000, lossy.counts
        assert longest_s < WITHOUT_LEASE_MAX_S
        assert versions(world) == before, "nobody has left a chain"
        world.calm()
        await world.stop_clients()
        await world.stop_servers()
        assert not world.failures

    loop = SimLoop()
    run_virtual(scenario(loop), loop)
