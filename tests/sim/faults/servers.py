"""Crashes and restarts: of servers one by one, of two in a row, of everything at once, and of clients."""

from __future__ import annotations

import asyncio
import errno

from ..cluster import World
from ..private_files import PrivateFiles
from ..process import SimProcess
from ..workload import DIRECTORY, TOLD_LATE_S
from .family import Family

STEPS_MAX = 12
"""A crash that is to meet a disk at work strikes at one of its next so many writes and syncs."""
STEP_PATIENCE_S = 2.0
FULL_PAUSE_S = 0.5
CLIENTS_DIE_S = 10.0
"""None is killed later: what it leaves goes after a minute, which is better spent under faults."""


class StorageNodes(Family):
    """Storage nodes stop in order, are killed or lose their power, often amid what they do to a disk."""

    kinds: tuple[str, ...] = (
        *(f"storage {how}{where}" for how in ("kill", "power cut") for where in ("", " at the disk")),
        "storage stop",
    )

    async def run(self) -> None:
        kinds = self.rng.choice(((False,), (True,), (False, True)))
        while await self.quiet(0.2, 12):
            with self.take(self.world.storage_hosts) as host:
                if host is None:
                    continue
                if self.rng.random() < 0.2:
                    self.struck("storage stop")
                    await self.world.stop(host)
                    await self.outage()
                    await self.world.boot(host)
                else:
                    await self._once(host, self.rng.choice(kinds))

    async def _once(self, host: str, power: bool) -> None:
        if self.rng.random() < 0.5:
            self._aim(host, power)
            await asyncio.sleep(STEP_PATIENCE_S)
            self.world.disks[host].cut_at = None
        if host in self.world.processes:
            self._crash(host, power, "")
        await self.outage()
        if self.rng.random() < 0.3:
            self._aim(host, power)  # it may not survive its start
        await self.world.boot(host)
        for disk in (self.world.disks[host], self.world.homes[host]):
            disk.cut_at = None

    def _aim(self, host: str, power: bool) -> None:
        """Strike in the middle of what the host does to its disks next."""
        home = self.world.homes[host]
        is_up = host in self.world.processes
        disk = home if not is_up and self.rng.random() < 0.3 else self.world.disks[host]
        disk.cut_at = disk.step_count + self.rng.randint(1, STEPS_MAX)
        disk.on_cut = lambda: self._crash(host, power, " at the disk")

    def _crash(self, host: str, power: bool, where: str) -> None:
        self.struck(f"storage {'power cut' if power else 'kill'}{where}")
        self.world.crash(host, power=power)


class MetaServices(Family):
    """Metadata services are killed or lose their power."""

    kinds: tuple[str, ...] = ("meta kill", "meta power cut", "meta stop")

    async def run(self) -> None:
        while await self.quiet(0.2, 12):
            with self.take(self.world.meta_hosts) as host:
                if host is not None:
                    how = self.rng.choice(("kill", "kill", "power cut", "stop"))
                    self.struck(f"meta {how}")
                    if how == "stop":
                        await self.world.stop(host)
                        await self.outage()
                        await self.world.boot(host)
                    else:
                        await self.restart(host, power=how == "power cut")


class Primaries(Family):
    """mgmtds are killed, the primary mostly; sometimes its successor as well, as soon as it is one."""

    kinds: tuple[str, ...] = (
        *(f"{who} {how}" for who in ("primary", "standby") for how in ("kill", "power cut")),
        "two fail-overs in a row",
    )

    async def run(self) -> None:
        while await self.quiet(1, 12):
            primary = self.world.primary()
            hosts = [primary] if primary is not None and self.rng.random() < 0.7 else self.world.mgmtd_hosts
            with self.take(hosts) as host:
                if host is not None:
                    await self._kill(host, "primary" if host == primary else "standby")

    async def _kill(self, host: str, role: str) -> None:
        power = self.rng.random() < 0.3
        self.struck(f"{role} {'power cut' if power else 'kill'}")
        self.world.crash(host, power=power)
        if role == "primary" and self.rng.random() < 0.5:
            await self._kill_successor()
        await self.outage()
        await self.world.boot(host)

    async def _kill_successor(self) -> None:
        await self.until(lambda: self.world.primary() is not None, 10)
        second = self.world.primary()
        if second is None:
            return
        await asyncio.sleep(self.rng.choice((0.0, 0.05, 0.5, 1.6)))
        with self.take([second]) as taken:
            if taken is not None:
                self.struck("two fail-overs in a row")
                await self.restart(second)


class Everything(Family):
    """Everything is killed, or loses its power, at once."""

    kinds: tuple[str, ...] = ("everything is killed", "everything loses power")

    async def run(self) -> None:
        while await self.quiet(2, 40):
            world = self.world
            hosts = [*world.mgmtd_hosts, *world.meta_hosts, *world.storage_hosts]
            if self.free(hosts) != hosts:
                continue
            power = self.rng.random() < 0.5
            with self.hold(*hosts):
                self.struck(f"everything {'loses power' if power else 'is killed'}")
                for host in hosts:
                    world.crash(host, power=power)
                await self.outage()
                for host in self.rng.sample(hosts, len(hosts)):
                    await world.boot(host)


class Clients(Family):
    """Clients that come, begin to write, and are killed at it: what they held must not stay held."""

    kinds: tuple[str, ...] = ("client kill",)

    async def run(self) -> None:
        world, count = self.world, 0
        last_s = world.loop.time() + CLIENTS_DIE_S
        while await self.quiet(0.2, 5) and world.loop.time() < last_s:
            count += 1
            host = f"victim{count}"
            process = world.processes[host] = SimProcess(host)
            process.start(world.scope, _write_until_killed(world, host))
            await asyncio.sleep(self.rng.uniform(0.2, 6))
            self.struck("client kill")
            world.crash(host)
            await process.reap()


async def _write_until_killed(world: World, host: str) -> None:
    fs, _, _ = await world.make_client(host)
    files = PrivateFiles(fs, DIRECTORY, f"{host}-", world.rng(f"{host}/files"))
    while True:
        began_s = world.loop.time()
        try:
            await files.change()
        except OSError as error:
            if error.errno != errno.ENOSPC or not world.may_be_full(began_s - TOLD_LATE_S):
                raise
            await asyncio.sleep(FULL_PAUSE_S)
