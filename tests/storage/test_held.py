"""Bytes of a request: nobody gets them back while the disk or a send uses them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fs3.storage.held import LoopBytes
from fs3.storage.hop import Hop, Outcome


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


async def test_a_send_is_given_up_when_another_begins_or_the_request_is_answered() -> None:
    held = LoopBytes(memoryview(b"bytes"))
    given_up: list[str] = []
    held.sending(lambda: given_up.append("first"))
    assert not given_up
    held.sending(lambda: given_up.append("second"))
    assert given_up == ["first"]
    await held.until_unused(is_answered=True)
    assert given_up == ["first", "second"] and held.is_answered
    held.sending(lambda: given_up.append("late"))
    assert given_up[2:] == ["second", "late"]


async def test_a_send_that_is_superseded_before_it_begins_is_given_up_then() -> None:
    hop = Hop(memoryview(b"bytes"))
    given_up: list[str] = []

    class Work:
        """Does what the mail says."""

        def lead_group(self) -> None: ...

        def give_up(self, hop: Hop) -> None: ...

        def forward_here(self, effect: Any) -> None:
            hop.sending(lambda: given_up.append(effect))
            hop.free()
            if effect == "second":
                hop.settle(Outcome(done, None))

    done: Any = "done"
    hop.forward("first")  # type: ignore[arg-type]
    hop.forward("second")  # type: ignore[arg-type]
    assert await asyncio.to_thread(hop.run, Work(), lambda: False) is done
    assert given_up == ["first", "first", "second"]  # at its begin, at the next one's, at the answer
