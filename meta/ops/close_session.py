"""close_session: a client ends. What it left open is settled as if it were lost."""

from __future__ import annotations

import msgspec

from fs3.errors import Unauthenticated
from fs3.kv.transaction import Transaction
from fs3.wire.meta import CLOSE_SESSION, CloseSessionRequest, CloseSessionResponse

from ..driver import Operation, reading
from ..services import SESSION_ENDING, Event, Op
from ..session import get_session, put_session


async def close_session(op: Op, txn: Transaction, request: CloseSessionRequest) -> CloseSessionResponse:
    """Closing one that is over already is no error: the answer may have been lost."""
    record = await get_session(txn, request.session)
    if record is None or record.ending:
        return CloseSessionResponse()
    if record.uid != op.peer.uid and not op.is_admin:
        raise Unauthenticated(f"client session {request.session:x} belongs to another user")
    put_session(txn, request.session, msgspec.structs.replace(record, ending=True))
    op.events.append(Event(SESSION_ENDING, session=request.session))
    return CloseSessionResponse()


OPERATION = Operation(CLOSE_SESSION, close_session, mutation=reading)
