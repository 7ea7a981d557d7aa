"""One seed: faults drawn from it, clients at work under them, then calm, then what must hold."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fs3.kv.faults import FaultRates
from fs3.kv.schema import range_of
from fs3.rng import Rng, derived_rng
from fs3.tasks import TaskScope

from .checkers import replicas_identical
from .cluster import World, WorldShape
from .loop import SimLoop, run_virtual
from .wires import LinkFaults
from .workload import ClientActor, Seen, prepare

OPERATIONS = 60
"""Of each client."""
CALM_TIMEOUT_S = 60.0
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
    world = World(seed, WorldShape(), quiet, FaultRates())
    seen = Seen()
    await world.start()
    await prepare(world)
    world.net.weather.faults = links
    for faults in world.kv_faults:
        faults.rates = store
    async with TaskScope("actors", world.failed) as scope:
        actors = [ClientActor(world, i, seen) for i in range(len(world.clients))]
        works = [scope.start(f"actor {i}", actor.run(OPERATIONS)) for i, actor in enumerate(actors)]
        async with asyncio.timeout(WORK_TIMEOUT_S):
            for work in works:
                await work
    world.calm()
    problems = seen.judge() + await _settled(world) + world.failures
    await world.stop_clients()
    problems += await _leaks(world)
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


async def _settled(world: World) -> list[str]:
    """Wait until no version is pending anywhere, then compare the replicas."""
    runners = [(s.addresses[0], r) for s in world.storages if s.targets for r in s.targets.by_chain.values()]
    deadline_s = world.loop.time() + CALM_TIMEOUT_S
    while any(runner.store.pendings() for _, runner in runners):
        if world.loop.time() > deadline_s:
            return [
                f"{name}: a version is still pending after {CALM_TIMEOUT_S} s of calm" for name, _ in runners
            ]
        await asyncio.sleep(0.5)
    found: list[str] = []
    chains = {chain for s in world.storages if s.targets for chain in s.targets.by_chain}
    for chain in sorted(chains):
        replicas = []
        for server in world.storages:
            runner = server.targets.by_chain.get(chain) if server.targets else None
            if runner is not None:
                content: dict[object, object] = {
                    chunk: state.committed for chunk, state in runner.store.list_chunks(limit=1_000_000)
                }
                replicas.append((server.addresses[0], content))
        found += replicas_identical(replicas, chain)
    return found


async def _leaks(world: World) -> list[str]:
    """Every client has gone: no session, open file or answer may be left for long."""
    deadline_s = world.loop.time() + CALM_TIMEOUT_S
    while left := _left(world):
        if world.loop.time() > deadline_s:
            return left
        await asyncio.sleep(1)
    return []


def _left(world: World) -> list[str]:
    store, left = world.store, list[str]()
    for prefix in (b"SESS", b"OPEN", b"SOPN", b"SLOT"):
        keys = [
            k for k in store.keys_between(*range_of(prefix)) if store.value_at(k, store.version) is not None
        ]
        if keys:
            left.append(f"{len(keys)} records {prefix.decode()} are left after all clients closed")
    return left
