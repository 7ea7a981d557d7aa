"""The datagrams of a node: sends beacons and asks when they are due, answers asks, hands answers on.

Everything goes over UDP first; what stays unanswered goes over RPC too, each repeat with a sequence of its
own. Datagrams are handled as they arrive: nothing queues. Senders that routing does not know are dropped
before anything is kept of them.

Source: design 2.1.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Protocol

from ..errors import Fs3Error, InvalidRequest
from ..identity.datagram import NO_NONCE, Datagram, DatagramSigner, ReplayWindow
from ..ids import ChainId, ChainVersion, NodeId, TargetId
from ..routing import ChainInfo, NodeInfo, NodeKind, RoutingInfo
from ..rpc.network import DatagramPort
from ..rpc.service import Call
from ..stubs.mgmtd import RoutingCache
from ..tasks import TaskScope
from ..wire.codec import decode, encode
from ..wire.member import EXCHANGE, ExchangeRequest, ExchangeResponse
from .beacon import Answer, Ask, Beacon, Grant, Pairs, Purpose, Records
from .lease import NodeLeases
from .link_probes import LinkProbes
from .lost_time import PeerClocks
from .pace import Pace
from .settings import AgentComponents, AgentSettings

RPC_TIMEOUT_S = 1.0
ACKNOWLEDGED_MAX = 512
"""Acknowledgements in one beacon; the rest goes with the next, and with reports."""
ACKS_OPEN_MAX = 64
PAIRS_MAX = 2048
"""Chains in one ask; a pair of nodes with more of them uses several datagrams."""
UNREACHABLE_MAX = 64


@dataclass(slots=True)
class Counters:
    """Plain numbers; a daemon makes metrics of them."""

    sent: int = 0
    over_rpc: int = 0
    received: int = 0
    refused: int = 0
    """Not genuine, of another cluster, or not understood."""
    unknown: int = 0
    """Of a node that routing does not know."""
    repeated: int = 0
    """Seen before."""
    unasked: int = 0
    """Answers to nothing that was open."""


class Member(Protocol):
    """What is needed of the agent."""

    leases: NodeLeases
    cache: RoutingCache
    adopted: dict[ChainId, ChainVersion]

    @property
    def settings(self) -> AgentSettings: ...

    @property
    def components(self) -> AgentComponents: ...

    @property
    def scope(self) -> TaskScope: ...

    def on_primary_answer(
        self, term: int, cluster_ms: int, sent_s: float, address: str, routing_version: int
    ) -> None: ...

    def on_lost_time(self, lost_s: float) -> None: ...

    def report_soon(self) -> None: ...


class Correspondence:
    """All datagrams of one agent."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._settings = member.settings
        self._components = member.components
        self._clock = member.components.clock
        self._signer = DatagramSigner(member.components.key)
        self._leases = member.leases
        self._timing = member.settings.timing
        self._port: DatagramPort | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sequence = 0
        self._nodes: dict[NodeId, NodeInfo] = {}
        self._windows: dict[NodeId, ReplayWindow] = {}
        self._mgmtds: dict[NodeId, Pace] = {}
        self._nonces: dict[NodeId, bytes] = {}
        self._peers: dict[NodeId, Pace] = {}
        self._asks: dict[NodeId, Pairs] = {}
        self._clocks = PeerClocks(self._timing)
        self._probes = LinkProbes(self._settings.node, self._components, self._timing, member.scope)
        self._term = -1
        self._confirmed: dict[ChainId, ChainVersion] = {}
        self._acks_open: dict[tuple[NodeId, int], Pairs] = {}
        self._unlent: tuple[TargetId, ...] = ()  # as the last beacon said
        self.counters = Counters()

    @property
    def address(self) -> str:
        """UDP address as it is; empty before the start and after the stop."""
        return self._port.address if self._port is not None else ""

    async def start(self, address: str) -> None:
        """Open the port and begin. OSError."""
        self._port = await self._components.network.open_datagrams(address, self._on_datagram)
        first_s = self._timing.repeat_s * self._components.rng.random()  # nodes started together spread
        self._timer = asyncio.get_running_loop().call_later(first_s, self._on_timer)

    def stop(self) -> None:
        """Send and answer nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._port is not None:
            self._port.close()
            self._port = None

    def adopt(self, routing: RoutingInfo) -> None:
        """Routing has changed: whom to send to. What is newly to be asked is asked at once."""
        self._nodes = routing.nodes
        self._windows = {n: w for n, w in self._windows.items() if n in routing.nodes}
        mgmtds = [info.node for info in routing.alive(NodeKind.MGMTD) if info.beacon_address]
        self._mgmtds = {n: self._mgmtds.get(n) or Pace(self._timing) for n in mgmtds}
        asks = self._leases.asks()
        self._peers = {n: self._peers.get(n) or Pace(self._timing) for n in asks}
        for node, pairs in asks.items():
            if pairs != self._asks.get(node):
                self._peers[node].hurry()
        self._asks = asks
        self._probes.adopt(routing, self._clock.boot_s())
        self._look_soon()

    def hurry_beacons(self) -> None:
        """Send a beacon at the next occasion: it has something new to say."""
        for pace in self._mgmtds.values():
            pace.hurry()
        self._look_soon()

    def unreachable(self, now_s: float) -> list[NodeId]:
        """Peers that have not answered for a while, and those to which no connection can be made."""
        found = {n: None for n, pace in self._peers.items() if pace.silent_s(now_s) > self._timing.hint_s}
        found.update(dict.fromkeys(self._probes.broken(now_s)))
        return list(found)[:UNREACHABLE_MAX]

    # --- sending ---

    def _on_timer(self) -> None:
        now_s = self._clock.boot_s()
        quiet_s = self._timing.beacon_s
        if not self._leases.is_fenced:
            self._send_due(now_s)
            self._probes.look(now_s)
            paces = (*self._mgmtds.values(), *self._peers.values())
            earliest_s = min((pace.earliest_s() for pace in paces), default=math.inf)
            quiet_s = min(quiet_s, min(earliest_s, self._probes.earliest_s()) - now_s)
        repeat_s = self._timing.repeat_s
        after_s = math.ceil(max(1.0, quiet_s / repeat_s)) * repeat_s
        self._timer = asyncio.get_running_loop().call_later(after_s, self._on_timer)

    def _look_soon(self) -> None:
        """Something may be due before the timer: it ticks each ``repeat_s``, and leaves out quiet ticks."""
        if self._timer is None or self._port is None:
            return
        loop, repeat_s = asyncio.get_running_loop(), self._timing.repeat_s
        left_s = self._timer.when() - loop.time()
        if left_s > repeat_s:
            self._timer.cancel()
            self._timer = loop.call_later(left_s % repeat_s, self._on_timer)

    def _send_due(self, now_s: float) -> None:
        if self._leases.unlent(now_s) != self._unlent:
            self.hurry_beacons()
        due = [(node, pace) for node, pace in self._mgmtds.items() if pace.is_due(now_s)]
        if due:
            primary_silent_s = min(pace.silent_s(now_s) for pace in self._mgmtds.values())
            beacon = self._beacon(now_s)
            for node, pace in due:
                # a standby never answers: RPC only when nobody does
                by_rpc = pace.wants_rpc(now_s) and primary_silent_s >= self._timing.rpc_after_s
                self._send(node, pace, [self._sealed(beacon, node, now_s)])
                if by_rpc:
                    self._call(node, pace, [self._sealed(beacon, node, now_s)])
        for node, pace in self._peers.items():
            if pace.is_due(now_s):
                by_rpc = pace.wants_rpc(now_s)
                self._send(node, pace, self._ask(node, now_s))
                if by_rpc:
                    self._call(node, pace, self._ask(node, now_s))

    def _send(self, node: NodeId, pace: Pace, datagrams: list[bytes]) -> None:
        pace.sent(self._clock.boot_s())
        info = self._nodes.get(node)
        if info is None or not info.beacon_address or self._port is None:
            return
        for data in datagrams:
            self.counters.sent += 1
            self._port.send(data, info.beacon_address)

    def _call(self, node: NodeId, pace: Pace, datagrams: list[bytes]) -> None:
        pace.is_calling = True
        self._member.scope.spawn(f"exchange {node}", self._exchange(node, pace, datagrams))

    async def _exchange(self, node: NodeId, pace: Pace, datagrams: list[bytes]) -> None:
        """The same over RPC."""
        try:
            for data in datagrams:
                await self._exchange_one(node, data)
        except Fs3Error as error:
            self._components.log.debug("exchange failed", peer=node, reason=str(error))
        finally:
            pace.is_calling = False

    async def _exchange_one(self, node: NodeId, data: bytes) -> None:
        info = self._nodes.get(node)
        if info is None:
            return
        self.counters.over_rpc += 1
        request = ExchangeRequest(datagram=data)
        answer = await self._components.caller.call(info.address, EXCHANGE, request, timeout_s=RPC_TIMEOUT_S)
        if answer.datagram and (reply := self._receive(answer.datagram)) is not None:
            request = ExchangeRequest(datagram=reply)
            await self._components.caller.call(info.address, EXCHANGE, request, timeout_s=RPC_TIMEOUT_S)

    def _seal(self, purpose: Purpose, body: bytes, nonce: bytes = NO_NONCE) -> bytes:
        self._sequence += 1
        return self._signer.seal(
            Datagram(purpose, self._settings.node, self._leases.generation, self._sequence, nonce, body)
        )

    def _beacon(self, now_s: float) -> tuple[bytes, Pairs]:
        """What all mgmtds are told now, encoded, and the acknowledgements in it."""
        unconfirmed = [(c, v) for c, v in self._member.adopted.items() if self._confirmed.get(c) != v]
        ripe = [(c, v) for c, v in unconfirmed if self._leases.may_acknowledge(c, v, now_s)]
        acks = tuple(ripe[:ACKNOWLEDGED_MAX])
        without = self._leases.chains_without(now_s)
        unlent = self._unlent = self._leases.unlent(now_s)
        body = Beacon(
            routing_version=self._leases.routing_version,
            clock_ms=int(now_s * 1000),
            acknowledged=acks,
            unreachable=tuple(self.unreachable(now_s)),
            no_lease_ms=int(max((since_s for _, since_s in without), default=0.0) * 1000),
            unlent=unlent,
        )
        return encode(body), acks

    def _sealed(self, beacon: tuple[bytes, Pairs], mgmtd: NodeId, now_s: float) -> bytes:
        """A beacon as it goes to one mgmtd."""
        body, acks = beacon
        data = self._seal(Purpose.BEACON, body, self._nonces.get(mgmtd, NO_NONCE))
        self._leases.sent_beacon(mgmtd, self._sequence, now_s)
        if acks:
            if len(self._acks_open) >= ACKS_OPEN_MAX:
                del self._acks_open[next(iter(self._acks_open))]
            self._acks_open[mgmtd, self._sequence] = acks
        return data

    def _ask(self, peer: NodeId, now_s: float) -> list[bytes]:
        pairs = self._asks.get(peer, ())
        found = []
        for first in range(0, len(pairs), PAIRS_MAX):
            found.append(self._seal(Purpose.ASK, encode(Ask(pairs=pairs[first : first + PAIRS_MAX]))))
            self._leases.sent_ask(peer, self._sequence, now_s)
            self._clocks.asked(peer, self._sequence, now_s)
        return found

    # --- receiving ---

    def _on_datagram(self, data: bytes, sender_address: str) -> None:
        reply = self._receive(data)
        if reply is not None and self._port is not None:
            self._port.send(reply, sender_address)

    def on_exchange(self, call: Call, request: ExchangeRequest) -> ExchangeResponse:
        """A datagram that came over RPC."""
        call.peer.require_node()
        return ExchangeResponse(datagram=self._receive(request.datagram) or b"")

    def _receive(self, data: bytes) -> bytes | None:
        """Take one datagram; returns what to send back. Whatever is wrong with it is counted, no more."""
        self.counters.received += 1
        try:
            datagram = self._signer.open(data)
            if datagram.sender not in self._nodes:
                self.counters.unknown += 1
                return None
            window = self._windows.setdefault(datagram.sender, ReplayWindow())
            if not window.accept(datagram.generation, datagram.sequence):
                self.counters.repeated += 1
                return None
            return self._take(datagram)
        except Fs3Error:
            self.counters.refused += 1
            return None

    def _take(self, datagram: Datagram) -> bytes | None:
        match datagram.purpose:
            case Purpose.GRANT:
                self._on_grant(datagram, decode(datagram.body, Grant))
            case Purpose.ASK:
                return self._on_ask(datagram, decode(datagram.body, Ask))
            case Purpose.ANSWER:
                return self._on_answer(datagram, decode(datagram.body, Answer))
            case Purpose.RECORDS:
                self._learn(decode(datagram.body, Records).chains)
            case Purpose.BEACON:
                pass  # this node was, or is taken for, a mgmtd
            case _:
                raise InvalidRequest(f"datagram of an unknown purpose {datagram.purpose}")
        return None

    def _on_grant(self, datagram: Datagram, grant: Grant) -> None:
        mgmtd = datagram.sender
        pace = self._mgmtds.get(mgmtd)
        sent_s = self._leases.on_grant(mgmtd, grant, self._clock.boot_s())
        if sent_s is None or pace is None:
            self.counters.unasked += 1
            return
        pace.answered()
        self._leases.stop_lending(grant.leaving, self._clock.boot_s())
        if len(grant.nonce) == len(NO_NONCE):
            if grant.nonce != self._nonces.get(mgmtd):
                pace.hurry()  # the beacon that echoes it is the first that counts
                self._look_soon()
            self._nonces[mgmtd] = grant.nonce
        if grant.term != self._term:
            self._term = grant.term
            self._confirmed.clear()  # a new primary has heard no acknowledgement yet
        acks = self._acks_open.pop((mgmtd, grant.echo_sequence), ())
        if grant.granted:
            self._confirmed.update(acks)
        if not grant.is_registered:
            self._member.report_soon()
        self._member.on_primary_answer(
            grant.term, grant.cluster_time_ms, sent_s, grant.primary_address, grant.routing_version
        )

    def _on_ask(self, datagram: Datagram, ask: Ask) -> bytes:
        answer = self._leases.answer(
            datagram.sender,
            datagram.generation,
            datagram.sequence,
            ask.pairs,
            self._member.adopted,
            self._clock.boot_s(),
        )
        return self._seal(Purpose.ANSWER, encode(answer))

    def _on_answer(self, datagram: Datagram, answer: Answer) -> bytes | None:
        pace = self._peers.get(datagram.sender)
        taken = self._leases.on_answer(datagram.sender, datagram.generation, answer, self._clock.boot_s())
        if not taken or pace is None:
            self.counters.unasked += 1
            return None
        pace.answered()
        lost_s = self._clocks.lost_s(
            datagram.sender, datagram.generation, answer.echo_sequence, answer.clock_ms, self._clock.boot_s()
        )
        if lost_s > 0:
            self._member.on_lost_time(lost_s)
        self._learn(answer.newer)
        records = self._leases.records(answer.wanted)
        return self._seal(Purpose.RECORDS, encode(Records(chains=records))) if records else None

    def _learn(self, chains: tuple[ChainInfo, ...]) -> None:
        for info in chains:
            self._member.cache.learn(info)
