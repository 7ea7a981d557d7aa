"""What befalls one world while clients work: families of faults, each left out of half of the seeds.

A crash strikes one host of a kind at a time, or all of them; what else happens (links, clocks, disks, the
store) happens beside that. Everything is up again when it is over, and no disk is failed or full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fs3.rng import Rng
from fs3.tasks import TaskScope

from .cluster import World
from .faults import aimed, clocks, disks, links, servers, store
from .faults.family import Grip, Source

FAMILIES: tuple[type[Source], ...] = (
    servers.StorageNodes,
    servers.MetaServices,
    servers.Primaries,
    servers.Everything,
    servers.Clients,
    links.SingleLinks,
    links.Partitions,
    links.ForgedResets,
    links.LateDeliveries,
    disks.SlowDisks,
    disks.FullDisks,
    disks.FailingDisks,
    disks.BadBlocks,
    clocks.WallClocks,
    clocks.Rates,
    clocks.Pauses,
    clocks.LostTime,
    store.StoreAway,
    aimed.CutFromPrimary,
    aimed.RoutingDead,
    aimed.LateAnswers,
    aimed.Joins,
    aimed.TakeOvers,
)

KINDS: tuple[str, ...] = tuple(kind for family in FAMILIES for kind in family.kinds)
"""All that can befall a world here, by the names under which it is counted."""
LASTS_S = (30.0, 60.0)
"""Work that is not done by then is done without further trouble: else some seeds would not end for hours."""


class Trouble:
    """What befalls one world."""

    def __init__(self, world: World, rng: Rng, families: Sequence[type[Source]] | None = None) -> None:
        """``families``: exactly these; None: some of all, drawn."""
        self._world = world
        self._grip = Grip()
        self._lasts_s = rng.uniform(*LASTS_S)
        self._families = [
            family(world, world.rng(f"trouble/{family.__name__}"), self._grip)
            for family in (FAMILIES if families is None else families)
            if families is not None or rng.random() < 0.5
        ]

    async def run(self) -> None:
        """Make trouble until ``end``, or for long enough; returns when everything is up again."""
        asyncio.get_running_loop().call_later(self._lasts_s, self.end)
        async with TaskScope("trouble", self._world.failed) as scope:
            works = [scope.start(f"trouble {type(f).__name__}", f.run()) for f in self._families]
            for work in works:
                await work

    def end(self) -> None:
        """No more after what is under way."""
        self._grip.is_over.set()
