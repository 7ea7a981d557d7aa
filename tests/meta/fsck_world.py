"""A metadata service over fake chains, and a check of it in which everything waits a little."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from fs3.ids import ChainId, ChainVersion, ChunkId, InodeId, TargetId, UpdateVersion
from fs3.kv.run import run
from fs3.kv.transaction import Transaction
from fs3.meta.fsck.check import Check, CheckParts, State
from fs3.meta.fsck.findings import Kind
from fs3.meta.fsck.mend import Mender
from fs3.meta.fsck.walk import Walk
from fs3.rng import derived_rng
from fs3.tasks import TaskScope
from fs3.wire.chunk import Identity, WriterTag
from fs3.wire.storage import ListChunksResponse, ListedChunk
from tests.meta.fake_chains import FakeChains
from tests.meta.world import World

T = TypeVar("T")
REPLICAS = 3
VERSION = ChainVersion(1)


def identity(number: int) -> Identity:
    """A version's identity."""
    return Identity(VERSION, UpdateVersion(number), WriterTag(InodeId(20), 0, number))  # type: ignore[arg-type]


class FakeLister:
    """``Lister`` over fake chains, three equal replicas each, but for ``changed``."""

    def __init__(self, chains: FakeChains) -> None:
        self._chains = chains
        self.changed: dict[tuple[int, ChunkId], ListedChunk | None] = {}
        """(replica, chunk) -> what it says."""
        self.looks = 0

    def members(self, chain: ChainId) -> list[TargetId]:
        return [TargetId(chain << 16 | number) for number in range(REPLICAS)]

    def absent(self, chain: ChainId) -> list[str]:
        return []

    async def list(
        self, chain: ChainId, target: TargetId, behind: ChunkId | None, limit: int
    ) -> tuple[ChainVersion, ListChunksResponse]:
        await asyncio.sleep(0.002)
        self.looks += 1
        found: dict[ChunkId, ListedChunk] = {}
        for (where, inode), lengths in self._chains.stored.items():
            if where == chain:
                for index, length in lengths.items():
                    chunk = ChunkId(inode, index)
                    number = length + 1
                    found[chunk] = ListedChunk(chunk=chunk, identity=identity(number), length_bytes=length)
        for (replica, chunk), record in self.changed.items():
            if chunk in found and target & 0xFFFF == replica:
                del found[chunk]
                if record is not None:
                    found[chunk] = record
        chunks = [found[chunk] for chunk in sorted(found) if behind is None or chunk > behind]
        return VERSION, ListChunksResponse(records=tuple(chunks[:limit]), more=len(chunks) > limit)


class SlowWalk(Walk):
    """Lets others in before each transaction."""

    async def transact(self, body: Callable[[Transaction], Awaitable[T]]) -> T:
        await asyncio.sleep(0.001)
        return await super().transact(body)


class Stopped(Exception):
    """The check was killed after a window."""


async def check(
    world: World,
    lister: FakeLister,
    *,
    state: State | None = None,
    stop_after: int = -1,
    patience_s: float = 1.0,
) -> State:
    """Run a check; ``stop_after``: windows after which it is killed. The state survives as its wire form."""
    windows = 0
    kept = msgspec.json.encode(state or State())

    def save(now: State) -> None:
        nonlocal windows, kept
        kept = msgspec.json.encode(now)
        windows += 1
        if windows == stop_after:
            raise Stopped

    scope = TaskScope("fsck", lambda name, error: None)
    parts = CheckParts(
        walk=SlowWalk(world.kv, world.clock, derived_rng(1, "fsck")),
        lister=lister,
        placement=world.placement,
        all_chains=world.placement.all_chains,
        clock=world.clock,
        scope=scope,
        save=save,
        patience_s=patience_s,
    )
    try:
        await Check(parts, msgspec.json.decode(kept, type=State)).run()
    except Stopped:
        pass
    finally:
        await scope.aclose()
    return msgspec.json.decode(kept, type=State)


async def mend(world: World, state: State) -> list[str]:
    """Repair everything that was found; what was done of each."""
    walk = Walk(world.kv, world.clock, derived_rng(2, "mend"))
    mender = Mender(walk, world.chains, world.clock.wall_ns)
    await mender.look_up(state.findings)
    done = [await mender.mend(finding) for finding in state.findings]
    for finding in state.findings:
        if finding.kind is Kind.UNDECODABLE:
            continue  # nobody can finish that
        await world.finisher.finish(InodeId(finding.inode), world.clock.boot_s() + 10)
    return done


async def write(world: World, body: Callable[[Transaction], object]) -> None:
    """Change records by hand."""

    async def work(txn: Transaction) -> None:
        result = body(txn)
        if isinstance(result, Awaitable):
            await result

    await run(world.kv, work, clock=world.clock, rng=derived_rng(3, "w"), deadline_s=world.clock.boot_s() + 5)
