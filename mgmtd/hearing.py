"""Beacons in, leases out: the primary's end of the datagrams (``fs3.member.beacon``).

Datagrams are handled as they arrive, over UDP or RPC; a standby drops them unread. A grant is noted before
its answer can be sent.
"""

from __future__ import annotations

from dataclasses import dataclass

from fs3.errors import Fs3Error, InvalidRequest, Unavailable
from fs3.identity.datagram import NO_NONCE, Datagram, DatagramSigner
from fs3.ids import ChainId
from fs3.member.beacon import Beacon, Grant, Purpose
from fs3.rpc.network import DatagramPort
from fs3.rpc.service import Call
from fs3.wire.codec import decode, encode
from fs3.wire.member import ExchangeRequest, ExchangeResponse

from .liveness import Hearing as Heard
from .services import Services
from .term import Term


@dataclass(slots=True)
class Counters:
    """Plain numbers; the daemon makes metrics of them."""

    received: int = 0
    refused: int = 0
    granted: int = 0


class Hearing:
    """Answers beacons of all nodes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._signer = DatagramSigner(services.components.key)
        self._sequence = 0
        self._port: DatagramPort | None = None
        self.counters = Counters()

    @property
    def address(self) -> str:
        """UDP address as it is."""
        return self._port.address if self._port is not None else ""

    async def start(self) -> None:
        """Open the port. OSError."""
        components, settings = self._services.components, self._services.settings
        self._port = await components.network.open_datagrams(settings.beacon_address, self._on_datagram)

    def stop(self) -> None:
        """Answer nothing any more."""
        if self._port is not None:
            self._port.close()
            self._port = None

    def on_exchange(self, call: Call, request: ExchangeRequest) -> ExchangeResponse:
        """A beacon that came over RPC."""
        call.peer.require_node()
        return ExchangeResponse(datagram=self._receive(request.datagram) or b"")

    def _on_datagram(self, data: bytes, sender_address: str) -> None:
        reply = self._receive(data)
        if reply is not None and self._port is not None:
            self._port.send(reply, sender_address)

    def _receive(self, data: bytes) -> bytes | None:
        self.counters.received += 1
        term = self._services.primary_term()
        if term is None:
            return None
        try:
            datagram = self._signer.open(data)
            if datagram.purpose != Purpose.BEACON:
                raise InvalidRequest(f"purpose {datagram.purpose} is none of mgmtd's")
            beacon = decode(datagram.body, Beacon)
        except Fs3Error:
            self.counters.refused += 1
            return None
        return self._hear(term, datagram, beacon)

    def _hear(self, term: Term, datagram: Datagram, beacon: Beacon) -> bytes | None:
        node, generation = datagram.sender, datagram.generation
        now_s = self._services.clock.boot_s()
        was_suspected = not term.liveness.may_grant(node)
        heard = term.liveness.on_beacon(node, generation, datagram.sequence, datagram.nonce, beacon, now_s)
        if heard is Heard.DROPPED:
            return None
        uncovered: tuple[ChainId, ...] = ()
        granted = heard is Heard.COUNTED and term.liveness.may_grant(node)
        if granted:
            self.counters.granted += 1
            uncovered = term.grants.grant(node, generation, now_s)
            if was_suspected or beacon.acknowledged or beacon.unlent:
                self._services.pass_wanted.set()
        life = term.liveness.lives.get(node)
        try:
            cluster_time_ms = term.clock.now_ms(now_s)
        except Unavailable:
            return None  # the term has only begun: the next beacon is answered
        answer = Grant(
            echo_generation=generation,
            echo_sequence=datagram.sequence,
            granted=granted,
            nonce=life.nonce if life is not None and heard is not Heard.STRANGER else NO_NONCE,
            term=term.record.start,
            routing_version=term.routing.version,
            uncovered=uncovered,
            cluster_time_ms=cluster_time_ms,
            is_registered=heard is not Heard.STRANGER,
            primary_address=self._services.lease.address,
            leaving=term.chains.leaving.told(node),
        )
        return self._seal(answer)

    def _seal(self, answer: Grant) -> bytes:
        self._sequence += 1
        lease = self._services.lease
        return self._signer.seal(
            Datagram(Purpose.GRANT, lease.node, lease.generation, self._sequence, NO_NONCE, encode(answer))
        )
