"""Finishing files: who does it when several want to."""

from __future__ import annotations

import asyncio

import pytest

from fs3.errors import DeadlineExceeded, MaybeApplied
from fs3.ids import InodeId
from fs3.tasks import TaskScope
from fs3.wire import meta as wire
from tests.meta.world import CHAINS, World

MIB = 1 << 20
OPENERS = 20


async def _cut_waits(world: World) -> InodeId:
    """A file with a cut that its chains, which are away, have not made."""
    client = await world.client()
    opened = await client.chunked(b"f")
    client.write(opened, 0, 2 * MIB)
    await client.close(opened, 2 * MIB)
    world.chains.down = dict.fromkeys(CHAINS)
    request = wire.TruncateRequest(path=wire.Path(b"f"), mutation=client.mutation(), length_bytes=5)
    with pytest.raises(MaybeApplied):
        await client.call(wire.TRUNCATE, request)
    world.chains.calls.clear()
    return opened.attributes.inode


def test_of_many_who_want_a_file_at_rest_one_asks_its_chains() -> None:
    world = World()

    async def work() -> None:
        inode = await _cut_waits(world)
        world.chains.down.clear()
        began, go = asyncio.Event(), asyncio.Event()

        async def wait_there(_name: str) -> None:
            began.set()
            await go.wait()

        world.chains.before = [wait_there]
        deadline_s = world.clock.boot_s() + 10
        async with TaskScope("openers", lambda name, error: None) as scope:
            tasks = [scope.start("first", world.finisher.finish(inode, deadline_s))]
            await began.wait()
            tasks += [
                scope.start(f"{i}", world.finisher.finish(inode, deadline_s)) for i in range(1, OPENERS)
            ]
            await asyncio.sleep(1)
            assert world.chains.calls == ["raise_epoch"]
            go.set()
            await asyncio.gather(*tasks)
        assert world.chains.calls == ["raise_epoch", "cut", "raise_epoch"]

    world.run(work())


def test_whoever_waits_goes_on_when_the_other_is_stopped_and_gives_up_in_its_own_time() -> None:
    world = World()

    async def work() -> None:
        inode = await _cut_waits(world)
        now_s = world.clock.boot_s()
        async with TaskScope("openers", lambda name, error: None) as scope:
            first = scope.start("first", world.finisher.finish(inode, now_s + 30))
            await asyncio.sleep(0.1)
            hasty = scope.start("hasty", world.finisher.finish(inode, now_s + 1))
            patient = scope.start("patient", world.finisher.finish(inode, now_s + 20))
            with pytest.raises(DeadlineExceeded, match="not at rest yet"):
                await hasty
            world.chains.down.clear()
            first.cancel()
            await patient
            assert world.clock.boot_s() < now_s + 2
            assert first.cancelled()

    world.run(work())
