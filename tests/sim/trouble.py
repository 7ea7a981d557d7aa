"""Crashes, restarts and cut links, drawn from the seed while clients work.

Of each kind of server at most one is down at a time: storage nodes one after the other (chains keep their
members, so writes wait for the one that is away), likewise the metadata services and the mgmtd; links are
cut and further clients killed beside that. Each kind of fault is left out of half of the seeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from fs3.rng import Rng
from fs3.tasks import TaskScope

from .cluster import World
from .private_files import PrivateFiles
from .process import SimProcess
from .wires import Plane
from .workload import DIRECTORY

PLANES: tuple[Plane, ...] = ("all", "datagrams", "streams")
STEPS_MAX = 12
"""A crash that is to meet a disk at work strikes at one of its next so many writes and syncs."""
STEP_PATIENCE_S = 2.0
MGMTD_UP_S = (2.0, 12.0)
"""Between failures of mgmtds: a new one is primary after 3 s, and who restarts needs one that is."""


class Trouble:
    """What befalls one world."""

    def __init__(self, world: World, rng: Rng) -> None:
        self._world = world
        self._rng = rng
        self._is_over = asyncio.Event()
        self._kills, self._power_cuts, self._metas, self._mgmtds = (rng.random() < 0.5 for _ in range(4))
        self._links, self._clients, self._slow_disks, self._wall_clocks = (
            rng.random() < 0.5 for _ in range(4)
        )

    async def run(self) -> None:
        """Make trouble until ``end``; returns when everything is up again."""
        works: list[Callable[[], Coroutine[None, None, None]]] = []
        if self._kills or self._power_cuts:
            works.append(self._storage_nodes)
        if self._metas:
            works.append(lambda: self._servers("meta", self._world.meta_hosts, 0.2, 12))
        if self._mgmtds:
            works.append(lambda: self._servers("mgmtd", self._world.mgmtd_hosts, *MGMTD_UP_S))
        if self._links:
            works.append(self._cut_links)
        if self._clients:
            works.append(self._kill_clients)
        if self._slow_disks:
            works.append(self._slow_down_disks)
        if self._wall_clocks:
            works.append(self._set_wall_clocks)
        async with TaskScope("trouble", self._world.failed) as scope:
            for task in [scope.start(f"trouble {i}", work()) for i, work in enumerate(works)]:
                await task

    def end(self) -> None:
        """No more after what is under way."""
        self._is_over.set()

    async def _quiet(self, least_s: float, most_s: float) -> bool:
        """Let some time pass; False: it is over."""
        try:
            async with asyncio.timeout(self._rng.uniform(least_s, most_s)):
                await self._is_over.wait()
        except TimeoutError:
            return True
        return False

    async def _outage(self) -> None:
        """How long something is away: often just the time of a restart."""
        await asyncio.sleep(self._rng.choice((0.2, self._rng.uniform(0.2, 2), self._rng.uniform(2, 8))))

    def _struck(self, kind: str) -> None:
        self._world.net.weather.faults.struck(kind)

    async def _servers(self, kind: str, hosts: list[str], least_s: float, most_s: float) -> None:
        while await self._quiet(least_s, most_s):
            host, power = self._rng.choice(hosts), self._rng.random() < 0.3
            self._struck(f"{kind} {'power cut' if power else 'kill'}")
            self._world.crash(host, power=power)
            await self._outage()
            await self._world.boot(host)

    async def _storage_nodes(self) -> None:
        while await self._quiet(0.2, 12):
            host = self._rng.choice(self._world.storage_hosts)
            power = self._power_cuts and (not self._kills or self._rng.random() < 0.5)
            if self._rng.random() < 0.5:
                self._aim(host, power)
                await asyncio.sleep(STEP_PATIENCE_S)
                self._world.disks[host].cut_at = None
            if host in self._world.processes:
                self._crash_storage(host, power, "")
            await self._outage()
            if self._rng.random() < 0.3:
                self._aim(host, power)  # it may not survive its start
            await self._world.boot(host)
            self._world.disks[host].cut_at = None

    def _aim(self, host: str, power: bool) -> None:
        """Strike in the middle of what the host does to its disk next."""
        disk = self._world.disks[host]
        disk.cut_at = disk.step_count + self._rng.randint(1, STEPS_MAX)
        disk.on_cut = lambda: self._crash_storage(host, power, " at the disk")

    def _crash_storage(self, host: str, power: bool, where: str) -> None:
        self._struck(f"storage {'power cut' if power else 'kill'}{where}")
        self._world.crash(host, power=power)

    async def _cut_links(self) -> None:
        world = self._world
        hosts = [*world.mgmtd_hosts, *world.meta_hosts, *world.storage_hosts, *world.client_hosts]
        while await self._quiet(0.2, 8):
            source, destination = self._rng.sample(hosts, 2)
            both_ways = self._rng.random() < 0.5
            plane = self._rng.choice(PLANES)
            self._struck(f"cut {'both ways' if both_ways else 'one way'}, {plane}")
            world.net.cut(source, destination, both_ways=both_ways, plane=plane)
            await asyncio.sleep(self._rng.uniform(0.2, 5))
            world.net.mend(source, destination)

    async def _slow_down_disks(self) -> None:
        """A disk takes its time for a while: longer than a lease, sometimes."""
        world = self._world
        while await self._quiet(1, 12):
            host = self._rng.choice(world.storage_hosts)
            self._struck("slow disk")
            world.disk_delay_s[host] = self._rng.choice((0.05, 0.5, 2.0))
            await asyncio.sleep(self._rng.uniform(0.5, 6))
            del world.disk_delay_s[host]

    async def _set_wall_clocks(self) -> None:
        """Somebody sets the time of a host: nothing but the times shown to people may change."""
        world = self._world
        hosts = [*world.mgmtd_hosts, *world.meta_hosts, *world.storage_hosts]
        while await self._quiet(0.5, 10):
            self._struck("wall clock set")
            jump_s = self._rng.choice((-1, 1)) * self._rng.choice((1, 60, 86_400 * 365))
            world.clock(self._rng.choice(hosts)).wall_jump_ns += jump_s * 1_000_000_000

    async def _kill_clients(self) -> None:
        """Clients that come, begin to write, and are killed at it: what they held must not stay held."""
        world, count = self._world, 0
        while await self._quiet(1, 12):
            count += 1
            host = f"victim{count}"
            process = world.processes[host] = SimProcess(host)
            process.start(world.scope, _write_until_killed(world, host))
            await asyncio.sleep(self._rng.uniform(0.2, 6))
            self._struck("client kill")
            world.crash(host)
            await process.reap()


async def _write_until_killed(world: World, host: str) -> None:
    fs, _, _ = await world.make_client(host)
    files = PrivateFiles(fs, DIRECTORY, f"{host}-", world.rng(f"{host}/files"))
    while True:
        await files.change()
