"""revoke: raise a user's key generation; every earlier token and capability of it is refused."""

from __future__ import annotations

from fs3.errors import InvalidRequest
from fs3.identity.token import ID_MAX
from fs3.rpc.service import Call
from fs3.wire.mgmtd import RevokeRequest, RevokeResponse

from ..services import Services, require_admin
from ..store import Change
from ..term import Term


async def revoke(services: Services, call: Call, request: RevokeRequest) -> RevokeResponse:
    """Pushed with routing: in force everywhere within a second of the answer."""
    require_admin(call)
    if not 0 <= request.uid <= ID_MAX:
        raise InvalidRequest(f"no uid: {request.uid}")
    term = services.acting_term()
    version = await services.write(term, lambda at: _raised(at, request.uid))
    return RevokeResponse(key_generation=term.routing.key_generations[request.uid], routing_version=version)


def _raised(term: Term, uid: int) -> Change:
    return Change(key_generations=((uid, term.routing.key_generations.get(uid, 0) + 1),))
