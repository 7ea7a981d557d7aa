"""After the faults, with every process stopped: the stores themselves, replica by replica."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from fs3.clock import SystemClock
from fs3.ids import ChainId, ChunkId, TargetId
from fs3.rng import system_rng
from fs3.routing import RoutingInfo
from fs3.storage.disk import OsDisk
from fs3.storage.engine.logged_index import index_opener
from fs3.storage.engine.store import ChunkStore
from fs3.storage.engine.versions import ChunkState, EngineParts, EngineSettings
from tests.sim.checkers import replicas_identical

PAGE = 10_000


def judge_stores(directory: Path, routing: RoutingInfo) -> list[str]:
    """What is wrong in the stores below ``directory``: damage, pending versions, differences."""
    problems: list[str] = []
    with ExitStack() as opened:
        stores: dict[TargetId, ChunkStore] = {}
        for path in sorted(directory.rglob("target-*")):
            if (path / "index").is_dir():
                target = TargetId(int(path.name.removeprefix("target-"), 16))
                stores[target] = _open(str(path), target, opened)
        by_chain: dict[ChainId, list[tuple[str, dict[object, object]]]] = defaultdict(list)
        for chain, info in sorted(routing.chains.items()):
            for member in info.members:
                store = stores[member.target]
                name = f"target {member.target:x}"
                content = {chunk: state.committed for chunk, state in _chunks(store)}
                by_chain[chain].append((name, dict(content)))
                problems += [f"{name}: {chunk} is pending" for chunk, _ in store.pendings()]
                for chunk in content:
                    if bad := store.verify_chunk(chunk):
                        problems.append(f"{name}: {chunk} is damaged: {bad}")
        for chain, replicas in by_chain.items():
            problems += replicas_identical(replicas, chain)
    return problems


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
