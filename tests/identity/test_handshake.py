"""The handshake's two machines against each other, and against others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs3.errors import Fs3Error, IncompatibleVersion, InvalidRequest, Unauthenticated, WrongCluster
from fs3.identity.handshake import (
    Challenge,
    ClientHandshake,
    Credentials,
    Hello,
    NoBulkPlane,
    NodeCredentials,
    Plane,
    ServerHandshake,
    ServerIdentity,
    UserCredentials,
    VersionRange,
    Welcome,
    choose_version,
)
from fs3.identity.keys import ClusterKey
from fs3.identity.token import TokenClaims, UserToken, make_token
from fs3.ids import Generation, NodeId
from fs3.rpc.service import PeerIdentity
from fs3.wire.codec import decode, encode

KEY = ClusterKey("alpha", 1, bytes(range(32)))
NODE = NodeCredentials(KEY, NodeId(7), Generation(5))
TOKEN = make_token(KEY, TokenClaims(cluster="alpha", key_id=1, uid=1000, gid=100, key_generation=2))
USER = UserCredentials(TOKEN)
ONE = VersionRange(1, 1)
NONCE_A, NONCE_B = b"a" * 16, b"b" * 16


def _server(key: ClusterKey = KEY, minimum: int = 0, versions: VersionRange = ONE) -> ServerHandshake:
    identity = ServerIdentity(key, NodeId(1), Generation(3), lambda uid: minimum, bulk=True)
    return ServerHandshake(identity, NONCE_B, versions)


def _run(credentials: Credentials, server: ServerHandshake) -> tuple[ClientHandshake, PeerIdentity]:
    client = ClientHandshake(credentials, NONCE_A, Plane.BULK)
    peer = server.on_proof(client.on_challenge(server.on_hello(client.hello())))
    return client, peer


def test_node_and_server_prove_the_key() -> None:
    server = _server()
    client, peer = _run(NODE, server)
    assert peer == PeerIdentity("node", NodeId(7), is_admin=True, generation=Generation(5))
    assert client.server == PeerIdentity("node", NodeId(1), is_admin=True, generation=Generation(3))
    assert server.version == 1 and server.plane is Plane.BULK
    welcome = Welcome(in_flight_max=4, small_payload_bytes_max=9)
    assert client.on_welcome(encode(welcome)) == welcome


def test_user_proves_the_token_and_its_secret_does_not_travel() -> None:
    client = ClientHandshake(USER, NONCE_A)
    server = _server()
    sent = client.hello()
    proof = client.on_challenge(server.on_hello(sent))
    peer = server.on_proof(proof)
    assert peer == PeerIdentity("user", uid=1000, gid=100, key_generation=2)
    assert TOKEN.secret not in sent + proof


def test_foreign_cluster_is_told_to_both() -> None:
    other = ClusterKey("beta", 1, KEY.secret)
    with pytest.raises(WrongCluster):
        _run(NODE, _server(other))
    client = ClientHandshake(NODE, NONCE_A)
    challenge = Challenge(version=1, cluster="beta", nonce=NONCE_B, node=NodeId(1), generation=Generation(1))
    with pytest.raises(WrongCluster):
        client.on_challenge(encode(challenge))


def test_server_without_the_key_is_refused_by_the_client() -> None:
    with pytest.raises(Unauthenticated, match="server"):
        _run(NODE, _server(replace(KEY, secret=bytes(32))))
    with pytest.raises(Unauthenticated, match="server"):
        _run(USER, _server(replace(KEY, secret=bytes(32))))


@pytest.mark.parametrize("credentials", [NODE, USER])
def test_client_with_a_wrong_secret_is_refused(credentials: Credentials) -> None:
    server = _server()
    client = ClientHandshake(credentials, NONCE_A)
    client.on_challenge(server.on_hello(client.hello()))
    with pytest.raises(Unauthenticated, match="client"):
        server.on_proof(b"\x91\xc4\x20" + bytes(32))


def test_token_with_changed_claims_is_refused() -> None:
    forged = UserToken(
        encode(TokenClaims(cluster="alpha", key_id=1, uid=0, gid=0, is_admin=True)), TOKEN.secret
    )
    with pytest.raises(Unauthenticated):
        _run(UserCredentials(forged), _server())


def test_revoked_token_is_refused() -> None:
    _run(USER, _server(minimum=2))
    with pytest.raises(Unauthenticated, match="revoked"):
        _run(USER, _server(minimum=3))


def test_proof_of_another_connection_is_refused() -> None:
    client, first = ClientHandshake(NODE, NONCE_A), _server()
    proof = client.on_challenge(first.on_hello(client.hello()))
    identity = ServerIdentity(KEY, NodeId(1), Generation(3), lambda uid: 0)
    second = ServerHandshake(identity, b"c" * 16)
    second.on_hello(client.hello())
    with pytest.raises(Unauthenticated):
        second.on_proof(proof)


def test_proof_cannot_be_reflected() -> None:
    server = _server()
    challenge = decode(server.on_hello(ClientHandshake(NODE, NONCE_A).hello()), Challenge)
    with pytest.raises(Unauthenticated):
        server.on_proof(b"\x91\xc4\x20" + challenge.proof)


def test_older_and_newer_versions() -> None:
    assert choose_version(VersionRange(1, 3), VersionRange(2, 5)) == 3
    assert choose_version(VersionRange(2, 9), VersionRange(1, 4)) == 4
    with pytest.raises(IncompatibleVersion, match="client is too old"):
        choose_version(VersionRange(1, 1), VersionRange(2, 3))
    with pytest.raises(IncompatibleVersion, match="server is too old"):
        choose_version(VersionRange(4, 5), VersionRange(2, 3))
    with pytest.raises(InvalidRequest):
        choose_version(VersionRange(3, 1), VersionRange(1, 3))


def test_hello_of_a_newer_client_is_understood() -> None:
    hello = encode(Hello(versions=VersionRange(1, 9), cluster="alpha", nonce=NONCE_A, plane=1, key_id=1))
    longer = bytes([hello[0] + 1]) + hello[1:] + b"\xa3new"
    assert decode(_server().on_hello(longer), Challenge).version == 1


@given(st.binary(max_size=80))
def test_any_bytes_as_hello(data: bytes) -> None:
    with pytest.raises(Fs3Error):
        _server().on_hello(data)


def test_server_without_a_bulk_plane_says_so() -> None:
    identity = ServerIdentity(KEY, NodeId(1), Generation(3), lambda uid: 0)
    with pytest.raises(NoBulkPlane):
        _run(NODE, ServerHandshake(identity, NONCE_B))


def test_proof_first_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        _server().on_proof(b"\x91\xc4\x00")
