"""renew_capabilities: another ten minutes for capabilities that are still valid.

With the KV store at hand the session must live, and the file must be there under the same epoch; the new
capability notes when that was seen. Without the store it is renewed all the same, by any service, until an
hour after that time: reading and writing of open files goes on (design 7), and the storage nodes know how
long an epoch must be kept (design 4.9).
"""

from __future__ import annotations

from dataclasses import replace

from fs3.errors import CapabilityExpired, InvalidRequest, Unauthenticated, Unavailable
from fs3.identity.capability import CAPABILITY_MS, Capability
from fs3.kv.transaction import ReadTransaction, Transaction
from fs3.wire.meta import RENEW_CAPABILITIES, RenewCapabilitiesRequest, RenewCapabilitiesResponse

from ..driver import Operation, reading
from ..inode import get_inode
from ..services import Op
from ..session import require_session

CAPABILITIES_MAX = 1000
BLIND_S = 3600
"""How long capabilities are renewed without the KV store."""


async def renew_capabilities(
    op: Op, txn: Transaction, request: RenewCapabilitiesRequest
) -> RenewCapabilitiesResponse:
    """SessionLost; InvalidRequest (too many). Empty bytes for what cannot be renewed."""
    if len(request.capabilities) > CAPABILITIES_MAX:
        raise InvalidRequest(f"at most {CAPABILITIES_MAX} capabilities at a time")
    services = op.services
    now_ms = services.cluster_time_ms()
    valid = [_verified(op, data, now_ms, request) for data in request.capabilities]
    try:
        await require_session(txn.snapshot, request.session, op.peer.uid, is_admin=op.is_admin)
        valid = [await _confirmed(txn.snapshot, one, now_ms) for one in valid]
    except Unavailable:
        op.is_blind = True
        valid = [_still_trusted(one, now_ms) for one in valid]
    expires_ms = now_ms + CAPABILITY_MS
    renewed = [None if one is None else replace(one, expires_ms=expires_ms) for one in valid]
    return RenewCapabilitiesResponse(
        capabilities=tuple(b"" if one is None else services.signer.sign(one) for one in renewed),
        expires_ms=expires_ms,
    )


def _verified(op: Op, data: bytes, now_ms: int, request: RenewCapabilitiesRequest) -> Capability | None:
    try:
        capability = op.services.signer.verify(data, now_ms)
    except (CapabilityExpired, Unauthenticated):
        return None
    if capability.session != request.session or capability.uid != max(op.peer.uid, 0):
        return None
    return replace(capability, key_generation=op.peer.key_generation)


async def _confirmed(reads: ReadTransaction, one: Capability | None, now_ms: int) -> Capability | None:
    record = None if one is None else await get_inode(reads, one.inode)
    if one is None or record is None or not record.nlink or record.epoch != one.epoch:
        return None
    return replace(one, checked_s=now_ms // 1000)


def _still_trusted(one: Capability | None, now_ms: int) -> Capability | None:
    return one if one is not None and now_ms // 1000 - one.checked_s <= BLIND_S else None


OPERATION = Operation(RENEW_CAPABILITIES, renew_capabilities, mutation=reading)
