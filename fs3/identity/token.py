"""User tokens: who a user is, in a form that only the cluster can make and only its holder can prove. PURE.

A token has a public part (what it says) and a secret (derived from the cluster key and the public part).
The text form ``fs3u1.PUBLIC.SECRET`` is what a user keeps. On a connection only the public part travels;
the secret is proved by a challenge (``handshake``). A server derives the secret again and keeps no list
of tokens; ``revoke`` raises the user's key generation, and tokens of lower ones are refused (design 7).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

import msgspec

from ..errors import InvalidRequest, Unauthenticated
from ..wire.codec import decode, encode
from .keys import ClusterKey, proof

PREFIX = "fs3u1"
GROUPS_MAX = 64
ID_MAX = (1 << 32) - 2
"""Greatest uid or gid; 2^32 - 1 means "no change" to the kernel."""
PUBLIC_BYTES_MAX = 1024


class TokenClaims(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The public part: what the cluster vouches for."""

    cluster: str
    key_id: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    is_admin: bool = False
    key_generation: int = 0
    nonce: bytes = b""
    """Tells tokens with the same claims apart."""


@dataclass(frozen=True, slots=True)
class UserToken:
    """A token as its holder has it."""

    public: bytes
    """Encoded claims."""
    secret: bytes = field(repr=False)

    def claims(self) -> TokenClaims:
        """What the token says; InvalidRequest if it is no token."""
        return decode_claims(self.public)

    def to_text(self) -> str:
        """``fs3u1.PUBLIC.SECRET``, both URL-safe base64 without padding."""
        return f"{PREFIX}.{_to_base64(self.public)}.{_to_base64(self.secret)}"


def make_token(key: ClusterKey, claims: TokenClaims) -> UserToken:
    """Issue a token. The claims must name this cluster and key; InvalidRequest when an id is out of range."""
    assert (claims.cluster, claims.key_id) == (key.cluster, key.key_id), claims
    _check(claims)
    public = encode(claims)
    return UserToken(public, token_secret(key, public))


def token_secret(key: ClusterKey, public: bytes) -> bytes:
    """The secret that belongs to a public part."""
    return proof(key.derive("user token"), b"secret", public)


def parse_token(text: str) -> UserToken:
    """The token in its text form. Unauthenticated if it is none (whether it is genuine, a server says)."""
    prefix, *parts = text.strip().split(".")
    if prefix != PREFIX or len(parts) != 2:
        raise Unauthenticated(f"not a user token: it does not look like {PREFIX}.….…")
    try:
        token = UserToken(_from_base64(parts[0]), _from_base64(parts[1]))
        token.claims()
    except (binascii.Error, ValueError, InvalidRequest) as error:
        raise Unauthenticated("not a user token: it is damaged") from error
    return token


def decode_claims(public: bytes) -> TokenClaims:
    """The claims in a public part, ids in range; InvalidRequest."""
    if len(public) > PUBLIC_BYTES_MAX:
        raise InvalidRequest(f"public part of a token has {len(public)} bytes: most {PUBLIC_BYTES_MAX}")
    claims = decode(public, TokenClaims)
    _check(claims)
    return claims


def _check(claims: TokenClaims) -> None:
    ids = (claims.uid, claims.gid, *claims.groups)
    if len(claims.groups) > GROUPS_MAX or not all(0 <= number <= ID_MAX for number in ids):
        raise InvalidRequest(f"ids of a token are out of range: uid {claims.uid}, gid {claims.gid}")
    if not 0 <= claims.key_generation < 1 << 32:
        raise InvalidRequest(f"key generation of a token is out of range: {claims.key_generation}")


def _to_base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
