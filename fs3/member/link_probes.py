"""Whether connections to the other members of this node's chains can be made.

Datagrams may pass where connections do not (a firewall, a bad route): leases would be renewed while no update
and no query arrives. So each node tries its connection to every node that it shares a chain with, serving or
not: by a call over the connection that there is, and when that fails by several new ones at once. Under heavy
loss a connection may stand still for seconds on a link that works, and so may the first packet of a new one,
which is sent again only after a second; of eight one comes through. Who fails all, or refuses one, is named
in beacons.

Source: design 2.3.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from ..errors import DeadlineExceeded, Fs3Error, MaybeApplied, Unavailable
from ..ids import ChainId, NodeId
from ..routing import ChainInfo, RoutingInfo
from ..tasks import TaskScope
from ..wire.member import EXCHANGE, ExchangeRequest
from .settings import AgentComponents
from .timing import Timing

TRY_TIMEOUT_S = 0.75
CONNECTS = 8
CONNECT_PAUSE_S = 0.05
"""Between the begins of new connections: a burst that is lost takes some of them only."""
TRIES_MAX = 64
"""At a time; the others have their turn after them."""


@dataclass(slots=True)
class LinkState:
    """What is known of the connection to one node. PURE."""

    due_s: float
    is_trying: bool = False
    failed_since_s: float | None = None
    """The begin of the first try that failed, if none has succeeded since."""

    def ended(self, began_s: float, is_well: bool, now_s: float, timing: Timing) -> None:
        """A try is over."""
        self.is_trying = False
        if is_well:
            self.failed_since_s = None
        elif self.failed_since_s is None:
            self.failed_since_s = began_s
        self.due_s = now_s + (timing.link_probe_s if is_well else timing.beacon_s)

    def is_broken(self, now_s: float, timing: Timing) -> bool:
        """Whether it has failed for long enough to be told."""
        return self.failed_since_s is not None and now_s - self.failed_since_s > timing.hint_s


class LinkProbes:
    """The tries of one agent; their tasks belong to ``scope``."""

    def __init__(self, own: NodeId, components: AgentComponents, timing: Timing, scope: TaskScope) -> None:
        self._own = own
        self._components = components
        self._timing = timing
        self._scope = scope
        self._seen: dict[ChainId, ChainInfo] = {}
        self._neighbours: dict[ChainId, tuple[NodeId, ...]] = {}
        self._links: dict[NodeId, LinkState] = {}
        self._addresses: dict[NodeId, str] = {}

    def adopt(self, routing: RoutingInfo, now_s: float) -> None:
        """Routing has changed: whom to try. New ones are tried at different moments of the first period."""
        for chain, info in routing.chains.items():
            if self._seen.get(chain) is info:
                continue
            self._seen[chain] = info
            nodes = [m.node for m in info.members]
            if self._own in nodes:
                self._neighbours[chain] = tuple(n for n in nodes if n != self._own)
            else:
                self._neighbours.pop(chain, None)
        wanted = {n for nodes in self._neighbours.values() for n in nodes if n in routing.nodes}
        self._addresses = {n: routing.nodes[n].address for n in sorted(wanted)}
        first_s, rng = self._timing.link_probe_s, self._components.rng
        self._links = {
            n: self._links.get(n) or LinkState(now_s + first_s * rng.random()) for n in self._addresses
        }

    def look(self, now_s: float) -> None:
        """Begin the tries that are due."""
        due = [(n, s) for n, s in self._links.items() if now_s >= s.due_s and not s.is_trying]
        if not due:
            return
        room = TRIES_MAX - sum(state.is_trying for state in self._links.values())
        for node, state in due[: max(0, room)]:
            state.is_trying = True
            self._scope.spawn(f"try link to {node}", self._try(self._addresses[node], state, now_s))

    def earliest_s(self) -> float:
        """Before this time none is due, but those whose last one is under way still."""
        return min((state.due_s for state in self._links.values() if not state.is_trying), default=math.inf)

    def broken(self, now_s: float) -> list[NodeId]:
        """Nodes to which no connection can be made."""
        return [node for node, state in self._links.items() if state.is_broken(now_s, self._timing)]

    async def _try(self, address: str, state: LinkState, began_s: float) -> None:
        is_well = False
        try:
            is_well = await self._is_answered(address)
        finally:
            state.ended(began_s, is_well, self._components.clock.boot_s(), self._timing)

    async def _is_answered(self, address: str) -> bool:
        try:
            request = ExchangeRequest(datagram=b"")
            await self._components.caller.call(address, EXCHANGE, request, timeout_s=TRY_TIMEOUT_S)
        except (Unavailable, DeadlineExceeded, MaybeApplied):
            return await self._is_open(address)
        except Fs3Error:
            return True  # an answer all the same
        return True

    async def _is_open(self, address: str) -> bool:
        """Whether any of several new connections comes about in time; the first mostly tells."""
        connects = [self._start_connect(address, 0.0)]
        try:
            async with asyncio.timeout(TRY_TIMEOUT_S):
                await asyncio.wait(connects, timeout=CONNECT_PAUSE_S)
                if not connects[0].done() or connects[0].result() is None:
                    pauses = (place * CONNECT_PAUSE_S for place in range(CONNECTS - 1))
                    connects += [self._start_connect(address, pause_s) for pause_s in pauses]
                for connected in asyncio.as_completed(connects):
                    if (is_open := await connected) is not None:
                        return is_open
        except TimeoutError:
            return False
        finally:
            for one in connects:
                one.cancel()
        return False

    def _start_connect(self, address: str, after_s: float) -> asyncio.Task[bool | None]:
        return self._scope.start(f"connect to {address}", self._connect(address, after_s))

    async def _connect(self, address: str, after_s: float) -> bool | None:
        """False: nobody listens there, as every other connection would be told; None: this one failed."""
        await asyncio.sleep(after_s)
        try:
            transport, _ = await self._components.network.connect(address, asyncio.Protocol)
        except ConnectionRefusedError:
            return False
        except (OSError, Unavailable):
            return None
        transport.close()
        return True
