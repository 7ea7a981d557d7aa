"""The primary's eye on all chains: what ``chain_machine`` has to know of each, and what came of it. PURE.

One for each term. It gathers what is known of every member (verdicts, reports, acknowledgements, grants),
asks for each chain's next record, and keeps what the next pass needs: since when candidates wait, who has
acknowledged that it alone serves, and which members the primary's grants leave out. All of it is made anew
by the next primary, to whom only records count.

Source: design 2.2, 2.6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from fs3.ids import ChainId, ChainVersion, Generation, NodeId, TargetId
from fs3.routing import ChainInfo, LocalState, Member, TargetState

from .chain_index import ChainIndex
from .chain_machine import Known, Rule, Situation, Step, next_step
from .copying import Copying
from .leaving import Leaving
from .links import Link, Links, loser
from .liveness import Verdict
from .store import Change, TargetRecord

if TYPE_CHECKING:
    from .term import Term

Run = tuple[NodeId, Generation]
IN_USE = (TargetState.SERVING, TargetState.SYNCING)


@dataclass(slots=True)
class ChainPlan:
    """What one pass found."""

    steps: dict[ChainId, Step] = field(default_factory=dict)
    """Of chains that are not as they should be."""
    again_s: float | None = None
    """When time alone changes something."""

    @property
    def changed(self) -> list[tuple[Rule, ChainInfo]]:
        """The records to write, and why."""
        return [
            (s.rule, s.record) for s in self.steps.values() if s.record is not None and s.rule is not None
        ]

    @property
    def held(self) -> dict[TargetId, str]:
        """Members that are not as they should be, and why it stays so for now."""
        return {target: why for step in self.steps.values() for target, why in step.held.items()}


class ChainWatch:
    """What one term has to remember of chains beyond their records. ``decide``: ``next_step``."""

    def __init__(self, decide: Callable[[Situation], Step] = next_step) -> None:
        self._decide = decide
        self._copying: Copying | None = None
        self.index = ChainIndex()
        self.unwanted: set[TargetId] = set()
        """Targets that an operator wants out of their chains."""
        self.repairs: dict[ChainId, TargetId] = {}
        """Who is to serve, whatever is lost by it; until it does."""
        self.held: dict[TargetId, str] = {}
        """As of the last pass."""
        self.links_broke: list[Link] = []
        self.links_held: list[Link] = []
        self.slow_new: list[TargetId] = []
        """Since somebody last emptied these: links that broke or have held, targets that became slow."""
        self._cut_off: dict[ChainId, tuple[TargetId, str]] = {}
        """Whom a chain is to lose for a broken link."""
        self._resumable: dict[ChainId, tuple[ChainVersion, float]] = {}
        self._alone: dict[ChainId, tuple[TargetId, Generation]] = {}
        self._uncovered: dict[ChainId, tuple[Run, ...]] = {}
        self.leaving = Leaving()

    def plan(self, term: Term, now_s: float) -> ChainPlan:
        """All chains that are not whole. Grants stop covering members that are to leave, at once."""
        plan = ChainPlan()
        self.slow_new += term.slowness.judge(now_s)
        looked_at = dict.fromkeys(self.index.open_chains(term, term.slowness.slow | self.unwanted))
        self._judge_links(term, now_s)
        looked_at.update(dict.fromkeys((*self._cut_off, *self.repairs)))
        for chain in [c for c in self._uncovered if c not in looked_at]:
            self._cover_but(term, chain, ())
        for chain in self.leaving.chains_but(looked_at):
            self.leaving.note(chain, (), (), now_s)
        for chain in looked_at:
            step = plan.steps[chain] = self._step(term, term.routing.chains[chain], now_s)
            if step.again_s is not None:
                plan.again_s = step.again_s if plan.again_s is None else min(plan.again_s, step.again_s)
        self.held = plan.held
        return plan

    def _judge_links(self, term: Term, now_s: float) -> None:
        links = term.liveness.links
        broke, held = links.judge(lambda node: term.verdicts.get(node) is Verdict.ALIVE, now_s)
        self.links_broke += broke
        self.links_held += held
        self._cut_off.clear()
        if not links.broken:
            return
        counts = links.broken_counts()
        of_node = {node: dict.fromkeys(self.index.chains_of(node)) for node in counts}
        for chain in sorted({c for one, other in links.broken for c in of_node[one] if c in of_node[other]}):
            if (found := loser(term.routing.chains[chain], links.broken, counts)) is not None:
                member, (one, other) = found
                self._cut_off[chain] = member.target, f"the link between nodes {one} and {other} is broken"

    def change(self, term: Term, plan: ChainPlan, at_once_max: int) -> Change:
        """What is to be persisted of a plan."""
        steps = [s for s in plan.steps.values() if s.record is not None][:at_once_max]
        records = tuple(s.record for s in steps if s.record is not None)
        return Change(chains=records, targets=tuple(self._new_stores(term, steps)))

    def _step(self, term: Term, info: ChainInfo, now_s: float) -> Step:
        chain = info.chain
        known = {m.target: self._known(term, info, m, now_s) for m in info.members}
        self._note_alone(info, known)
        self._note_copying(term, info, known, now_s)
        version, since_s = self._resumable.get(chain, (None, None))
        step = self._decide(
            Situation(
                info=info,
                known=known,
                now_s=now_s,
                resumable_since_s=since_s if version == info.version else None,
                repair=self.repairs.get(chain),
            )
        )
        self._resumable.pop(chain, None)
        if step.resumable_since_s is not None:
            self._resumable[chain] = info.version, step.resumable_since_s
        self._cover_but(term, chain, tuple((m.node, m.generation) for m in step.uncovered))
        self._note_leaving(info, known, step, now_s)
        return step

    def _note_leaving(self, info: ChainInfo, known: dict[TargetId, Known], step: Step, now_s: float) -> None:
        """Those that leave, and those that may soon: the others lend to them no more."""
        doubtful = [m.target for m in info.serving if known[m.target].verdict is not Verdict.ALIVE]
        going = dict.fromkeys([*(m.target for m in step.uncovered), *doubtful])
        others = tuple(m.node for m in info.serving if m.target not in going)
        self.leaving.note(info.chain, going, others, now_s)

    def _known(self, term: Term, info: ChainInfo, member: Member, now_s: float) -> Known:
        node, life = term.routing.nodes.get(member.node), term.liveness.lives.get(member.node)
        unwanted = member.target in self.unwanted
        if node is None or life is None:
            return Known(unwanted=unwanted)
        report, record = self.index.report_of(member.target), term.targets.get(member.target)
        is_reported = (of_node := term.reports.get(member.node)) is not None and (
            of_node.generation == node.generation
        )
        says = report is not None and report.chain in (0, info.chain)
        is_uptodate = says and report is not None and report.state is LocalState.UPTODATE
        absent = LocalState.OFFLINE if is_reported else None
        acknowledged = life.acknowledged if life.generation == node.generation else {}
        loses, why = self._cut_off.get(info.chain, (None, ""))
        return Known(
            generation=node.generation,
            verdict=term.verdicts.get(member.node, Verdict.SILENT),
            local=report.state if report is not None else absent,
            uptodate_at=report.chain_version if is_uptodate and report is not None else ChainVersion(0),
            acknowledged=acknowledged.get(info.chain, ChainVersion(0)),
            same_store=report is None or (record is not None and report.store_id == record.store_id),
            clean=report is None or report.clean,
            over_s=term.grants.until_s(member.node, member.generation, info.chain),
            lent_until_s=self.leaving.lent_until_s(
                info.chain, member.target, term.liveness.lives, term.timing
            ),
            alone_acknowledged=self._alone.get(info.chain) == (member.target, member.generation),
            unwanted=unwanted,
            cut_off=why if loses == member.target else "",
            is_slow=member.target in term.slowness.slow,
            barred=self._barred(term, info, member, now_s),
        )

    def _barred(self, term: Term, info: ChainInfo, member: Member, now_s: float) -> str:
        """Why a member may not enter for now; "": nothing bars it, or it is in use."""
        if member.state in IN_USE:
            return ""
        node = term.routing.nodes.get(member.node)
        if node is not None and term.slowness.is_barred(member.target, node.generation, now_s):
            return "it was far slower than its peers, and is left out for a while"
        return _link_that_bars(info, member, term.liveness.links)

    def _note_alone(self, info: ChainInfo, known: dict[TargetId, Known]) -> None:
        """Who acknowledged that it alone serves; void once another one is in force."""
        in_force = [m for m in info.serving if not m.joining]
        if len(in_force) != 1:
            self._alone.pop(info.chain, None)
        elif len(info.serving) == 1 and known[in_force[0].target].acknowledged == info.version:
            self._alone[info.chain] = in_force[0].target, in_force[0].generation

    def _note_copying(self, term: Term, info: ChainInfo, known: dict[TargetId, Known], now_s: float) -> None:
        """Whether the copying to a member stands still."""
        copying = self._copying = self._copying or Copying(term.timing)
        syncing = next((m for m in info.members if m.state is TargetState.SYNCING), None)
        if syncing is None or known[syncing.target].uptodate_at == info.version or not info.serving:
            copying.forget(info.chain)
            return
        source, ends = info.serving[-1].target, (syncing.target, syncing.generation)
        report = self.index.report_of(source)
        count = report.copy_step_count if report is not None else 0
        if copying.is_stalled(info.chain, ends, source, count, now_s):
            known[syncing.target] = replace(known[syncing.target], is_stalled=True)

    def _cover_but(self, term: Term, chain: ChainId, runs: tuple[Run, ...]) -> None:
        for run in self._uncovered.pop(chain, ()):
            if run not in runs:
                term.grants.cover(*run, chain)
        for run in runs:
            term.grants.stop_covering(*run, chain)
        if runs:
            self._uncovered[chain] = runs

    def _new_stores(self, term: Term, steps: list[Step]) -> list[TargetRecord]:
        found = []
        for target in (t for step in steps for t in step.new_stores):
            record, report = term.targets.get(target), self.index.report_of(target)
            assert report is not None, target
            if record is None:
                record = TargetRecord(target=target, store_id=report.store_id)
            found.append(msgspec.structs.replace(record, store_id=report.store_id))
        return found


def _link_that_bars(info: ChainInfo, member: Member, links: Links) -> str:
    """Its link to one who is in use was broken, and has not held long enough."""
    if not links.has_any:
        return ""
    found = links.watched_between(member.node, [m.node for m in info.members if m.state in IN_USE])
    return f"the link between nodes {found[0]} and {found[1]} has not held long enough" if found else ""
