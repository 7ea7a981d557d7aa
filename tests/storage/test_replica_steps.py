"""Single steps of the replica machine: exact effects."""

from __future__ import annotations

from fs3.errors import (
    Busy,
    DeadlineExceeded,
    Fs3Error,
    InvalidRequest,
    MaybeApplied,
    SessionLost,
    StaleFile,
    StaleRouting,
    Unavailable,
)
from fs3.ids import ChainVersion, ChunkId, Epoch, InodeId
from fs3.storage import effects as fx
from fs3.storage.replica import PATIENCE_S, QUEUE_MAX
from fs3.wire.chunk import UpdateKind

from .lone_replica import CHUNK, SERVING, SYNCING, Lone, chain, identity, kinds, tag

THREE = chain(1, SERVING, SERVING, SERVING)


def _error(effects: list[fx.Effect]) -> Fs3Error:
    (failure,) = [e for e in effects if isinstance(e, fx.Fail)]
    return failure.error


def test_a_waiting_write_of_an_older_version_is_refused_at_adoption() -> None:
    head = Lone(1, THREE)
    head.stage(head.write(b"a", 1))
    assert head.write(b"b", 2) == []
    effects = head.adopt(chain(2, SERVING, SERVING, SERVING))
    assert kinds(effects) == [fx.Adopt, fx.Forward, fx.Fail]
    assert isinstance(_error(effects), StaleRouting)


def test_a_waiting_update_of_an_older_version_is_refused_at_adoption() -> None:
    """It waits behind a pending one; by its turn its sender is perhaps no predecessor any more."""
    middle = Lone(2, THREE)
    middle.stage(middle.update(b"a", identity(1)))
    assert middle.update(b"b", identity(2, 2)) == []
    effects = middle.adopt(chain(2, SERVING, SERVING, SERVING))
    assert kinds(effects) == [fx.Adopt, fx.Forward, fx.Fail]
    assert isinstance(_error(effects), StaleRouting)
    forwarded = middle.forwarded([effects[1]])
    assert fx.Stage not in kinds(forwarded), "the waiting one has gone"


def test_an_identity_keeps_the_chain_version_of_its_assignment() -> None:
    """What travels under a later version, sent again, was numbered under the earlier one."""
    middle = Lone(2, chain(2, SERVING, SERVING, SERVING))
    effects = middle.update(b"a", identity(1, version=1), version=2)
    (stage,) = effects
    assert isinstance(stage, fx.Stage) and stage.update.identity == identity(1, version=1)
    (forward,) = middle.stage(effects)
    assert isinstance(forward, fx.Forward)
    assert (forward.update.identity, forward.version) == (identity(1, version=1), 2)
    commit, answer = middle.forwarded([forward])
    assert isinstance(commit, fx.Commit) and commit.identity == identity(1, version=1)
    assert isinstance(answer, fx.Answer) and answer.done is not None
    assert answer.done.identity == identity(1, version=1)


def test_another_version_is_refused_on_arrival() -> None:
    head = Lone(1, THREE)
    assert isinstance(_error(head.write(b"a", version=0)), StaleRouting)
    assert isinstance(_error(head.write(b"a", version=2)), StaleRouting)
    head.has_lease = False
    assert isinstance(_error(head.write(b"a")), StaleRouting)


def test_a_member_of_another_generation_is_none() -> None:
    lone = Lone(1, chain(1, SERVING, SERVING, generation=2))
    assert isinstance(_error(lone.write(b"a")), StaleRouting)
    assert lone.replica.gate.read_problem(ChainVersion(1)) is not None


def test_pendings_are_sent_again_every_300_ms() -> None:
    head = Lone(1, THREE)
    (first,) = head.stage(head.write(b"a"))
    assert isinstance(first, fx.Forward) and first.payload is not None
    assert head.tick() == []  # the attempt is under way
    head.replica.on_forward_failed(first.token, head.now_s)
    assert head.tick(0.1) == []
    (again,) = head.tick(0.25)
    assert isinstance(again, fx.Forward) and again.payload is None
    assert again.update.identity == first.update.identity
    assert head.forwarded([first]) == []  # an answer to an attempt that was given up: another is under way
    assert kinds(head.forwarded([again])) == [fx.Commit, fx.Answer]


def test_waiters_lose_patience_but_the_version_goes_on() -> None:
    head = Lone(1, THREE)
    (first,) = head.stage(head.write(b"a"))
    assert isinstance(first, fx.Forward)
    assert head.write(b"b", 2) == []
    head.replica.on_forward_failed(first.token, head.now_s)
    effects = head.tick(PATIENCE_S + 0.01)
    errors = [e.error for e in effects if isinstance(e, fx.Fail)]
    assert [type(e) for e in errors] == [DeadlineExceeded, MaybeApplied]
    (again,) = [e for e in effects if isinstance(e, fx.Forward)]
    retry = head.write(b"a", 1)
    assert retry == []  # recognised: waits with the version
    assert kinds(head.forwarded([again])) == [fx.Commit, fx.Answer]


def test_a_chain_that_is_stuck_holds_nobodys_buffer() -> None:
    """Members that are dead must not occupy the few buffers of a process: others' writes need them."""
    head = Lone(1, THREE)
    effects = head.stage(head.write(b"a"))
    for _ in range(2):
        (forward,) = effects
        assert isinstance(forward, fx.Forward)
        head.replica.on_forward_failed(forward.token, head.now_s)
        effects = [e for e in head.tick() if isinstance(e, fx.Forward)]
    assert isinstance(_error(head.write(b"a")), MaybeApplied)
    assert isinstance(_error(head.write(b"b", 2)), Busy)
    adopted = head.adopt(chain(2, SERVING, SERVING, SERVING))
    assert head.write(b"a") == []
    assert kinds(head.forwarded(adopted)) == [fx.Commit, fx.Answer, fx.Answer]


def test_a_retry_is_answered_after_the_commit_only() -> None:
    tail = Lone(1, chain(1, SERVING))
    tail.has_lease = True
    done = tail.stage(tail.write(b"a"))
    assert kinds(done) == [fx.Commit, fx.Answer]
    (answer,) = tail.write(b"a")
    assert isinstance(answer, fx.Answer) and answer.replayed
    assert isinstance(_error(tail.write(b"z", 0)), InvalidRequest)


def test_every_member_keeps_the_record_of_a_request() -> None:
    for effects in (Lone(1, THREE).write(b"a"), Lone(2, THREE).update(b"a", identity(1))):
        (stage,) = effects
        assert isinstance(stage, fx.Stage) and stage.dedup is not None
        assert (stage.dedup.session, stage.dedup.sequence) == (tag().session, tag().sequence)
        assert stage.dedup.result.identity == stage.update.identity


def test_numbers_go_on_after_a_removal() -> None:
    lone = Lone(1, chain(1, SERVING))
    lone.stage(lone.write(b"a", 1))
    lone.stage(lone.write(b"", 2, kind=UpdateKind.REMOVE))
    again = lone.write(b"b", 3)
    (stage,) = again
    assert isinstance(stage, fx.Stage) and stage.update.identity.update_version == 3
    lone.stage(again)
    assert lone.content == b"b"


def test_a_record_without_its_version_is_a_violation() -> None:
    lone = Lone(1, chain(1, SERVING))
    lone.stage(lone.write(b"a"))
    lone.store.now.committed.clear()
    effects = lone.write(b"a")
    assert kinds(effects)[0] is fx.GoOffline
    assert isinstance(_error(lone.write(b"b", 2)), Unavailable)


def test_another_identity_under_a_committed_number_is_a_violation() -> None:
    tail = Lone(3, THREE)
    tail.stage(tail.update(b"a", identity(1)))
    effects = tail.update(b"b", identity(1, 9))
    assert kinds(effects)[0] is fx.GoOffline
    assert tail.content == b"a"


def test_a_pending_version_gives_way_to_the_predecessors() -> None:
    middle = Lone(2, THREE)
    middle.stage(middle.update(b"mine", identity(1, 1)))
    effects = middle.update(b"other", identity(1, 2))
    assert kinds(effects) == [fx.Fail, fx.Stage]
    middle.forwarded(middle.stage(effects))
    assert middle.content == b"other"


def test_a_gap_is_refused_and_a_repetition_is_not() -> None:
    tail = Lone(3, THREE)
    tail.stage(tail.update(b"a", identity(1)))
    assert isinstance(_error(tail.update(b"c", identity(3, 3))), Unavailable)
    (again,) = tail.update(b"a", identity(1))
    assert isinstance(again, fx.Answer)
    tail.stage(tail.update(b"b", identity(2, 2)))
    assert isinstance(_error(tail.update(b"a", identity(1))), StaleRouting)


def test_a_lost_commit_mark_is_made_good_before_the_next_number() -> None:
    """The predecessor numbered on: what is pending here was committed there."""
    middle = Lone(2, THREE)
    (forward,) = middle.stage(middle.update(b"a", identity(1)))
    assert middle.update(b"b", identity(2, 2)) == []
    assert kinds(middle.forwarded([forward])) == [fx.Commit, fx.Answer, fx.Stage]


def test_an_update_from_anybody_but_the_predecessor() -> None:
    tail = Lone(3, THREE)
    assert isinstance(_error(tail.update(b"a", identity(1), sender=1)), StaleRouting)
    assert isinstance(_error(Lone(1, THREE).update(b"a", identity(1), sender=3)), StaleRouting)


def test_the_last_member_commits_under_a_lease_only() -> None:
    tail = Lone(3, THREE)
    stage = tail.update(b"a", identity(1))
    tail.has_lease = False
    assert tail.stage(stage) == []
    assert tail.tick() == []
    tail.has_lease = True
    assert kinds(tail.tick()) == [fx.Commit, fx.Answer]


def test_a_syncing_last_member_commits_without_a_lease() -> None:
    last = Lone(3, chain(1, SERVING, SERVING, SYNCING))
    last.store.drop_pendings()
    last.replica.on_pendings_dropped()
    last.has_lease = False  # leases are for members that serve
    replace = last.update(b"whole", identity(7), kind=UpdateKind.REPLACE)
    assert kinds(last.stage(replace)) == [fx.Commit, fx.Answer]


def test_a_commit_that_is_learnt_needs_no_lease() -> None:
    head = Lone(1, THREE)
    staged = head.stage(head.write(b"a"))
    head.has_lease = False
    assert kinds(head.forwarded(staged)) == [fx.Commit, fx.Answer]


def test_divergence_the_predecessor_wins_unless_its_own_bytes_are_bad() -> None:
    middle = Lone(2, THREE)
    staged = middle.stage(middle.update(b"right", identity(1)))
    (verify,) = middle.forwarded(staged, content=b"wrong")
    assert isinstance(verify, fx.Verify)
    middle.now_s += 1
    good = middle.replica.on_verified(CHUNK, identity(1), ok=True, now_s=middle.now_s)
    (again,) = good
    assert isinstance(again, fx.Forward) and again.whole
    assert kinds(middle.forwarded(good)) == [fx.Commit, fx.Answer]
    tail = Lone(3, THREE)
    tail.stage(tail.update(b"wrong", identity(1)))
    mend = tail.update(b"right", identity(1), kind=UpdateKind.REPLACE)
    assert kinds(mend) == [fx.Mend, fx.Fail]
    other = Lone(2, THREE)
    other.forwarded(other.stage(other.update(b"right", identity(1))), content=b"wrong")
    bad = other.perform(other.replica.on_verified(CHUNK, identity(1), ok=False, now_s=11))
    assert kinds(bad) == [fx.Commit, fx.Answer, fx.Repair]


def test_a_syncing_member_is_sent_whole_chunks_and_is_not_asked() -> None:
    info = chain(1, SERVING, SYNCING)
    head = Lone(1, info)
    (forward,) = head.stage(head.write(b"a"))
    assert isinstance(forward, fx.Forward) and forward.whole
    assert head.replica.gate.standing is not None
    assert head.replica.gate.standing.is_last_serving


def test_entering_syncing_drops_what_is_pending_first() -> None:
    lone = Lone(2, THREE)
    lone.stage(lone.update(b"a", identity(1)))
    effects = lone.adopt(chain(2, SERVING, SYNCING))
    assert kinds(effects) == [fx.Fail, fx.DropPendings]
    assert isinstance(_error(lone.update(b"b", identity(2, 2))), Busy)
    lone.store.drop_pendings()
    assert kinds(lone.replica.on_pendings_dropped()) == [fx.Adopt]
    replace = lone.update(b"whole", identity(7, 2), kind=UpdateKind.REPLACE)
    assert kinds(lone.stage(replace)) == [fx.Commit, fx.Answer]


def test_the_queue_of_a_chunk_is_bounded() -> None:
    head = Lone(1, THREE)
    head.stage(head.write(b"a", 1))
    for session in range(200, 200 + QUEUE_MAX):
        assert _write_of(head, session) == []
    assert isinstance(_error(_write_of(head, 900)), Busy)


def _write_of(head: Lone, session: int) -> list[fx.Effect]:
    head.tickets += 1
    ask = fx.WriteAsk(CHUNK, head.version, UpdateKind.TRUNCATE, 0, 5, (), tag(1, session), Epoch(0), 65536)
    return head.replica.on_write(head.tickets, ask, None, head.now_s, head.now_s + 5)


def test_an_epoch_waits_for_what_was_numbered_and_stops_the_rest() -> None:
    head = Lone(1, THREE)
    staged = head.stage(head.write(b"a"))
    decree = fx.EpochRaise(CHUNK.inode, Epoch(3))
    (record,) = head.replica.on_decree(50, decree, head.version, head.now_s, head.now_s + 5)
    assert isinstance(record, fx.Record)
    assert isinstance(_error(head.write(b"b", 2, chunk=ChunkId(CHUNK.inode, 9))), StaleFile)
    head.store.record(decree)
    assert head.replica.on_decree_step(record.token, None, head.now_s) == []  # "a" is not resolved
    effects = head.forwarded(staged)
    assert kinds(effects) == [fx.Commit, fx.Answer, fx.PassOn]
    (passed,) = [e for e in effects if isinstance(e, fx.PassOn)]
    assert head.replica.on_decree_step(passed.token, Unavailable("away"), head.now_s) == []
    (again,) = head.tick()
    assert isinstance(again, fx.PassOn)
    assert head.replica.on_decree_step(again.token, None, head.now_s) == [fx.Answer(50)]
    other = head.write(b"c", 3, chunk=ChunkId(InodeId(6), 0))
    assert kinds(other) == [fx.Stage]


def test_a_session_that_ends_is_refused_at_once() -> None:
    head = Lone(1, THREE)
    decree = fx.SessionEnd(tag().session)
    (record,) = head.replica.on_decree(50, decree, head.version, head.now_s, head.now_s + 5)
    assert isinstance(record, fx.Record)
    assert isinstance(_error(head.write(b"b", 2)), SessionLost)
    adopted = head.adopt(chain(2, SERVING, SERVING, SERVING))
    assert isinstance(_error(adopted), StaleRouting)  # whoever asked asks again


def test_a_cancelled_request_leaves_nothing_behind() -> None:
    head = Lone(1, THREE)
    first = head.write(b"a", 1)
    head.replica.on_cancelled(1)  # while it is being staged: it goes on without its bytes
    (forward,) = head.stage(first)
    assert isinstance(forward, fx.Forward) and forward.payload is None
    assert head.write(b"b", 2) == []
    head.replica.on_cancelled(2)
    assert kinds(head.forwarded([forward])) == [fx.Commit]
    assert kinds(head.write(b"b", 2)) == [fx.Stage]
