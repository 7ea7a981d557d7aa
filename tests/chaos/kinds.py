"""Every kind of fault: whom it may hit, what it needs, how it is done and undone.

A kind's ``strike`` returns when the fault is over and what was broken has been mended as an operator would;
the cluster may still be busy healing then.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from fs3.rng import Rng

from .ground import Ground
from .machine import Machine
from .network import Cut

AWAY_S = (0.2, 1.0, 4.0, 9.0)
"""How long a process is away: shorter than a lease, than a verdict, longer than both."""
DISK_AWAY_S = (1.0, 4.0, 9.0)
RESET_S = (0.05, 0.5, 3.0)
LOSS_S = (4.0, 9.0, 15.0)
LOSS_PERCENT = 30
HOSTS = ("storage", "meta", "mgmtd")
"""What has an address of its own; ``fs3 kv`` is reached by a socket in its directory."""

Strike = Callable[[Ground, str, float, Rng], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault."""

    name: str
    roles: tuple[str, ...]
    """Whom it hits. Empty: everybody at once."""
    strike: Strike
    """(ground, whom, for how many seconds, chance)."""
    away_s: Sequence[float] = AWAY_S
    needs: str = ""
    """ "network", "volumes" or "mapper"."""
    weight: int = 1
    """How often it is in the deck."""
    file_system: str = ""
    """Only disks with this one can fail like that."""
    wants_primary: bool = False
    """Of the mgmtds, the one that leads."""
    fills: bool = False
    """ENOSPC is a right answer while it lasts."""
    stops_names: bool = False
    """Calls on names may meet their deadlines while it lasts."""


def _kill(ground: Ground, name: str, away_s: float, rng: Rng) -> None:
    ground.kill(name)
    ground.wait(away_s)
    ground.restart(name)


def _stop(ground: Ground, name: str, away_s: float, rng: Rng) -> None:
    ground.signal(name, signal.SIGSTOP)
    try:
        ground.wait(away_s)
    finally:
        ground.signal(name, signal.SIGCONT)


def _cut(
    cuts: Callable[[Ground, str, Rng], list[Cut]], ground: Ground, name: str, away_s: float, rng: Rng
) -> None:
    assert ground.network is not None
    with ground.network.cut(cuts(ground, name, rng)):
        ground.wait(away_s)


def _alone(ground: Ground, name: str, rng: Rng) -> list[Cut]:
    return [Cut(name)]


def _from_nodes(ground: Ground, name: str, rng: Rng) -> list[Cut]:
    return [Cut(name, ground.others(name))]


def _from_mgmtds(ground: Ground, name: str, rng: Rng) -> list[Cut]:
    return [Cut(name, tuple(ground.names("mgmtd")))]


def _neighbour(ground: Ground, name: str, rng: Rng) -> str:
    return rng.choice([other for other in ground.names("storage") if other != name])


def _link(ground: Ground, name: str, rng: Rng) -> list[Cut]:
    return [Cut(name, (_neighbour(ground, name, rng),))]


def _one_way(ground: Ground, name: str, rng: Rng) -> list[Cut]:
    return [Cut(name, (_neighbour(ground, name, rng),), incoming=False)]


def _deaf(ground: Ground, name: str, rng: Rng) -> list[Cut]:
    return [Cut(name, outgoing=False)]


def _mute(ground: Ground, name: str, rng: Rng) -> list[Cut]:
    return [Cut(name, incoming=False)]


def _protocol(protocol: str, ground: Ground, name: str, rng: Rng) -> list[Cut]:
    return [Cut(name, protocol=protocol)]


def _resets(ground: Ground, name: str, rng: Rng) -> list[Cut]:
    return [Cut(name, reset=True)]


def _loss(ground: Ground, name: str, rng: Rng) -> list[Cut]:
    return [Cut(name, percent=LOSS_PERCENT)]


def _client_link(ground: Ground, name: str, rng: Rng) -> list[Cut]:
    return [Cut(name, (rng.choice(ground.clients),))]


def _slow(ground: Ground, name: str, away_s: float, rng: Rng) -> None:
    assert ground.network is not None
    with ground.network.slow(name):
        ground.wait(away_s)


def _fill(ground: Ground, name: str, away_s: float, rng: Rng) -> None:
    assert ground.volumes is not None
    ground.volumes[name].fill()
    try:
        ground.wait(away_s)
    finally:
        ground.volumes[name].empty()


def _mended(breaks: str, ground: Ground, name: str, away_s: float, rng: Rng) -> None:
    """A disk breaks under its node; later the node is stopped, the disk mended, the node started."""
    assert ground.volumes is not None
    getattr(ground.volumes[name], breaks)()
    ground.wait(away_s)
    ground.stop(name)
    ground.volumes[name].mend()
    ground.restart(name)


def _replaced(ground: Ground, name: str, away_s: float, rng: Rng) -> None:
    """A disk breaks under its node; later an empty one takes its place."""
    assert ground.volumes is not None
    ground.volumes[name].fail()
    ground.wait(away_s)
    ground.stop(name)
    ground.volumes[name].replace()
    ground.restart(name)


def _everything(ground: Ground, name: str, away_s: float, rng: Rng) -> None:
    for process in ground.cluster.plan().processes:
        ground.kill(process.name)
    ground.wait(away_s)
    ground.start_everything()


STORAGE, META, MGMTD, KV = ("storage",), ("meta",), ("mgmtd",), ("kv",)
EVERYTHING = "everything killed"

KINDS = (
    Kind("storage killed", STORAGE, _kill, weight=4),
    Kind("storage stopped", STORAGE, _stop, weight=3),
    Kind("meta killed", META, _kill, weight=2),
    Kind("meta stopped", META, _stop),
    Kind("primary killed", MGMTD, _kill, weight=2, wants_primary=True, stops_names=True),
    Kind("primary stopped", MGMTD, _stop, wants_primary=True, stops_names=True),
    Kind("mgmtd killed", MGMTD, _kill, stops_names=True),
    Kind("kv killed", KV, _kill, weight=2, stops_names=True),
    Kind("kv stopped", KV, _stop, stops_names=True),
    Kind(EVERYTHING, (), _everything, away_s=(0.0, 1.0), weight=2, stops_names=True),
    Kind("node cut off", HOSTS, partial(_cut, _alone), needs="network", weight=2, stops_names=True),
    Kind("storage cut from nodes", STORAGE, partial(_cut, _from_nodes), needs="network", weight=2),
    Kind("storage cut from mgmtds", STORAGE, partial(_cut, _from_mgmtds), needs="network"),
    Kind("link cut", STORAGE, partial(_cut, _link), needs="network", weight=2),
    Kind("link cut one way", STORAGE, partial(_cut, _one_way), needs="network"),
    Kind("node deaf", HOSTS, partial(_cut, _deaf), needs="network", stops_names=True),
    Kind("node mute", HOSTS, partial(_cut, _mute), needs="network", stops_names=True),
    Kind("UDP cut", HOSTS, partial(_cut, partial(_protocol, "udp")), needs="network"),
    Kind("TCP cut", HOSTS, partial(_cut, partial(_protocol, "tcp")), needs="network", stops_names=True),
    Kind("resets", HOSTS, partial(_cut, _resets), RESET_S, needs="network", weight=2),
    Kind("packets lost", HOSTS, partial(_cut, _loss), LOSS_S, needs="network"),
    Kind("link slow", HOSTS, _slow, LOSS_S, needs="network"),
    Kind("client link cut", STORAGE, partial(_cut, _client_link), needs="network"),
    Kind("disk filled", STORAGE, _fill, DISK_AWAY_S, needs="volumes", fills=True),
    Kind(
        "disk read-only",
        STORAGE,
        partial(_mended, "turn_read_only"),
        DISK_AWAY_S,
        needs="volumes",
        file_system="ext4",
    ),
    Kind("disk failed", STORAGE, partial(_mended, "fail"), DISK_AWAY_S, needs="volumes", weight=2),
    Kind("disk blocks failed", STORAGE, partial(_mended, "fail_blocks"), DISK_AWAY_S, needs="mapper"),
    Kind("disk replaced", STORAGE, _replaced, DISK_AWAY_S, needs="volumes"),
)
"""``stops_names``: where the store or every primary may be out of reach of a service of names for a while."""


def possible(machine: Machine) -> list[Kind]:
    """The kinds that this machine allows."""
    has = {
        "": True, "network": machine.has_network, "volumes": machine.has_volumes, "mapper": machine.has_mapper
    }  # fmt: skip
    return [kind for kind in KINDS if has[kind.needs]]
