"""What a chain's next record is, from the present one and what is known of its members. PURE.

``next_step`` plans one version at a time. The rules, in the order in which they are looked at; every change
of a member that a rule makes is a row of ``docs/chain_changes.md``:

==========  ==================================================================================
repair      an operator accepts the loss of data: the named target serves as it is
resume      nobody serves: one candidate serves again, all others enter anew
in_force    every older serving member has acknowledged the joiner
lost        all serving members leave in one version: they are the candidates
leave       serving members leave, those whose verdicts fall together in one version
renew       members that restarted and re-opened clean are named in their new generation
join        the syncing member has everything: it is named serving, as joining
fall_back   the syncing member is not there any more; one that waits is not either
yield       copying that stands still gives its turn to a member that waits
enter       a member that is back is copied to, one at a time; others wait
==========  ==================================================================================

What holds for every step (tests check each over all states of one, two and three replicas):

* a version that adds a serving member takes none out; candidates and renewed generations apart, a member
  becomes serving only from SYNCING, complete at exactly the present version, and is joining first;
* nobody who may hold a lease leaves: the primary's grant is over (``over_s``), and planned removals stop
  being covered first (``Step.uncovered``); leases of those who stay are over too, as far as they are heard
  (``lent_until_s``), or they would have to wait afterwards;
* a chain none of whose serving targets is heard, in any generation, is left as it is;
* at most one member is syncing; serving members keep their order; nobody serves beside a LASTSRV.

Source: design 2.2, 2.3, 2.6, 2.7; chain model V3, V9, C1-C3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fs3.ids import ChainVersion, TargetId
from fs3.routing import ChainInfo, Member, TargetState

from .chain_situation import Known, Rule, Situation, Step
from .liveness import Verdict

__all__ = ["RESUME_WAIT_S", "Known", "Rule", "Situation", "Step", "next_step"]

RESUME_WAIT_S = 2.0
"""How long the first candidate is waited for, from when any of them might resume."""

SERVING, LASTSRV, SYNCING, WAITING, OFFLINE = TargetState
UNWANTED = "an operator wants it out"
SLOW = "it is far slower than its peers"
LEASES_LAST = "it leaves: its leases are not over"


def next_step(at: Situation) -> Step:
    """The next record of a chain, or what is waited for."""
    step = Step()
    for plan in (_repair, _resume, _left_alone, _in_force, _leave, _renew, _join, _fall_back, _yield, _enter):
        if plan(at, step):
            break
    return step


# --- rules: each returns whether the step is decided ---


def _repair(at: Situation, step: Step) -> bool:
    chosen = next((m for m in at.info.members if m.target == at.repair), None)
    if chosen is None:
        return False
    known = at.of(chosen)
    why = known.bars_use() if known.heard else "it is not heard"
    if why is not None:
        step.held[chosen.target] = f"repair: {why}"
        return False
    if any(at.is_well(m) and not m.joining for m in at.info.serving):
        step.held[chosen.target] = "repair: a member serves, nothing has to be lost"
        return False
    if at.info.serving:
        step.uncovered = at.info.serving
        if not _wait_for_grants(at, step, at.info.serving, LEASES_LAST):
            _lose(at, step)
    elif known.acknowledged < at.info.version:
        step.held[chosen.target] = "repair: it has not adopted the chain's record"
    else:
        _serve_alone(at, step, chosen, Rule.REPAIR)
    return True


def _resume(at: Situation, step: Step) -> bool:
    """Nobody serves: exactly one candidate resumes."""
    if at.info.serving:
        return False
    by_target = {m.target: m for m in at.info.members}
    ready = []
    for target in at.info.candidates:
        known = at.of(by_target[target])
        if not known.heard:
            step.held[target] = "nobody serves, it may resume: it is not heard"
        elif (why := known.objection()) is not None:
            step.held[target] = f"nobody serves, it may resume: {why}"
        elif known.acknowledged < at.info.version:
            step.held[target] = "nobody serves, it may resume: it has not adopted the chain's record"
        else:
            ready.append(target)
    if not ready:
        return True
    since_s = at.resumable_since_s if at.resumable_since_s is not None else at.now_s
    step.resumable_since_s = since_s
    if ready[0] != at.info.candidates[0] and at.now_s < since_s + RESUME_WAIT_S:
        step.held[ready[0]] = "nobody serves, it may resume: the first in order is waited for"
        step.look_again(since_s + RESUME_WAIT_S)
        return True
    _serve_alone(at, step, by_target[ready[0]], Rule.RESUME)
    return True


def _left_alone(at: Situation, step: Step) -> bool:
    """A primary that is cut off from everybody must not break every chain."""
    if any(at.of(m).heard for m in at.info.serving):
        return False
    for member in at.info.serving:
        step.held[member.target] = "no member that serves is heard: the chain is left as it is"
    return True


def _is_acknowledged(at: Situation) -> bool:
    """Whether all older serving members know of the joiner, and grants to those before it are over."""
    older = [m for m in at.info.serving if not m.joining]
    if len(older) == 1 and at.of(older[0]).alone_acknowledged and at.now_s >= at.of(older[0]).over_s:
        return True  # it hangs on the primary's lease alone, and that is over
    return bool(older) and all(at.is_present(m) and at.of(m).acknowledged >= at.info.version for m in older)


def _in_force(at: Situation, step: Step) -> bool:
    joining = [m for m in at.info.serving if m.joining]
    if joining and _is_acknowledged(at):
        _put(at, step, Rule.IN_FORCE, {m.target: SERVING for m in joining})
        return True
    for member in joining:
        step.held[member.target] = "joining: not all older members have acknowledged it"
    return False


def _leave(at: Situation, step: Step) -> bool:
    """Serving members whose time is over go, as many as go now in one version."""
    serving = at.info.serving
    leaving = {m.target: why for m in serving if (why := _reason_to_leave(at, m)) is not None}
    _keep_unwanted(at, step, leaving)
    _add_unfit(at, step, leaving)
    _joiner_first(at, step, leaving)
    going = [m for m in serving if m.target in leaving]
    staying = [m for m in serving if m.target not in leaving]
    step.held.update(leaving)
    step.uncovered = tuple(going)
    if not going:
        return False
    if not staying:
        if not _wait_for_grants(at, step, going, LEASES_LAST):
            _lose(at, step)
        return True
    if not any(_may_stay_alone(at, m) for m in staying):
        why = "it would be left alone, and is not heard, or has not said what it has"
        step.held.update((m.target, why) for m in staying)
        return False
    gone = {m.target: OFFLINE for m in going if at.now_s >= max(at.of(m).over_s, at.of(m).lent_until_s)}
    if not gone:
        _wait_for_grants(at, step, going, LEASES_LAST)
        _wait_for_lent(at, step, going)
        return False
    _put(at, step, Rule.LEAVE, gone)
    return True


def _may_stay_alone(at: Situation, member: Member) -> bool:
    """It is heard and has everything: nobody else is needed. One that restarted has to say so first."""
    known = at.of(member)
    return known.heard and not member.joining and (at.is_present(member) or known.objection() is None)


def _reason_to_leave(at: Situation, member: Member) -> str | None:
    known = at.of(member)
    if known.verdict is Verdict.DEAD:
        return "its node is dead"
    if known.local is not None and (why := known.objection()) is not None:
        return why
    if member.joining and at.has_restarted(member):
        return "it restarted while it was joining"
    return UNWANTED if known.unwanted else None


def _keep_unwanted(at: Situation, step: Step, leaving: dict[TargetId, str]) -> None:
    """A planned removal waits until somebody in force stays who is well."""
    if any(m.target not in leaving and not m.joining and at.is_well(m) for m in at.info.serving):
        return
    for target in [t for t, why in leaving.items() if why is UNWANTED]:
        del leaving[target]
        step.held[target] = f"{UNWANTED}: nobody else could serve"


def _add_unfit(at: Situation, step: Step, leaving: dict[TargetId, str]) -> None:
    """One member at a time goes for a broken link or for being slow, if the others can do without it.

    Beside one that is cut off somebody in force has to stay who is well; beside one that is slow, two.
    """
    unfit = [m for m in reversed(at.info.serving) if m.target not in leaving and _unfit(at.of(m))]
    unfit.sort(key=lambda m: not at.of(m).cut_off)  # who cannot be reached goes before who is slow
    others = [m for m in at.info.serving if m.target not in leaving and not m.joining and at.is_well(m)]
    is_open = True
    for member in unfit:
        known, why = at.of(member), _unfit(at.of(member))
        if is_open and len([m for m in others if m is not member]) >= (1 if known.cut_off else 2):
            leaving[member.target], is_open = why, False
        else:
            step.held.setdefault(member.target, f"{why}: too few others could serve")


def _unfit(known: Known) -> str:
    return known.cut_off or (SLOW if known.is_slow else "")


def _joiner_first(at: Situation, step: Step, leaving: dict[TargetId, str]) -> None:
    """If only a joiner would be left, it goes first; then the older ones may be candidates (V3)."""
    older = [m for m in at.info.serving if not m.joining]
    joining = [m for m in at.info.serving if m.joining]
    if not joining or any(m.target not in leaving for m in older):
        return
    for member in older:
        del leaving[member.target]
        step.held[member.target] = "it leaves: the joining member goes first"
    for member in joining:
        leaving.setdefault(member.target, "the older members leave before they have acknowledged it")


def _wait_for_grants(at: Situation, step: Step, members: Iterable[Member], why: str) -> bool:
    """Whether some of them may still hold the primary's lease; notes until when."""
    late = [m for m in members if at.now_s < at.of(m).over_s]
    for member in late:
        step.held[member.target] = why
        step.look_again(at.of(member).over_s)
    return bool(late)


def _wait_for_lent(at: Situation, step: Step, members: Iterable[Member]) -> None:
    """Note until when members may have leases of those who stay."""
    for member in members:
        if at.now_s < at.of(member).lent_until_s:
            step.held[member.target] = LEASES_LAST
            step.look_again(at.of(member).lent_until_s)


def _renew(at: Situation, step: Step) -> bool:
    """Restarted members that re-opened clean: nobody was left out, so they have all that counts."""
    restarted = [m for m in at.info.serving if at.has_restarted(m) and not m.joining]
    able = []
    for member in restarted:
        known = at.of(member)
        if known.heard and known.objection() is None:
            able.append(member)
        else:
            step.held.setdefault(member.target, known.objection() or "it restarted and is not heard")
    _wait_for_grants(at, step, able, "it restarted: leases of its earlier generation are not over")
    over = [m.target for m in able if at.now_s >= at.of(m).over_s]
    if over:
        _put(at, step, Rule.RENEW, {}, renewed=over)
    return bool(over)


def _join(at: Situation, step: Step) -> bool:
    """The syncing member says, as its source does, that it has everything at exactly this version."""
    syncing = next((m for m in at.info.members if m.state is SYNCING), None)
    if syncing is None or not at.is_well(syncing) or at.of(syncing).unwanted or at.of(syncing).cut_off:
        return False
    if not _is_complete(at, syncing):
        stalled = ", which has stood still for long" if at.of(syncing).is_stalled else ""
        step.held[syncing.target] = f"it is being copied to{stalled}"
    elif not all(at.is_well(m) and not m.joining for m in at.info.serving):
        step.held[syncing.target] = "it is complete; a serving member is not well, or is joining"
    else:
        _put(at, step, Rule.JOIN, {syncing.target: SERVING}, joining=syncing.target)
        return True
    return False


def _is_complete(at: Situation, syncing: Member) -> bool:
    """Both ends are at this version, and the receiver says of it that it has everything (V9)."""
    source = at.info.serving[-1]
    version = at.info.version
    return at.of(syncing).uptodate_at == version and at.of(source).acknowledged == version


def _fall_back(at: Situation, step: Step) -> bool:
    """A member that is copied to, or waits for it, is gone. It has no lease that had to be waited for."""
    gone = {m.target: OFFLINE for m in at.info.members if m.state in (SYNCING, WAITING) and _is_gone(at, m)}
    if gone:
        _put(at, step, Rule.FALL_BACK, gone)
    return bool(gone)


def _is_gone(at: Situation, member: Member) -> bool:
    known = at.of(member)
    is_dead = known.verdict is Verdict.DEAD or (
        member.state is SYNCING and known.verdict is Verdict.SUSPECTED
    )
    bars = known.local is not None and known.bars_use() is not None
    bars = bars or (member.state is SYNCING and bool(known.cut_off))
    return is_dead or bars or known.unwanted or not at.is_present(member)


def _yield(at: Situation, step: Step) -> bool:
    """Copying that stands still gives its turn away; it goes on when all others have had theirs."""
    syncing = next((m for m in at.info.members if m.state is SYNCING), None)
    if syncing is None or not at.of(syncing).is_stalled or not at.is_well(at.info.serving[-1]):
        return False
    if not any(m.state is WAITING and _bars_entry(at.of(m)) is None for m in at.info.members):
        return False
    _put(at, step, Rule.YIELD, {syncing.target: WAITING}, to_end=syncing.target)
    return True


def _enter(at: Situation, step: Step) -> bool:
    """Members that are back: one is copied to, the others wait for their turn."""
    is_free = not any(m.state is SYNCING or m.joining for m in at.info.members)
    has_source = at.is_well(at.info.serving[-1])
    states: dict[TargetId, TargetState] = {}
    for member in at.info.members:  # those that wait come before those that are out
        if member.state not in (WAITING, OFFLINE):
            continue
        if (why := _bars_entry(at.of(member))) is not None:
            step.held[member.target] = why
        elif is_free and has_source:
            states[member.target], is_free = SYNCING, False
        elif member.state is OFFLINE:
            states[member.target] = WAITING
        else:
            step.held[member.target] = "it waits for its turn to be copied to"
    if states:
        _put(at, step, Rule.ENTER, states, renewed=states)
    return bool(states)


def _bars_entry(known: Known) -> str | None:
    """Why a member that is out stays out. Another store is no reason: everything is copied."""
    if known.unwanted:
        return UNWANTED
    if not known.heard:
        return f"its node is {known.verdict.value}"
    return known.bars_use() or known.barred or None


# --- records ---


def _lose(at: Situation, step: Step) -> None:
    """All serving members are lost at once; nobody is copied to without a source."""
    lost = {m.target: LASTSRV for m in at.info.serving if not m.joining}
    others = {m.target: OFFLINE for m in at.info.members if m.state is SYNCING or m.joining}
    _put(at, step, Rule.LOST, {**lost, **others}, candidates=tuple(lost))


def _serve_alone(at: Situation, step: Step, chosen: Member, rule: Rule) -> None:
    """One member serves, in its present generation; all others enter anew."""
    states = {m.target: OFFLINE for m in at.info.members if m.state is LASTSRV}
    _put(at, step, rule, {**states, chosen.target: SERVING}, renewed=(chosen.target,))


def _put(
    at: Situation,
    step: Step,
    rule: Rule,
    states: Mapping[TargetId, TargetState],
    *,
    renewed: Iterable[TargetId] = (),
    joining: TargetId | None = None,
    candidates: tuple[TargetId, ...] = (),
    to_end: TargetId | None = None,
) -> None:
    """The next record: ``states`` are new, ``renewed`` members are named in their present generation.

    ``to_end``: it is the last of its kind from now on.
    """
    named = frozenset(renewed)
    members = []
    for member in sorted(at.info.members, key=lambda m: m.target == to_end):
        target = member.target
        members.append(
            Member(
                target=target,
                state=states.get(target, member.state),
                generation=at.of(member).generation if target in named else member.generation,
                joining=target == joining or (member.joining and target not in states),
            )
        )
    members.sort(key=lambda m: m.state)  # serving ones first; each kind keeps its order
    step.rule = rule
    step.record = ChainInfo(
        chain=at.info.chain,
        version=ChainVersion(at.info.version + 1),
        members=tuple(members),
        candidates=candidates,
    )
    in_use = (SERVING, SYNCING)
    step.new_stores = tuple(
        m.target for m in members if m.target in named and m.state in in_use and not at.of(m).same_store
    )
