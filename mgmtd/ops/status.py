"""status: the cluster as the primary sees it."""

from __future__ import annotations

from fs3.errors import Unavailable
from fs3.routing import Member, TargetState
from fs3.rpc.service import Call
from fs3.wire.mgmtd import MEMBERS_MAX, MemberStatus, NodeStatus, StatusRequest, StatusResponse

from ..services import Services
from ..term import Term


def status(services: Services, call: Call, request: StatusRequest) -> StatusResponse:
    """Who lives, and how many chains serve. Answered by a standby too: it says where the primary is."""
    term = services.primary_term()
    if term is None:
        where = services.lease.primary_address
        return StatusResponse(
            is_primary=False,
            primary_address="" if where == services.lease.address else where,
            routing_version=0,
            cluster_time_ms=0,
        )
    now_s = services.clock.boot_s()
    standings = [term.standing(info) for info in term.routing.chains.values()]
    try:
        cluster_time_ms = term.clock.now_ms(now_s)
    except Unavailable:
        cluster_time_ms = 0
    members = _members(term)
    return StatusResponse(
        is_primary=True,
        primary_address=services.lease.address,
        routing_version=term.routing.version,
        cluster_time_ms=cluster_time_ms,
        nodes=_nodes(term, now_s),
        serving_chain_count=standings.count("serving"),
        degraded_chain_count=standings.count("degraded"),
        unavailable_chain_count=standings.count("unavailable"),
        members=tuple(members[:MEMBERS_MAX]),
        member_count=len(members),
    )


def _members(term: Term) -> list[MemberStatus]:
    """Members that do not simply serve, and what they wait for."""
    found = []
    for info in term.routing.chains.values():
        for member in info.members:
            why = term.chains.held.get(member.target, "")
            if member.state is not TargetState.SERVING or member.joining or why:
                found.append(
                    MemberStatus(
                        chain=info.chain,
                        version=info.version,
                        target=member.target,
                        state=_state(member),
                        why=why,
                    )
                )
    return found


def _state(member: Member) -> str:
    return "joining" if member.joining else member.state.name.lower()


def _nodes(term: Term, now_s: float) -> tuple[NodeStatus, ...]:
    found = []
    for node, info in sorted(term.routing.nodes.items()):
        life, report = term.liveness.lives.get(node), term.reports.get(node)
        found.append(
            NodeStatus(
                node=node,
                kind=info.kind,
                generation=info.generation,
                address=info.address,
                state=term.verdict(info, now_s).value,
                silent_s=round(max(0.0, now_s - life.heard_s), 3) if life is not None else 0.0,
                targets=report.targets if report is not None else (),
                version=report.version if report is not None else "",
            )
        )
    return tuple(found)
