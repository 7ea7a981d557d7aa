"""Real nodes: a member that comes back has, when it says UPTODATE, exactly what the chain has."""

from __future__ import annotations

from pathlib import Path

import pytest

from fs3.errors import MaybeApplied
from fs3.wire.chunk import UpdateKind

from .resync_shop import chain_of, chunk
from .storage_cluster import MIB, until


async def test_a_member_with_an_empty_disk_gets_everything(tmp_path: Path) -> None:
    async with chain_of(tmp_path) as c:
        for number in range(12):
            await c.user.write(bytes([number]) * (1000 * number + 1), number)
        await c.user.write(b"x" * MIB, 12)
        await c.user.write(b"", 3, kind=UpdateKind.REMOVE)
        await c.user.write(b"", 4, kind=UpdateKind.REPLACE)
        await c.stop(3, empty=True)
        await c.user.write(b"written meanwhile", 13)
        await c.start(3)
        await c.synced(3)
        c.check_equal(1, 2, 3)
        assert c.committed(3)[chunk(3)].removed
        await c.all_serve()
        assert await c.user.read(12, 0, MIB, at=3) == b"x" * MIB
        assert await c.user.read(3, 0, 10, at=3) == b""
        answer = await c.user.write(b"again", 3)
        assert answer.result.identity.update_version == 3
        c.check_equal(1, 2, 3)


async def test_a_short_absence_moves_only_what_has_changed(tmp_path: Path) -> None:
    async with chain_of(tmp_path) as c:
        for number in range(40):
            await c.user.write(bytes([number]) * 65536, number)
        c.cluster.publish()
        await c.stop(3)
        for number in range(5):
            await c.user.write(b"changed" * 1000, number)
        await c.start(3)
        await c.synced(3)
        c.check_equal(1, 2, 3)
        assert c.value(2, "fs3_storage_resync_sent_bytes_total") <= 1.2 * 5 * 65536
        assert c.value(2, "fs3_storage_resync_chunks_total") == 10, "compared 5, copied 5"
        assert c.value(3, "fs3_storage_resync_received_bytes_total") == 5 * 65536
        await until(lambda: c.value(2, "fs3_storage_resync_jobs") == 0)


async def test_what_only_the_returning_member_staged_is_gone(tmp_path: Path) -> None:
    """``chain_model`` V1: nobody else has seen it, and the chunk has not changed since. As a SYNCING last
    member the old head would commit it all by itself."""
    async with chain_of(tmp_path) as c:
        await c.user.write(b"before", 0)
        await c.cluster.stop_node(2)
        with pytest.raises(MaybeApplied):
            await c.user.send(c.user.request(b"only here", 0), b"only here", timeout_s=1)
        assert c.store(1).pendings()
        await c.cluster.start_node(2)
        await c.cluster.stop_node(1)
        c.publish(2, 3)
        await c.cluster.start_node(1)
        c.publish(2, 3, 1, syncing=1)
        await c.synced(1)
        c.check_equal(2, 3, 1)
        assert c.content(1, chunk(0)) == b"before"
