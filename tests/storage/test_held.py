"""Bytes of a request: nobody gets them back while the disk or a send uses them."""

from __future__ import annotations

import asyncio

import pytest

from fs3.storage.held import LoopBytes


async def test_a_handler_waits_until_its_bytes_are_unused() -> None:
    held = LoopBytes(memoryview(b"bytes"))
    held.use()
    held.use()
    waiting = asyncio.ensure_future(held.until_unused())
    await asyncio.sleep(0)
    held.free()
    await asyncio.sleep(0)
    assert not waiting.done() and held.is_used
    held.free()
    await waiting
    assert not held.is_used


async def test_whoever_is_cancelled_waits_all_the_same() -> None:
    held = LoopBytes(memoryview(b"bytes"))
    held.use()
    waiting = asyncio.ensure_future(held.until_unused())
    for _ in range(2):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    held.free()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_another_thread_may_be_the_last_user() -> None:
    held = LoopBytes(memoryview(b"bytes"))
    held.use()
    waiting = asyncio.ensure_future(held.until_unused())
    await asyncio.sleep(0)
    await asyncio.to_thread(held.free)
    await waiting
