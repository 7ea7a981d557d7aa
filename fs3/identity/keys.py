"""The cluster key: the one secret that all nodes of a cluster share, and the keys derived from it. PURE.

Whoever holds the file is a node of the cluster: it can prove so to others, sign datagrams and
capabilities, and make tokens for any user. A stolen disk of a storage node with its key file therefore
means a new key for the whole cluster (design 7). The file is read by ``key_file``.

No derived key serves two purposes: each is HMAC-SHA256(secret, purpose), the expand step of HKDF with one
block (the secret is uniform already, so nothing is to be extracted).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from ..errors import Unauthenticated

SECRET_BYTES = 32
NONCE_BYTES = 16
CLUSTER_NAME_BYTES_MAX = 64
_BLOCK_BYTES = 64
"""Of SHA-256; RFC 2104 says what HMAC does with it."""
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))


@dataclass(frozen=True, slots=True)
class ClusterKey:
    """The cluster's id and secret."""

    cluster: str
    """Id of the cluster: not secret, unique, at most 64 bytes of ASCII."""
    key_id: int
    """u32: which secret this is; grows when the key is changed."""
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        assert 0 < len(self.cluster) <= CLUSTER_NAME_BYTES_MAX and self.cluster.isascii(), self.cluster
        assert 0 <= self.key_id < 1 << 32, self.key_id
        assert len(self.secret) == SECRET_BYTES, len(self.secret)

    def derive(self, purpose: str) -> bytes:
        """The 32-byte key for one purpose."""
        text = f"fs3/{self.cluster}/{self.key_id}/{purpose}\x01".encode()
        return hmac.digest(self.secret, text, hashlib.sha256)


def proof(key: bytes, purpose: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA256 over the parts, each with its length before it: no two lists give the same bytes."""
    return hmac.digest(key, _joined((purpose, *parts)), hashlib.sha256)


def _joined(parts: tuple[bytes, ...]) -> bytes:
    return b"".join([len(part).to_bytes(4, "little") + part for part in parts])


class Prover:
    """Makes many proofs under one key that begin with the same parts: what all share is hashed only once.

    ``Prover(key, purpose, *first).proof(*rest)`` is ``proof(key, purpose, *first, *rest)`` in less than half
    the time.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes, purpose: bytes, *first: bytes) -> None:
        block = key.ljust(_BLOCK_BYTES, b"\0")
        assert len(block) == _BLOCK_BYTES, len(key)
        self._inner = hashlib.sha256(block.translate(_INNER_PAD) + _joined((purpose, *first)))
        self._outer = hashlib.sha256(block.translate(_OUTER_PAD))

    def proof(self, *rest: bytes) -> bytes:
        """See ``proof``."""
        inner, outer = self._inner.copy(), self._outer.copy()
        for part in rest:
            inner.update(len(part).to_bytes(4, "little") + part)
        outer.update(inner.digest())
        return outer.digest()


def check_proof(expected: bytes, given: bytes, what: str) -> None:
    """Compare in constant time; Unauthenticated names ``what`` is wrong, never why."""
    if not hmac.compare_digest(expected, given):
        raise Unauthenticated(f"{what} is not valid")
