"""How two ends of a connection learn who the other is. PURE: one machine for each end.

::

    client                                        server
      HELLO      versions, cluster, who, nonce  ->
                                                <-  CHALLENGE  version, cluster, node, nonce, proof
      PROOF      proof                          ->
                                                <-  WELCOME    limits

A node proves the cluster key, a user the secret of a token; the server proves that it can derive the same.
Both proofs cover both nonces and what was said (the encoded HELLO, the fields of CHALLENGE), each under a
label of its own, so none can be replayed, reflected or moved to another connection.

Versions: each end states the range it speaks; the highest in common is used. HELLO is understood by every
version: fields are only ever appended to it, and the frame that carries it never changes.

Errors (both ends): WrongCluster, IncompatibleVersion (says who is older), Unauthenticated, InvalidRequest.

This authenticates connections, it does not encrypt them; TLS has its place where connections are opened
(``fs3.rpc.network``).

Source: design 7.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from ..errors import IncompatibleVersion, InvalidRequest, Unauthenticated, Unavailable, WrongCluster
from ..ids import Generation, NodeId
from ..rpc.service import PeerIdentity
from ..wire.codec import decode, encode
from .keys import NONCE_BYTES, ClusterKey, check_proof, proof
from .token import UserToken, decode_claims, token_secret


class NoBulkPlane(Unavailable):
    """The server answers everything on the small plane: the caller uses that one."""


class VersionRange(msgspec.Struct, frozen=True, array_like=True):
    """Protocol versions that one end speaks, both inclusive."""

    oldest: int
    newest: int


PROTOCOL = VersionRange(1, 1)
"""What this code speaks."""


class Plane(enum.IntEnum):
    """What a connection is for (design 5.3)."""

    SMALL = 1
    BULK = 2


class Hello(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """First message of a client. Fields are appended, never moved: all versions read it."""

    versions: VersionRange
    cluster: str
    nonce: bytes
    plane: int
    token: bytes = b""
    """A user: the public part of its token. Empty: a node."""
    node: NodeId = NodeId(0)
    generation: Generation = Generation(0)
    key_id: int = 0


class Challenge(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The server's answer to HELLO."""

    version: int
    cluster: str
    nonce: bytes
    node: NodeId
    generation: Generation
    proof: bytes = b""
    bulk: bool = False
    """Connections of the bulk plane are taken here."""


class Proof(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The client's proof."""

    proof: bytes


class Welcome(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Calls may follow. What the server allows on this connection."""

    in_flight_max: int
    """Calls that it answers at a time; more wait at the client."""
    small_payload_bytes_max: int
    """Longest payload of a request on this connection."""


@dataclass(frozen=True, slots=True)
class NodeCredentials:
    """A node of the cluster."""

    key: ClusterKey
    node: NodeId
    generation: Generation


@dataclass(frozen=True, slots=True)
class UserCredentials:
    """The holder of a token."""

    token: UserToken


Credentials = NodeCredentials | UserCredentials


def choose_version(client: VersionRange, server: VersionRange) -> int:
    """The highest version that both speak; IncompatibleVersion."""
    if client.oldest > client.newest:
        raise InvalidRequest(f"no version range: {client.oldest} … {client.newest}")
    version = min(client.newest, server.newest)
    if version < max(client.oldest, server.oldest):
        older = "client" if client.newest < server.oldest else "server"
        raise IncompatibleVersion(
            f"client speaks protocol versions {client.oldest} … {client.newest}, "
            f"server {server.oldest} … {server.newest}: the {older} is too old"
        )
    return version


def _proof(secret: bytes, label: bytes, hello: bytes, challenge: Challenge) -> bytes:
    # field by field: what a newer server appends to CHALLENGE does not reach an older client's sum
    said = f"{challenge.version}/{challenge.node}/{challenge.generation}/{challenge.cluster}"
    return proof(secret, label, hello, challenge.nonce, said.encode())


class ClientHandshake:
    """The client's end: ``hello``, then ``on_challenge``, then ``on_welcome``."""

    def __init__(
        self,
        credentials: Credentials,
        nonce: bytes,
        plane: Plane = Plane.SMALL,
        versions: VersionRange = PROTOCOL,
    ) -> None:
        assert len(nonce) == NONCE_BYTES, nonce
        self._versions = versions
        self._plane = plane
        self.server: PeerIdentity | None = None
        """Who the server is; known after ``on_challenge``."""
        if isinstance(credentials, NodeCredentials):
            self._cluster = credentials.key.cluster
            self._secret = credentials.key.derive("node handshake")
            hello = Hello(
                versions=versions,
                cluster=self._cluster,
                nonce=nonce,
                plane=plane,
                node=credentials.node,
                generation=credentials.generation,
                key_id=credentials.key.key_id,
            )
        else:
            claims = credentials.token.claims()
            self._cluster = claims.cluster
            self._secret = credentials.token.secret
            hello = Hello(
                versions=versions,
                cluster=self._cluster,
                nonce=nonce,
                plane=plane,
                token=credentials.token.public,
                key_id=claims.key_id,
            )
        self._hello = encode(hello)

    def hello(self) -> bytes:
        """Message of the HELLO frame."""
        return self._hello

    def on_challenge(self, message: bytes) -> bytes:
        """Check the server; the message of the PROOF frame."""
        challenge = decode(message, Challenge)
        if challenge.cluster != self._cluster:
            raise WrongCluster(f"server belongs to cluster {challenge.cluster!r}, not {self._cluster!r}")
        if not self._versions.oldest <= challenge.version <= self._versions.newest:
            raise IncompatibleVersion(f"server chose protocol version {challenge.version}")
        expected = _proof(self._secret, b"server", self._hello, challenge)
        check_proof(expected, challenge.proof, "the server's proof of the cluster key")
        if self._plane is Plane.BULK and not challenge.bulk:
            raise NoBulkPlane(f"node {challenge.node} has no bulk plane")
        self.server = PeerIdentity("node", challenge.node, generation=challenge.generation, is_admin=True)
        return encode(Proof(proof=_proof(self._secret, b"client", self._hello, challenge)))

    def on_welcome(self, message: bytes) -> Welcome:
        """The server's limits."""
        assert self.server is not None, "WELCOME before CHALLENGE"
        return decode(message, Welcome)


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What a server proves, and how it knows revoked users."""

    key: ClusterKey
    node: NodeId
    generation: Generation
    minimum_key_generation: Callable[[int], int]
    """uid -> least valid key generation of its tokens (design 7, revocation)."""
    bulk: bool = False
    """The bulk plane is offered."""

    def check_revoked(self, peer: PeerIdentity) -> None:
        """Unauthenticated when the user's token has been revoked since."""
        if peer.role == "user" and peer.key_generation < self.minimum_key_generation(peer.uid):
            raise Unauthenticated(f"the token of uid {peer.uid} has been revoked")


class ServerHandshake:
    """The server's end: ``on_hello``, then ``on_proof``."""

    def __init__(self, identity: ServerIdentity, nonce: bytes, versions: VersionRange = PROTOCOL) -> None:
        assert len(nonce) == NONCE_BYTES, nonce
        self._identity = identity
        self._nonce = nonce
        self._versions = versions
        self._expected = b""
        self._peer: PeerIdentity | None = None
        self.version = 0
        """The protocol version chosen; known after ``on_hello``."""
        self.plane = Plane.SMALL

    def on_hello(self, message: bytes) -> bytes:
        """Check what the client says it is; the message of the CHALLENGE frame."""
        hello = decode(message, Hello)
        key = self._identity.key
        self.version = choose_version(hello.versions, self._versions)
        if hello.cluster != key.cluster:
            raise WrongCluster(f"this is cluster {key.cluster!r}, not {hello.cluster[:64]!r}")
        if hello.key_id != key.key_id:
            raise Unauthenticated(f"proof would be by key {hello.key_id}, the cluster's is {key.key_id}")
        if len(hello.nonce) != NONCE_BYTES:
            raise InvalidRequest(f"nonce has {len(hello.nonce)} bytes, not {NONCE_BYTES}")
        if hello.plane not in (Plane.SMALL, Plane.BULK):
            raise InvalidRequest(f"no plane {hello.plane}")
        self.plane = Plane(hello.plane)
        secret, self._peer = self._claimed(hello)
        challenge = Challenge(
            version=self.version,
            cluster=key.cluster,
            nonce=self._nonce,
            node=self._identity.node,
            generation=self._identity.generation,
            bulk=self._identity.bulk,
        )
        self._expected = _proof(secret, b"client", message, challenge)
        own = _proof(secret, b"server", message, challenge)
        return encode(msgspec.structs.replace(challenge, proof=own))

    def _claimed(self, hello: Hello) -> tuple[bytes, PeerIdentity]:
        key = self._identity.key
        if not hello.token:
            peer = PeerIdentity("node", hello.node, generation=hello.generation, is_admin=True)
            return key.derive("node handshake"), peer
        claims = decode_claims(hello.token)
        if (claims.cluster, claims.key_id) != (key.cluster, key.key_id):
            raise Unauthenticated("the token is of another cluster or key")
        peer = PeerIdentity(
            "user",
            uid=claims.uid,
            gid=claims.gid,
            groups=claims.groups,
            is_admin=claims.is_admin,
            key_generation=claims.key_generation,
        )
        self._identity.check_revoked(peer)
        return token_secret(key, hello.token), peer

    def on_proof(self, message: bytes) -> PeerIdentity:
        """Who the client is, proved."""
        if self._peer is None:
            raise InvalidRequest("PROOF before HELLO")
        check_proof(self._expected, decode(message, Proof).proof, "the client's proof")
        self._identity.check_revoked(self._peer)
        return self._peer
