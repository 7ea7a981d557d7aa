"""The storage service over real sockets, disks and threads: three nodes, one chain."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from fs3.ids import ChainId

from .storage_cluster import CHAIN, MIB, User, storage_cluster


@pytest.mark.parametrize("with_bulk", [True, False])
async def test_what_is_written_is_read_at_every_member(tmp_path: Path, with_bulk: bool) -> None:
    async with storage_cluster(tmp_path, with_bulk=with_bulk) as cluster:
        user = User(cluster)
        await user.present()
        data = os.urandom(MIB)
        small = b"over the middle"
        answer = await user.write(data)
        assert answer.result.length_bytes == MIB
        assert answer.result.identity.update_version == 1
        answer = await user.write(small, 0, 70_000)
        assert answer.result.identity.update_version == 2
        expected = data[:70_000] + small + data[70_000 + len(small) :]
        for number in (1, 2, 3):
            assert await user.read(0, 0, MIB, at=number, bulk=with_bulk) == expected
            assert await user.read(0, 69_990, 100, at=number) == expected[69_990:70_090]
            assert await user.read(5, 0, 4096, at=number) == b""
        await user.close()


async def test_many_writers_at_once(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        datas = [os.urandom(65_537 + i) for i in range(24)]

        async def one(number: int) -> None:
            request = user.request(datas[number], number, channel=number)
            await user.send(request, datas[number])

        await asyncio.gather(*[one(i) for i in range(24)])
        for number in (1, 2, 3):
            items = [user.item(i, 0, MIB) for i in range(24)]
            for bulk in (False, True):
                sink = await user.read_items(items, at=number, bulk=bulk)
                assert sink.data == datas
        await user.close()


async def test_a_chain_that_names_two_targets_of_a_node_hurts_no_other(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path) as cluster:
        user = User(cluster)
        await user.present()
        await user.write(b"before")
        good, bad = cluster.routing.chains[CHAIN], ChainId(2)
        members = (good.members[0], *good.members)
        broken = msgspec.structs.replace(good, chain=bad, members=members)
        cluster.routing = msgspec.structs.replace(
            cluster.routing, version=cluster.routing.version + 1, chains={CHAIN: good, bad: broken}
        )
        for server in cluster.servers.values():
            for adopt in server.static.callbacks:
                adopt(cluster.routing)
        served = [list(server.targets.by_chain) for server in cluster.servers.values() if server.targets]
        assert served == [[CHAIN]] * 3
        assert any("chain left out" in str(event) for event in cluster.events)
        await user.write(b"after!")
        assert await user.read(0, 0, 10, at=3) == b"after!"
        await user.close()
