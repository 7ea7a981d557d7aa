"""The chain machine: all states of one, two and three replicas; the table of docs/chain_changes.md; walks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fs3.ids import ChainId, ChainVersion, Generation, TargetId
from fs3.mgmtd.chain_machine import Known, Rule, Situation, Step, next_step
from fs3.mgmtd.liveness import Verdict
from fs3.routing import ChainInfo, LocalState, Member, TargetState

from .chain_rules import Move, check_record, check_step, moves

SERVING, LASTSRV, SYNCING, WAITING, OFFLINE = TargetState
ALIVE, SUSPECTED, SILENT, DEAD = Verdict
UPTODATE, ONLINE, GONE = LocalState
TABLE = Path(__file__).parents[2] / "docs" / "chain_changes.md"
VERSION = ChainVersion(5)
NOW_S = 100.0
G1, G2 = Generation(1), Generation(2)


def known(verdict: Verdict = ALIVE, generation: Generation = G1, **fields: object) -> Known:
    """A member that is well and has everything, unless something else is said."""
    settings: dict[str, object] = {
        "local": UPTODATE, "uptodate_at": VERSION, "acknowledged": VERSION, "over_s": NOW_S + 1.0,
    }  # fmt: skip
    return Known(generation=generation, verdict=verdict, **{**settings, **fields})  # type: ignore[arg-type]


OLD = ChainVersion(4)
PROFILES: tuple[Known, ...] = (
    known(),
    known(local=ONLINE, uptodate_at=OLD, acknowledged=OLD),
    known(local=None, uptodate_at=ChainVersion(0), acknowledged=ChainVersion(0)),
    known(local=GONE, over_s=NOW_S),
    known(local=GONE),
    known(unwanted=True, over_s=NOW_S),
    known(SUSPECTED),
    known(SILENT),
    known(DEAD, over_s=NOW_S, acknowledged=OLD),
    known(DEAD, over_s=NOW_S, acknowledged=OLD, alone_acknowledged=True),
    known(DEAD),
    known(generation=G2, over_s=NOW_S),
    known(generation=G2, acknowledged=OLD),
    known(generation=G2, over_s=NOW_S, same_store=False, local=ONLINE),
    known(generation=G2, over_s=NOW_S, clean=False),
    known(SILENT, generation=G2, over_s=NOW_S, local=None),
    known(cut_off="a link", over_s=NOW_S),
    known(is_slow=True, over_s=NOW_S),
    known(barred="a link"),
    known(cut_off="a link", is_slow=True, over_s=NOW_S, generation=G2),
    known(is_stalled=True, uptodate_at=OLD),
)
FEW = tuple(p for i, p in enumerate(PROFILES) if i not in (4, 7, 10, 14, 15, 18, 19))
"""For three replicas."""


def records(count: int) -> Iterator[ChainInfo]:
    """All records of so many replicas."""
    kinds = [(state, False) for state in TargetState] + [(SERVING, True)]
    for chosen in itertools.product(kinds, repeat=count):
        members = tuple(
            Member(target=TargetId(i + 1), state=state, generation=G1, joining=joining)
            for i, (state, joining) in enumerate(chosen)
        )
        lost = tuple(m.target for m in members if m.state is LASTSRV)
        info = ChainInfo(chain=ChainId(1), version=VERSION, members=members, candidates=lost)
        try:
            check_record(info)
        except AssertionError:
            continue
        if all(not m.joining or m is info.serving[-1] for m in members):
            yield info


def situations(count: int, profiles: tuple[Known, ...]) -> Iterator[Situation]:
    """All records under all that may be known; candidates in both orders, waited for or not."""
    for info in records(count):
        for chosen in itertools.product(profiles, repeat=count):
            what = {m.target: k for m, k in zip(info.members, chosen, strict=True)}
            yield Situation(info, what, NOW_S)
            if not info.serving:
                yield Situation(info, what, NOW_S, resumable_since_s=NOW_S - 2.0)
                yield Situation(info, what, NOW_S, repair=TargetId(count))
            else:
                yield Situation(info, what, NOW_S, repair=TargetId(count))


def rows() -> set[Move]:
    """The rows of the table in docs."""
    found = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+\*?) \|", TABLE.read_text(), re.MULTILINE)
    return {(rule, before, after) for rule, before, after in found}


@pytest.mark.parametrize(("count", "profiles"), [(1, PROFILES), (2, PROFILES), (3, FEW)])
@pytest.mark.timeout(240)
def test_every_state_of_few_replicas(count: int, profiles: tuple[Known, ...]) -> None:
    seen: set[Move] = set()
    table = rows()
    for at in situations(count, profiles):
        step = next_step(at)
        try:
            check_step(at, step)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{at}\n{step}") from error
        seen |= moves(at, step)
    assert seen <= table, sorted(seen - table)
    if count == 3:
        assert table == seen, sorted(table - seen)


def test_the_table_names_every_rule() -> None:
    assert {rule for rule, _, _ in rows()} == {rule.value for rule in Rule}


def _decided(
    *members: Member, what: dict[int, Known], candidates: tuple[int, ...] = (), since_s: float | None = None
) -> Step:
    info = ChainInfo(
        chain=ChainId(1),
        version=VERSION,
        members=members,
        candidates=tuple(TargetId(c) for c in candidates),
    )
    return next_step(Situation(info, {TargetId(t): k for t, k in what.items()}, NOW_S, since_s))


def _member(number: int, state: TargetState, **more: bool) -> Member:
    return Member(target=TargetId(number), state=state, generation=G1, **more)


def test_uptodate_at_another_version_counts_for_nothing() -> None:
    members = _member(1, SERVING), _member(2, SYNCING)
    step = _decided(*members, what={1: known(), 2: known(uptodate_at=OLD)})
    assert step.record is None and step.held[TargetId(2)] == "it is being copied to"
    step = _decided(*members, what={1: known(acknowledged=OLD), 2: known()})
    assert step.record is None
    assert _decided(*members, what={1: known(), 2: known()}).rule is Rule.JOIN


def test_an_older_candidate_is_waited_for() -> None:
    members = _member(1, LASTSRV), _member(2, LASTSRV)
    what = {1: known(DEAD), 2: known()}
    step = _decided(*members, what=what, candidates=(1, 2))
    assert step.record is None and step.resumable_since_s == NOW_S and step.again_s == NOW_S + 2.0
    step = _decided(*members, what=what, candidates=(1, 2), since_s=NOW_S - 2.0)
    assert step.rule is Rule.RESUME
    step = _decided(*members, what={1: known(), 2: known()}, candidates=(1, 2))
    assert step.rule is Rule.RESUME and step.record is not None
    assert [m.target for m in step.record.serving] == [1]


def test_only_the_joiner_would_be_left() -> None:
    members = _member(1, SERVING), _member(2, SERVING, joining=True)
    dead = known(DEAD, over_s=NOW_S, acknowledged=OLD)
    step = _decided(*members, what={1: dead, 2: known(over_s=NOW_S)})
    assert step.record is None  # as one that is left alone: the older one may come back and acknowledge
    over = known(local=GONE, over_s=NOW_S, acknowledged=OLD)
    step = _decided(*members, what={1: over, 2: known(over_s=NOW_S)})
    assert step.rule is Rule.LEAVE and step.record is not None
    assert [m.target for m in step.record.serving] == [1]
    alone = known(DEAD, over_s=NOW_S, acknowledged=OLD, alone_acknowledged=True)
    assert _decided(*members, what={1: alone, 2: known()}).rule is Rule.IN_FORCE


def test_nobody_leaves_before_one_that_restarted_has_said_what_it_has() -> None:
    members = _member(1, SERVING), _member(2, SERVING)
    dead = known(DEAD, over_s=NOW_S)
    silent = known(generation=G2, local=None, over_s=NOW_S)
    assert _decided(*members, what={1: silent, 2: dead}).record is None
    step = _decided(*members, what={1: known(generation=G2, over_s=NOW_S), 2: dead})
    assert step.rule is Rule.LEAVE
    gone = known(generation=G2, over_s=NOW_S, same_store=False)
    step = _decided(*members, what={1: gone, 2: dead})
    assert step.rule is Rule.LOST and step.record is not None and step.record.candidates == (1, 2)


def test_one_unfit_member_at_a_time_goes() -> None:
    members = tuple(_member(n, SERVING) for n in (1, 2, 3))
    cut, slow = known(cut_off="a link", over_s=NOW_S), known(is_slow=True, over_s=NOW_S)

    def gone(*what: Known) -> list[int]:
        step = _decided(*members, what=dict(enumerate(what, start=1)))
        return [m.target for m in step.record.members if m.state is OFFLINE] if step.record else []

    assert gone(known(), cut, cut) == [3]
    assert gone(cut, slow, known()) == [1]  # who cannot be reached goes before who is slow
    assert gone(known(), slow, known()) == [2]
    assert gone(known(), slow, slow) == [3]  # then too few are left for the other one
    assert gone(known(DEAD, over_s=NOW_S), slow, known()) == [1]
    assert gone(known(SILENT), cut, known(SILENT)) == []


def test_who_stalls_is_last_of_those_that_wait() -> None:
    members = _member(1, SERVING), _member(2, SYNCING), _member(3, WAITING)
    stalled = known(is_stalled=True, uptodate_at=OLD)
    step = _decided(*members, what={1: known(), 2: stalled, 3: known()})
    assert step.rule is Rule.YIELD and step.record is not None
    assert [m.target for m in step.record.members] == [1, 3, 2]
    for nobody in (known(SILENT), known(barred="a link"), known(local=GONE)):
        step = _decided(*members, what={1: known(), 2: stalled, 3: nobody})
        assert step.rule is not Rule.YIELD


def test_a_member_that_does_not_acknowledge_is_dropped_and_the_joiner_goes_on() -> None:
    members = _member(1, SERVING), _member(2, SERVING), _member(3, SERVING, joining=True)
    what = {1: known(), 2: known(DEAD, over_s=NOW_S, acknowledged=OLD), 3: known()}
    step = _decided(*members, what=what)
    assert step.rule is Rule.LEAVE and step.record is not None
    assert [(m.target, m.joining) for m in step.record.serving] == [(1, False), (3, True)]
