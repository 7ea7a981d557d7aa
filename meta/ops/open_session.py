"""open_session: a client begins to exist."""

from __future__ import annotations

from fs3.errors import InvalidRequest
from fs3.kv.transaction import Transaction
from fs3.wire.meta import OPEN_SESSION, OpenSessionRequest, OpenSessionResponse

from ..driver import Operation, reading
from ..services import Op
from ..session import (
    LOST_AFTER_S,
    NONCE_BYTES_MAX,
    RENEW_EVERY_S,
    SLOT_COUNT,
    TEXT_CHARS_MAX,
    Session,
    count_renewal,
    get_session,
    put_nonce,
    put_session,
    session_of_nonce,
)


async def prepare(op: Op, request: OpenSessionRequest) -> None:
    """Reserve an id for the session."""
    op.prepared = (await op.services.session_ids.reserve(1, op.deadline_s))[0]


async def open_session(op: Op, txn: Transaction, request: OpenSessionRequest) -> OpenSessionResponse:
    """A retry with the same nonce gets the session that the first try opened."""
    if len(request.request_nonce) > NONCE_BYTES_MAX:
        raise InvalidRequest(f"a nonce is at most {NONCE_BYTES_MAX} bytes")
    uid = max(op.peer.uid, 0)
    nonce = request.request_nonce
    session = await session_of_nonce(txn, uid, nonce) if nonce else None
    if session is None or await get_session(txn, session) is None:
        session = op.prepared
        record = Session(
            uid=op.peer.uid,
            host=request.host[:TEXT_CHARS_MAX],
            description=request.description[:TEXT_CHARS_MAX],
            opened_ns=op.now_ns,
            nonce=nonce,
        )
        put_session(txn, session, record)
        count_renewal(txn, session)
        if nonce:
            put_nonce(txn, uid, nonce, session)
    return OpenSessionResponse(
        session=session,
        renew_every_s=RENEW_EVERY_S,
        lost_after_s=LOST_AFTER_S,
        slot_count=SLOT_COUNT,
        inline_limit_bytes=op.services.inline_limit_bytes,
    )


OPERATION = Operation(OPEN_SESSION, open_session, mutation=reading, prepare=prepare)
