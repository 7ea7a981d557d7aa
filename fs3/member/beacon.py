"""Datagrams between a node and mgmtd, and between nodes: bodies, sequences, echoes. PURE.

======= ======================= ======================================================================
purpose from → to               body
======= ======================= ======================================================================
BEACON  node → every mgmtd      ``Beacon``; header nonce: the one that this mgmtd gave last
GRANT   primary → node          ``Grant``: the answer; its nonce is to be echoed from then on
ASK     member → member         ``Ask``: leases at exactly these chain versions
ANSWER  member → member         ``Answer``: those granted, newer records, versions it does not know yet
RECORDS member → member         ``Records``: chain records that the other one asked for
======= ======================= ======================================================================

Each datagram, a repeat too, has a sequence of its own. An answer echoes generation and sequence of the
request, and the holder counts its lease from the sending of exactly that one (``SentLog``): an answer that
comes late, twice, or out of order only ever gives what is left of it.

A beacon that does not echo the nonce earns only the nonce: it may have been recorded earlier and sent by
anybody. Peers need none: a repeated ask makes the granter wait longer, and its answer echoes a sequence
that the asker has forgotten.

All go over UDP; the same bytes go over RPC (``fs3.wire.member``) when UDP is not answered.

Source: design 2.1, 2.2.
"""

from __future__ import annotations

import enum

import msgspec

from ..ids import ChainId, ChainVersion, Generation, NodeId, TargetId
from ..routing import ChainInfo

Pairs = tuple[tuple[ChainId, ChainVersion], ...]

SENT_MAX = 64
"""Requests of which the time of sending is kept, per receiver: at a repeat each 100 ms four leases long."""
RECORDS_MAX = 64
"""Chain records in one datagram."""
LEAVING_MAX = 1024
"""Targets that one grant names as leaving; the others' leases to further ones are waited for."""


class Purpose(enum.IntEnum):
    """What a datagram's body is."""

    BEACON = 1
    GRANT = 2
    ASK = 3
    ANSWER = 4
    RECORDS = 5


class Beacon(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A node says that it lives, and asks for the primary's lease."""

    routing_version: int
    """Newest that it has adopted."""
    clock_ms: int
    """Its clock, for people who look for clocks that run wrong."""
    acknowledged: Pairs = ()
    """Chain versions that it has adopted, its grants to those they drop over; until confirmed."""
    unreachable: tuple[NodeId, ...] = ()
    """Peers that it asks in vain."""
    no_lease_ms: int = 0
    """How long one of its chains has had no lease of either kind."""
    unlent: tuple[TargetId, ...] = ()
    """Of the targets that the last grant named as leaving: those to which no lease of this node runs."""


class Grant(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The primary's answer. ``granted`` False: heard, but there is no lease (the nonce was missing …)."""

    echo_generation: Generation
    echo_sequence: int
    granted: bool
    nonce: bytes
    """16 bytes to be echoed."""
    term: int
    """Which primary's run this is; grows with each take-over."""
    routing_version: int
    """What the grant was made from: it counts from when the node has adopted it."""
    uncovered: tuple[ChainId, ...] = ()
    """Chains that it does not cover: their targets on this node are being taken out."""
    cluster_time_ms: int = 0
    is_registered: bool = True
    """False: the primary knows no report of this generation; send one."""
    primary_address: str = ""
    """RPC address of who answers."""
    leaving: tuple[TargetId, ...] = ()
    """Members of the node's chains that are to leave: it lends them nothing more (``fs3.mgmtd.leaving``)."""


class Ask(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A member asks another one for leases."""

    pairs: Pairs


class Answer(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What a member grants."""

    echo_generation: Generation
    echo_sequence: int
    granted: Pairs = ()
    newer: tuple[ChainInfo, ...] = ()
    """Records that the asker does not have yet."""
    wanted: tuple[ChainId, ...] = ()
    """Chains that the asker knows newer records of."""
    clock_ms: int = 0
    """The granter's clock: whoever has lost time sees it by the clocks of others."""


class Records(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Chain records, persisted before they were published."""

    chains: tuple[ChainInfo, ...]


class SentLog:
    """When requests to one receiver were sent, by sequence; the last ``SENT_MAX``."""

    __slots__ = ("_sent",)

    def __init__(self) -> None:
        self._sent: dict[int, float] = {}

    def sent(self, sequence: int, now_s: float) -> None:
        """Note a request; its sequence is greater than all before."""
        if len(self._sent) >= SENT_MAX:
            del self._sent[next(iter(self._sent))]
        self._sent[sequence] = now_s

    def answered(self, sequence: int) -> float | None:
        """When the request with this sequence was sent; None if unknown or answered before.

        Earlier requests are kept: their answers may be under way and harm nothing.
        """
        return self._sent.pop(sequence, None)
