"""When a chain's record may name a member's new generation. PURE.

A restarted node is a new generation and no member of the versions that name the old one. If its target has
re-opened clean (same store, checks passed), everything that it had acknowledged is there; as long as no
version leaves anybody out, nobody has committed anything without it. So the record may name the new
generation, at the next version, as soon as the old generation's leases are over: the primary's grant is
waited out here; what the other members granted is waited out by each of them after it has adopted the
version, before it serves (``NodeLeases``); and what the restarted node itself had granted, by its own wait
after its start.

All members of a chain that qualify in one pass go into one version.

Source: design 2.2, 2.7; issue "1 of 6" (chains keep their members).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from fs3.ids import ChainVersion, Generation, TargetId
from fs3.routing import ChainInfo, LocalState, Member, TargetState
from fs3.wire.mgmtd import TargetReport

from .grants import PrimaryGrants

REFUSED_STORE = "its store is another one: what it had is gone"
REFUSED_CLEAN = "its store did not open clean"
REFUSED_STATE = "it is offline"
WAITS = "leases of its earlier generation are not over"


@dataclass(frozen=True, slots=True)
class Present:
    """What is known of a target now."""

    generation: Generation
    """Of its node, as reported."""
    is_heard: bool
    """The node is alive."""
    report: TargetReport
    store_id: bytes
    """Of the store that the chain was made with."""


@dataclass(frozen=True, slots=True)
class Held:
    """A member that cannot be renewed now, and why."""

    target: TargetId
    why: str


@dataclass(slots=True)
class Renewals:
    """A pass's result."""

    chains: list[ChainInfo]
    """Records to persist, then to publish."""
    held: list[Held]
    due_s: float | None
    """When a wait of some member is over; None: nobody waits."""


def plan_renewals(
    chains: Iterable[ChainInfo],
    present: Callable[[TargetId], Present | None],
    grants: PrimaryGrants,
    now_s: float,
) -> Renewals:
    """The records that name new generations, for all chains; nothing else in them changes."""
    result = Renewals([], [], None)
    for info in chains:
        members = tuple(_renewed(info, member, present(member.target), grants, now_s, result)
                        for member in info.members)  # fmt: skip
        if members != info.members:
            version = ChainVersion(info.version + 1)
            result.chains.append(msgspec.structs.replace(info, version=version, members=members))
    return result


def _renewed(
    info: ChainInfo,
    member: Member,
    known: Present | None,
    grants: PrimaryGrants,
    now_s: float,
    result: Renewals,
) -> Member:
    if known is None or not known.is_heard or known.generation <= member.generation:
        return member
    if (why := _objection(member, known)) is not None:
        result.held.append(Held(member.target, why))
        return member
    over_s = grants.until_s(member.node, member.generation, info.chain)
    if now_s < over_s:
        result.held.append(Held(member.target, WAITS))
        result.due_s = over_s if result.due_s is None else min(result.due_s, over_s)
        return member
    return msgspec.structs.replace(member, generation=known.generation)


def _objection(member: Member, known: Present) -> str | None:
    if member.state is not TargetState.SERVING:
        return f"it is {member.state.name}"
    if known.report.store_id != known.store_id:
        return REFUSED_STORE
    if not known.report.clean:
        return REFUSED_CLEAN
    if known.report.state is LocalState.OFFLINE:
        return REFUSED_STATE
    return None
