"""Who may do what: each method refused to whom it must be, over the wire."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fs3.errors import (
    Busy,
    CapabilityExpired,
    CorruptData,
    InvalidRequest,
    SessionLost,
    StaleFile,
    StaleRouting,
    Unauthenticated,
)
from fs3.identity.capability import Rights
from fs3.identity.handshake import NodeCredentials
from fs3.identity.key_file import system_nonce
from fs3.ids import (
    ChainVersion,
    ChunkId,
    ClientSessionId,
    Epoch,
    Generation,
    InodeId,
    NodeId,
    UpdateVersion,
)
from fs3.rng import Rng
from fs3.rpc.client import RpcClient
from fs3.rpc.network import SystemNetwork
from fs3.rpc.service import Method
from fs3.storage.sums import sums_of
from fs3.wire.chunk import Identity, Update, UpdateKind, WriterTag
from fs3.wire.storage import (
    CUT,
    DROP_EXPIRED,
    END_SESSION,
    QUERY_LENGTH,
    QUERY_VERSION,
    RAISE_EPOCH,
    SPACE,
    UPDATE,
    CutRequest,
    DropExpiredRequest,
    EndSessionRequest,
    Expired,
    QueryLengthRequest,
    QueryVersionRequest,
    RaiseEpochRequest,
    SpaceRequest,
    UpdateRequest,
    WriteRequest,
)

from .storage_cluster import CHAIN, FAR_MS, INODE, KEY, MIB, SESSION, StorageCluster, User, storage_cluster

META = NodeId(50)


def node_client(cluster: StorageCluster, node: NodeId = META, generation: int = 1) -> RpcClient:
    """A caller with a node's identity."""
    return RpcClient(
        NodeCredentials(KEY, node, Generation(generation)),
        SystemNetwork(),
        rng=Rng(2),
        make_nonce=system_nonce,
        on_failure=lambda name, error: cluster.failures.append((name, error)),
    )


def _update(cluster: StorageCluster, data: bytes = b"x", **changes: Any) -> UpdateRequest:
    update = Update(
        chunk=ChunkId(INODE, 0),
        identity=Identity(cluster.version, UpdateVersion(1), WriterTag(SESSION, 0, 1)),
        kind=UpdateKind.WRITE,
        length_bytes=len(data),
        sums=sums_of(memoryview(data), 0),
        chunk_size_bytes=MIB,
    )
    values: dict[str, Any] = {
        "chain": CHAIN,
        "chain_version": cluster.version,
        "sender": cluster.target(1),
        "update": update,
    } | changes
    return UpdateRequest(**values)


def _node_requests(cluster: StorageCluster) -> list[tuple[Method[Any, Any], Any, tuple[bytes, ...]]]:
    chain: dict[str, Any] = {"chain": CHAIN, "chain_version": cluster.version}
    return [
        (UPDATE, _update(cluster), (b"x",)),
        (QUERY_VERSION, QueryVersionRequest(**chain, chunks=(ChunkId(INODE, 0),)), ()),
        (RAISE_EPOCH, RaiseEpochRequest(**chain, inode=INODE, epoch=Epoch(3)), ()),
        (CUT, CutRequest(**chain, inode=INODE, epoch=Epoch(0), first_removed=0), ()),
        (QUERY_LENGTH, QueryLengthRequest(**chain, inode=INODE), ()),
        (END_SESSION, EndSessionRequest(**chain, session=SESSION), ()),
        (SPACE, SpaceRequest(), ()),
        (DROP_EXPIRED, DropExpiredRequest(**chain, records=Expired()), ()),
    ]


async def test_what_nodes_ask_is_refused_to_users(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path, 1, with_bulk=False) as cluster:
        user = User(cluster)
        for method, request, payload in _node_requests(cluster):
            with pytest.raises(Unauthenticated):
                await user.rpc.call(cluster.addresses[1], method, request, timeout_s=5, payload=payload)
        await user.close()


Case = tuple[dict[str, Any], type[Exception]]
CAPABILITIES: dict[str, Case] = {
    "another file's": ({"inode": InodeId(5)}, Unauthenticated),
    "for reading only": ({"rights": Rights.READ}, Unauthenticated),
    "of another epoch": ({"epoch": Epoch(4)}, CapabilityExpired),
}


@pytest.mark.parametrize("name", CAPABILITIES)
async def test_a_write_under_the_wrong_capability(tmp_path: Path, name: str) -> None:
    changes, expected = CAPABILITIES[name]
    async with storage_cluster(tmp_path, 1, with_bulk=False) as cluster:
        user = User(cluster)
        await user.present(capability=user.capability(**changes))
        with pytest.raises(expected):
            await user.write(b"data")
        await user.close()


async def test_capabilities_end_are_revoked_and_belong_to_one_user(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path, 1, with_bulk=False) as cluster:
        user, thief = User(cluster), User(cluster, uid=1001)
        with pytest.raises(CapabilityExpired):
            await user.write(b"never presented")
        with pytest.raises(Unauthenticated):
            await thief.present(capability=user.capability())
        with pytest.raises(Unauthenticated):
            await user.present(capability=user.capability(session=ClientSessionId(7777)))
        with pytest.raises(Unauthenticated):
            await user.present(capability=user.capability()[:-1] + b"!")
        with pytest.raises(CapabilityExpired):
            await user.present(capability=user.capability(expires_ms=cluster.time_ms))
        await user.present()
        await user.write(b"mine")
        with pytest.raises(Unauthenticated):
            await thief.write(b"with somebody else's number")
        sink = await thief.read_items([thief.item(0, 0, 4)], at=1)
        assert sink.results[0] is not None
        assert sink.results[0].code == Unauthenticated.code
        cluster.time_ms = FAR_MS
        with pytest.raises(CapabilityExpired):
            await user.write(b"too late")
        cluster.time_ms = 1000
        await user.present()
        cluster.routing = msgspec.structs.replace(
            cluster.routing, key_generations={user.uid: 1}, version=cluster.routing.version + 1
        )
        with pytest.raises(Unauthenticated):
            await user.write(b"revoked")
        await user.close()
        await thief.close()


Spoil = Callable[[WriteRequest], WriteRequest]
_set = msgspec.structs.replace
BAD_WRITES: dict[str, tuple[Spoil, type[Exception]]] = {
    "beyond the chunk": (lambda r: _set(r, offset_bytes=MIB), InvalidRequest),
    "negative offset": (lambda r: _set(r, offset_bytes=-1), InvalidRequest),
    "negative length": (lambda r: _set(r, length_bytes=-4), InvalidRequest),
    "other length": (lambda r: _set(r, length_bytes=5), InvalidRequest),
    "no sums": (lambda r: _set(r, sums=()), InvalidRequest),
    "wrong sum": (lambda r: _set(r, sums=(1,)), CorruptData),
    "tiny chunks": (lambda r: _set(r, chunk_size_bytes=100), InvalidRequest),
    "huge chunks": (lambda r: _set(r, chunk_size_bytes=1 << 40), InvalidRequest),
    "reserved session": (lambda r: _set(r, session=ClientSessionId(1)), InvalidRequest),
    "channel above the bound": (lambda r: _set(r, channel=256), InvalidRequest),
    "removal with bytes": (lambda r: _set(r, kind=UpdateKind.REMOVE), InvalidRequest),
    "older chain version": (lambda r: _set(r, chain_version=ChainVersion(0)), StaleRouting),
    "newer chain version": (lambda r: _set(r, chain_version=ChainVersion(9)), StaleRouting),
    "another chain": (lambda r: _set(r, chain=9), StaleRouting),
}


async def test_writes_that_cannot_be(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path, 2, with_bulk=False) as cluster:
        user = User(cluster)
        await user.present()
        for name, (spoil, expected) in BAD_WRITES.items():
            bad = spoil(user.request(b"data"))
            with pytest.raises(expected):
                await user.send(bad, b"data")
            assert not cluster.servers[1].target.store.pendings(), name
        with pytest.raises(StaleRouting):
            await user.send(user.request(b"data"), b"data", to=2)
        sink = await user.read_items([user.item(0, 0, 100)], at=1)
        assert sink.data == [b""]
        for items in ([], [user.item(0, -1, 5)], [user.item(0, 0, 1 << 40)], [user.item(0, 0, 1)] * 1025):
            with pytest.raises(InvalidRequest):
                await user.read_items(items, at=1)
        await user.close()


async def test_an_update_comes_from_the_predecessor_in_its_generation(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path, 2, with_bulk=False) as cluster:
        cases = [(NodeId(7), 1), (NodeId(1), 9)]
        for node, generation in cases:
            caller = node_client(cluster, node, generation)
            with pytest.raises(StaleRouting):
                await caller.call(
                    cluster.addresses[2], UPDATE, _update(cluster), timeout_s=5, payload=(b"x",)
                )
            await caller.aclose()
        caller = node_client(cluster, NodeId(1), 1)
        with pytest.raises(CorruptData):
            await caller.call(cluster.addresses[2], UPDATE, _update(cluster), timeout_s=5, payload=(b"y",))
        with pytest.raises(StaleRouting):
            await caller.call(
                cluster.addresses[2],
                RAISE_EPOCH,
                RaiseEpochRequest(chain=CHAIN, chain_version=ChainVersion(5), inode=INODE, epoch=Epoch(3)),
                timeout_s=5,
            )
        await caller.aclose()
        meta = node_client(cluster)
        with pytest.raises(StaleRouting, match="not the head"):
            await meta.call(
                cluster.addresses[2],
                RAISE_EPOCH,
                RaiseEpochRequest(chain=CHAIN, chain_version=cluster.version, inode=INODE, epoch=Epoch(3)),
                timeout_s=5,
            )
        await meta.aclose()


async def test_a_retry_is_recognised_and_older_requests_are_refused(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path, 3, with_bulk=False) as cluster:
        user = User(cluster)
        await user.present()
        first = user.request(b"one")
        answer = await user.send(first, b"one")
        assert await user.send(first, b"one") == answer
        second = user.request(b"two")
        await user.send(second, b"two")
        with pytest.raises(InvalidRequest, match="is over"):
            await user.send(first, b"one")
        assert await user.read(0, 0, 10, at=2) == b"two"
        await user.close()


async def test_an_epoch_raised_refuses_older_writes(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path, 3, with_bulk=False) as cluster:
        user, meta = User(cluster), node_client(cluster)
        await user.present()
        await user.write(b"before")
        chain: dict[str, Any] = {"chain": CHAIN, "chain_version": cluster.version}
        request = RaiseEpochRequest(**chain, inode=INODE, epoch=Epoch(2))
        answer = await meta.call(cluster.addresses[1], RAISE_EPOCH, request, timeout_s=5)
        assert answer.epoch == 2
        lower = RaiseEpochRequest(**chain, inode=INODE, epoch=Epoch(1))
        assert (await meta.call(cluster.addresses[1], RAISE_EPOCH, lower, timeout_s=5)).epoch == 2
        for server in cluster.servers.values():
            assert server.target.store.epoch(INODE) == 2
        with pytest.raises(StaleFile):
            await user.write(b"after")
        await user.present(capability=user.capability(epoch=Epoch(2)))
        await user.write(b"AFTER", epoch=Epoch(2))
        assert await user.read(0, 0, 10, at=3) == b"AFTERe"
        await user.close()
        await meta.aclose()


async def test_a_hole_that_a_cut_made_is_no_zeros_to_whoever_opened_before(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path, 3, with_bulk=False) as cluster:
        user, meta = User(cluster), node_client(cluster)
        await user.present()
        await user.write(b"content", 1)
        chain: dict[str, Any] = {"chain": CHAIN, "chain_version": cluster.version}
        raising = RaiseEpochRequest(**chain, inode=INODE, epoch=Epoch(1))
        await meta.call(cluster.addresses[1], RAISE_EPOCH, raising, timeout_s=5)
        assert await user.read(1, 0, 7, at=3) == b"content"
        cut = CutRequest(**chain, inode=INODE, epoch=Epoch(1), first_removed=0, chunk_size_bytes=MIB)
        await meta.call(cluster.addresses[1], CUT, cut, timeout_s=5)
        for at in (1, 2, 3):
            for chunk in (0, 1):
                sink = await user.read_items([user.item(chunk, 0, 7)], at=at)
                assert sink.results[0] is not None and sink.results[0].code == StaleFile.code
        await user.present(capability=user.capability(epoch=Epoch(1)))
        assert await user.read(1, 0, 7, at=3) == b""
        await user.close()
        await meta.aclose()


async def test_a_session_that_is_over_is_refused(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path, 3, with_bulk=False) as cluster:
        user, meta = User(cluster), node_client(cluster)
        await user.present()
        request = user.request(b"alive")
        await user.send(request, b"alive")
        ending = EndSessionRequest(chain=CHAIN, chain_version=cluster.version, session=SESSION)
        for _ in range(2):
            await meta.call(cluster.addresses[1], END_SESSION, ending, timeout_s=5)
        for server in cluster.servers.values():
            assert server.target.store.session_ended(SESSION)
            assert server.target.store.dedup(SESSION, 0) is None
        with pytest.raises(SessionLost):
            await user.send(request, b"alive")
        with pytest.raises(SessionLost):
            await user.write(b"dead")
        await user.close()
        await meta.aclose()


async def test_cut_and_length(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path, 3, with_bulk=False) as cluster:
        user, meta = User(cluster), node_client(cluster)
        await user.present()
        for number in range(6):
            await user.write(os.urandom(1000 + number), number)
        chain: dict[str, Any] = {"chain": CHAIN, "chain_version": cluster.version}
        asked = QueryLengthRequest(**chain, inode=INODE)
        end = await meta.call(cluster.addresses[1], QUERY_LENGTH, asked, timeout_s=5)
        assert (end.chunk_index, end.length_bytes, end.chunk_count) == (5, 1005, 6)
        cut = CutRequest(
            **chain,
            inode=INODE,
            epoch=Epoch(1),
            first_removed=3,
            boundary_length_bytes=500,
            max_count=2,
            chunk_size_bytes=MIB,
        )
        with pytest.raises(InvalidRequest, match="not in force"):
            await meta.call(cluster.addresses[1], CUT, cut, timeout_s=5)
        raising = RaiseEpochRequest(**chain, inode=INODE, epoch=Epoch(1))
        await meta.call(cluster.addresses[1], RAISE_EPOCH, raising, timeout_s=5)
        counts = []
        for _ in range(3):
            answer = await meta.call(cluster.addresses[1], CUT, cut, timeout_s=5)
            counts.append((answer.removed_count, answer.more))
        assert counts == [(2, True), (1, False), (0, False)]
        end = await meta.call(cluster.addresses[1], QUERY_LENGTH, asked, timeout_s=5)
        assert (end.chunk_index, end.length_bytes, end.chunk_count) == (2, 500, 3)
        await user.present(capability=user.capability(epoch=Epoch(1)))
        await user.present(capability=user.capability(epoch=Epoch(1)))
        assert await user.read(4, 0, MIB, at=3) == b""
        assert await user.read(4, 0, MIB, at=3) == b""
        old = msgspec.structs.replace(cut, epoch=Epoch(0))
        with pytest.raises(StaleFile):
            await meta.call(cluster.addresses[1], CUT, old, timeout_s=5)
        space = await meta.call(cluster.addresses[2], SPACE, SpaceRequest(), timeout_s=5)
        assert space.targets[0].chunk_count == 3
        assert space.targets[0].chain == CHAIN
        await user.close()
        await meta.aclose()


async def test_one_request_a_channel_at_a_time(tmp_path: Path) -> None:
    async with storage_cluster(tmp_path, 2, with_bulk=False) as cluster:
        user = User(cluster)
        await user.present()
        runner = cluster.servers[1].target
        first = user.request(b"one")
        error = runner.replica._channels.enter(WriterTag(SESSION, 0, 1), ended=False)
        assert error is None
        with pytest.raises(Busy):
            await user.send(first, b"one")
        runner.replica._channels.leave(WriterTag(SESSION, 0, 1))
        await user.send(first, b"one")
        await user.close()
