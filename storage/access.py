"""Capabilities presented to this process, and what they allow (design 7).

A client presents each once and then names it by a number of its choice. They are kept by (session,
number) for all connections of that session's user, at most ``PRESENTED_MAX``; the one that was presented
longest ago goes first, and its client is told to present it again. Checked at every request: that it is
this user's, that it has not ended in cluster time, that the user's key generation has not been raised.
Threads may look up while the event loop adds.
"""

from __future__ import annotations

from fs3.errors import CapabilityExpired, InvalidRequest, Unauthenticated
from fs3.identity.capability import Capability, CapabilitySigner, Rights
from fs3.ids import ClientSessionId, InodeId
from fs3.rpc.service import PeerIdentity

from .membership import Membership

PRESENTED_MAX = 65_536
NUMBER_MAX = (1 << 32) - 1


class Access:
    """The capabilities that this process knows."""

    def __init__(self, signer: CapabilitySigner, membership: Membership) -> None:
        self._signer = signer
        self._membership = membership
        self._presented: dict[tuple[ClientSessionId, int], Capability] = {}

    def present(self, peer: PeerIdentity, session: ClientSessionId, number: int, data: bytes) -> None:
        """Take a signed capability. Unauthenticated: forged, or not this session's; CapabilityExpired."""
        if not 0 <= number <= NUMBER_MAX:
            raise InvalidRequest(f"number {number} of a capability")
        capability = self._signer.verify(data, self._membership.cluster_time_ms())
        if capability.session != session:
            raise Unauthenticated(f"the capability is of another session than {session:x}")
        self._check_peer(peer, capability)
        self._presented.pop((session, number), None)
        while len(self._presented) >= PRESENTED_MAX:
            del self._presented[next(iter(self._presented))]
        self._presented[session, number] = capability

    def check(
        self, peer: PeerIdentity, session: ClientSessionId, number: int, inode: InodeId, rights: Rights
    ) -> Capability:
        """The capability under ``number``, valid now for this file and these rights.

        CapabilityExpired: unknown here, or over: present one again. Unauthenticated: it does not allow this.
        """
        capability = self._presented.get((session, number))
        if capability is None:
            raise CapabilityExpired(f"capability {number} of session {session:x} is not known here")
        self._check_peer(peer, capability)
        if self._membership.cluster_time_ms() >= capability.expires_ms:
            self._presented.pop((session, number), None)
            raise CapabilityExpired(f"capability {number} of session {session:x} has ended")
        if capability.inode != inode:
            raise Unauthenticated(f"capability {number} is for another file than {inode:x}")
        if rights & ~capability.rights:
            raise Unauthenticated(f"capability {number} does not allow {rights!r} of {inode:x}")
        return capability

    def _check_peer(self, peer: PeerIdentity, capability: Capability) -> None:
        if peer.role != "user" or (peer.uid != capability.uid and not peer.is_admin):
            raise Unauthenticated(f"the capability is of user {capability.uid}, not of this connection's")
        least = self._membership.routing.key_generations.get(capability.uid, 0)
        if capability.key_generation < least:
            raise Unauthenticated(f"the tokens of user {capability.uid} have been revoked")

    def __len__(self) -> int:
        return len(self._presented)
