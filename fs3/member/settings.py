"""What an agent is made of: who it is, and what it works with.

Source: style 4 (settings and components apart).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..clock import Clock
from ..identity.keys import ClusterKey
from ..ids import NodeId
from ..log import Logger
from ..rng import Rng
from ..routing import NodeKind
from ..rpc.network import Network
from ..rpc.service import Caller
from .timing import TIMING, Timing


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Who this node is."""

    node: NodeId
    kind: NodeKind
    host: str
    seeds: tuple[str, ...]
    """RPC addresses of some mgmtds."""
    beacon_address: str
    """UDP ``host:port`` to bind; port 0 takes a free one."""
    zone: str = ""
    version: str = ""
    """Of the software, shown to people."""
    timing: Timing = TIMING


@dataclass(frozen=True, slots=True)
class AgentComponents:
    """What it works with. ``fail(name, error)``: this run of the node has to end."""

    clock: Clock
    rng: Rng
    network: Network
    caller: Caller
    key: ClusterKey
    log: Logger
    fail: Callable[[str, BaseException], None]
