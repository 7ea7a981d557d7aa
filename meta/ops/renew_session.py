"""renew_session: a client shows that it lives; written to the KV store at most every 20 s (design 3.4).

What was written last is remembered by the service (``..renewals``), so most renewals touch nothing. A session
that somebody else has declared lost is noticed at the next write; its mutations are refused at once anyway.
"""

from __future__ import annotations

from fs3.errors import Unavailable
from fs3.kv.transaction import Transaction
from fs3.wire.meta import RENEW_SESSION, RenewSessionRequest, RenewSessionResponse

from ..driver import Operation, reading
from ..services import Op
from ..session import count_renewal, require_session


async def renew_session(op: Op, txn: Transaction, request: RenewSessionRequest) -> RenewSessionResponse:
    """SessionLost; Unauthenticated."""
    services = op.services
    try:
        answer = RenewSessionResponse(cluster_time_ms=services.cluster_time_ms())
    except Unavailable:  # no primary has answered yet: a client lives without knowing the time
        answer = RenewSessionResponse(cluster_time_ms=0)
    if services.renewals.is_fresh(request.session, op.peer.uid, services.clock.boot_s()):
        return answer
    await require_session(txn, request.session, op.peer.uid, is_admin=False)
    count_renewal(txn, request.session)
    return answer


async def remember(
    op: Op, request: RenewSessionRequest, response: RenewSessionResponse
) -> RenewSessionResponse:
    """After the commit: the next ones need not be written."""
    services = op.services
    now_s = services.clock.boot_s()
    if not services.renewals.is_fresh(request.session, op.peer.uid, now_s):
        services.renewals.note(request.session, op.peer.uid, now_s)
    return response


OPERATION = Operation(RENEW_SESSION, renew_session, mutation=reading, finish=remember)
