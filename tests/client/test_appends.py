"""Appends of one client whose handles come and go while answers are under way."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

import pytest

from fs3.wire.meta import CREATE
from tests.client.world import ClientWorld

MIB = 1 << 20
FIRST = b"f" * (2 * MIB)
LATE_S = 5.0


@pytest.mark.parametrize("is_cut", [False, True])
def test_an_opening_whose_answer_is_late_appends_after_what_was_appended_meanwhile(is_cut: bool) -> None:
    world = ClientWorld()
    real = world.call
    late: list[float] = []

    async def call(address: str, method: Any, *arguments: Any, **more: Any) -> Any:
        answer = await real(address, method, *arguments, **more)
        if method is CREATE and late:
            await asyncio.sleep(late.pop())  # it was answered before, and arrives after
        return answer

    async def work() -> None:
        async with world.filesystem() as fs:
            await fs.write_file("/a", FIRST)
            late.append(LATE_S)
            opening = asyncio.create_task(fs.open("/a", "ab"))
            await asyncio.sleep(LATE_S / 5)
            async with await fs.open("/a", "ab") as other:
                await other.write(b"one")
            if is_cut:
                await fs.truncate("/a", MIB)
                async with await fs.open("/a", "ab") as other:
                    await other.write(b"one")
            assert not opening.done()
            async with await opening as one:
                if not is_cut:
                    await one.write(b"two")
            assert await fs.read_file("/a") == (FIRST[:MIB] + b"one" if is_cut else FIRST + b"onetwo")
            assert not fs._core.files._left and not fs._core.files._ends

    with patch.object(world, "call", call):
        world.run(work())
