"""After the faults, with every process stopped: the stores themselves, replica by replica."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fs3.clock import SystemClock
from fs3.ids import ChunkId, TargetId
from fs3.rng import system_rng
from fs3.routing import RoutingInfo
from fs3.storage.disk import OsDisk
from fs3.storage.engine.logged_index import index_opener
from fs3.storage.engine.store import ChunkStore
from fs3.storage.engine.versions import ChunkState, EngineParts, EngineSettings
from fs3.wire.chunk import VersionInfo
from tests.sim.checkers import replicas_identical

PAGE = 10_000


@dataclass(slots=True)
class Replica:
    """One member of a chain, as it lies on its disk."""

    name: str
    store: ChunkStore
    committed: dict[ChunkId, VersionInfo | None]


def judge_stores(
    directories: Sequence[Path], routing: RoutingInfo, acknowledged: Mapping[ChunkId, bytes]
) -> list[str]:
    """What is wrong in the stores in ``directories``: damage, pending versions, differences; chunks of
    ``acknowledged`` that some replica of their chain has not with exactly these bytes at the beginning."""
    problems: list[str] = []
    found: set[ChunkId] = set()
    with ExitStack() as opened:
        stores: dict[TargetId, ChunkStore] = {}
        for path in sorted(path for directory in directories for path in directory.glob("target-*")):
            target = TargetId(int(path.name.removeprefix("target-"), 16))
            stores[target] = _open(str(path), target, opened)
        for chain, info in sorted(routing.chains.items()):
            replicas = [_replica(stores[member.target]) for member in info.members]
            for replica in replicas:
                problems += _damage(replica)
            problems += replicas_identical([(r.name, dict(r.committed)) for r in replicas], chain)
            ours = acknowledged.keys() & {chunk for replica in replicas for chunk in replica.committed}
            found |= ours
            problems += [
                f"{replica.name}: {chunk} has not the bytes that were acknowledged"
                for chunk in ours
                for replica in replicas
                if not _bytes(replica, chunk).startswith(acknowledged[chunk])
            ]
    return problems + [f"{chunk} was acknowledged and is nowhere" for chunk in acknowledged.keys() - found]


def _replica(store: ChunkStore) -> Replica:
    committed = {chunk: state.committed for chunk, state in _chunks(store)}
    return Replica(f"target {store.target:x}", store, committed)


def _damage(replica: Replica) -> list[str]:
    pending = [f"{replica.name}: {chunk} is pending" for chunk, _ in replica.store.pendings()]
    return pending + [
        f"{replica.name}: {chunk} is damaged: {bad}"
        for chunk in replica.committed
        if (bad := replica.store.verify_chunk(chunk))
    ]


def _bytes(replica: Replica, chunk: ChunkId) -> bytes:
    """The committed version of a chunk."""
    version = replica.committed.get(chunk)
    if version is None or not version.length_bytes:
        return b""
    buffer = bytearray(version.length_bytes)
    replica.store.read_into(chunk, version.identity, 0, memoryview(buffer), wait=True)
    return bytes(buffer)


def _open(path: str, target: TargetId, opened: ExitStack) -> ChunkStore:
    disk = OsDisk()
    opened.callback(disk.close)
    parts = EngineParts(disk, index_opener(disk, system_rng()), SystemClock())
    store = ChunkStore.open(path, target, parts, EngineSettings())
    opened.callback(store.close)
    return store


def _chunks(store: ChunkStore) -> Iterator[tuple[ChunkId, ChunkState]]:
    behind = None
    while page := store.list_chunks(behind, PAGE):
        yield from page
        behind = page[-1][0]
