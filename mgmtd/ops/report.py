"""report: a node's full report. Registers the node and its targets when they are new."""

from __future__ import annotations

from fs3.errors import InvalidRequest, Unauthenticated
from fs3.ids import node_of_target
from fs3.routing import NodeInfo
from fs3.rpc.service import Call
from fs3.wire.mgmtd import ReportRequest, ReportResponse, TargetReport

from ..services import Services
from ..store import Change, TargetRecord
from ..term import NodeReport, Term

TARGETS_MAX = 4096
NAME_CHARACTERS_MAX = 255


async def report(services: Services, call: Call, request: ReportRequest) -> ReportResponse:
    """Unauthenticated: another node's. InvalidRequest: an earlier generation, or a target not its own."""
    _validate(call, request)
    term = services.primary_term()
    if term is None:
        where = services.lease.primary_address
        own = where == services.lease.address
        return ReportResponse(is_primary=False, primary_address="" if own else where)
    now_s = services.clock.boot_s()
    known = term.routing.nodes.get(request.node)
    if known is not None and known.kind is not request.kind:
        raise InvalidRequest(f"node {request.node} is a {known.kind.name}, not a {request.kind.name}")
    if not term.liveness.register(request.node, request.generation, now_s, heard=True):
        raise InvalidRequest(
            f"node {request.node} reports generation {request.generation}; a later one is known: "
            "two processes run as this node, or its directory was put back"
        )
    before = term.reports.get(request.node)
    is_same_run = before is not None and before.generation == request.generation
    if is_same_run and before is not None and before.sequence > request.sequence:
        return ReportResponse(routing_version=term.routing.version)  # a newer one has overtaken it
    term.reports[request.node] = NodeReport(
        request.generation, request.sequence, request.version, request.broken_links, request.targets
    )
    term.slowness.on_report(request.node, request.generation, request.targets, now_s)
    version = await services.write(term, lambda at: _change(at, request))
    services.pass_wanted.set()
    return ReportResponse(routing_version=version)


def _validate(call: Call, request: ReportRequest) -> None:
    peer = call.peer
    if peer.role != "node" or peer.node != request.node or peer.generation != request.generation:
        raise Unauthenticated(f"only node {request.node} itself reports for it")
    if len(request.targets) > TARGETS_MAX:
        raise InvalidRequest(f"{len(request.targets)} targets on a node: at most {TARGETS_MAX}")
    names = (request.host, request.address, request.beacon_address, request.local_address, request.zone)
    if any(len(name) > NAME_CHARACTERS_MAX for name in names):
        raise InvalidRequest("an address or name of the report is too long")
    for target in request.targets:
        if node_of_target(target.target) != request.node:
            raise InvalidRequest(f"target {target.target:x} does not lie on node {request.node}")


def _change(term: Term, request: ReportRequest) -> Change:
    """What of a report has to be persisted."""
    info = NodeInfo(
        node=request.node,
        kind=request.kind,
        generation=request.generation,
        host=request.host,
        address=request.address,
        beacon_address=request.beacon_address,
        local_address=request.local_address,
        zone=request.zone,
    )
    known = term.routing.nodes.get(request.node)
    is_late = known is not None and known.generation > request.generation
    nodes = () if known == info or is_late else (info,)
    chained = term.chain_of
    targets = tuple(
        record
        for target in request.targets
        if (record := _record(term, request, target, target.target in chained)) is not None
    )
    return Change(nodes=nodes, targets=targets)


def _record(
    term: Term, request: ReportRequest, target: TargetReport, is_in_chain: bool
) -> TargetRecord | None:
    """The record to write for a target. None: none, or its chain was made with another store."""
    known = term.targets.get(target.target)
    if known is not None and is_in_chain:
        return None
    record = TargetRecord(target=target.target, store_id=target.store_id, zone=request.zone)
    return record if record != known else None
