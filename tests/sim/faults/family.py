"""What all families of faults have in common: chance, pauses between faults, and whose turn a host is.

A host is in one family's hands at a time, so that none starts what another one has just killed, or counts
on a disk that another one changes. Links belong to nobody: what is cut twice is mended twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

from fs3.rng import Rng

from ..cluster import World

LOOK_S = 0.05


class Grip:
    """Which hosts are in whose hands, in one world."""

    def __init__(self) -> None:
        self.held: dict[str, None] = {}
        self.is_over = asyncio.Event()


class Source(Protocol):
    """A family of faults, as trouble sees it."""

    kinds: tuple[str, ...]

    def __init__(self, world: World, rng: Rng, grip: Grip) -> None: ...

    async def run(self) -> None:
        """Make trouble until ``grip.is_over``; returns when everything is up again."""
        ...


class Family:
    """What a family of faults at work on a world is made of."""

    kinds: tuple[str, ...] = ()
    """The names under which its faults are counted."""

    def __init__(self, world: World, rng: Rng, grip: Grip) -> None:
        self.world = world
        self.rng = rng
        self.grip = grip

    async def quiet(self, least_s: float, most_s: float) -> bool:
        """Let some time pass; False: it is over."""
        return await self.passes(self.rng.uniform(least_s, most_s))

    async def passes(self, seconds: float) -> bool:
        """Let so much time pass; False: it is over."""
        try:
            async with asyncio.timeout(seconds):
                await self.grip.is_over.wait()
        except TimeoutError:
            return True
        return False

    async def until(self, look: Callable[[], bool], within_s: float) -> bool:
        """Wait until ``look()`` is true; False: it was not in time."""
        for _ in range(int(within_s / LOOK_S)):
            if look():
                return True
            await asyncio.sleep(LOOK_S)
        return look()

    async def outage(self) -> None:
        """How long something is away: often just the time of a restart."""
        await asyncio.sleep(
            self.rng.choice(
                (0.0, 0.2, self.rng.uniform(0.0, 0.2), self.rng.uniform(0.2, 2), self.rng.uniform(2, 8))
            )
        )

    def struck(self, kind: str) -> None:
        """Count a fault."""
        assert kind in self.kinds, kind
        self.world.net.weather.faults.struck(kind)

    def free(self, hosts: list[str]) -> list[str]:
        """Those of the hosts that are up and in nobody's hands."""
        return [h for h in hosts if h not in self.grip.held and h in self.world.processes]

    @contextlib.contextmanager
    def hold(self, *hosts: str) -> Iterator[None]:
        """These hosts are ours for the while."""
        assert not any(host in self.grip.held for host in hosts), hosts
        self.grip.held.update(dict.fromkeys(hosts))
        try:
            yield
        finally:
            for host in hosts:
                del self.grip.held[host]

    @contextlib.contextmanager
    def take(self, hosts: list[str]) -> Iterator[str | None]:
        """One of the hosts, which is ours for the while; None: none of them is free."""
        free = self.free(hosts)
        if not free:
            yield None
            return
        host = self.rng.choice(free)
        with self.hold(host):
            yield host

    async def restart(self, host: str, *, power: bool = False, after_s: float | None = None) -> None:
        """Kill a host's server and start it again after ``after_s`` (None: an outage)."""
        self.world.crash(host, power=power)
        if after_s is None:
            await self.outage()
        else:
            await asyncio.sleep(after_s)
        await self.world.boot(host)
