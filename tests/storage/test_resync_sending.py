"""What a resync source sends, over a real store: exactly the version it names, and no record too early."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fs3.errors import Busy
from fs3.ids import ChainId, ChainVersion, TargetId
from fs3.storage.resync.ledgers import channels_page
from fs3.storage.resync.plan import Put
from fs3.storage.resync.sending import _read
from fs3.wire.chunk import UpdateKind
from fs3.wire.storage import ResyncFrom

from .engine.shop import SimShop, apply, chunk, identity, write

SOURCE = ResyncFrom(chain=ChainId(1), chain_version=ChainVersion(2), sender=TargetId(1))


def runner(store: Any) -> Any:
    """As much of one as reading takes."""
    return SimpleNamespace(store=store)


def test_bytes_are_those_of_the_version_that_is_named() -> None:
    """Between the plan and its turn the chunk has gone on, to the same length."""
    store = SimShop().create()
    apply(store, write(chunk(0), identity(1), b"first"))
    planned = Put(UpdateKind.REPLACE, identity(1), 5)
    assert bytes(_read(runner(store), chunk(0), planned)[0]) == b"first"
    store.stage([write(chunk(0), identity(2, 2), b"later")])
    assert bytes(_read(runner(store), chunk(0), planned)[0]) == b"first", "the later one is only pending"
    store.commit(chunk(0), identity(2, 2))
    with pytest.raises(Busy):
        _read(runner(store), chunk(0), planned)
    store.close()


def test_the_record_of_a_pending_version_stays_here() -> None:
    """``chain_model`` V5: the receiver would answer a retry for a version that nobody may ever commit."""
    store = SimShop().create()
    store.stage([write(chunk(0), identity(1), b"pending", with_dedup=True)])
    assert channels_page(store, SOURCE, None) == (None, None)
    store.commit(chunk(0), identity(1))
    page, behind = channels_page(store, SOURCE, None)
    assert page is not None and behind is None
    assert [channel.result.identity for channel in page.channels] == [identity(1)]
    store.close()
