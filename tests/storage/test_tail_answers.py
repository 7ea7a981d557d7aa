"""Real nodes: what the last serving member says is committed serves the read that asked, and no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from fs3.errors import MaybeApplied, Unavailable

from .resync_shop import Chain, chain_of, chunk
from .storage_cluster import until


def cut_forwards(c: Chain, number: int) -> Any:
    """Nothing that a member sends on arrives; returns what mends it."""
    forwarder: Any = c.server(number).target._forwarder
    before = forwarder._request

    def nothing(*_: object) -> None:
        raise Unavailable("cut off by the test")

    forwarder._request = nothing

    def mend() -> None:
        forwarder._request = before

    return mend


async def over(writing: Awaitable[object]) -> None:
    """The write ends: answered, or its patience is at an end on a slow machine."""
    with contextlib.suppress(MaybeApplied):
        await writing


async def test_an_answer_serves_one_read_only(tmp_path: Path) -> None:
    """The second read at 2 begins after another reader has seen the new version at 3."""
    async with chain_of(tmp_path) as c:
        await c.user.write(b"old", 0)
        mend = cut_forwards(c, 2)
        replica = c.server(2).target.replica
        heard = replica.on_forwarded

        def deaf(token: int, identity: object, content_sum: int, now_s: float) -> list[object]:
            replica.on_forward_failed(token, now_s)
            return []

        replica.on_forwarded = deaf
        writing = asyncio.ensure_future(c.user.send(c.user.request(b"new", 0), b"new", timeout_s=20))
        await until(lambda: bool(c.store(2).pendings()))
        assert await c.user.read(0, 0, 3, at=2) == b"old"
        mend()
        await until(lambda: c.content(3, chunk(0)) == b"new")
        assert c.store(2).pendings(), "it has not heard that this is committed"
        assert await c.user.read(0, 0, 3, at=3) == b"new"
        assert await c.user.read(0, 0, 3, at=2) == b"new"
        replica.on_forwarded = heard
        await over(writing)


async def test_each_read_of_a_pending_chunk_asks_anew(tmp_path: Path) -> None:
    async with chain_of(tmp_path) as c:
        await c.user.write(b"old", 0)
        mend = cut_forwards(c, 2)
        writing = asyncio.ensure_future(c.user.send(c.user.request(b"new", 0), b"new", timeout_s=20))
        await until(lambda: bool(c.store(2).pendings()))
        before = c.value(2, "fs3_storage_version_queries_total")
        reads = await asyncio.gather(*(c.user.read(0, 0, 3, at=2) for _ in range(3)))
        assert reads == [b"old"] * 3
        assert c.value(2, "fs3_storage_version_queries_total") == before + 3
        mend()
        await over(writing)
