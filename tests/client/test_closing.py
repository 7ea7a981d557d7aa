"""A client that is closed while calls are under way: each is told so, and none is told that it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fs3.client.filesystem import AsyncFileSystem
from fs3.errors import Fs3Error
from fs3.tasks import TaskScope
from tests.client.world import STORAGE_NODES, ClientWorld

MIB = 1 << 20
DATA = bytes(4 * MIB)
Call = Callable[[AsyncFileSystem, ClientWorld], Coroutine[Any, Any, None]]


def fall_silent(world: ClientWorld) -> None:
    """No storage node answers any more."""
    for number in range(1, STORAGE_NODES + 1):
        world.node(number).is_silent = True


async def read(fs: AsyncFileSystem, world: ClientWorld) -> None:
    async with await fs.open("/a") as file:
        fall_silent(world)
        await file.pread(len(DATA), 0)


async def write(fs: AsyncFileSystem, world: ClientWorld) -> None:
    async with await fs.open("/a", "r+b") as file:
        fall_silent(world)
        await file.pwrite(DATA, 0)


async def flush(fs: AsyncFileSystem, world: ClientWorld) -> None:
    async with await fs.open("/a", "r+b") as file:
        fall_silent(world)
        await file.write(DATA[: 2 * MIB])  # goes on behind
        await file.flush()


@pytest.mark.parametrize("call", [read, write, flush])
def test_a_call_under_way_fails_when_the_client_is_closed(call: Call) -> None:
    world = ClientWorld()

    async def whole() -> None:
        fs = world.filesystem()
        await fs.write_file("/a", DATA)
        application = TaskScope("application", lambda name, error: None)
        calling = application.start("call", call(fs, world))
        await asyncio.sleep(0.3)
        await fs.core.scope.aclose()
        with pytest.raises(Fs3Error) as caught:
            await calling
        assert "was stopped" in str(caught.value)

    world.run(whole())
