"""get_routing: what changed since a known version; waits for it if nothing has (that is the push)."""

from __future__ import annotations

from collections.abc import Awaitable

from fs3.errors import Unavailable
from fs3.rpc.service import Call
from fs3.wire.mgmtd import NOTHING_NEWER, GetRoutingRequest, GetRoutingResponse

from ..services import Services
from ..term import Term
from ..waiters import Waiters

WAIT_MS_MAX = 30_000


def get_routing(
    services: Services, call: Call, request: GetRoutingRequest
) -> GetRoutingResponse | Awaitable[GetRoutingResponse]:
    """The answer now if there is something newer, or nothing to wait for."""
    answer = _answer(services, request.known_version)
    if answer.delta is not None or request.wait_ms <= 0:
        return answer
    if answer.is_primary and request.known_version == NOTHING_NEWER:
        return answer
    if answer.is_primary:
        return _wait(services, services.acting_term().changed, request)
    if answer.primary_address not in ("", request.lost_address) or services.is_stopping:
        return answer
    return _wait(services, services.standing_changed, request)


def _answer(services: Services, known_version: int) -> GetRoutingResponse:
    term = services.primary_term()
    if term is None:
        where = services.lease.primary_address
        own = where == services.lease.address
        return GetRoutingResponse(is_primary=False, primary_address="" if own else where)
    return GetRoutingResponse(
        delta=term.log.delta(term.routing, known_version),
        primary_address=services.lease.address,
        cluster_time_ms=_time_ms(services, term),
    )


def _time_ms(services: Services, term: Term) -> int:
    try:
        return term.clock.now_ms(services.clock.boot_s())
    except Unavailable:
        return 0  # the bound is not in the store yet: routing need not wait for it


async def _wait(services: Services, change: Waiters, request: GetRoutingRequest) -> GetRoutingResponse:
    await change.wait(min(request.wait_ms, WAIT_MS_MAX) / 1000)
    return _answer(services, request.known_version)
