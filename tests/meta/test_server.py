"""Metadata services as servers: started, called over the wire, killed, started again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fs3.errors import (
    AccessDenied,
    DeadlineExceeded,
    MaybeApplied,
    SessionLost,
    Unauthenticated,
    Unavailable,
)
from fs3.identity.capability import CapabilitySigner, Rights
from fs3.ids import NodeId
from fs3.stubs.meta import MetaStub, Slots
from fs3.wire import meta as wire
from fs3.wire.meta import OpenMode
from tests.meta.cluster import Cluster
from tests.meta.world import KEY
from tests.sim.loop import run_virtual

MIB = 1 << 20
WRITE = OpenMode.READ | OpenMode.WRITE
FIRST = NodeId(10)


class Session:
    """A client: the real stub with its slots."""

    def __init__(self, cluster: Cluster, uid: int, **more: Any) -> None:
        self.cluster = cluster
        self.meta = MetaStub(cluster, cluster.caller(uid, **more), cluster.clock, cluster.rng)
        self.slots: Slots | None = None

    async def begin(self) -> Session:
        """Open the session."""
        answer = await self.meta.call(
            wire.OPEN_SESSION,
            wire.OpenSessionRequest(host="sim", request_nonce=self.cluster.rng.randbytes(16)),
            timeout_s=10,
        )
        self.slots = Slots(answer.session, answer.slot_count)
        return self

    async def mutate(self, method: Any, request: type[Any], timeout_s: float = 10, **fields: Any) -> Any:
        """A mutation in one of the slots."""
        assert self.slots is not None
        return await self.meta.mutate(
            self.slots, method, lambda m: request(mutation=m, **fields), timeout_s=timeout_s
        )

    async def read(self, method: Any, request: Any) -> Any:
        """Anything else."""
        return await self.meta.call(method, request, timeout_s=10)


def run(work: Callable[[Cluster], Awaitable[None]], meta_count: int = 2) -> None:
    """Run in a cluster that is up; nothing may have failed in the background."""
    cluster = Cluster(meta_count)

    async def whole() -> None:
        try:
            await cluster.start()
            await work(cluster)
        finally:
            await cluster.stop()

    run_virtual(whole(), cluster.loop)
    assert cluster.failures == []


def test_a_file_from_create_to_removal_over_the_wire() -> None:
    async def work(cluster: Cluster) -> None:
        client = await Session(cluster, 1000).begin()
        await client.mutate(wire.MKDIRS, wire.MkdirsRequest, path=wire.Path(b"d"))
        made = await client.mutate(wire.CREATE, wire.CreateRequest, path=wire.Path(b"d/f"), mode=WRITE)
        capability = CapabilitySigner(KEY).verify(made.capability, 0)
        assert capability.rights == Rights.READ | Rights.WRITE and capability.uid == 1000
        inode = made.attributes.inode
        await client.mutate(wire.SPILL, wire.SpillRequest, inode=inode, content_version=0)
        layout = made.attributes.layout
        assert client.slots is not None
        meta = cluster.metas[FIRST]
        assert meta.driver is not None
        chains = meta.driver.services.placement.chains_of(layout)
        cluster.chains.write(inode, layout, chains, 0, 5 * MIB, made.attributes.epoch, client.slots.session)
        closed = await client.mutate(
            wire.CLOSE, wire.CloseRequest, inode=inode, epoch=made.attributes.epoch, written_end_bytes=5 * MIB
        )
        assert closed.attributes.length_bytes == 5 * MIB
        cut = await client.mutate(
            wire.TRUNCATE, wire.TruncateRequest, path=wire.Path(b"d/f"), length_bytes=MIB + 1
        )
        assert cluster.chains.end_now(inode, layout).length_bytes == cut.attributes.length_bytes == MIB + 1
        listed = await client.read(wire.LIST, wire.ListRequest(path=wire.Path(b"d"), with_attributes=True))
        assert listed.entries[0].attributes == cut.attributes
        await client.mutate(wire.REMOVE, wire.RemoveRequest, path=wire.Path(b"d"), recursive=True)
        await asyncio.sleep(10)
        assert cluster.chains.chunks == {}

    run(work)


def test_clients_fail_over_and_what_they_repeat_happens_once() -> None:
    async def work(cluster: Cluster) -> None:
        client = await Session(cluster, 0, is_admin=True).begin()
        made = 0
        for number in range(40):
            if number == 15:
                cluster.net.crash("meta10")
                await cluster.metas[FIRST].stop()
            if number == 25:
                await cluster.start_meta(FIRST)
            answer = await client.mutate(
                wire.CREATE,
                wire.CreateRequest,
                path=wire.Path(b"f%d" % number),
                exclusive=True,
                mode=OpenMode(0),
                content=b"x",
            )
            made += answer.created
        assert made == 40
        listed = await client.read(wire.LIST, wire.ListRequest(path=wire.Path(b"")))
        assert len(listed.entries) == 40
        health = cluster.metas[FIRST].health()
        assert health["ok"] and health["generation"] == 2 and health["tables"] == 1

    run(work)


def test_a_client_that_is_gone_is_settled() -> None:
    async def work(cluster: Cluster) -> None:
        client, other = await Session(cluster, 0).begin(), await Session(cluster, 0).begin()
        made = await client.mutate(wire.CREATE, wire.CreateRequest, path=wire.Path(b"f"), mode=WRITE)
        inode, layout = made.attributes.inode, made.attributes.layout
        await client.mutate(wire.SPILL, wire.SpillRequest, inode=inode, content_version=0)
        meta = cluster.metas[FIRST]
        assert meta.driver is not None and client.slots is not None and other.slots is not None
        chains = meta.driver.services.placement.chains_of(layout)
        cluster.chains.write(inode, layout, chains, 0, 3 * MIB, made.attributes.epoch, client.slots.session)
        for _ in range(20):
            await other.read(wire.RENEW_SESSION, wire.RenewSessionRequest(session=other.slots.session))
            await asyncio.sleep(5)
        found = await other.read(wire.STAT, wire.StatRequest(path=wire.Path(b"f")))
        assert (found.attributes.length_bytes, found.attributes.settling) == (3 * MIB, False)
        with pytest.raises(SessionLost):
            await client.mutate(wire.MKDIRS, wire.MkdirsRequest, path=wire.Path(b"x"))

    run(work)


def test_identity_over_the_wire() -> None:
    async def work(cluster: Cluster) -> None:
        alice, bob = await Session(cluster, 1000).begin(), await Session(cluster, 1001).begin()
        await alice.mutate(wire.MKDIRS, wire.MkdirsRequest, path=wire.Path(b"a"), permissions=0o700)
        with pytest.raises(AccessDenied):
            await bob.read(wire.LIST, wire.ListRequest(path=wire.Path(b"a")))
        act_as = wire.ActAs(1000, 1000)
        with pytest.raises(AccessDenied):
            await bob.read(wire.LIST, wire.ListRequest(path=wire.Path(b"a"), act_as=act_as))
        assert alice.slots is not None
        bob.slots = alice.slots  # a session that is not one's own
        with pytest.raises(Unauthenticated):
            await bob.mutate(wire.MKDIRS, wire.MkdirsRequest, path=wire.Path(b"b"))

    run(work)


def test_a_chain_that_is_away_is_told_as_not_finished() -> None:
    async def work(cluster: Cluster) -> None:
        client = await Session(cluster, 0).begin()
        made = await client.mutate(wire.CREATE, wire.CreateRequest, path=wire.Path(b"f"), mode=WRITE)
        await client.mutate(wire.SPILL, wire.SpillRequest, inode=made.attributes.inode, content_version=0)
        await client.mutate(
            wire.SYNC,
            wire.CloseRequest,
            inode=made.attributes.inode,
            epoch=made.attributes.epoch,
            written_end_bytes=5,
            keep_open=True,
        )
        cluster.net.cut("meta10", "storage")
        cluster.net.cut("meta11", "storage")
        with pytest.raises(MaybeApplied):
            await client.mutate(
                wire.TRUNCATE, wire.TruncateRequest, path=wire.Path(b"f"), length_bytes=0, timeout_s=8
            )
        cluster.net.heal()
        opened = await client.mutate(
            wire.OPEN, wire.OpenRequest, path=wire.Path(b"f"), mode=WRITE, timeout_s=20
        )
        assert opened.attributes.epoch > made.attributes.epoch

    run(work)


def test_a_start_without_the_store_says_so_and_can_be_stopped() -> None:
    cluster = Cluster(1)

    def away() -> None:
        raise Unavailable("away")

    async def work() -> None:
        try:
            await cluster._serve("mgmtd", "mgmtd:1", cluster._mgmtd_routes())
            cluster.kv_faults.at_read = away  # type: ignore[method-assign]
            with pytest.raises(DeadlineExceeded):
                await cluster.start_meta(FIRST)
            await cluster.metas[FIRST].stop()
            assert cluster.metas[FIRST].health() == {"ok": False, "state": "starting"}
        finally:
            await cluster.stop()

    run_virtual(work(), cluster.loop)


def test_a_taken_address_is_told_and_the_half_started_service_can_be_stopped() -> None:
    cluster = Cluster(2)

    async def work() -> None:
        try:
            await cluster.start()
            cluster.meta_nodes[NodeId(12)] = cluster.meta_nodes[FIRST]
            with pytest.raises(OSError, match=r"."):
                await cluster.start_meta(NodeId(12))
        finally:
            await cluster.stop()

    run_virtual(work(), cluster.loop)


def test_a_stop_during_a_cut_is_no_bug_and_another_service_finishes_it() -> None:
    async def work(cluster: Cluster) -> None:
        client = await Session(cluster, 1000).begin()
        made = await client.mutate(wire.CREATE, wire.CreateRequest, path=wire.Path(b"f"), mode=WRITE)
        inode, layout = made.attributes.inode, made.attributes.layout
        await client.mutate(wire.SPILL, wire.SpillRequest, inode=inode, content_version=0)
        meta = cluster.metas[FIRST]
        assert meta.driver is not None and client.slots is not None
        chains = meta.driver.services.placement.chains_of(layout)
        cluster.chains.write(inode, layout, chains, 0, 5 * MIB, made.attributes.epoch, client.slots.session)
        for node in cluster.meta_nodes:
            cluster.net.cut(f"meta{node}", "storage")
        request = wire.TruncateRequest
        cut = asyncio.create_task(
            client.mutate(wire.TRUNCATE, request, path=wire.Path(b"f"), length_bytes=MIB, timeout_s=60)
        )
        await asyncio.sleep(1)
        for node in cluster.meta_nodes:  # whichever has it
            await cluster.metas[node].stop()
            cluster.net.mend(f"meta{node}", "storage")
            await cluster.start_meta(node)
        assert (await cut).attributes.length_bytes == MIB
        assert cluster.chains.end_now(inode, layout).length_bytes == MIB

    run(work)
