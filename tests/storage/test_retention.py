"""What is old enough to be forgotten, and what each member of the chain lets go. No node, no clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fs3.identity.capability import CAPABILITY_MS
from fs3.ids import ChainVersion, ChunkId, ClientSessionId, Epoch, InodeId, UpdateVersion
from fs3.meta.ops.renew_capabilities import BLIND_S
from fs3.storage.engine.versions import ChunkState, EpochRecord, PendingInfo
from fs3.storage.retention import (
    BLIND_RENEWAL_MS,
    RETENTION_MS,
    Cutoff,
    Verdict,
    judge,
    old_epochs,
    old_sessions,
    old_tombstones,
)
from fs3.wire.chunk import Identity, Update, UpdateKind, VersionInfo, WriterTag
from fs3.wire.storage import Expired, ExpiredEpoch, ExpiredTombstone

CUTOFF = Cutoff(before_ms=1000, known_since_ms=5000)
OLD, YOUNG, UNKNOWN = 1000, 1001, 0


def chunk(number: int) -> ChunkId:
    return ChunkId(InodeId(1), number)


def identity(number: int) -> Identity:
    return Identity(ChainVersion(1), UpdateVersion(number), WriterTag(ClientSessionId(16), 0, number))


def state(number: int, removed_ms: int = OLD, *, removed: bool = True, pending: int = 0) -> ChunkState:
    info = VersionInfo(identity=identity(number), length_bytes=0, sums=(), removed=removed)
    above = None
    if pending:
        update = Update(
            chunk=chunk(0),
            identity=identity(pending),
            kind=UpdateKind.WRITE,
            offset_bytes=0,
            length_bytes=0,
            sums=(),
            epoch=Epoch(0),
            chunk_size_bytes=65536,
        )
        above = PendingInfo(VersionInfo(identity=identity(pending), length_bytes=0, sums=()), update, 1)
    return ChunkState(info, above, 1, removed_ms)


NOTHING = ChunkState(None, None)


def verdict(
    asked: Expired,
    kept_behind: Expired = Expired(),  # noqa: B008  # immutable
    *,
    chunks: dict[ChunkId, ChunkState] | None = None,
    epochs: dict[InodeId, EpochRecord] | None = None,
    ends: dict[ClientSessionId, int] | None = None,
    cutoff: Cutoff = CUTOFF,
) -> Verdict:
    return judge(
        asked,
        kept_behind,
        lambda c: (chunks or {}).get(c, NOTHING),
        (epochs or {}).get,
        (ends or {}).get,
        cutoff,
    )


def test_the_retention_outlives_every_capability() -> None:
    """One second may be lost to rounding in the renewal, and a request may wait while its turn comes."""
    assert BLIND_RENEWAL_MS == BLIND_S * 1000
    assert RETENTION_MS == 4_284_000
    assert RETENTION_MS >= (BLIND_S + 1) * 1000 + CAPABILITY_MS + 60_000


def test_only_old_tombstones_at_rest_are_named() -> None:
    page = [
        (chunk(0), state(7)),
        (chunk(1), state(7, YOUNG)),
        (chunk(2), state(7, removed=False)),
        (chunk(3), state(7, pending=8)),
        (chunk(4), NOTHING),
        (chunk(5), state(7, UNKNOWN)),
    ]
    assert old_tombstones(page, CUTOFF) == Expired(tombstones=(ExpiredTombstone(chunk(0), identity(7)),))


def test_a_record_without_a_time_ages_from_the_first_time_that_was_known() -> None:
    records = [EpochRecord(InodeId(1), Epoch(2), UNKNOWN), EpochRecord(InodeId(2), Epoch(3), OLD)]
    assert old_epochs(records, CUTOFF).epochs == (ExpiredEpoch(InodeId(2), Epoch(3)),)
    later = Cutoff(before_ms=5000, known_since_ms=5000)
    assert len(old_epochs(records, later)) == 2
    ends = [(ClientSessionId(20), OLD), (ClientSessionId(21), YOUNG), (ClientSessionId(22), UNKNOWN)]
    assert old_sessions(ends, CUTOFF).sessions == (20,)


def test_what_is_here_exactly_goes_and_what_is_not_here_is_no_hindrance() -> None:
    asked = Expired(
        tombstones=(ExpiredTombstone(chunk(0), identity(7)), ExpiredTombstone(chunk(1), identity(9))),
        epochs=(ExpiredEpoch(InodeId(1), Epoch(2)), ExpiredEpoch(InodeId(2), Epoch(2))),
        sessions=(ClientSessionId(20), ClientSessionId(21)),
    )
    record = EpochRecord(InodeId(1), Epoch(2), OLD - 5)
    found = verdict(
        asked, chunks={chunk(0): state(7)}, epochs={InodeId(1): record}, ends={ClientSessionId(20): OLD}
    )
    assert found.tombstones == ((chunk(0), identity(7)),)
    assert found.epochs == (record,)
    assert found.sessions == (20,)
    assert found.number_floor == 9  # of the one that this member never had, too
    assert not len(found.kept)


def test_what_differs_or_is_young_stays() -> None:
    asked = Expired(
        tombstones=tuple(ExpiredTombstone(chunk(n), identity(7)) for n in range(4)),
        epochs=tuple(ExpiredEpoch(InodeId(n), Epoch(2)) for n in (1, 2, 3)),
        sessions=(ClientSessionId(20),),
    )
    found = verdict(
        asked,
        chunks={
            chunk(0): state(8),
            chunk(1): state(7, YOUNG),
            chunk(2): state(7, pending=8),
            chunk(3): state(8, removed=False),
        },
        epochs={
            InodeId(1): EpochRecord(InodeId(1), Epoch(3), OLD),
            InodeId(2): EpochRecord(InodeId(2), Epoch(2), YOUNG),
            InodeId(3): EpochRecord(InodeId(3), Epoch(1), OLD),
        },
        ends={ClientSessionId(20): YOUNG},
    )
    assert found == Verdict((), (), (), 0, asked)


_NUMBERS = st.sets(st.integers(0, 5))


@given(_NUMBERS, _NUMBERS, st.dictionaries(st.integers(0, 5), st.sampled_from([OLD, YOUNG])))
def test_each_record_is_dropped_or_kept_or_not_here(
    named: set[int], behind: set[int], here: dict[int, int]
) -> None:
    """And a record that somebody behind keeps is kept by all before it."""
    every = Expired(
        tombstones=tuple(ExpiredTombstone(chunk(n), identity(7)) for n in sorted(named)),
        epochs=tuple(ExpiredEpoch(InodeId(n), Epoch(2)) for n in sorted(named)),
        sessions=tuple(ClientSessionId(n) for n in sorted(named)),
    )
    kept_behind = Expired(
        tombstones=tuple(t for t in every.tombstones if t.chunk.chunk_index in behind),
        epochs=tuple(e for e in every.epochs if e.inode in behind),
        sessions=tuple(s for s in every.sessions if s in behind),
    )
    found = verdict(
        every,
        kept_behind,
        chunks={chunk(n): state(7, ms) for n, ms in here.items()},
        epochs={InodeId(n): EpochRecord(InodeId(n), Epoch(2), ms) for n, ms in here.items()},
        ends={ClientSessionId(n): ms for n, ms in here.items()},
    )
    kept = named & (behind | {n for n, ms in here.items() if ms == YOUNG})
    dropped = {n for n in named - kept if n in here}
    assert {t.chunk.chunk_index for t in found.kept.tombstones} == kept
    assert {int(e.inode) for e in found.kept.epochs} == kept
    assert {int(session) for session in found.kept.sessions} == kept
    assert {c.chunk_index for c, _ in found.tombstones} == dropped
    assert {int(r.inode) for r in found.epochs} == dropped
    assert {int(session) for session in found.sessions} == dropped
