"""Capabilities: the right to read or write one file's chunks for ten minutes. PURE.

Signed by a meta service at open, checked by storage nodes without asking anybody; both derive the key from
the cluster key. Time is *cluster time* (design 7), never a wall clock. Byte form, little endian::

    offset  size  field
         0     1  version           1
         1     1  rights            1 read, 2 write
         2     2  reserved          0
         4     4  key_id            which cluster key signed it
         8     8  inode
        16     8  session           of the client it was given to
        24     4  epoch             of the file
        28     4  uid               of the user it was given to
        32     4  key_generation    of that user's token
        36     4  checked_s         cluster time (s) at which the KV store last confirmed it
        40     8  expires_ms        cluster time
        48    16  signature         HMAC-SHA256 of bytes 0 … 48, the first 16
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from ..errors import CapabilityExpired, Unauthenticated
from ..ids import ClientSessionId, Epoch, InodeId
from .keys import ClusterKey, Prover, check_proof

CAPABILITY_VERSION = 1
CAPABILITY_MS = 600_000
"""A capability's life; clients renew at half of it."""
_BODY = struct.Struct("<BBHIQQIIIIQ")
SIGNATURE_BYTES = 16
CAPABILITY_BYTES = _BODY.size + SIGNATURE_BYTES


class Rights(enum.IntFlag):
    """What a capability allows."""

    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True)
class Capability:
    """One file, one client session, some rights, until a time."""

    inode: InodeId
    epoch: Epoch
    rights: Rights
    session: ClientSessionId
    uid: int
    key_generation: int
    """Of the user's token; the caller compares it with the least valid one (revocation)."""
    expires_ms: int
    """Cluster time."""
    checked_s: int = 0
    """Cluster time, in seconds, when a meta service last saw in the KV store that it is still right. Renewals
    without the store keep it, and end an hour after it: the retention of epochs counts from it (4.9)."""


class CapabilitySigner:
    """Makes and checks the byte form under one cluster key (the derived key is computed once)."""

    def __init__(self, key: ClusterKey) -> None:
        self._key_id = key.key_id
        self._prover = Prover(key.derive("capability"), b"capability")

    def sign(self, capability: Capability) -> bytes:
        """The 64 bytes to give to the client."""
        body = _BODY.pack(
            CAPABILITY_VERSION,
            capability.rights,
            0,
            self._key_id,
            capability.inode,
            capability.session,
            capability.epoch,
            capability.uid,
            capability.key_generation,
            capability.checked_s,
            capability.expires_ms,
        )
        return body + self._prover.proof(body)[:SIGNATURE_BYTES]

    def verify(self, data: bytes, now_ms: int) -> Capability:
        """The capability in ``data``, genuine and valid at cluster time ``now_ms``.

        Unauthenticated: not signed by this cluster's key; CapabilityExpired: it was valid once, or is
        signed by an earlier key.
        """
        if len(data) != CAPABILITY_BYTES or data[0] != CAPABILITY_VERSION:
            raise Unauthenticated(f"not a capability of version {CAPABILITY_VERSION}: {len(data)} bytes")
        body, signature = data[: _BODY.size], data[_BODY.size :]
        _, rights, _, key_id, inode, session, epoch, uid, generation, checked_s, expires_ms = _BODY.unpack(
            body
        )
        if key_id != self._key_id:
            raise CapabilityExpired(f"capability is signed by key {key_id}, the cluster's is {self._key_id}")
        check_proof(self._prover.proof(body)[:SIGNATURE_BYTES], signature, "capability")
        if now_ms >= expires_ms:
            raise CapabilityExpired(f"capability for inode {inode:x} ended {now_ms - expires_ms} ms ago")
        return Capability(
            InodeId(inode),
            Epoch(epoch),
            Rights(rights),
            ClientSessionId(session),
            uid,
            generation,
            expires_ms,
            checked_s,
        )
