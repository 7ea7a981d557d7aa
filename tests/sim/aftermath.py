"""What a cluster must come to when the faults are over: everything serves, nothing is pending or left."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable

from fs3.ids import ChainId, InodeId
from fs3.kv.schema import key_u64, range_of
from fs3.meta.inode import decode_inode
from fs3.routing import ChainInfo
from fs3.storage.runner import TargetRunner

from .checkers import replicas_identical
from .cluster import World
from .seen import IDENTICAL, LEAKS, NO_BUG, SERVING, Problem

CALM_TIMEOUT_S = 60.0
FORGET_TIMEOUT_S = 150.0
"""A killed client is lost after 60 s without a sign, 75 s if its observer has just been killed as well."""
PASSING = (b"SESS", b"SREN", b"SNON", b"OPEN", b"SOPN", b"SLOT", b"CUTQ", b"SPLQ", b"STLQ", b"RMVQ")
"""Records that go with the sessions, or with the work, that they are of."""


async def settled(world: World) -> list[Problem]:
    """Wait until all chains serve and nothing is pending; then compare replicas and verify their bytes."""
    problems = await _within(world, SERVING, lambda: _not_serving(world))
    problems = problems or await _within(world, SERVING, lambda: _pending(world))
    if problems:
        return problems  # replicas that are not at rest may differ
    for chain, runners in sorted(_replicas(world).items()):
        content: list[tuple[str, dict[object, object]]] = []
        for host, runner in runners.items():
            chunks = runner.store.list_chunks(limit=1_000_000)
            content.append((host, {chunk: state.committed for chunk, state in chunks}))
            problems += [
                Problem(IDENTICAL, f"chain {chain}, {host}: {chunk} is damaged: {damage}", chunk)
                for chunk, _ in chunks
                if (damage := runner.store.verify_chunk(chunk))
            ]
        problems += [Problem(IDENTICAL, text, chain=chain) for text in replicas_identical(content, chain)]
    return problems


def bugs(world: World) -> list[Problem]:
    """Handlers and tasks that ended with what nobody expects."""
    found = [Problem(NO_BUG, text) for text in world.failures]
    for event in world.events:
        error = event.get("exc_info")
        if isinstance(error, BaseException):
            text = "".join(traceback.format_exception(error, limit=-4))
            found.append(Problem(NO_BUG, f"{event.get('host')}, {event.get('method')}: {text}"))
    return found


async def left_over(world: World) -> list[Problem]:
    """Every client has gone: no session, open file, answer or chunk without a file may be left for long."""
    records = await _within(world, LEAKS, lambda: _records(world), FORGET_TIMEOUT_S)
    return records or await _within(world, LEAKS, lambda: _orphans(world))


async def _within(
    world: World, checker: str, look: Callable[[], list[str]], timeout_s: float | None = None
) -> list[Problem]:
    """What ``look`` still finds after ``timeout_s``; nothing, as soon as it finds nothing."""
    timeout_s = CALM_TIMEOUT_S if timeout_s is None else timeout_s
    deadline_s = world.loop.time() + timeout_s
    while found := look():
        if world.loop.time() > deadline_s:
            return [Problem(checker, f"after {timeout_s:.0f} s of calm: {text}") for text in found]
        await asyncio.sleep(0.5)
    return []


def _replicas(world: World) -> dict[ChainId, dict[str, TargetRunner]]:
    found: dict[ChainId, dict[str, TargetRunner]] = {}
    for host, server in world.storages.items():
        if host not in world.processes:
            continue
        for chain, runner in server.targets.by_chain.items() if server.targets else ():
            found.setdefault(chain, {})[host] = runner
    return found


def _not_serving(world: World) -> list[str]:
    """Members of chains that do not serve at the chain's newest version, in their present generation."""
    newest: dict[ChainId, ChainInfo] = {}
    for host, server in world.storages.items():
        if server.agent is None or host not in world.processes:
            return [f"{host} does not run"]
        for chain, info in server.agent.routing.chains.items():
            if chain not in newest or newest[chain].version < info.version:
                newest[chain] = info
    replicas, problems = _replicas(world), list[str]()
    for chain, info in sorted(newest.items()):
        serving = {
            runner.replica.gate.target
            for host, runner in replicas.get(chain, {}).items()
            if runner.replica.gate.read_problem(info.version) is None
        }
        present = {
            runner.replica.gate.target: agent.generation
            for host, runner in replicas.get(chain, {}).items()
            if (agent := world.storages[host].agent) is not None
        }
        for member in info.members:
            if member.target not in serving:
                problems.append(f"target {member.target:x} of chain {chain} does not serve at {info.version}")
            if member.generation != present.get(member.target):
                problems.append(f"chain {chain} names generation {member.generation} of {member.target:x}")
    return problems or ([] if newest else ["there are no chains"])


def _pending(world: World) -> list[str]:
    return [
        f"chain {chain}, {host}: {len(pendings)} versions are pending"
        for chain, runners in sorted(_replicas(world).items())
        for host, runner in runners.items()
        if (pendings := runner.store.pendings())
    ]


def _records(world: World) -> list[str]:
    store, left = world.store, list[str]()
    for prefix in PASSING:
        keys = [
            k for k in store.keys_between(*range_of(prefix)) if store.value_at(k, store.version) is not None
        ]
        if keys:
            left.append(f"{len(keys)} records {prefix.decode()} are left after all clients closed")
    return left


def _orphans(world: World) -> list[str]:
    """Chunks of files that are not there (any more), and beyond the ends of those that are."""
    store = world.store

    def length_of(inode: InodeId) -> tuple[int, int]:
        data = store.value_at(key_u64(b"INOD", inode), store.version)
        if data is None:
            return 0, 1
        record = decode_inode(inode, data)
        return record.length_bytes, record.layout.chunk_size_bytes if record.layout is not None else 1

    found: list[str] = []
    for chain, runners in sorted(_replicas(world).items()):
        for host, runner in runners.items():
            for chunk, state in runner.store.list_chunks(limit=1_000_000):
                length_bytes, chunk_bytes = length_of(chunk.inode)
                if state.committed is None or state.committed.removed:
                    continue
                if chunk.chunk_index * chunk_bytes >= length_bytes:
                    found.append(
                        f"chain {chain}, {host}: {chunk} is beyond the {length_bytes} bytes of its file"
                    )
    return found
