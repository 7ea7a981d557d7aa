"""Background work that cannot be done now is done later, and ends nobody."""

from __future__ import annotations

import asyncio

import pytest

from fs3.errors import FsError
from fs3.wire import meta as wire
from tests.meta.test_workers import MIB, Workers, leftovers
from tests.meta.world import CHAINS, World


def test_work_waits_while_a_disk_is_full() -> None:
    world = World()

    async def work() -> None:
        client, workers = await world.client(), Workers(world)
        for name in (b"removed", b"cut", b"settled"):
            opened = await client.chunked(name)
            client.write(opened, 0, 2 * MIB)
            if name != b"settled":
                await client.close(opened, 2 * MIB)
        other = await world.client()
        await client.call(wire.CLOSE_SESSION, wire.CloseSessionRequest(session=client.session))
        world.chains.full = dict.fromkeys(CHAINS)
        with pytest.raises(FsError, match="full"):
            await other.truncate(b"cut", 1)
        await other.remove(b"removed")
        for _ in range(3):
            await workers.turn()
            await asyncio.sleep(6)
        world.chains.full.clear()
        for _ in range(3):
            await workers.turn()
            await asyncio.sleep(6)
        assert not {"CUTQ", "STLQ", "RMVQ"} & leftovers(world).keys(), leftovers(world)
        assert sorted(sum(sizes.values()) for sizes in world.chains.chunks.values()) == [1, 2 * MIB]

    world.run(work())
