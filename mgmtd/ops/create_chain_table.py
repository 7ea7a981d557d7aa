"""create_chain_table: chains over all targets that are in none yet, and a table of them.

Asked again when nothing has been added, it answers with the table that there is; when targets have been
added, a new version of the table has the old chains and the new ones.
"""

from __future__ import annotations

from fs3.errors import Busy, InvalidRequest
from fs3.ids import ChainId, ChainTableId, ChainVersion, TargetId, node_of_target
from fs3.routing import ChainInfo, ChainTable, LocalState, Member, TargetState
from fs3.rpc.service import Call
from fs3.wire.mgmtd import CreateChainTableRequest, CreateChainTableResponse, TargetSpec

from ..liveness import Verdict
from ..placement import Placement, plan_chains
from ..services import Services, require_admin
from ..store import Change
from ..term import Term

CHAINS_AT_ONCE = 1000
"""Chains in one transaction: well below its limit of 1 MB."""
CHAINS_MAX = 16_384
"""Of a table: its record has to fit a value of the store."""


async def create_chain_table(
    services: Services, call: Call, request: CreateChainTableRequest
) -> CreateChainTableResponse:
    """Busy: too few targets yet. InvalidRequest: too few nodes, or the table has another replication."""
    require_admin(call)
    term = services.acting_term()
    table = ChainTableId(request.table)
    if request.table < 1:
        raise InvalidRequest("tables are numbered from 1")
    known = term.routing.table(table)
    if known is not None and known.replication != request.replication:
        raise InvalidRequest(f"table {table} has replication {known.replication}, not {request.replication}")
    free = _free_targets(term)
    registered = len(free) + len(term.chain_of)
    if registered < request.wait_for_targets:
        raise Busy(f"{registered} of {request.wait_for_targets} targets are registered and well")
    if known is not None and len({node_of_target(t.target) for t in free}) < request.replication:
        return CreateChainTableResponse(table_version=known.version, chain_count=len(known.chains))
    plan = plan_chains(free, request.replication, services.components.rng)
    old = known.chains if known is not None else ()
    if len(old) + len(plan.chains) > CHAINS_MAX:
        raise InvalidRequest(f"a table has at most {CHAINS_MAX} chains")
    made = await _make_chains(services, term, plan)
    version = known.version + 1 if known is not None else 1
    listed = ChainTable(table=table, version=version, chains=(*old, *made), replication=request.replication)
    await services.write(term, lambda at: _new_table(at, listed))
    services.pass_wanted.set()
    services.log.info(
        "chain table made",
        table=table,
        version=version,
        chains=len(listed.chains),
        unused_targets=len(plan.unused),
        shared_min=plan.quality.shared_min,
        shared_max=plan.quality.shared_max,
    )
    return CreateChainTableResponse(table_version=version, chain_count=len(listed.chains))


def _free_targets(term: Term) -> list[TargetSpec]:
    """Registered targets in no chain, well, and on a node that is alive in its present generation."""
    chained = term.chain_of
    found = []
    for target, record in sorted(term.targets.items()):
        report = term.report_of(target)
        if target in chained or report is None or not report.clean:
            continue
        alive = term.verdicts.get(node_of_target(target), Verdict.ALIVE) is Verdict.ALIVE
        if alive and report.state is not LocalState.OFFLINE and report.store_id == record.store_id:
            found.append(TargetSpec(target=target, zone=record.zone, weight=record.weight))
    return found


async def _make_chains(services: Services, term: Term, plan: Placement) -> tuple[ChainId, ...]:
    made: list[ChainId] = []
    for first in range(0, len(plan.chains), CHAINS_AT_ONCE):
        members = plan.chains[first : first + CHAINS_AT_ONCE]
        start = max(term.routing.chains, default=ChainId(0)) + 1
        await services.write(term, lambda at, start=start, members=members: _chains(at, start, members))  # type: ignore[misc]
        made += [ChainId(start + i) for i in range(len(members))]
    return tuple(made)


def _chains(term: Term, start: int, members: tuple[tuple[TargetId, ...], ...]) -> Change:
    """New chains; every target is named in the generation that its node has now."""
    chained = term.chain_of
    if start in term.routing.chains or any(t in chained for chain in members for t in chain):
        raise Busy("another table is being made over the same targets")
    chains = []
    for offset, targets in enumerate(members):
        named = tuple(
            Member(
                target=target,
                state=TargetState.SERVING,
                generation=term.routing.nodes[node_of_target(target)].generation,
            )
            for target in targets
        )
        chains.append(ChainInfo(chain=ChainId(start + offset), version=ChainVersion(1), members=named))
    return Change(chains=tuple(chains))


def _new_table(term: Term, table: ChainTable) -> Change:
    known = term.routing.table(table.table)
    if known is not None and known.version >= table.version:
        raise Busy("another version of the table was made at the same time")
    return Change(tables=(table,))
