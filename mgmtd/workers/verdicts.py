"""The pass over all nodes and chains: on every event, and whenever time alone can change a verdict.

Verdicts are noted and logged; then every chain that is not as it should be gets its next record, if there is
one (``chain_machine``), all in one transaction, planned again inside it.

Source: design 2.2, 2.6, 2.7.
"""

from __future__ import annotations

import asyncio

from fs3.errors import MaybeApplied, Retryable
from fs3.ids import TargetId

from ..chain_watch import ChainPlan
from ..liveness import Verdict
from ..services import Services
from ..store import Change
from ..term import Term

PASS_PAUSE_S = 0.02
"""Events within this are one pass: members whose verdicts fall together are treated together."""
IDLE_S = 0.5
CHAINS_AT_ONCE = 1000


class VerdictPass:
    """Runs the passes of all terms of one mgmtd."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._held: dict[TargetId, str] = {}
        self._term: Term | None = None

    async def run(self) -> None:
        """Until cancelled."""
        services = self._services
        while True:
            term = services.primary_term()
            due_s = await self._pass(term) if term is not None else IDLE_S
            try:
                async with asyncio.timeout(min(IDLE_S, max(PASS_PAUSE_S, due_s))):
                    await services.pass_wanted.wait()
            except TimeoutError:
                pass
            services.pass_wanted.clear()
            await asyncio.sleep(PASS_PAUSE_S)

    async def _pass(self, term: Term) -> float:
        """One pass; returns how long until time alone makes the next necessary."""
        if term is not self._term:
            self._term, self._held = term, {}
        now_s = self._services.clock.boot_s()
        self._judge(term, now_s)
        term.grants.forget({n: info.generation for n, info in term.routing.nodes.items()}, now_s)
        plan = term.chains.plan(term, now_s)
        self._tell_held(term)
        self._tell_unfit(term)
        if plan.changed:
            try:
                await self._change(term)
            except (Retryable, MaybeApplied) as error:
                self._services.log.warning("chains not changed", reason=str(error))
                return PASS_PAUSE_S * 5
            return 0.0  # what was written may make the next step possible
        next_s = term.liveness.next_change_s(term.grant_until_s, now_s)
        if plan.again_s is not None:
            next_s = min(next_s, plan.again_s)
        return next_s - now_s

    def _judge(self, term: Term, now_s: float) -> None:
        for node, info in term.routing.nodes.items():
            verdict, before = term.verdict(info, now_s), term.verdicts.get(node)
            term.verdicts[node] = verdict
            if before is verdict or (before is None and verdict is Verdict.ALIVE):
                continue
            life = term.liveness.lives.get(node)
            evidence = life.evidence[-1].what if life is not None and life.evidence else ""
            tell = self._services.log.info if verdict is Verdict.ALIVE else self._services.log.warning
            tell(
                "node is " + verdict.value,
                node=node,
                generation=info.generation,
                kind=info.kind.name,
                evidence=evidence,
            )

    def _tell_held(self, term: Term) -> None:
        held = term.chains.held
        for target, why in held.items():
            if self._held.get(target) != why:
                self._services.log.info("member held", target=f"{target:x}", reason=why)
        self._held = held

    def _tell_unfit(self, term: Term) -> None:
        for target in term.chains.slow_new:
            self._services.log.warning("target is slow", target=f"{target:x}")
        term.chains.slow_new = []
        for one, other in term.chains.links_broke:
            self._services.log.warning("link is broken", nodes=f"{one} {other}")
        for one, other in term.chains.links_held:
            self._services.log.info("link has held", nodes=f"{one} {other}")
        term.chains.links_broke, term.chains.links_held = [], []

    async def _change(self, term: Term) -> None:
        planned: list[ChainPlan] = []

        def change(at: Term) -> Change:
            now_s = self._services.clock.boot_s()
            self._judge(at, now_s)  # a beacon may have come while others wrote
            planned.append(at.chains.plan(at, now_s))
            return at.chains.change(at, planned[-1], CHAINS_AT_ONCE)

        version = await self._services.write(term, change)
        for rule, info in planned[-1].changed[:CHAINS_AT_ONCE]:
            self._services.log.info(
                "chain changed",
                chain=info.chain,
                version=info.version,
                rule=rule.value,
                members=" ".join(
                    f"{m.target:x}:{m.state.name}{'+' if m.joining else ''}.{m.generation}"
                    for m in info.members
                ),
                routing_version=version,
            )
