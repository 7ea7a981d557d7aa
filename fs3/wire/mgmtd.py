"""The mgmtd service: methods 1 … 99. Datagrams (beacons, leases) are in ``fs3.member``.

Source: design 2.1 (reports), 2.5 (push and delta), 7 (cluster time).
"""

from __future__ import annotations

import msgspec

from ..ids import ChainId, ChainVersion, Generation, NodeId, TargetId
from ..routing import LocalState, NodeKind, RoutingDelta
from ..rpc.service import Method, Service


class TargetReport(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a storage node says of one of its targets."""

    target: TargetId
    state: LocalState
    store_id: bytes
    """16 random bytes made with the store: the same after a restart exactly if it is the same store."""
    clean: bool
    """Opened with all checks passed and no write-back error since."""
    chain: ChainId = ChainId(0)
    chain_version: ChainVersion = ChainVersion(0)
    """UPTODATE: the one version of its chain at which the target has everything; else 0. Acknowledgements are
    in beacons."""
    capacity_bytes: int = 0
    used_bytes: int = 0
    reason: str = ""
    """Why it is OFFLINE."""
    acknowledge_us: int = 0
    """How long it lately took to make an update durable; 0: there was none to make."""
    copy_step_count: int = 0
    """Steps of the copying to its SYNCING successor so far: grows while that goes on."""


NOTHING_NEWER = 1 << 62
"""As ``known_version``: only who is primary is asked."""


class GetRoutingRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Fetch routing newer than ``known_version``; waits up to ``wait_ms`` for it (that is the push).

    A standby waits so long for a primary that it can name.
    """

    known_version: int = 0
    wait_ms: int = 0
    lost_address: str = ""
    """Who was primary and is none any more, as far as the asker knows: no news to it."""


class GetRoutingResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    delta: RoutingDelta | None = None
    """None: nothing newer."""
    is_primary: bool = True
    primary_address: str = ""
    """Where to ask instead when this one is not the primary."""
    cluster_time_ms: int = 0


class ReportRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A node's full report: on change and every few seconds. Registers the node when it is new."""

    node: NodeId
    kind: NodeKind
    generation: Generation
    sequence: int
    """Grows with each report of a generation; an older one is dropped."""
    host: str
    address: str
    beacon_address: str = ""
    local_address: str = ""
    zone: str = ""
    targets: tuple[TargetReport, ...] = ()
    broken_links: tuple[NodeId, ...] = ()
    """Peers that it cannot reach."""
    version: str = ""
    """Software version, shown to people."""


class ReportResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    routing_version: int = 0
    is_primary: bool = True
    primary_address: str = ""


class TargetSpec(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A target that a chain table may be made of."""

    target: TargetId
    zone: str
    weight: int = 1


class CreateChainTableRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Admin: make chains over every target that is registered and in no chain yet, and a table of them."""

    replication: int
    table: int = 1
    wait_for_targets: int = 0
    """Refuse (Busy) while fewer targets are registered."""


class CreateChainTableResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    table_version: int
    chain_count: int


MEMBERS_MAX = 256
"""Members that a status names."""


class StatusRequest(msgspec.Struct, frozen=True, array_like=True):
    """The cluster as the primary sees it."""


class NodeStatus(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A node as the primary sees it."""

    node: NodeId
    kind: NodeKind
    generation: Generation
    address: str
    state: str
    """"alive", "suspected", "silent" or "dead"."""
    silent_s: float
    targets: tuple[TargetReport, ...] = ()
    version: str = ""


class MemberStatus(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A member of a chain that does not simply serve."""

    chain: ChainId
    version: ChainVersion
    target: TargetId
    state: str
    """Public state in small letters; "joining": named serving, not in force yet."""
    why: str
    """What it waits for; empty: a step is under way."""


class StatusResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    is_primary: bool
    primary_address: str
    routing_version: int
    cluster_time_ms: int
    nodes: tuple[NodeStatus, ...] = ()
    serving_chain_count: int = 0
    degraded_chain_count: int = 0
    """Somebody serves, but not every member does, or one that should is not well."""
    unavailable_chain_count: int = 0
    members: tuple[MemberStatus, ...] = ()
    """Those that do not simply serve; at most ``MEMBERS_MAX``."""
    member_count: int = 0
    """How many there are of them."""

    @property
    def is_whole(self) -> bool:
        """There are chains, and all of them have all their members."""
        return bool(self.serving_chain_count) and not (
            self.degraded_chain_count or self.unavailable_chain_count
        )


class IssueTokenRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Admin: a token for a user."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    is_admin: bool = False


class IssueTokenResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    token: str


class RevokeRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Admin: raise a user's key generation: every earlier token and capability of it is refused."""

    uid: int


class RevokeResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    key_generation: int
    routing_version: int


GET_ROUTING = Method("get_routing", 1, GetRoutingRequest, GetRoutingResponse)
REPORT = Method("report", 2, ReportRequest, ReportResponse)
CREATE_CHAIN_TABLE = Method("create_chain_table", 3, CreateChainTableRequest, CreateChainTableResponse)
STATUS = Method("status", 4, StatusRequest, StatusResponse)
ISSUE_TOKEN = Method("issue_token", 5, IssueTokenRequest, IssueTokenResponse)
REVOKE = Method("revoke", 6, RevokeRequest, RevokeResponse)

MGMTD = Service("mgmtd", (GET_ROUTING, REPORT, CREATE_CHAIN_TABLE, STATUS, ISSUE_TOKEN, REVOKE))
