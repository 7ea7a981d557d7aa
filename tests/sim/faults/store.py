"""The KV store is away: for all, for the primary alone, for one metadata service."""

from __future__ import annotations

import asyncio

from .family import Family


class StoreAway(Family):
    """Seconds without the store."""

    kinds: tuple[str, ...] = tuple(
        f"store away for {whom}" for whom in ("all", "the primary", "one metadata service")
    )

    async def run(self) -> None:
        world = self.world
        while await self.quiet(1, 15):
            primary = world.primary()
            kind = self.rng.choice(("all", "the primary", "one metadata service"))
            hosts = [*world.mgmtd_hosts, *world.meta_hosts]
            if kind == "the primary":
                hosts = [primary] if primary is not None else []
            elif kind == "one metadata service":
                hosts = [self.rng.choice(world.meta_hosts)]
            self.struck(f"store away for {kind}")
            world.set_store_away(hosts, True)
            await asyncio.sleep(self.rng.choice((self.rng.uniform(0.2, 3), self.rng.uniform(3, 10))))
            world.set_store_away(hosts, False)
