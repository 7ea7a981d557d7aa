"""One seed: faults drawn from it, clients at work under them, then calm, then what must hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import fs3.storage.resync.ledgers
import fs3.storage.resync.pages
from fs3.kv.faults import FaultRates
from fs3.rng import Rng, derived_rng
from fs3.tasks import TaskScope

from . import branches
from .aftermath import bugs, left_over, settled
from .cluster import World, WorldShape
from .fsck import complaints
from .late import LateClient
from .loop import START_S, SimLoop, run_virtual
from .outcome import Outcome
from .pinned import PinnedReader
from .seen import SERVING, Problem, Seen
from .trouble import Trouble
from .versions import watch_versions
from .wires import LinkFaults
from .workload import Burst, ClientActor, Races, bursts, prepare

CLIENTS = 4
OPERATIONS = 2
"""Of each lane of a client in a burst."""
PINNED_READS = 3
"""Of a pinned reader in a burst."""
RESYNC_PAGE_RECORDS = 3
PINNED = (1, 2)
"""Clients whose connections pinned readers use."""
WORK_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much clients do."""

    bursts: int = 28
    span_s: float = 60.0
    """Over which the bursts are spread."""


WHOLE = Size()
BRIEF = Size(bursts=8, span_s=12.0)
"""For tests that are run often."""
WEATHER = ("slow", "reset", "datagram loss", "datagram copy")
"""What strikes deliveries at rates of its own, beside what ``trouble`` does."""
Look = Callable[[World, Seen], None]
"""Told of the world and of what is seen in it when a run begins."""


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


def _small_pages() -> None:
    """Pages of a resync hold few records, so that there are several: a seed has few chunks."""
    for module in (fs3.storage.resync.pages, fs3.storage.resync.ledgers):
        vars(module)["RESYNC_RECORDS_MAX"] = RESYNC_PAGE_RECORDS


def run_seed(seed: int, look: Look | None = None, size: Size = WHOLE) -> Outcome:
    """Run one seed to its end."""
    return run_virtual(_run(seed, look, size), SimLoop())


async def _run(seed: int, look: Look | None, size: Size) -> Outcome:
    branches.begin()
    _small_pages()
    versions = watch_versions()
    links, store = draw_faults(derived_rng(seed, "faults"))
    quiet = LinkFaults(latency_s=links.latency_s)
    world, seen = World(seed, WorldShape(client_count=CLIENTS), quiet, FaultRates()), Seen()
    if look is not None:
        look(world, seen)
    await world.start()
    await prepare(world, seen)
    world.net.weather.faults = links
    world.set_kv_rates(store)
    races = Races(seen)
    actors = [ClientActor(world, i, seen, races) for i in range(len(world.clients))]
    problems = await _work(world, seen, actors, size)
    world.calm()
    problems += await settled(world)
    for actor in actors:
        await actor.read_everything()
    races.judge()
    problems += seen.judge()
    await world.stop_clients()
    problems += await left_over(world)
    problems += await complaints(world)
    simulated_s = world.loop.time() - START_S
    await world.stop_servers()
    problems += [*versions.problems, *bugs(world)]
    return Outcome(
        seed=seed,
        problems=tuple(dict.fromkeys(problems)),
        trace=world.net.weather.trace,
        simulated_s=simulated_s,
        shares=seen.shares,
        faults=tuple(sorted(links.counts.items())),
        branches=branches.taken(world),
    )


async def _work(world: World, seen: Seen, actors: list[ClientActor], size: Size) -> list[Problem]:
    """Clients at work under trouble, until all have done theirs."""
    rng = world.rng("bursts")
    schedule = bursts(rng, size.bursts, size.span_s)
    late: list[Burst] = [rng.choice(schedule)] if rng.random() < 0.5 else []
    trouble = Trouble(world, world.rng("trouble"))
    async with TaskScope("actors", world.failed) as scope:
        befalling = scope.start("trouble", trouble.run())
        works = [scope.start(f"actor {i}", actor.run(schedule, OPERATIONS)) for i, actor in enumerate(actors)]
        works += [
            scope.start(f"pinned {i}", PinnedReader(world, i, seen).run(schedule, PINNED_READS))
            for i in PINNED
        ]
        works += [
            scope.start(f"late {i}", LateClient(world, i, seen, world.rng(f"late{i}")).run(burst))
            for i, burst in enumerate(late)
        ]
        _, waiting = await asyncio.wait(works, timeout=WORK_TIMEOUT_S)
        for work in works:
            if work.done():
                work.result()
        trouble.end()
        await befalling
    left = ", ".join(sorted(task.get_name() for task in waiting))
    return [Problem(SERVING, f"after {WORK_TIMEOUT_S:.0f} s still at work: {left}")] if left else []
