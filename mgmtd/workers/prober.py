"""Looks for evidence: calls nodes that have missed a beacon, or that a peer cannot reach.

A refused or failed connection is evidence against the node; an answer is none for it (a node that answers
here and sends no beacons is still silent).

Source: design 2.2 (evidence), 2.3.
"""

from __future__ import annotations

import asyncio

from fs3.errors import Fs3Error, Unavailable
from fs3.ids import NodeId
from fs3.routing import NodeKind
from fs3.rpc.service import Caller
from fs3.wire.member import EXCHANGE, ExchangeRequest

from ..services import Services
from ..term import Term

LOOK_S = 0.25
MISSED_PERIODS = 1.6
"""Silence, in periods of beacons, after which a node is called."""
PROBE_TIMEOUT_S = 1.0
ANSWERED_S = 0.5
"""A call that fails sooner was refused or reset; one that takes longer ran out of time."""
PROBES_MAX = 64
"""Calls at a time; a rack that is away has its turn."""


class Prober:
    """Probes of all terms of one mgmtd."""

    def __init__(self, services: Services, caller: Caller) -> None:
        self._services = services
        self._caller = caller
        self._under_way: dict[NodeId, None] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            term = self._services.primary_term()
            if term is not None:
                self._look(term)

    def _look(self, term: Term) -> None:
        now_s = self._services.clock.boot_s()
        beacon_s = term.timing.beacon_s
        hinted = dict.fromkeys(n for life in term.liveness.lives.values() for n in life.unreachable)
        for node, life in term.liveness.lives.items():
            info = term.routing.nodes.get(node)
            if info is None or info.kind is NodeKind.MGMTD or node in self._under_way:
                continue
            missed = (now_s - life.heard_s) / beacon_s
            wanted = missed > (1.0 if node in hinted else MISSED_PERIODS)
            if wanted and life.suspected_since_s is None and len(self._under_way) < PROBES_MAX:
                self._under_way[node] = None
                self._services.scope.spawn(f"probe {node}", self._probe(term, node, info.address))

    async def _probe(self, term: Term, node: NodeId, address: str) -> None:
        life = term.liveness.lives.get(node)
        began_s = self._services.clock.boot_s()
        try:
            await self._caller.call(
                address, EXCHANGE, ExchangeRequest(datagram=b""), timeout_s=PROBE_TIMEOUT_S
            )
        except Unavailable as error:
            now_s = self._services.clock.boot_s()
            if life is not None and term.liveness.on_evidence(
                node,
                life.generation,
                str(error),
                now_s,
                began_s=began_s,
                answered=now_s - began_s < ANSWERED_S,
            ):
                self._services.pass_wanted.set()
        except Fs3Error:
            pass  # it answered, or the answer is late: no evidence
        finally:
            self._under_way.pop(node, None)
