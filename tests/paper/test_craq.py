"""Claims of the CRAQ paper (Terrace and Freedman, USENIX ATC 2009) by section, and our departures."""

from __future__ import annotations

from fs3.errors import StaleRouting
from fs3.storage import effects as fx
from fs3.storage.reading import Ask, Serve, Stale, choose_after_answer, choose_at_once
from tests.storage.lone_replica import CHUNK, SERVING, Lone, chain, identity, kinds

THREE = chain(1, SERVING, SERVING, SERVING)


def test_section_2_2_writes_enter_at_the_head_only() -> None:
    """2.2: the head handles all writes; others refuse them."""
    for number in (2, 3):
        (refusal,) = Lone(number, THREE).write(b"x")
        assert isinstance(refusal, fx.Fail) and isinstance(refusal.error, StaleRouting)
    assert kinds(Lone(1, THREE).write(b"x")) == [fx.Stage]


def test_section_2_2_writes_travel_down_and_commit_at_the_tail() -> None:
    """2.2: a write propagates down the chain; when it reaches the tail it has been applied to all."""
    middle, tail = Lone(2, THREE), Lone(3, THREE)
    staged = middle.stage(middle.update(b"x", identity(1)))
    (forward,) = staged
    assert isinstance(forward, fx.Forward) and forward.member.target == 3
    assert middle.content == b""
    done = tail.stage(tail.update(b"x", identity(1)))
    assert kinds(done) == [fx.Commit, fx.Answer]


def test_section_2_2_is_answered_when_all_have_it() -> None:
    """2.2: the client is answered after the whole chain has applied the write; here by the head."""
    head = Lone(1, THREE)
    staged = head.stage(head.write(b"x"))
    assert kinds(staged) == [fx.Forward]
    assert kinds(head.forwarded(staged)) == [fx.Commit, fx.Answer]


def test_section_2_3_an_object_may_have_several_versions() -> None:
    """2.3: a node keeps a new, dirty version beside the old one until the new one is acknowledged."""
    middle = Lone(2, THREE)
    first = middle.stage(middle.update(b"old", identity(1)))
    middle.forwarded(first)
    second = middle.stage(middle.update(b"new", identity(2, 2)))
    state = middle.store.versions(CHUNK)
    assert state.committed is not None and state.committed.identity == identity(1)
    assert state.pending is not None and state.pending.version.identity == identity(2, 2)
    middle.forwarded(second)
    state = middle.store.versions(CHUNK)
    assert state.pending is None and middle.content == b"new"


def test_section_2_3_clean_reads_are_local() -> None:
    """2.3: if the latest known version is clean, the node answers at once."""
    middle = Lone(2, THREE)
    middle.forwarded(middle.stage(middle.update(b"v", identity(1))))
    state = middle.store.versions(CHUNK)
    assert choose_at_once(state, last_serving=False, relaxed=False) == Serve(identity(1))


def test_section_2_3_dirty_reads_ask_the_tail() -> None:
    """2.3: else it asks the tail for its last committed version and returns that one."""
    middle = Lone(2, THREE)
    middle.forwarded(middle.stage(middle.update(b"old", identity(1))))
    middle.stage(middle.update(b"new", identity(2, 2)))
    state = middle.store.versions(CHUNK)
    assert isinstance(choose_at_once(state, last_serving=False, relaxed=False), Ask)
    assert choose_after_answer(state, identity(1)) == Serve(identity(1))
    assert choose_after_answer(state, identity(2, 2)) == Serve(identity(2, 2))
    assert isinstance(choose_after_answer(state, identity(3, 3)), Stale)


def test_section_2_3_the_tail_commits_while_the_answer_travels() -> None:
    """2.3: the tail may commit before the reply; the read is ordered by what the tail said."""
    middle = Lone(2, THREE)
    middle.forwarded(middle.stage(middle.update(b"old", identity(1))))
    staged = middle.stage(middle.update(b"new", identity(2, 2)))
    middle.forwarded(staged)
    state = middle.store.versions(CHUNK)
    assert choose_after_answer(state, identity(1)) == Serve(identity(2, 2))  # a newer one is right as well


def test_departure_from_2_3_same_number_is_not_same_version() -> None:
    """The paper compares numbers; two heads may give one number to two writes, so we compare identities."""
    middle = Lone(2, THREE)
    middle.forwarded(middle.stage(middle.update(b"old", identity(1))))
    middle.stage(middle.update(b"mine", identity(2, 2)))
    state = middle.store.versions(CHUNK)
    assert isinstance(choose_after_answer(state, identity(2, 9)), Stale)


def test_section_2_4_eventual_reads() -> None:
    """2.4: eventual reads return what a node has: here ``relaxed``, its own committed version."""
    middle = Lone(2, THREE)
    middle.stage(middle.update(b"new", identity(1)))
    state = middle.store.versions(CHUNK)
    assert choose_at_once(state, last_serving=False, relaxed=True) == Serve(None)


def test_section_2_2_writes_of_one_object_are_in_one_order() -> None:
    """2.2: the head serialises; a write waits until the one before is resolved."""
    head = Lone(1, THREE)
    first = head.write(b"a", 1)
    assert head.replica.on_tick(head.now_s) == []
    head.tickets += 1
    waiting = head.write(b"b", 1)  # same channel: refused while the first is under way
    assert kinds(waiting) == [fx.Fail]
    staged = head.stage(first)
    done = head.forwarded(staged)
    assert kinds(done) == [fx.Commit, fx.Answer]
    second = head.write(b"b", 2)
    (stage,) = second
    assert isinstance(stage, fx.Stage) and stage.update.identity.update_version == 2


def test_section_2_5_a_member_that_becomes_the_tail_commits_what_it_has() -> None:
    """2.5: if the tail fails its predecessor takes its place; what it holds was seen by all that are left."""
    middle = Lone(2, THREE)
    middle.stage(middle.update(b"x", identity(1)))
    assert not middle.replica.must_settle(CHUNK)
    effects = middle.adopt(chain(2, SERVING, SERVING))
    assert kinds(effects) == [fx.Adopt, fx.Commit, fx.Answer]
    assert middle.content == b"x"


def test_section_2_5_the_new_tail_answers_nothing_before() -> None:
    """2.5, read strictly: without a lease it may not commit; so it must not answer about the chunk either."""
    middle = Lone(2, THREE)
    middle.stage(middle.update(b"x", identity(1)))
    middle.has_lease = False
    assert fx.Commit not in kinds(middle.adopt(chain(2, SERVING, SERVING)))
    assert middle.replica.must_settle(CHUNK)
    middle.has_lease = True
    assert fx.Commit in kinds(middle.tick())
    assert not middle.replica.must_settle(CHUNK)


def test_section_2_5_a_new_head_rolls_forward_before_it_gives_a_number() -> None:
    """2.5: a new head sends on what it has that its successor may lack; only then come new writes."""
    second = Lone(2, THREE)
    second.stage(second.update(b"x", identity(1)))
    effects = second.adopt(chain(2, SERVING, SERVING, first=2))
    assert kinds(effects) == [fx.Adopt, fx.Forward]
    assert second.write(b"y", 2) == []  # waits
    after = second.forwarded(effects)
    assert kinds(after) == [fx.Commit, fx.Answer, fx.Stage]
