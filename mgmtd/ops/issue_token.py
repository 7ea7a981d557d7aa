"""issue_token: a token for a user, in its present key generation. Nothing is stored."""

from __future__ import annotations

from fs3.identity.token import TokenClaims, make_token
from fs3.rpc.service import Call
from fs3.wire.mgmtd import IssueTokenRequest, IssueTokenResponse

from ..services import Services, require_admin


def issue_token(services: Services, call: Call, request: IssueTokenRequest) -> IssueTokenResponse:
    """InvalidRequest: an id is out of range."""
    require_admin(call)
    term = services.acting_term()
    key = services.components.key
    claims = TokenClaims(
        cluster=key.cluster,
        key_id=key.key_id,
        uid=request.uid,
        gid=request.gid,
        groups=request.groups,
        is_admin=request.is_admin,
        key_generation=term.routing.key_generations.get(request.uid, 0),
        nonce=services.components.make_nonce(),
    )
    return IssueTokenResponse(token=make_token(key, claims).to_text())
