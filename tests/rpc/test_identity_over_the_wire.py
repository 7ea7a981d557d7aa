"""Who may speak, over real sockets and on both planes: each refusal is clear, counted, and costs no more."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs3.errors import Fs3Error, IncompatibleVersion, Unauthenticated, Unavailable, WrongCluster
from fs3.identity.datagram import NO_NONCE, Datagram, DatagramSigner, ReplayWindow
from fs3.identity.handshake import (
    ClientHandshake,
    Credentials,
    Hello,
    NodeCredentials,
    Plane,
    UserCredentials,
    VersionRange,
)
from fs3.identity.key_file import system_nonce
from fs3.identity.keys import ClusterKey
from fs3.identity.token import TokenClaims, UserToken, make_token
from fs3.ids import Generation, NodeId
from fs3.rpc.bulk_client import BulkClient
from fs3.rpc.bulk_connection import BulkServerSettings
from fs3.rpc.bulk_server import BulkServer
from fs3.rpc.dispatch import error_of
from fs3.rpc.framing import Kind, encode_frame
from fs3.rpc.network import SystemNetwork, split_address
from fs3.rpc.service import Call, Routes
from fs3.rpc.settings import ServerSettings
from fs3.wire.codec import encode
from tests.rpc.world import ECHO, KEY, NODE, Ask, Tell, calling, serving, until

TOKEN = make_token(
    KEY, TokenClaims(cluster="alpha", key_id=1, uid=1000, gid=100, groups=(7, 8), key_generation=2)
)
ADMIN = TokenClaims(cluster="alpha", key_id=1, uid=0, gid=0, is_admin=True, key_generation=9)


def _who_am_i(call: Call, ask: Ask) -> Tell:
    peer = call.peer
    return Tell(f"{peer.role} {peer.uid} {peer.gid} {peer.groups} {peer.is_admin}", peer.key_generation)


def _routes() -> Routes:
    routes = Routes()
    routes.add(ECHO, _who_am_i, in_thread=_who_am_i)
    return routes


async def _call(credentials: Credentials, where: str, plane: Plane) -> Tell:
    bulk = BulkClient(credentials, SystemNetwork(), make_nonce=system_nonce)
    async with calling(credentials, bulk=bulk) as client:
        return await client.call(where, ECHO, Ask(), timeout_s=5, bulk=plane is Plane.BULK)


def _node(**changes: Any) -> Credentials:
    return NodeCredentials(replace(KEY, **changes), NodeId(7), Generation(5))


STRANGERS: list[tuple[str, Credentials, type[Fs3Error]]] = [
    ("foreign cluster", _node(cluster="beta"), WrongCluster),
    ("wrong cluster key", _node(secret=bytes(32)), Unauthenticated),
    ("earlier cluster key", _node(key_id=2), Unauthenticated),
    ("wrong token secret", UserCredentials(UserToken(TOKEN.public, bytes(32))), Unauthenticated),
    ("other user's claims", UserCredentials(UserToken(encode(ADMIN), TOKEN.secret)), Unauthenticated),
    (
        "revoked token",
        UserCredentials(make_token(KEY, TokenClaims(cluster="alpha", key_id=1, uid=1000, gid=1))),
        Unauthenticated,
    ),
    (
        "token of another cluster",
        UserCredentials(
            make_token(ClusterKey("beta", 1, KEY.secret), TokenClaims(cluster="beta", key_id=1, uid=1, gid=1))
        ),
        WrongCluster,
    ),
]


@pytest.mark.parametrize("plane", list(Plane))
async def test_user_is_known_by_its_token(plane: Plane) -> None:
    async with serving(_routes(), bulk=BulkServer()) as (_, where):
        answer = await _call(UserCredentials(TOKEN), where, plane)
        assert (answer.text, answer.number) == ("user 1000 100 (7, 8) False", 2)
        answer = await _call(UserCredentials(make_token(KEY, ADMIN)), where, plane)
        assert answer.text == "user 0 0 () True"
        assert (await _call(NODE, where, plane)).text == "node -1 -1 () True"


@pytest.mark.parametrize("plane", list(Plane))
@pytest.mark.parametrize(("name", "credentials", "expected"), STRANGERS, ids=[s[0] for s in STRANGERS])
async def test_strangers(plane: Plane, name: str, credentials: Credentials, expected: type[Fs3Error]) -> None:
    bulk = BulkServer()
    async with serving(_routes(), bulk=bulk, minimum_key_generation=lambda uid: 2) as (server, where):
        with pytest.raises(expected):
            await _call(credentials, where, plane)
        await until(lambda: server.counters.connections == 0)
        if name != "wrong token secret" and name != "wrong cluster key" and "claims" not in name:
            assert server.counters.refused_handshakes == 1  # else it is the client that walks away
        assert bulk.counters.accepted == 0


@pytest.mark.parametrize("plane", list(Plane))
async def test_revocation_cuts_live_connections(plane: Plane) -> None:
    least = 2
    bulk_server = BulkServer()
    async with serving(_routes(), bulk=bulk_server, minimum_key_generation=lambda uid: least) as (
        server,
        where,
    ):
        user = UserCredentials(TOKEN)
        bulk = BulkClient(user, SystemNetwork(), make_nonce=system_nonce)
        async with calling(user, bulk=bulk) as client:
            is_bulk = plane is Plane.BULK
            await client.call(where, ECHO, Ask(), timeout_s=5, bulk=is_bulk)
            least = 3
            server.revalidate()
            await until(lambda: server.counters.connections + bulk_server.counters.connections == 0)
            await asyncio.sleep(0.11)  # longer than a connection counts as fresh
            with pytest.raises(Unauthenticated, match="revoked"):
                await client.call(where, ECHO, Ask(), timeout_s=5, bulk=is_bulk)


async def _say(where: str, data: bytes) -> bytes:
    """What a server answers to these bytes before it closes."""
    reader, writer = await asyncio.open_connection(*split_address(where))
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


def _hello(versions: VersionRange = VersionRange(1, 1), **changes: Any) -> bytes:  # noqa: B008  # frozen
    values: dict[str, Any] = {"cluster": "alpha", "nonce": bytes(16), "plane": 1, "key_id": 1}
    return encode_frame(Kind.HELLO, encode(Hello(versions=versions, **(values | changes))))


@pytest.mark.parametrize(
    ("versions", "who"),
    [(VersionRange(7, 9), "server is too old"), (VersionRange(0, 0), "client is too old")],
)
async def test_versions_with_nothing_in_common(versions: VersionRange, who: str) -> None:
    async with serving(_routes()) as (server, where):
        answer = await _say(where, _hello(versions))
        error = error_of(answer[36:])
        assert isinstance(error, IncompatibleVersion) and who in str(error)
        assert server.counters.refused_handshakes == 1


async def test_client_of_another_version_is_told() -> None:
    async with serving(_routes()) as (_, where):
        handshake = ClientHandshake(NODE, system_nonce(), Plane.SMALL, VersionRange(3, 4))
        error = error_of((await _say(where, encode_frame(Kind.HELLO, handshake.hello())))[36:])
        assert isinstance(error, IncompatibleVersion)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(100),
        encode_frame(Kind.REQUEST, encode(Ask()), method=ECHO.number, call=1),
        encode_frame(Kind.PROOF, b"\x91\xc4\x00"),
        encode_frame(Kind.HELLO, b"\x90"),
        encode_frame(Kind.HELLO, b"x" * 4096, payload_bytes=1 << 25),
        _hello(nonce=b"short"),
        _hello(plane=3),
        _hello(plane=2),
        _hello(token=b"\x93abc"),
        _hello() + encode_frame(Kind.PROOF, b"\x91\xc4\x00"),
        _hello() + _hello(),
    ],
)
async def test_bad_beginnings(data: bytes) -> None:
    async with serving(_routes(), settings=ServerSettings(handshake_s=0.5)) as (server, where):
        await _say(where, data)
        await until(lambda: server.counters.connections == 0)
        assert server.counters.refused_handshakes + server.counters.bad_frames == 1
        assert sum(row.ok_count for row in server.rows.values()) == 0
        assert (await _call(NODE, where, Plane.SMALL)).text.startswith("node")


async def test_connections_are_bounded() -> None:
    async with serving(_routes(), settings=ServerSettings(connections_max=3)) as (server, where):
        held = [await asyncio.open_connection(*split_address(where)) for _ in range(3)]
        await until(lambda: server.counters.connections == 3)
        with pytest.raises(Fs3Error, match="too many connections"):
            await _call(NODE, where, Plane.SMALL)
        for _, writer in held:
            writer.close()
        await until(lambda: server.counters.connections == 0)
        await _call(NODE, where, Plane.SMALL)


async def test_bulk_connections_are_bounded() -> None:
    bulk = BulkServer(BulkServerSettings(connections_max=1))
    async with serving(_routes(), bulk=bulk) as (_, where):
        mine = BulkClient(NODE, SystemNetwork(), make_nonce=system_nonce)
        async with calling(bulk=mine) as client:
            await client.call(where, ECHO, Ask(), timeout_s=5, bulk=True)
            with pytest.raises(Fs3Error, match="too many bulk connections"):
                await _call(NODE, where, Plane.BULK)


def _open_bulk(where: str) -> socket.socket:
    """A bulk connection that has proved itself, as a bare socket."""
    sock = socket.create_connection(split_address(where), 5)
    handshake = ClientHandshake(NODE, system_nonce(), Plane.BULK)
    sock.sendall(encode_frame(Kind.HELLO, handshake.hello()))
    challenge = sock.recv(4096)
    sock.sendall(encode_frame(Kind.PROOF, handshake.on_challenge(challenge[36:])))
    assert sock.recv(4096)[7] == Kind.WELCOME
    return sock


def _throw(where: str, chunks: list[bytes]) -> None:
    with _open_bulk(where) as sock, contextlib.suppress(ConnectionError, OSError):
        for chunk in chunks:
            sock.sendall(chunk)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=4), st.booleans())
def test_any_bytes_on_a_bulk_connection(chunks: list[bytes], begins_well: bool) -> None:
    async def run() -> None:
        bulk = BulkServer()
        async with serving(_routes(), bulk=bulk) as (_, where):
            first = encode_frame(Kind.REQUEST, encode(Ask()), method=ECHO.number, call=1)
            await asyncio.to_thread(_throw, where, [first, *chunks] if begins_well else chunks)
            await until(lambda: bulk.counters.connections == 0)
            assert bulk.buffers_taken == 0
            assert (await _call(NODE, where, Plane.BULK)).text.startswith("node")

    asyncio.run(run())


# --- datagrams ---


async def test_datagrams_signed_replayed_and_forged() -> None:
    signer, window = DatagramSigner(KEY), ReplayWindow()
    taken: list[int] = []
    refused: dict[str, int] = {}

    def on_datagram(data: bytes, sender: str) -> None:
        try:
            datagram = signer.open(data)
            if not window.accept(datagram.generation, datagram.sequence):
                raise Unauthenticated("replayed")
            taken.append(datagram.sequence)
        except Fs3Error as error:
            name = type(error).__name__
            refused[name] = refused.get(name, 0) + 1

    network = SystemNetwork()
    receiver = await network.open_datagrams("127.0.0.1:0", on_datagram)
    sender = await network.open_datagrams("127.0.0.1:0", lambda data, who: None)
    good = [
        signer.seal(Datagram(1, NodeId(2), Generation(1), sequence, NO_NONCE, b"beacon"))
        for sequence in (1, 2, 3)
    ]
    foreign = DatagramSigner(ClusterKey("beta", 1, KEY.secret)).seal(
        Datagram(1, NodeId(2), Generation(1), 9, NO_NONCE, b"beacon")
    )
    forged = DatagramSigner(replace(KEY, secret=bytes(32))).seal(
        Datagram(1, NodeId(2), Generation(1), 9, NO_NONCE, b"beacon")
    )
    for data in (*good, good[1], foreign, forged, b"junk", good[0][:50], good[2] + b"more"):
        sender.send(data, receiver.address)
    await until(lambda: len(taken) + sum(refused.values()) == 9)
    assert taken == [1, 2, 3]
    assert refused == {"Unauthenticated": 3, "WrongCluster": 1, "InvalidRequest": 2}
    for _ in range(3):
        sender.send(good[0], "127.0.0.1:9")  # nobody there: errors of the network are not ours
    with pytest.raises(Unavailable):
        sender.send(good[0], "nonsense")
    sender.close()
    sender.send(good[0], receiver.address)
    receiver.close()
    await asyncio.sleep(0)
