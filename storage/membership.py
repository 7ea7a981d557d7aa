"""What the storage service needs of its node's membership (``fs3.member.agent.Agent`` in production)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from fs3.ids import ChainId, ChainVersion, Generation
from fs3.routing import RoutingInfo
from fs3.wire.mgmtd import TargetReport


class Membership(Protocol):
    """Routing, leases, cluster time, reports. ``lease_valid`` is called from threads too, and is cheap."""

    @property
    def generation(self) -> Generation:
        """This run of the node."""
        ...

    @property
    def routing(self) -> RoutingInfo:
        """The newest picture that the node has adopted."""
        ...

    def subscribe(self, adopt: Callable[[RoutingInfo], None]) -> None:
        """Call back with each newer picture, on the event loop."""
        ...

    def lease_valid(self, chain: ChainId, version: ChainVersion) -> bool:
        """Whether the node may serve and commit ``chain`` at exactly this version now (design 2.2)."""
        ...

    def acknowledge(self, chain: ChainId, version: ChainVersion) -> None:
        """The node's target of ``chain`` has adopted ``version``."""
        ...

    def set_targets(self, reports: Sequence[TargetReport]) -> None:
        """The node's targets, for its reports; a change is reported at once."""
        ...

    def cluster_time_ms(self) -> int:
        """Cluster time (design 7)."""
        ...
