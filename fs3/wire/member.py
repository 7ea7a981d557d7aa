"""The member service: method 90, answered by mgmtd and by every node.

It carries the signed datagrams of ``fs3.member.beacon`` over a connection, for when UDP is not answered.

Source: design 2.1.
"""

from __future__ import annotations

import msgspec

from ..rpc.service import Method, Service


class ExchangeRequest(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A sealed datagram (``fs3.identity.datagram``)."""

    datagram: bytes


class ExchangeResponse(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The sealed answer; empty: there is none."""

    datagram: bytes = b""


EXCHANGE = Method("exchange", 90, ExchangeRequest, ExchangeResponse, request_bytes_max=64 << 10)

MEMBER = Service("member", (EXCHANGE,))
