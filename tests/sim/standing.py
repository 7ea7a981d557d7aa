"""Where the chains of a world stand: the newest records that storage nodes have, and who serves by them."""

from __future__ import annotations

from fs3.ids import ChainId, TargetId, node_of_target
from fs3.routing import ChainInfo, TargetState
from fs3.storage.runner import TargetRunner

from .cluster import World


def newest_chains(world: World) -> dict[ChainId, ChainInfo]:
    """The newest record of each chain, of those that running storage nodes have."""
    newest: dict[ChainId, ChainInfo] = {}
    for host in world.storage_hosts:
        agent = world.storages[host].agent if host in world.processes else None
        for chain, info in agent.routing.chains.items() if agent is not None else ():
            if chain not in newest or newest[chain].version < info.version:
                newest[chain] = info
    return newest


def runner_of(world: World, target: TargetId) -> TargetRunner | None:
    """The running target; None: its node is down, or it is out of use."""
    host = world.storage_host(node_of_target(target))
    server = world.storages.get(host)
    if host not in world.processes or server is None or server.targets is None:
        return None
    return next((runner for runner in server.targets.online() if runner.target == target), None)


def serves(world: World, info: ChainInfo, target: TargetId) -> bool:
    """Whether a target serves at exactly this record, in force."""
    member = next(m for m in info.members if m.target == target)
    runner = runner_of(world, target)
    return (
        member.state is TargetState.SERVING
        and not member.joining
        and runner is not None
        and runner.replica.gate.read_problem(info.version) is None
    )


def is_whole(world: World, host: str) -> bool:
    """Whether all members of all chains of a storage host serve, as far as anybody knows."""
    chains = _chains_of(world, host)
    return bool(chains) and all(serves(world, info, m.target) for info in chains for m in info.members)


def others_serve(world: World, host: str) -> bool:
    """Whether the host has left all its chains, and another member of each serves alone or with others."""
    for info in _chains_of(world, host):
        own = [m for m in info.members if world.storage_host(m.node) == host]
        if any(m.state is TargetState.SERVING for m in own):
            return False
        if not any(serves(world, info, m.target) for m in info.members if m not in own):
            return False
    return True


def serves_alone(world: World, host: str) -> bool:
    """Whether nobody else serves one of the chains that the host is named SERVING in."""
    for info in _chains_of(world, host):
        is_named = any(
            m.state is TargetState.SERVING and world.storage_host(m.node) == host for m in info.members
        )
        others = [m.target for m in info.members if world.storage_host(m.node) != host]
        if is_named and not any(serves(world, info, target) for target in others):
            return True
    return False


def _chains_of(world: World, host: str) -> list[ChainInfo]:
    return [
        info
        for _, info in sorted(newest_chains(world).items())
        if any(world.storage_host(m.node) == host for m in info.members)
    ]
