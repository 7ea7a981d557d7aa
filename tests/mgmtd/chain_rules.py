"""What must hold of every step of a chain, whatever is known of its members; and how a move is named."""

from __future__ import annotations

from fs3.ids import TargetId
from fs3.mgmtd.chain_machine import Rule, Situation, Step
from fs3.mgmtd.liveness import Verdict
from fs3.routing import ChainInfo, LocalState, Member, TargetState

SERVING, LASTSRV, SYNCING, WAITING, OFFLINE = TargetState

Move = tuple[str, str, str]
"""Rule, state before, state after (``joining``: serving, not in force; ``*``: in a new generation)."""


def state_name(member: Member) -> str:
    """As in docs/chain_changes.md."""
    return "joining" if member.joining else member.state.name


def moves(at: Situation, step: Step) -> set[Move]:
    """The changes of members that a step makes."""
    if step.record is None or step.rule is None:
        return set()
    before = {m.target: m for m in at.info.members}
    found = set()
    for after in step.record.members:
        old = before[after.target]
        new = state_name(after) + ("*" if after.generation != old.generation else "")
        if new != state_name(old):
            found.add((step.rule.value, state_name(old), new))
    return found


def check_record(info: ChainInfo) -> None:
    """What holds of any record."""
    states = [m.state for m in info.members]
    assert states == sorted(states), states
    assert states.count(SYNCING) <= 1
    joining = [m for m in info.members if m.joining]
    assert len(joining) <= 1 and all(m.state is SERVING for m in joining)
    assert not joining or len(info.serving) > 1, "a joiner alone"
    lost = [m.target for m in info.members if m.state is LASTSRV]
    if info.serving:
        assert not lost and not info.candidates
    else:
        assert lost and set(info.candidates) == set(lost) and SYNCING not in states
    assert len({m.target for m in info.members}) == len(info.members)


def check_step(at: Situation, step: Step) -> None:
    """What holds of any step. Design 2.2, 2.6; the five monitors of the 3FS models need these."""
    for member in step.uncovered:
        assert member.state is SERVING
    if not any(at.of(m).heard for m in at.info.serving) and at.info.serving and at.repair is None:
        assert step.record is None, "nobody who serves is heard: left as it is"
    if step.record is None:
        return
    before, after = at.info, step.record
    check_record(after)
    assert after.version == before.version + 1
    assert {m.target for m in after.members} == {m.target for m in before.members}
    assert moves(at, step), "a version without a change"
    _check_serving(at, step)
    _check_generations(at, step)
    _check_entered(at, step)


def _check_serving(at: Situation, step: Step) -> None:
    before, after = at.info, step.record
    assert after is not None
    old = [m.target for m in before.serving]
    new = [m.target for m in after.serving]
    added, gone = [t for t in new if t not in old], [t for t in old if t not in new]
    assert not (added and gone), "one version adds and takes out"
    assert [t for t in old if t in new] == [t for t in new if t in old], "serving members change places"
    for member in before.serving:
        if member.target in gone:
            assert at.now_s >= at.of(member).over_s, "left out under a lease of the primary's"
            assert member in step.uncovered, "left out while grants still cover it"
    if step.rule is Rule.LEAVE:
        _check_unfit(at, [m for m in before.serving if m.target in gone])
    if gone and new:
        in_force = [m for m in after.serving if not m.joining]
        assert in_force, "only a joiner is left"
        staying = [m for m in in_force if at.of(m).heard]
        assert any(at.is_present(m) or at.of(m).objection() is None for m in staying), "nobody stays for sure"
    if old and not new:
        assert step.rule is Rule.LOST
        assert list(after.candidates) == [m.target for m in before.serving if not m.joining]
    _check_added(at, step, added)


def _check_unfit(at: Situation, gone: list[Member]) -> None:
    """One member at a time goes for a broken link or for being slow, and only if others are well."""
    unfit = [m for m in gone if not m.joining and _is_only_unfit(at, m)]
    assert len(unfit) <= 1, "several leave for links or slowness"
    others = [m for m in at.info.serving if m not in gone and not m.joining and at.is_well(m)]
    for member in unfit:
        assert len(others) >= (1 if at.of(member).cut_off else 2), "too few are left for it"


def _is_only_unfit(at: Situation, member: Member) -> bool:
    """Nothing else speaks against it."""
    known = at.of(member)
    is_fit = not (known.cut_off or known.is_slow)
    return not (is_fit or known.unwanted or known.verdict is Verdict.DEAD or known.objection() is not None)


def _check_added(at: Situation, step: Step, added: list[TargetId]) -> None:
    assert step.record is not None
    states = {m.target: m for m in at.info.members}
    for target in added:
        member, known = states[target], at.known[target]
        assert known.heard and known.local is not LocalState.OFFLINE and known.local is not None
        assert known.clean and not (step.rule is Rule.JOIN and known.cut_off)
        if step.rule is Rule.JOIN:
            source = at.info.serving[-1]
            assert member.state is SYNCING and known.uptodate_at == at.info.version
            assert known.generation == member.generation
            assert at.of(source).acknowledged == at.info.version
            named = next(m for m in step.record.serving if m.target == target)
            assert named.joining and step.record.serving[-1] == named
        else:
            assert not at.info.serving and len(added) == 1, "exactly one resumes"
            assert known.acknowledged >= at.info.version
            if step.rule is Rule.RESUME:
                assert target in at.info.candidates and known.same_store
            else:
                assert step.rule is Rule.REPAIR and at.repair == target


def _check_entered(at: Situation, step: Step) -> None:
    """Nobody enters who is barred; nobody gives up its turn for nobody."""
    assert step.record is not None
    if step.rule is Rule.YIELD:
        (syncing,) = [m for m in at.info.members if m.state is SYNCING]
        assert at.of(syncing).is_stalled and step.record.members[-1].state is not SYNCING
        waiting = [m for m in at.info.members if m.state is WAITING]
        assert any(at.of(m).heard and not at.of(m).barred for m in waiting), "nobody takes the turn"
    if step.rule is Rule.ENTER:
        before = {m.target: m.state for m in at.info.members}
        for member in step.record.members:
            assert member.state is before[member.target] or not at.of(member).barred, "it is barred"


def _check_generations(at: Situation, step: Step) -> None:
    assert step.record is not None
    before = {m.target: m for m in at.info.members}
    for member in step.record.members:
        known, old = at.of(member), before[member.target]
        if member.generation != old.generation:
            assert member.generation == known.generation and known.heard
            assert known.local not in (None, LocalState.OFFLINE) and known.clean
            assert at.now_s >= known.over_s or old.state is not SERVING, "renewed under a lease"
            if old.state is SERVING:
                assert known.same_store and not old.joining
        if old.joining and member.state is SERVING and not member.joining:
            older = [m for m in at.info.serving if not m.joining]
            by_end = len(older) == 1 and at.of(older[0]).alone_acknowledged
            for one in older:
                acknowledged = at.is_present(one) and at.of(one).acknowledged >= at.info.version
                assert acknowledged or (by_end and at.now_s >= at.of(one).over_s), "in force too early"
