"""Every method of every service, asked by those who may not: each is refused, over the wire.

The whole cluster runs in the simulated world. The table below says of each method who may call it; a method
that is missing from it fails the test, so a new one has to be thought about. Expired, foreign and outdated
capabilities are in ``tests/storage/test_access.py``, datagrams in the RPC layer's
``test_identity_over_the_wire.py``.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from fs3.errors import (
    AccessDenied,
    CapabilityExpired,
    Fs3Error,
    FsError,
    SessionLost,
    Unauthenticated,
    WrongCluster,
    from_wire,
)
from fs3.identity.handshake import Credentials, NodeCredentials, UserCredentials
from fs3.identity.keys import ClusterKey
from fs3.identity.token import TokenClaims, make_token
from fs3.ids import ChainId, ChainVersion, ChunkId, ClientSessionId, Epoch, Generation, InodeId, NodeId
from fs3.kv.faults import FaultRates
from fs3.rpc.client import RpcClient
from fs3.rpc.service import Method
from fs3.wire.chunk import UpdateKind
from fs3.wire.member import EXCHANGE
from fs3.wire.meta import META, OPEN_SESSION, ActAs, OpenSessionRequest
from fs3.wire.mgmtd import MGMTD
from fs3.wire.storage import STORAGE, ReadItem, ReadRequest, ReadResponse, WriteRequest
from tests.sim.cluster import KEY, PORT, World, WorldShape
from tests.sim.loop import SimLoop, run_virtual
from tests.sim.wires import LinkFaults

NODE, ADMIN, SESSION, USER = "a node", "an administrator", "the owner of the session", "any user"

WHO_MAY: dict[str, str] = {
    # mgmtd
    "get_routing": USER, "report": NODE, "create_chain_table": ADMIN, "status": USER, "issue_token": ADMIN,
    "revoke": ADMIN, "exchange": NODE,
    # storage
    "present": SESSION, "read": SESSION, "write": SESSION, "update": NODE, "query_version": NODE,
    "raise_epoch": NODE, "cut": NODE, "query_length": NODE, "end_session": NODE, "space": NODE,
    "drop_expired": NODE, "resync_begin": NODE, "resync_records": NODE, "resync_page": NODE,
    "resync_put": NODE, "resync_done": NODE, "list_chunks": NODE,
    # meta
    "open_session": USER, "renew_session": SESSION, "close_session": SESSION, "stat": USER, "list": USER,
    "statfs": USER, "open": SESSION, "create": SESSION, "close": SESSION, "sync": SESSION,
    "write_inline": SESSION, "spill": SESSION, "renew_capabilities": SESSION, "mkdirs": SESSION,
    "remove": SESSION, "rename": SESSION, "setattr": SESSION, "truncate": SESSION,
}  # fmt: skip
REFUSED = (Unauthenticated, AccessDenied, SessionLost, WrongCluster, CapabilityExpired)
UID, OTHER_UID = 1000, 2000


CHUNK = ChunkId(InodeId(1), 0)
SENSIBLE: dict[Any, Callable[[ClientSessionId], Any]] = {
    ReadRequest: lambda session: ReadRequest(
        session=session, items=(ReadItem(ChainId(1), ChainVersion(1), CHUNK, 0, 1, 1),)
    ),
    WriteRequest: lambda session: WriteRequest(
        chain=ChainId(1), chain_version=ChainVersion(1), chunk=CHUNK, kind=UpdateKind.TRUNCATE,
        offset_bytes=0, length_bytes=1, sums=(), session=session, channel=0, sequence=1, epoch=Epoch(0),
        chunk_size_bytes=1 << 20, capability=1,
    ),
}  # fmt: skip
"""Requests that are refused for their form before anybody asks who sends them."""


def example(kind: Any, session: ClientSessionId) -> Any:
    """Some value of a type: what a stranger would have to make up; sessions are somebody else's."""
    if hasattr(kind, "__supertype__"):
        return session if kind is ClientSessionId else example(kind.__supertype__, session)
    if kind in SENSIBLE:
        return SENSIBLE[kind](session)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return None
    if origin is tuple:
        return ()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind)
        needed = [f for f in msgspec.structs.fields(kind) if f.required or f.name in ("session", "mutation")]
        return kind(**{f.name: example(hints[f.name], session) for f in needed})
    if isinstance(kind, type) and issubclass(kind, tuple):
        return typing.cast("Any", kind)(*[1] * len(kind.__annotations__))  # a NamedTuple of numbers
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next(iter(kind))
    return {int: 1, str: "x", bytes: b"x", bool: False, float: 1.0, dict: {}}[kind]


def test_every_method_is_in_the_table() -> None:
    methods = [m.name for service in (META, MGMTD, STORAGE) for m in service.methods] + [EXCHANGE.name]
    assert sorted(methods) == sorted(WHO_MAY)


def user(uid: int, key: ClusterKey = KEY) -> UserCredentials:
    """The credentials of an ordinary user."""
    return UserCredentials(
        make_token(key, TokenClaims(cluster=key.cluster, key_id=key.key_id, uid=uid, gid=uid))
    )


def in_world(body: Callable[[World], Awaitable[None]]) -> None:
    """Run ``body`` in a cluster that serves."""

    async def main() -> None:
        world = World(1, WorldShape(client_count=1), LinkFaults(), FaultRates())
        await world.start()
        try:
            await body(world)
        finally:
            await world.stop_clients()
            await world.stop_servers()
        assert not world.failures

    run_virtual(main(), SimLoop())


async def outcome(client: RpcClient, address: str, method: Method[Any, Any], request: Any) -> Fs3Error | None:
    """What a call is refused with; None: it was done."""
    try:
        answer = await client.call(address, method, request, timeout_s=3)
    except Fs3Error as error:
        return error
    if isinstance(answer, ReadResponse):  # each item of a batch is refused for itself
        (result,) = answer.results
        return from_wire(result.code, 0, result.message, "") if result.code else None
    return None


def targets() -> list[tuple[str, Method[Any, Any]]]:
    """Every method, at a server that has it."""
    hosts = ((META, "meta0"), (MGMTD, "mgmtd0"), (STORAGE, "storage0"))
    found = [(f"{host}:{PORT}", method) for service, host in hosts for method in service.methods]
    return [*found, (f"storage0:{PORT}", EXCHANGE), (f"mgmtd0:{PORT}", EXCHANGE)]


def test_strangers_reach_no_method() -> None:
    """Wrong keys, keys of another cluster: refused before any method is named."""
    wrong = ClusterKey(KEY.cluster, 1, bytes(32))
    foreign = ClusterKey("elsewhere", 1, KEY.secret)
    strangers: list[Credentials] = [
        user(UID, wrong), user(UID, foreign), NodeCredentials(wrong, NodeId(5), Generation(1)),
        NodeCredentials(foreign, NodeId(5), Generation(1)),
    ]  # fmt: skip

    async def body(world: World) -> None:
        for i, credentials in enumerate(strangers):
            client = world.rpc(f"stranger{i}", credentials)
            for address, method in targets():
                request = example(method.request, ClientSessionId(16))
                error = await outcome(client, address, method, request)
                assert isinstance(error, (Unauthenticated, WrongCluster)), (i, method.name, error)
            await client.aclose()

    in_world(body)


def test_a_user_may_not_what_is_for_nodes_admins_and_other_sessions() -> None:
    async def body(world: World) -> None:
        owner, other = world.rpc("owner", user(UID)), world.rpc("other", user(OTHER_UID))
        opened = await owner.call(f"meta0:{PORT}", OPEN_SESSION, OpenSessionRequest(host="h"), timeout_s=5)
        for address, method in targets():
            request = example(method.request, opened.session)
            error = await outcome(other, address, method, request)
            if WHO_MAY[method.name] == USER:
                assert error is None or isinstance(error, FsError), (method.name, error)
            else:
                assert isinstance(error, REFUSED), (method.name, error)
        await owner.aclose()
        await other.aclose()

    in_world(body)


def test_nobody_acts_as_another_but_an_administrator() -> None:
    async def body(world: World) -> None:
        client = world.rpc("owner", user(UID))
        opened = await client.call(f"meta0:{PORT}", OPEN_SESSION, OpenSessionRequest(host="h"), timeout_s=5)
        tried = 0
        for method in META.methods:
            if "act_as" in {f.name for f in msgspec.structs.fields(method.request)}:
                request = example(method.request, opened.session)
                request = msgspec.structs.replace(request, act_as=ActAs(0, 0))
                error = await outcome(client, f"meta0:{PORT}", method, request)
                assert isinstance(error, REFUSED), (method.name, error)
                tried += 1
        assert tried >= 10
        await client.aclose()

    in_world(body)
