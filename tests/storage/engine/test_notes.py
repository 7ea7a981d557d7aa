"""What a store remembers for a resync: notes of chain versions, what was merged."""

from __future__ import annotations

from fs3.ids import ChainVersion, ClientSessionId, UpdateVersion
from fs3.storage.engine.versions import DedupRecord
from fs3.wire.chunk import Identity, UpdateResult, WriterTag

from .shop import SimShop, chunk, write


def numbered(version: int, number: int = 1) -> Identity:
    """An identity given in a chain version."""
    return Identity(ChainVersion(version), UpdateVersion(number), WriterTag(ClientSessionId(64), 0, number))


def test_notes_above_what_is_dropped_go_with_it() -> None:
    shop = SimShop()
    store = shop.create()
    assert store.newest_note() is None
    for version in (1, 3, 5, 7):
        store.note_chain_version(ChainVersion(version), 10 * version)
    assert store.note_chain_version(ChainVersion(7)) == 70, "the first call counts"
    assert store.newest_note() == (7, 70)
    store.drop_pendings()
    assert store.newest_note() == (7, 70), "nothing was pending"
    store.stage([write(chunk(0), numbered(6), b"a"), write(chunk(1), numbered(5), b"b")])
    store.drop_pendings()
    assert store.newest_note() == (5, 50)
    store.close()
    shop.disk = shop.disk.after_kill()
    assert shop.open().newest_note() == (5, 50)


def test_records_of_an_ended_session_are_not_taken_over() -> None:
    store = SimShop().create()
    result = UpdateResult(identity=numbered(1), length_bytes=1)
    records = [DedupRecord(ClientSessionId(s), 0, 5, chunk(0), result) for s in (64, 65)]
    store.merge_sessions([(ClientSessionId(64), 1234), (ClientSessionId(66), 99)])
    store.merge_sessions([(ClientSessionId(64), 9999)])
    store.merge_dedup(records)
    assert store.dedup_records() == records[1:]
    assert store.ended_sessions() == [(64, 1234), (66, 99)]
