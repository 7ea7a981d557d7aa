"""Resync's pure parts: what is done about a chunk, in every small case; a job's steps; the pace."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.errors import Fs3Error
from fs3.ids import ChainVersion, ChunkId, ClientSessionId, Generation, InodeId, TargetId, UpdateVersion
from fs3.routing import TargetState
from fs3.storage.arrival import Turn, judge_update
from fs3.storage.effects import Resynced, UpdateAsk
from fs3.storage.engine.versions import ChunkState, PendingInfo
from fs3.storage.resync.job import Job, Phase, base_change, follow
from fs3.storage.resync.pace import BURST_S, LEAST_SHARE, Pace
from fs3.storage.resync.plan import FORGOTTEN, Put, Settle, decide, record_of
from fs3.storage.standing import Standing, standing_of
from fs3.wire.chunk import Identity, Update, UpdateKind, VersionInfo, WriterTag
from fs3.wire.storage import ResyncRecord

from .lone_replica import chain

CHUNK = ChunkId(InodeId(5), 0)
NOW = ChainVersion(9)


def identity(version: int, number: int, sequence: int = 1) -> Identity:
    return Identity(ChainVersion(version), UpdateVersion(number), WriterTag(ClientSessionId(64), 0, sequence))


def version_of(one: Identity | None, *, removed: bool = False) -> VersionInfo | None:
    if one is None:
        return None
    sums = () if removed else (one.update_version * 100 + one.writer.sequence,)
    return VersionInfo(identity=one, length_bytes=len(sums), sums=sums, removed=removed)


def state(
    committed: Identity | None, pending: Identity | None = None, *, removed: bool = False
) -> ChunkState:
    info = version_of(pending)
    held = PendingInfo(info, update_of(pending), 7) if info is not None and pending is not None else None
    return ChunkState(version_of(committed, removed=removed), held, 7)


def update_of(one: Identity, kind: UpdateKind = UpdateKind.REPLACE) -> Update:
    return Update(chunk=CHUNK, identity=one, kind=kind)


def there(one: Identity | None, *, removed: bool = False) -> ResyncRecord:
    return record_of(CHUNK, state(one, removed=removed))


OLD, NEXT = identity(3, 4), identity(4, 5)
FORK = identity(5, 8, 2)


def test_equal_is_only_the_same_identity_with_the_same_content() -> None:
    assert decide(state(OLD), there(OLD), NOW) is None
    other = identity(3, 4, sequence=2)
    assert decide(state(OLD), there(other), NOW) == Put(UpdateKind.REPLACE, OLD, 1, replaces=other)
    differs = ResyncRecord(CHUNK, OLD, 1)
    assert decide(state(OLD), differs, NOW) == Put(UpdateKind.REPLACE, OLD, 1)


def test_lower_higher_and_missing_ones() -> None:
    assert decide(state(NEXT), there(OLD), NOW) == Put(UpdateKind.REPLACE, NEXT, 1)
    assert decide(state(NEXT), there(None), NOW) == Put(UpdateKind.REPLACE, NEXT, 1)
    assert decide(state(NEXT), there(FORK), NOW) == Put(UpdateKind.REPLACE, NEXT, 1, replaces=FORK)
    assert decide(state(NEXT, removed=True), there(OLD), NOW) == Put(UpdateKind.REMOVE, NEXT)
    gone = decide(state(None), there(OLD), NOW)
    assert gone == Put(UpdateKind.REMOVE, Identity(NOW, UpdateVersion(4), FORGOTTEN), 0, OLD, forgets=True)
    assert decide(state(None), there(None), NOW) is None


def test_what_belongs_to_the_present_version_is_left_alone() -> None:
    live = identity(9, 6)
    assert decide(state(live), there(OLD), NOW) is None
    assert decide(state(OLD), there(live), NOW) is None
    assert decide(state(None), there(live), NOW) is None
    left = Identity(NOW, UpdateVersion(6), FORGOTTEN)  # of an attempt that was cut off
    assert decide(state(None), there(left, removed=True), NOW) == Put(
        UpdateKind.REMOVE, left, 0, left, forgets=True
    )


def test_an_own_pending_version_is_rolled_forward_first() -> None:
    """``chain_model`` V6: the receiver had committed it, as the last member, before it left."""
    for have in (None, OLD, NEXT):
        assert decide(state(OLD, NEXT), there(have), NOW) == Settle(NEXT)
    barred = decide(state(OLD, NEXT), there(FORK), NOW)
    assert barred == Put(UpdateKind.REPLACE, OLD, 1, replaces=FORK), "it can only be staged after that"


IDENTITIES = [None, *(identity(v, n, s) for v, n, s in product((3, 9), (1, 2, 3), (1, 2)))]


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("is_syncing", [False, True])
def test_a_number_never_goes_back_unless_it_is_named(forgets: bool, is_syncing: bool) -> None:
    """Every combination of what is here, what is sent, and what it names."""
    for have, held, sent, named in product(IDENTITIES, IDENTITIES, IDENTITIES[1:], IDENTITIES):
        assert sent is not None
        kind = UpdateKind.REMOVE if forgets else UpdateKind.REPLACE
        ask = UpdateAsk(update_of(sent, kind), NOW, TargetId(1), Resynced(named, forgets))
        turn = judge_update(ask, version_of(have), held, is_syncing=is_syncing)
        if turn is Turn.STAGE:
            assert have is None or sent.update_version > have.update_version or named == have
            assert held is None or sent.update_version >= held.update_version
            assert have != sent and held != sent
            assert not forgets or (have == named and have is not None and held is None)
        if turn is Turn.DONE:
            assert have == sent
        if is_syncing:
            assert turn is not Turn.BROKEN
        assert turn is not Turn.LATER


def test_a_live_update_waits_is_refused_or_breaks_as_before() -> None:
    def live(sent: Identity, kind: UpdateKind, have: Identity | None, held: Identity | None = None) -> object:
        ask = UpdateAsk(update_of(sent, kind), NOW, TargetId(1))
        return judge_update(ask, version_of(have), held, is_syncing=False)

    assert live(identity(9, 6), UpdateKind.WRITE, OLD, NEXT) is Turn.LATER
    assert live(identity(9, 5), UpdateKind.WRITE, OLD, NEXT) is Turn.STAGE
    assert live(identity(9, 4), UpdateKind.WRITE, OLD) is Turn.BROKEN
    assert isinstance(live(identity(9, 6), UpdateKind.WRITE, OLD), Fs3Error), "a version is missing"
    assert live(identity(9, 6), UpdateKind.REMOVE, OLD) is Turn.STAGE, "a removal builds on nothing"


@given(st.data())
def test_whatever_happens_meanwhile_a_chunk_ends_as_the_source_has_it(data: st.DataObject) -> None:
    """One chunk, a source with and without pending version, a receiver with any past, messages that are late,
    lost and repeated, live updates in between: never a lower number that was not named, equal at the end."""
    draw = data.draw
    number = draw(st.integers(0, 3))
    own = identity(3, number) if number else None
    pending = identity(3, number + 1) if draw(st.booleans()) else None
    removed = draw(st.booleans()) and own is not None
    past = [None, own, pending, identity(2, 1, 3), identity(4, number + 2, 4), identity(4, max(number, 1), 5)]
    have = draw(st.sampled_from(past))
    seen = have
    late: list[tuple[UpdateAsk, Identity]] = []
    live_left = 3
    for _ in range(60):
        choices = ["look", "plan"]
        choices += ["live"] * (live_left > 0 and pending is None) + ["late"] * bool(late)
        match draw(st.sampled_from(choices)):
            case "look":
                seen = have
            case "live":
                live_left -= 1
                number = max(number, own.update_version if own else 0) + 1
                pending = identity(9, number, 10 + live_left)
            case "late":
                ask, sent = draw(st.sampled_from(late))
                have = _taken(ask, have, sent)
            case "plan":
                own, pending, have, removed = _planned(own, pending, have, removed, seen, late)
    for _ in range(4):
        own, pending, have, removed = _planned(own, pending, have, removed, have, late)
        if pending is not None:
            own, pending, have, removed = _forwarded(own, pending, have, removed)
    assert pending is None
    assert have == own


def _planned(
    own: Identity | None,
    pending: Identity | None,
    have: Identity | None,
    removed: bool,
    seen: Identity | None,
    late: list[tuple[UpdateAsk, Identity]],
) -> tuple[Identity | None, Identity | None, Identity | None, bool]:
    match decide(state(own, pending, removed=removed), there(seen), NOW):
        case Settle():
            if pending is not None:
                return _forwarded(own, pending, have, removed)
        case Put() as put:
            ask = UpdateAsk(
                update_of(put.identity, put.kind), NOW, TargetId(1), Resynced(put.replaces, put.forgets)
            )
            late.append((ask, put.identity))
            have = _taken(ask, have, put.identity)
    return own, pending, have, removed


def _forwarded(
    own: Identity | None, pending: Identity, have: Identity | None, removed: bool
) -> tuple[Identity | None, Identity | None, Identity | None, bool]:
    """The source's pending version is sent live, and committed if the receiver takes it."""
    taken = _taken(UpdateAsk(update_of(pending), NOW, TargetId(1)), have, pending)
    return (pending, None, pending, False) if taken == pending else (own, pending, taken, removed)


def _taken(ask: UpdateAsk, have: Identity | None, sent: Identity) -> Identity | None:
    """What is committed at the receiver after a message."""
    turn = judge_update(ask, version_of(have), None, is_syncing=True)
    if turn is not Turn.STAGE:
        assert isinstance(turn, Fs3Error) or turn is Turn.DONE, turn
        return have
    named = ask.resync.replaces if ask.resync is not None else None
    assert have is None or sent.update_version > have.update_version or named == have
    return None if ask.resync is not None and ask.resync.forgets else sent


SERVING, SYNCING, OUT = TargetState.SERVING, TargetState.SYNCING, TargetState.OFFLINE


def standing(version: int, *states: TargetState, generation: int = 1) -> Standing:
    return standing_of(chain(version, *states, generation=generation), TargetId(2), Generation(generation))


def test_the_source_is_the_predecessor_of_the_syncing_member_and_serves() -> None:
    assert follow(None, standing(3, SERVING, SERVING, SYNCING)) == Job(
        chain(3, SERVING, SERVING, SYNCING).members[2], ChainVersion(3)
    )
    assert follow(None, standing(3, SERVING, SERVING, SERVING)) is None
    assert follow(None, standing(3, SERVING, SYNCING, SYNCING)) is None, "it lacks something itself"
    assert follow(None, standing(3, SERVING, SERVING, OUT, SYNCING)) is not None
    assert follow(None, None) is None


def test_progress_outlives_a_version_and_the_statement_does_not() -> None:
    job = follow(None, standing(3, SERVING, SERVING, SYNCING))
    assert job is not None and job.must_begin
    job.on_begun(ChainVersion(3), 77, ChainVersion(1))
    for phase in (Phase.EPOCHS, Phase.SESSIONS):
        assert job.phase is phase
        job.on_page(None)
    job.on_page(CHUNK)
    assert follow(job, standing(4, SERVING, SERVING, SYNCING)) is job
    assert (job.version, job.phase, job.after, job.must_begin) == (4, Phase.CHUNKS, CHUNK, True)
    job.on_begun(ChainVersion(3), 77, ChainVersion(1))
    assert job.after == CHUNK, "the same receiver: on from there"
    for _ in ("chunks", "channels"):
        job.on_page(None)
    assert phase_of(job) == "DONE"
    assert follow(job, standing(5, SERVING, SERVING, SYNCING)) is job
    assert not job.on_done(ChainVersion(4)), "that was about another version"
    assert phase_of(job) == "DONE"
    assert job.on_done(ChainVersion(5))
    assert phase_of(job) == "FINISHED"
    assert follow(job, standing(6, SERVING, SERVING, SYNCING)) is job
    assert phase_of(job) == "DONE" and job.must_begin, "a new version needs a new statement"


def phase_of(job: Job) -> str:
    """Asked anew: it changes by the calls in between."""
    return job.phase.name


def test_a_receiver_that_dropped_what_it_was_told_is_told_anew() -> None:
    job = follow(None, standing(3, SERVING, SERVING, SYNCING))
    assert job is not None
    for since, store in ((3, 77), (6, 77), (6, 78)):
        job.on_begun(ChainVersion(since), store, ChainVersion(1))
        assert (job.phase, job.after) == (Phase.EPOCHS, None)
        job.on_page(None)
    assert follow(job, standing(7, SERVING, SERVING, SYNCING, generation=2)) is not job, "another run"
    assert follow(job, standing(7, SERVING, SERVING, OUT)) is None


def test_what_is_compared() -> None:
    assert base_change(40, dropped_change=40) == 40
    assert base_change(40, dropped_change=41) == 0, "a tombstone went after the receiver had left"
    assert base_change(None, dropped_change=0) == 0


@given(st.lists(st.tuples(st.integers(1, 1 << 26), st.floats(0, 0.5)), min_size=1, max_size=40))
def test_no_more_is_sent_than_the_limit(takes: list[tuple[int, float]]) -> None:
    limit_bytes_s = 100 << 20
    pace, now_s, sent_bytes, begin_s = Pace(limit_bytes_s), 50.0, 0, 50.0
    for size_bytes, pause_s in takes:
        now_s += pause_s
        now_s += pace.take(size_bytes, now_s)
        assert sent_bytes <= limit_bytes_s * (now_s - begin_s + BURST_S) + 1
        sent_bytes += size_bytes


def test_foreground_work_slows_it_down_but_never_to_nothing() -> None:
    pace = Pace(1000.0)
    pace.note_foreground(0, 1.0)
    pace.note_foreground(400, 2.0)
    assert pace.rate_bytes_s == 600.0
    pace.note_foreground(400_000, 3.0)
    assert pace.rate_bytes_s == 1000 * LEAST_SHARE
    pace.note_foreground(400_000, 4.0)
    assert pace.rate_bytes_s == 1000.0
