"""A pending version gets right bytes again: in its own block, or in one that it shares."""

from __future__ import annotations

import pytest

from fs3.errors import FsError
from fs3.ids import ChunkId
from fs3.storage.engine.store import ChunkStore
from fs3.wire.chunk import Identity, VersionInfo

from .shop import KIB, MIB, SimShop, apply, chunk, content, identity, pattern, write

BASE = pattern(150 * KIB)
MORE = pattern(200 * KIB)[150 * KIB :]
WHOLE = BASE + MORE


def staged(shop: SimShop, *, appends: bool) -> ChunkStore:
    """A committed version, and a pending one that shares its block or does not."""
    store = shop.create()
    apply(store, write(chunk(0), identity(1), BASE))
    item = write(chunk(0), identity(2), MORE, len(BASE)) if appends else write(chunk(0), identity(2), WHOLE)
    (outcome,) = store.stage([item])
    assert outcome.error is None
    return store


def pending(store: ChunkStore) -> VersionInfo:
    found = store.versions(chunk(0)).pending
    assert found is not None
    return found.version


def where(store: ChunkStore, which: Identity | None) -> tuple[str, int]:
    handle = store.read(chunk(0), which, 0, 1)
    handle.release()
    return handle.regions[0].file.path, handle.regions[0].offset_bytes


def damage(shop: SimShop, store: ChunkStore) -> None:
    """Both versions, if they share the block."""
    path, at = where(store, pending(store).identity)
    shop.disk.flip(path, at + 5)


@pytest.mark.parametrize("appends", [True, False])
def test_it_is_mended_and_survives_a_crash(appends: bool) -> None:
    shop = SimShop()
    store = staged(shop, appends=appends)
    old = where(store, pending(store).identity)
    assert (old == where(store, None)) is appends
    damage(shop, store)
    assert store.verify_chunk(chunk(0)) == [0]
    assert store.repair(chunk(0), pending(store), memoryview(WHOLE))
    assert where(store, pending(store).identity) != old
    assert content(store, chunk(0), pending(store).identity) == WHOLE
    assert store.verify_chunk(chunk(0)) == ([0] if appends else [])
    if appends:  # now the committed one can be mended, too
        committed = store.versions(chunk(0)).committed
        assert committed is not None and store.repair(chunk(0), committed, memoryview(BASE))
    assert content(store, chunk(0)) == BASE
    shop.disk = shop.disk.after_kill()
    store = shop.open()
    assert store.verify_chunk(chunk(0)) == []
    assert (content(store, chunk(0)), content(store, chunk(0), pending(store).identity)) == (BASE, WHOLE)
    assert store.commit(chunk(0), identity(2))
    assert content(store, chunk(0)) == WHOLE
    store.close()


def test_what_was_committed_meanwhile_is_mended_as_that() -> None:
    shop = SimShop()
    store = staged(shop, appends=False)
    version = pending(store)
    damage(shop, store)
    assert store.commit(chunk(0), version.identity)
    assert store.repair(chunk(0), version, memoryview(WHOLE))
    assert store.verify_chunk(chunk(0)) == [] and content(store, chunk(0)) == WHOLE
    store.close()


def test_what_is_not_there_any_more_is_left_alone() -> None:
    shop = SimShop()
    store = staged(shop, appends=False)
    version = pending(store)
    used_bytes = store.space().used_bytes
    store.drop_pendings()
    assert not store.repair(chunk(0), version, memoryview(WHOLE))
    assert store.space().used_bytes < used_bytes and store.verify_chunk(chunk(0)) == []
    store.close()


def test_no_space_is_an_error_that_changes_nothing() -> None:
    shop = SimShop()
    store = staged(shop, appends=False)
    damage(shop, store)
    shop.disk.fill()
    for number in range(1, 100):  # what was taken before is used up
        (outcome,) = store.stage([write(ChunkId(chunk(0).inode, number), identity(1), bytes(200 * KIB))])
        if outcome.error is not None:
            break
    with pytest.raises(FsError, match="full"):
        store.repair(chunk(0), pending(store), memoryview(WHOLE))
    assert store.verify_chunk(chunk(0)) == [0]
    shop.disk.fill(64 * MIB)
    assert store.repair(chunk(0), pending(store), memoryview(WHOLE))
    assert store.verify_chunk(chunk(0)) == []
    store.close()
