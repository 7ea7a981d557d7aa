"""Watches: they fire on a change, however it comes about, and end with what they hang on."""

from __future__ import annotations

import asyncio

import pytest

from fs3.errors import Unavailable
from fs3.kv.transaction import AtomicOp, Kv

from .engines import Engine

PATIENCE_S = 10.0


async def put(kv: Kv, key: bytes, value: bytes) -> None:
    txn = kv.transaction()
    txn.set(key, value)
    await txn.commit()


async def test_a_watch_fires_when_the_value_changes(engine: Engine, kv: Kv) -> None:
    other = await engine.client()
    await put(other, b"a", b"1")
    watch = await kv.watch(b"a", b"1")
    await put(other, b"b", b"1")
    await put(other, b"a", b"2")
    await asyncio.wait_for(watch, PATIENCE_S)


async def test_a_watch_fires_at_once_when_the_value_is_another_already(kv: Kv) -> None:
    await put(kv, b"a", b"2")
    await asyncio.wait_for(await kv.watch(b"a", b"1"), PATIENCE_S)
    await asyncio.wait_for(await kv.watch(b"b", b"1"), PATIENCE_S)
    await asyncio.wait_for(await kv.watch(b"a", None), PATIENCE_S)


@pytest.mark.parametrize("how", ["clear", "clear_range", "atomic", "stamp"])
async def test_a_watch_fires_for_every_kind_of_change(engine: Engine, kv: Kv, how: str) -> None:
    await put(kv, b"a", b"\x01")
    watch = await kv.watch(b"a", b"\x01")
    txn = (await engine.client()).transaction()
    if how == "clear":
        txn.clear(b"a")
    elif how == "clear_range":
        txn.clear_range(b"", b"b")
    elif how == "atomic":
        txn.atomic(AtomicOp.ADD, b"a", b"\x01")
    else:
        txn.set_versionstamped_value(b"a", b"", b"")
    await txn.commit()
    await asyncio.wait_for(watch, PATIENCE_S)


async def test_a_watch_on_an_absent_key_fires_when_it_comes(engine: Engine, kv: Kv) -> None:
    watch = await kv.watch(b"a", None)
    await put(await engine.client(), b"a", b"")
    await asyncio.wait_for(watch, PATIENCE_S)


async def test_many_watches_on_one_key_all_fire(engine: Engine, kv: Kv) -> None:
    other = await engine.client()
    watches = [await client.watch(b"a", None) for client in (kv, other) for _ in range(5)]
    await put(kv, b"a", b"1")
    for watch in watches:
        await asyncio.wait_for(watch, PATIENCE_S)


async def test_a_cancelled_watch_is_given_up(kv: Kv) -> None:
    watch = await kv.watch(b"a", None)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch, 0)
    await put(kv, b"a", b"1")


async def test_closing_ends_watches_and_everything_else(engine: Engine) -> None:
    kv = await engine.client()
    watch = await kv.watch(b"a", None)
    await kv.aclose()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(watch, PATIENCE_S)
    with pytest.raises(Unavailable):
        await kv.watch(b"a", None)
    txn = kv.transaction()
    with pytest.raises(Unavailable):
        await txn.get(b"a")
    txn.cancel()
    blind = kv.transaction()
    blind.set(b"a", b"1")
    with pytest.raises(Unavailable):
        await blind.commit()
