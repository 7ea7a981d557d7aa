"""One seed: faults drawn from it, clients at work under them, then calm, then what must hold."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fs3.kv.faults import FaultRates
from fs3.rng import Rng, derived_rng
from fs3.tasks import TaskScope

from .aftermath import left_over, settled
from .cluster import World, WorldShape
from .loop import SimLoop, run_virtual
from .trouble import Trouble
from .wires import LinkFaults
from .workload import ClientActor, Seen, prepare

OPERATIONS = 60
"""Of each client."""
WORK_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a seed came to."""

    seed: int
    problems: tuple[str, ...]
    trace: str
    operation_count: int
    read_count: int
    simulated_s: float
    faults: tuple[tuple[str, int], ...]


def draw_faults(rng: Rng) -> tuple[LinkFaults, FaultRates]:
    """Each kind of fault is switched off entirely in half of the seeds."""

    def rate(most: float) -> float:
        return rng.uniform(0, most) if rng.random() < 0.5 else 0.0

    links = LinkFaults(
        latency_s=(0.000_05, rng.choice((0.000_5, 0.005, 0.05))),
        slow_rate=rate(0.2),
        slow_s=rng.choice((0.1, 0.5, 2.0)),
        reset_rate=rate(0.01),
        datagram_loss_rate=rate(0.3),
        datagram_copy_rate=rate(0.2),
    )
    store = FaultRates(
        unavailable=rate(0.05),
        conflict=rate(0.1),
        unknown_not_applied=rate(0.05),
        unknown_applied=rate(0.05),
        slow=rate(0.2),
    )
    return links, store


def run_seed(seed: int) -> Outcome:
    """Run one seed to its end."""
    return run_virtual(_run(seed), SimLoop())


async def _run(seed: int) -> Outcome:
    links, store = draw_faults(derived_rng(seed, "faults"))
    quiet = LinkFaults(latency_s=links.latency_s)
    shape = WorldShape(targets_per_node_count=3)
    world = World(seed, shape, quiet, FaultRates())
    seen = Seen()
    await world.start()
    await prepare(world)
    world.net.weather.faults = links
    world.set_kv_rates(store)
    actors = [ClientActor(world, i, seen) for i in range(len(world.clients))]
    trouble = Trouble(world, derived_rng(seed, "trouble"))
    async with TaskScope("actors", world.failed) as scope:
        befalling = scope.start("trouble", trouble.run())
        works = [scope.start(f"actor {i}", actor.run(OPERATIONS)) for i, actor in enumerate(actors)]
        async with asyncio.timeout(WORK_TIMEOUT_S):
            for work in works:
                await work
        trouble.end()
        await befalling
    world.calm()
    problems = await settled(world)
    for actor in actors:
        await actor.read_everything()
    problems += seen.judge() + world.failures
    await world.stop_clients()
    problems += await left_over(world)
    simulated_s = world.loop.time()
    await world.stop_servers()
    problems += world.failures
    return Outcome(
        seed=seed,
        problems=tuple(dict.fromkeys(problems)),
        trace=world.net.weather.trace,
        operation_count=seen.operation_count,
        read_count=sum(register.read_count for register in seen.registers.values()),
        simulated_s=simulated_s,
        faults=tuple(sorted(links.counts.items())),
    )
