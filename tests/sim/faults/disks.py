"""Disks: slow, full, failing for good or in passing, unreadable here and there, and rotting.

What fails for good is replaced by an empty disk, as an operator would do it: only when every chain of the
disk has another member that serves and has everything. What fails in passing works again in the node's next
run, without what was never synced. At most one host's disk is in trouble at a time, and only blocks of
chains that are whole rot: else more than the replication bears could be lost.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator

from fs3.errors import Fs3Error
from fs3.ids import ChunkId
from fs3.storage.engine.versions import Region
from fs3.storage.runner import TargetRunner

from ..standing import is_whole, others_serve, serves_alone
from ..workload import DIRECTORY
from .family import Family

CALLS = ("pwrite", "sync", "preallocate", "index")
STRIKES_WITHIN_S = 5.0
REPLACED_WITHIN_S = 20.0
FILLED_CHUNKS = 120
CHUNK_BYTES = 64 * 1024
SCRUBBED_WITHIN_S = 60.0
WATCH_S = 0.2


class SlowDisks(Family):
    """A disk takes its time for a while: longer than a lease, sometimes."""

    kinds: tuple[str, ...] = ("slow disk",)

    async def run(self) -> None:
        world = self.world
        while await self.quiet(1, 12):
            host = self.rng.choice(world.storage_hosts)
            self.struck("slow disk")
            world.disk_delay_s[host] = self.rng.choice((0.05, 0.5, 2.0))
            await asyncio.sleep(self.rng.uniform(0.5, 6))
            world.disk_delay_s.pop(host, None)


class FullDisks(Family):
    """Something else takes the space of a disk, while a client writes more than has been taken of it before;
    then the space is given back, and the client's file removed."""

    kinds: tuple[str, ...] = ("full disk", "write refused: full")

    async def run(self) -> None:
        world, count = self.world, 0
        while await self.quiet(1, 15):
            with self.take(world.storage_hosts) as host:
                if host is None:
                    continue
                count += 1
                self.struck("full disk")
                world.fill(host, self.rng.choice((0, 1 << 16, 1 << 20)))
                filling = world.scope.start("filler", self._fill(f"filler{count}"))
                await asyncio.sleep(self.rng.uniform(1, 8))
                world.make_room(host)
            await filling  # with the host free: it may have to be restarted for what the client waits for

    async def _fill(self, host: str) -> None:
        """What is refused is not written; what is stuck in the middle of a chain goes on with the space."""
        fs, rpc, scope = await self.world.make_client(host)
        path = f"{DIRECTORY}/{host}"
        try:
            async with await fs.open(path, "wb") as file:
                for number in range(FILLED_CHUNKS):
                    await file.pwrite(bytes([number % 251 + 1]) * CHUNK_BYTES, number * CHUNK_BYTES)
                await file.fsync()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self.struck("write refused: full")
        await fs.remove(path)
        await fs.close()
        await scope.aclose()
        await rpc.aclose()


class FailingDisks(Family):
    """A write, a sync or an index commit fails: the disk is failed, its targets leave their chains."""

    kinds: tuple[str, ...] = (
        *(f"disk fails at {call}" for call in CALLS),
        "disk replaced",
        "disk works again after a restart",
    )

    async def run(self) -> None:
        while await self.quiet(1, 12):
            with self.take([h for h in self.world.storage_hosts if is_whole(self.world, h)]) as host:
                if host is not None:
                    await self._once(host)

    async def _once(self, host: str) -> None:
        disk, call = self.world.disks[host], self.rng.choice(CALLS)
        disk.fault(call, self.rng.randint(0, 3))
        if not await self.until(lambda: self.world.disks[host].failure is not None, STRIKES_WITHIN_S):
            disk.no_faults()
            return
        self.struck(f"disk fails at {call}")
        await self.outage()
        if self.rng.random() < 0.5 and await self.until(
            lambda: others_serve(self.world, host), REPLACED_WITHIN_S
        ):
            self.struck("disk replaced")
            self.world.crash(host)
            self.world.replace_disk(host)
            await self.outage()
            await self.world.boot(host)
        else:
            self.struck("disk works again after a restart")
            self.world.disks[host].mend()
            self.world.crash(host)
            await self.outage()
            await self.world.boot(host)


class BadBlocks(Family):
    """Bytes of committed versions change unnoticed, or cannot be read any more; one host in a seed."""

    kinds: tuple[str, ...] = ("bit rot", "unreadable block", "restarted for a bad pending version")

    async def run(self) -> None:
        host = self.rng.choice(self.world.storage_hosts)
        self.world.spoiled[host] = None
        watch = self.world.scope.start("watch spoiled", self._watch(host))
        await self._run(host)
        watch.cancel()

    async def _watch(self, host: str) -> None:
        """Note when the spoiled bytes may be all that there is: then readers may be told so."""
        while True:
            if host in self.world.processes and serves_alone(self.world, host):
                self.world.no_right_bytes_s = self.world.loop.time() + WATCH_S
            await asyncio.sleep(WATCH_S)

    async def _run(self, host: str) -> None:
        while await self.quiet(0.5, 6):
            with self.take([host]) as taken:
                if taken is not None and is_whole(self.world, host):
                    regions = list(self._regions(host))
                    if regions:
                        self._spoil(host, self.rng.choice(regions))
                elif taken is not None:
                    await self._put_back(host)
        while not await self.until(lambda: not self._is_bad(host), SCRUBBED_WITHIN_S):
            with self.take([host]) as taken:
                if taken is None or not await self._put_back(host):
                    return  # who looks at everything afterwards will find it

    async def _put_back(self, host: str) -> bool:
        """An operator restarts a node whose target went offline for a bad block of a pending version."""
        if not self._is_offline(host) or self.world.disks[host].failure is not None:
            return False
        self.struck("restarted for a bad pending version")
        await self.restart(host)
        return True

    def _is_offline(self, host: str) -> bool:
        """Whether a target there is out of use."""
        targets = self.world.storages[host].targets
        return targets is not None and bool(targets.health()["offline"])

    def _is_bad(self, host: str) -> bool:
        """Whether anything there still fails its sum: the node itself has to find and to mend it."""
        if host not in self.world.processes:
            return True
        targets = self.world.storages[host].targets
        return self._is_offline(host) or any(
            runner.store.verify_chunk(chunk)
            for runner in (targets.online() if targets is not None else ())
            for chunk, _ in runner.store.list_chunks(limit=1_000)
        )

    def _spoil(self, host: str, region: Region) -> None:
        disk, at = self.world.disks[host], region.offset_bytes + self.rng.randrange(region.length_bytes)
        if self.rng.random() < 0.5:
            self.struck("bit rot")
            disk.flip(region.file.path, at, self.rng.randint(1, 255))
        else:
            self.struck("unreadable block")
            disk.make_unreadable(region.file.path, at, 1)

    def _regions(self, host: str) -> Iterator[Region]:
        """Where the bytes of committed versions lie that all members of their chain have."""
        server = self.world.storages[host]
        for _, runner in sorted(server.targets.by_chain.items()) if server.targets is not None else ():
            for chunk, state in runner.store.list_chunks(limit=1_000):
                if state.committed is not None and state.pending is None and state.committed.length_bytes:
                    yield from _regions_of(runner, chunk)


def _regions_of(runner: TargetRunner, chunk: ChunkId) -> list[Region]:
    version = runner.store.versions(chunk).committed
    assert version is not None
    try:
        handle = runner.store.read(chunk, version.identity, 0, version.length_bytes)
    except Fs3Error:
        return []
    regions = list(handle.regions)
    handle.release()
    return regions
