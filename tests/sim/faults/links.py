"""Links: cut on one or both ways, for streams or datagrams alone; hosts and halves cut off; forged resets."""

from __future__ import annotations

import asyncio
from itertools import product

from ..wires import Plane
from .family import Family

PLANES: tuple[Plane, ...] = ("all", "datagrams", "streams")


class SingleLinks(Family):
    """One link at a time."""

    kinds: tuple[str, ...] = tuple(
        f"cut {ways}, {plane}" for ways in ("both ways", "one way") for plane in PLANES
    )

    async def run(self) -> None:
        world = self.world
        hosts = [*world.mgmtd_hosts, *world.meta_hosts, *world.storage_hosts, *world.client_hosts]
        while await self.quiet(0.2, 8):
            source, destination = self.rng.sample(hosts, 2)
            both_ways, plane = self.rng.random() < 0.5, self.rng.choice(PLANES)
            self.struck(f"cut {'both ways' if both_ways else 'one way'}, {plane}")
            world.net.cut(source, destination, both_ways=both_ways, plane=plane)
            await asyncio.sleep(self.rng.uniform(0.2, 5))
            world.net.mend(source, destination)


class Partitions(Family):
    """Some hosts are cut off from the others, or hear them and are not heard."""

    kinds: tuple[str, ...] = tuple(
        f"partition, {how}, {plane}" for how in ("both ways", "deaf", "mute") for plane in PLANES
    )

    async def run(self) -> None:
        world = self.world
        hosts = [*world.mgmtd_hosts, *world.meta_hosts, *world.storage_hosts]
        while await self.quiet(1, 15):
            inside = self.rng.sample(hosts, self.rng.choice((1, 1, 2, 3)))
            outside = [h for h in (*hosts, *world.client_hosts) if h not in inside]
            kind, plane = self.rng.choice(("both ways", "deaf", "mute")), self.rng.choice(PLANES)
            self.struck(f"partition, {kind}, {plane}")
            for near, far in product(inside, outside):
                if kind == "both ways":
                    world.net.cut(near, far, plane=plane)
                elif kind == "deaf":
                    world.net.cut(far, near, both_ways=False, plane=plane)
                else:
                    world.net.cut(near, far, both_ways=False, plane=plane)
            await asyncio.sleep(self.rng.choice((self.rng.uniform(0.2, 2), self.rng.uniform(2, 9))))
            for near, far in product(inside, outside):
                world.net.mend(near, far)


class ForgedResets(Family):
    """A firewall ends connections and refuses new ones in the name of hosts that live."""

    kinds: tuple[str, ...] = ("forged resets", "forged refusals")

    async def run(self) -> None:
        world = self.world
        servers = [*world.mgmtd_hosts, *world.meta_hosts, *world.storage_hosts]
        while await self.quiet(0.5, 8):
            victim = self.rng.choice(servers)
            others = [h for h in (*servers, *world.client_hosts) if h != victim]
            peers = self.rng.choice((others, self.rng.sample(others, 2), world.mgmtd_hosts))
            peers = [h for h in peers if h != victim]
            self.struck("forged resets")
            refuse_s = self.rng.choice((0.0, 0.5, 3.0))
            for peer in peers:
                world.net.reset(peer, victim)
                if refuse_s:
                    world.net.refuse(peer, victim)
            if refuse_s:
                self.struck("forged refusals")
                await asyncio.sleep(refuse_s)
                for peer in peers:
                    world.net.accept(peer, victim)


class LateDeliveries(Family):
    """All that one host sends to another, of a plane, takes longer: sometimes longer than a grant runs."""

    kinds: tuple[str, ...] = ("held back, streams", "held back, datagrams")

    async def run(self) -> None:
        world = self.world
        hosts = [*world.mgmtd_hosts, *world.meta_hosts, *world.storage_hosts, *world.client_hosts]
        while await self.quiet(0.5, 8):
            source, destination = self.rng.sample(hosts, 2)
            most_s = self.rng.choice((0.1, 0.5, 2.0, 5.0))
            world.net.hold_back(source, destination, self.rng.choice(PLANES), most_s)
            await asyncio.sleep(self.rng.uniform(0.5, 6))
            world.net.let_pass(source, destination)
