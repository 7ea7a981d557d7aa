"""Signed datagrams: beacons and peer leases. PURE.

A node signs what it sends with a key derived from the cluster key. The signature covers the cluster's id,
sender, generation, sequence, nonce and body; ``ReplayWindow`` drops what was seen before. Byte form,
little endian::

    offset  size  field
         0     2  magic             "fd" (bytes 0x66 0x64)
         2     1  version           1
         3     1  purpose           of the body; the receiver's business
         4     4  sender            node id
         8     8  cluster           first 8 bytes of SHA-256 of the cluster's id
        16     8  generation        of the sender
        24     8  sequence          grows with every datagram of that generation
        32    16  nonce             what the receiver asked to have echoed; zeros: nothing
        48    16  signature         HMAC-SHA256, the first 16 bytes
        64        body

Everything is checked before the body is looked at; nothing is kept of a datagram that fails.
"""

from __future__ import annotations

import hashlib
import struct

import msgspec

from ..errors import InvalidRequest, WrongCluster
from ..ids import Generation, NodeId
from .keys import ClusterKey, Prover, check_proof

MAGIC = 0x6466
DATAGRAM_VERSION = 1
NONCE_BYTES = 16
NO_NONCE = bytes(NONCE_BYTES)
SIGNATURE_BYTES = 16
_HEAD = struct.Struct("<HBBI8sQQ16s")
HEADER_BYTES = _HEAD.size + SIGNATURE_BYTES
DATAGRAM_BYTES_MAX = 60_000
WINDOW = 1024
"""Sequences below the highest one by this much or more count as seen."""


class Datagram(msgspec.Struct, frozen=True):
    """One datagram, genuine."""

    purpose: int
    """u8."""
    sender: NodeId
    generation: Generation
    sequence: int
    nonce: bytes
    """16 bytes."""
    body: bytes


class DatagramSigner:
    """Seals and opens datagrams under one cluster key."""

    def __init__(self, key: ClusterKey) -> None:
        cluster = key.cluster.encode("ascii")
        self._cluster_tag = hashlib.sha256(cluster).digest()[:8]
        self._prover = Prover(key.derive("datagram"), b"datagram", cluster)

    def seal(self, datagram: Datagram) -> bytes:
        """The bytes to send. InvalidRequest when the body is too long for a datagram."""
        if HEADER_BYTES + len(datagram.body) > DATAGRAM_BYTES_MAX:
            raise InvalidRequest(f"datagram body of {len(datagram.body)} bytes is too long")
        assert len(datagram.nonce) == NONCE_BYTES, datagram.nonce
        head = _HEAD.pack(
            MAGIC,
            DATAGRAM_VERSION,
            datagram.purpose,
            datagram.sender,
            self._cluster_tag,
            datagram.generation,
            datagram.sequence,
            datagram.nonce,
        )
        return head + self._sign(head, datagram.body) + datagram.body

    def open(self, data: bytes) -> Datagram:
        """Check and take apart. InvalidRequest (no datagram of ours), WrongCluster, Unauthenticated."""
        if not HEADER_BYTES <= len(data) <= DATAGRAM_BYTES_MAX:
            raise InvalidRequest(f"datagram of {len(data)} bytes")
        head, signature, body = data[: _HEAD.size], data[_HEAD.size : HEADER_BYTES], data[HEADER_BYTES:]
        magic, version, purpose, sender, cluster, generation, sequence, nonce = _HEAD.unpack(head)
        if magic != MAGIC or version != DATAGRAM_VERSION:
            raise InvalidRequest(f"not an fs3 datagram of version {DATAGRAM_VERSION}")
        if cluster != self._cluster_tag:
            raise WrongCluster("datagram of another cluster")
        check_proof(self._sign(head, body), signature, "signature of a datagram")
        return Datagram(purpose, NodeId(sender), Generation(generation), sequence, nonce, body)

    def _sign(self, head: bytes, body: bytes) -> bytes:
        return self._prover.proof(head, body)[:SIGNATURE_BYTES]


class ReplayWindow:
    """Which datagrams of one sender were seen: those of the newest generation, the last 1,024 sequences.

    Two integers, whatever arrives. A datagram of an older generation is never fresh.
    """

    __slots__ = ("_generation", "_highest", "_seen")

    def __init__(self) -> None:
        self._generation = -1
        self._highest = 0
        self._seen = 0  # bit n: sequence _highest - n was seen

    def accept(self, generation: int, sequence: int) -> bool:
        """True once for each (generation, sequence); False: seen before, or too old to tell."""
        if generation != self._generation:
            if generation < self._generation:
                return False
            self._generation, self._highest, self._seen = generation, sequence, 1
            return True
        ahead = sequence - self._highest
        if ahead > 0:
            self._seen = ((self._seen << ahead) | 1) & ((1 << WINDOW) - 1) if ahead < WINDOW else 1
            self._highest = sequence
            return True
        bit = 1 << -ahead
        if -ahead >= WINDOW or self._seen & bit:
            return False
        self._seen |= bit
        return True
