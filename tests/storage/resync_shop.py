"""A chain of real nodes that a member leaves and comes back to, with the records that mgmtd would make."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fs3.errors import MaybeApplied, Unavailable
from fs3.ids import ChunkId, TargetId
from fs3.routing import LocalState, TargetState
from fs3.rpc.client import RpcClient
from fs3.storage.resync.pace import RESYNC, ResyncSettings
from fs3.wire.chunk import VersionInfo
from fs3.wire.mgmtd import TargetReport

from .storage_cluster import INODE, StaticServer, StorageCluster, User, storage_cluster, until
from .test_access import node_client

SYNCING, OFFLINE = TargetState.SYNCING, TargetState.OFFLINE


class Chain:
    """Nodes 1 … n in that order; ``user`` writes, ``meta`` is another node of the cluster."""

    def __init__(self, cluster: StorageCluster, user: User, meta: RpcClient) -> None:
        self.cluster = cluster
        self.user = user
        self.meta = meta

    def server(self, number: int) -> StaticServer:
        return self.cluster.servers[number]

    def store(self, number: int) -> Any:
        return self.server(number).target.store

    def committed(self, number: int) -> dict[ChunkId, VersionInfo]:
        """Everything that a member has committed."""
        page = self.store(number).list_chunks(None, 100_000)
        return {chunk: state.committed for chunk, state in page if state.committed is not None}

    def content(self, number: int, chunk: ChunkId) -> bytes:
        """Bytes of a committed version, read past all gates."""
        version = self.store(number).versions(chunk).committed
        data = bytearray(version.length_bytes)
        if data:
            self.store(number).read_into(chunk, version.identity, 0, memoryview(data), wait=True)
        return bytes(data)

    async def stop(self, number: int, *, empty: bool = False) -> None:
        """A member's process ends, and the chain goes on without it; ``empty``: its store goes, too."""
        await self.cluster.stop_node(number)
        self.leave(number)
        if empty:
            disk = self.cluster.directory / f"node-{number}" / "disk-0"
            shutil.rmtree(disk / f"target-{self.target(number):x}")

    def leave(self, *numbers: int) -> None:
        """The next record: these are out."""
        self.cluster.publish(
            range(1, 1 + len(self.cluster.addresses)), states=dict.fromkeys(numbers, OFFLINE)
        )

    async def start(self, number: int, *others_out: int) -> None:
        """A new run of a member, and the record that has it resynced."""
        await self.cluster.start_node(number)
        self.sync(number, *others_out)

    def sync(self, number: int, *others_out: int) -> None:
        """The next record: the member is SYNCING."""
        states = {number: SYNCING, **dict.fromkeys(others_out, OFFLINE)}
        self.cluster.publish(range(1, 1 + len(self.cluster.addresses)), states=states)

    def report(self, number: int) -> TargetReport:
        (report,) = self.server(number).static.reports
        return report

    def is_uptodate(self, number: int) -> bool:
        """Whether the member says so of the present version."""
        report = self.report(number)
        return report.state is LocalState.UPTODATE and report.chain_version == self.cluster.version

    async def synced(self, number: int) -> None:
        """Wait until it says so; if it does not, say how far it came."""
        try:
            await until(lambda: self.is_uptodate(number), 30)
        except TimeoutError:
            raise AssertionError({n: s.health() for n, s in self.cluster.servers.items()}) from None

    def publish(self, *order: int, syncing: int = 0) -> None:
        """The next record: these members in this order serve, but for one; all others are out."""
        known = sorted(self.cluster.addresses)
        out = [n for n in known if n not in order]
        states = {**dict.fromkeys(out, OFFLINE), **({syncing: SYNCING} if syncing else {})}
        self.cluster.publish([*order, *out], states=states)

    def copied(self, number: int) -> float:
        """Bytes that a source has sent."""
        return self.value(number, "fs3_storage_resync_sent_bytes_total")

    def hurry(self) -> None:
        """No source waits for its bucket any more."""
        for server in self.cluster.servers.values():
            resync: Any = server.resync
            resync._pace._limit_bytes_s = resync._pace.rate_bytes_s = 1e12

    async def all_serve(self) -> None:
        """The next record: everybody serves; the user presents its capability to new runs."""
        self.cluster.publish()
        async with asyncio.timeout(10):
            while True:
                try:
                    return await self.user.present()
                except (MaybeApplied, Unavailable):  # a kept connection to an earlier run
                    await asyncio.sleep(0.01)

    def target(self, number: int) -> TargetId:
        return self.cluster.target(number)

    def value(self, number: int, name: str) -> float:
        """A metric of a node, over all labels."""
        text = self.server(number)._components.metrics.exposition().decode()
        lines = [line for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def check_equal(self, *numbers: int) -> None:
        """The same versions, with the same bytes, epochs, ended sessions and channels."""
        first = numbers[0]
        for number in numbers:
            assert self.committed(number) == self.committed(first)
            assert not self.store(number).pendings()
            for chunk in self.committed(first):
                assert self.content(number, chunk) == self.content(first, chunk), chunk
            mine, theirs = self.store(number), self.store(first)
            assert mine.epochs() == theirs.epochs()
            assert mine.ended_sessions() == theirs.ended_sessions()
            assert mine.dedup_records() == theirs.dedup_records()
            assert not self.server(number).target.replica.gate.offline_reason


@asynccontextmanager
async def chain_of(directory: Path, count: int = 3, resync: ResyncSettings = RESYNC) -> AsyncIterator[Chain]:
    """A chain that serves, with a user that may write ``INODE``."""
    async with storage_cluster(directory, count, resync=resync) as cluster:
        user, meta = User(cluster), node_client(cluster)
        try:
            await user.present()
            yield Chain(cluster, user, meta)
        finally:
            await user.close()
            await meta.aclose()


def chunk(number: int) -> ChunkId:
    """Of the file that is written."""
    return ChunkId(INODE, number)
