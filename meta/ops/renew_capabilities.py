"""renew_capabilities: another ten minutes for capabilities that are still valid.

With the KV store at hand the session must live, and the file must be there under the same epoch. Without it
a service renews for an hour after it last saw the store, so that reading and writing of open files goes on
(design 7; the retention of epochs on the storage nodes reckons with that hour).
"""

from __future__ import annotations

from fs3.errors import CapabilityExpired, InvalidRequest, Unauthenticated, Unavailable
from fs3.identity.capability import CAPABILITY_MS, Capability
from fs3.kv.transaction import ReadTransaction, Transaction
from fs3.wire.meta import RENEW_CAPABILITIES, RenewCapabilitiesRequest, RenewCapabilitiesResponse

from ..driver import Operation, reading
from ..inode import get_inode
from ..services import Op
from ..session import require_session

CAPABILITIES_MAX = 1000
BLIND_S = 3600.0
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
        valid = [c if c is not None and await _is_current(txn.snapshot, c) else None for c in valid]
    except Unavailable:
        if services.clock.boot_s() - services.contact.last_s > BLIND_S:
            raise
        op.is_blind = True
    expires_ms = now_ms + CAPABILITY_MS
    return RenewCapabilitiesResponse(
        capabilities=tuple(
            b"" if c is None else services.signer.sign(_longer(op, c, expires_ms)) for c in valid
        ),
        expires_ms=expires_ms,
    )


def _verified(op: Op, data: bytes, now_ms: int, request: RenewCapabilitiesRequest) -> Capability | None:
    try:
        capability = op.services.signer.verify(data, now_ms)
    except (CapabilityExpired, Unauthenticated):
        return None
    if capability.session != request.session or capability.uid != max(op.peer.uid, 0):
        return None
    return capability


def _longer(op: Op, capability: Capability, expires_ms: int) -> Capability:
    return Capability(
        inode=capability.inode,
        epoch=capability.epoch,
        rights=capability.rights,
        session=capability.session,
        uid=capability.uid,
        key_generation=op.peer.key_generation,
        expires_ms=expires_ms,
    )


async def _is_current(reads: ReadTransaction, capability: Capability) -> bool:
    record = await get_inode(reads, capability.inode)
    return record is not None and record.nlink > 0 and record.epoch == capability.epoch


OPERATION = Operation(RENEW_CAPABILITIES, renew_capabilities, mutation=reading)
