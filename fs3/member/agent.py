"""What every node runs to be a member: beacons, leases, routing, reports, cluster time.

A storage or meta server makes one ``Agent``, adds its method to its RPC server (``add_routes``), starts it
when it knows its own addresses, and then

* asks ``lease_valid(chain, version)`` before it serves, commits or answers a query, and again before it
  commits (a dictionary look-up and two comparisons),
* adopts routing in a callback (``subscribe``) and says so (``acknowledge``),
* tells of its targets (``set_targets``), which are reported at once when they change.

The decisions are made by pure machines (``NodeLeases``, ``Pace``, ``ClusterOffset``); datagrams go through
``Correspondence``. This file joins them to clock, network and tasks.

Source: design 2.1, 2.2, 2.5, 7.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from ..errors import InternalError, MaybeApplied, Rejected, Retryable, Unavailable
from ..ids import ChainId, ChainVersion, Generation
from ..routing import RoutingInfo
from ..rpc.service import Routes
from ..stubs.mgmtd import MgmtdStub, RoutingCache
from ..tasks import TaskScope
from ..wire.member import EXCHANGE
from ..wire.mgmtd import REPORT, ReportRequest, TargetReport
from .cluster_offset import ClusterOffset
from .correspondence import Correspondence, Counters
from .lease import NodeLeases
from .settings import AgentComponents, AgentSettings

REPORT_TIMEOUT_S = 3.0
REPORT_PAUSE_S = 0.1


class Agent:
    """One run (``generation``) of a node as a member of the cluster."""

    def __init__(self, settings: AgentSettings, components: AgentComponents, generation: Generation) -> None:
        problem = settings.timing.problem()
        assert problem is None, problem
        self.generation = generation
        self._settings = settings
        self._components = components
        self._clock = components.clock
        self._log = components.log
        self._timing = settings.timing
        self._started_s = components.clock.boot_s()
        self.mgmtd = MgmtdStub(components.caller, settings.seeds, components.clock, components.rng)
        self.cache = RoutingCache(
            self.mgmtd, components.rng, components.log, wait_s=settings.timing.routing_wait_s
        )
        self.leases = NodeLeases(settings.node, generation, self._started_s, settings.timing)
        self._offset = ClusterOffset(settings.timing)
        self.adopted: dict[ChainId, ChainVersion] = {}
        """What this node's targets have adopted; it is acknowledged once the leases' waits are over."""
        self._targets: tuple[TargetReport, ...] = ()
        self._report_wanted = asyncio.Event()
        self._report_sequence = 0
        self._reported_version = 0
        self._address = ""
        self._local_address = ""
        self._scope = TaskScope("agent", components.fail)
        self._correspondence = Correspondence(self)
        self.cache.subscribe(self._adopt)
        self.cache.on_cluster_time(self._learn_time)

    # --- for the node's own services ---

    @property
    def routing(self) -> RoutingInfo:
        """The newest picture."""
        return self.cache.routing

    @property
    def serving_allowed_from_s(self) -> float:
        """By ``clock.boot_s()``: before it nothing is served, committed or granted (design 2.7)."""
        return self.leases.allowed_from_s

    @property
    def beacon_address(self) -> str:
        """UDP address as it is; empty before the start."""
        return self._correspondence.address

    @property
    def counters(self) -> Counters:
        """What happened to datagrams."""
        return self._correspondence.counters

    def subscribe(self, adopt: Callable[[RoutingInfo], None]) -> None:
        """Call ``adopt`` with each newer picture, after its leases are in force here. Must not wait."""
        self.cache.subscribe(adopt)

    def lease_valid(self, chain: ChainId, version: ChainVersion) -> bool:
        """Whether this node may serve and commit ``chain`` at exactly ``version``, now."""
        return self.leases.valid(chain, version, self._clock.boot_s())

    def acknowledge(self, chain: ChainId, version: ChainVersion) -> None:
        """The target of ``chain`` has adopted ``version``; mgmtd learns it with the next beacon."""
        if self.adopted.get(chain, 0) < version:
            self.adopted[chain] = version
            self._correspondence.hurry_beacons()

    def set_targets(self, targets: Sequence[TargetReport]) -> None:
        """What is to be reported of this node's targets; what changed, space and pace aside, is at once."""
        changed = _without_space(targets) != _without_space(self._targets)
        self._targets = tuple(targets)
        if changed:
            self.report_soon()

    def report_soon(self) -> None:
        """Send a full report now rather than at its time."""
        self._report_wanted.set()

    def cluster_time_ms(self) -> int:
        """Cluster time (design 7). Unavailable: no primary has answered since the start."""
        return self._offset.now_ms(self._clock.boot_s())

    def health(self) -> dict[str, object]:
        """For ``/healthz``: ok unless this run may never serve again."""
        now_s = self._clock.boot_s()
        return {
            "ok": not self.leases.is_fenced,
            "node": self._settings.node,
            "generation": self.generation,
            "routing_version": self.routing.version,
            "primary": self.mgmtd.primary.address,
            "lease_remaining_s": round(self.leases.primary_left_s(now_s), 3),
            "chains_without_lease": len(self.leases.chains_without(now_s)),
            "unreachable": self._correspondence.unreachable(now_s),
        }

    # --- life ---

    def add_routes(self, routes: Routes) -> None:
        """Register what peers and mgmtd call here."""
        routes.add(EXCHANGE, self._correspondence.on_exchange)

    async def start(self, address: str, local_address: str = "") -> None:
        """Begin; ``address``: where this node's RPC server listens. OSError: the UDP address is taken.

        Does not wait for mgmtd: routing comes when one answers (``cache.wait_version``).
        """
        self._address, self._local_address = address, local_address
        await self._correspondence.start(self._settings.beacon_address)
        self.cache.start(self._scope)
        self._report_wanted.set()
        self._scope.spawn("report", self._report_loop())

    async def stop(self) -> None:
        """End: no beacon, no grant after it. Leases of this run end by themselves."""
        self.leases.fence()
        self._correspondence.stop()
        await self._scope.aclose()

    # --- what Correspondence needs (correspondence.Member) ---

    @property
    def settings(self) -> AgentSettings:
        """As handed in."""
        return self._settings

    @property
    def components(self) -> AgentComponents:
        """As handed in."""
        return self._components

    @property
    def scope(self) -> TaskScope:
        """Owner of the agent's tasks."""
        return self._scope

    def on_primary_answer(
        self, term: int, cluster_ms: int, sent_s: float, address: str, routing_version: int
    ) -> None:
        """A grant came from the primary of ``term`` at RPC ``address``."""
        now_s = self._clock.boot_s()
        lost_s = self._offset.lost_s(term, cluster_ms, sent_s, now_s)
        self._offset.learn(cluster_ms, now_s)
        if lost_s > self._timing.clock_loss_s:
            self.on_lost_time(lost_s)
        if address and address != self.mgmtd.primary.address:
            self.mgmtd.primary.found(address)  # it proved the cluster key and that it is primary
        if routing_version > self.routing.version:
            self._scope.spawn("catch up", self._catch_up())

    def on_lost_time(self, lost_s: float) -> None:
        """The clock is not to be counted on: it has lost so much against the primary's, or two peers'."""
        if self.leases.is_fenced:
            return
        self.leases.fence()
        text = f"the clock lost {lost_s * 1000:.0f} ms against those of others: this generation is over"
        self._log.error("fenced", lost_ms=round(lost_s * 1000), generation=self.generation)
        self._components.fail("agent/clock", Unavailable(text))

    def _adopt(self, routing: RoutingInfo) -> None:
        self.leases.adopt(routing.chains, routing.version, self._clock.boot_s())
        self._correspondence.adopt(routing)

    def _learn_time(self, cluster_ms: int) -> None:
        if cluster_ms > 0:
            self._offset.learn(cluster_ms, self._clock.boot_s())

    async def _catch_up(self) -> None:
        try:
            await self.cache.refresh()
        except (Retryable, MaybeApplied, InternalError) as error:
            self._log.debug("routing not reached", reason=str(error))

    # --- reports ---

    async def _report_loop(self) -> None:
        while True:
            await self._wait_for_report()
            try:
                await self._report()
            except (Retryable, MaybeApplied) as error:
                self._log.debug("report not delivered", reason=str(error))
                self._report_wanted.set()
                await asyncio.sleep(REPORT_PAUSE_S)
            except (Rejected, InternalError) as error:
                # an older generation than the present one, another node's id, or a bug of the primary:
                # retrying will not help, an operator has to look; the next report says it again
                self._log.error("report refused", reason=str(error))

    async def _wait_for_report(self) -> None:
        """Wait for a change, or the period."""
        try:
            async with asyncio.timeout(self._timing.report_s):
                await self._report_wanted.wait()
        except TimeoutError:
            return
        self._report_wanted.clear()

    async def _report(self) -> None:
        settings = self._settings
        self._report_sequence += 1
        request = ReportRequest(
            node=settings.node,
            kind=settings.kind,
            generation=self.generation,
            sequence=self._report_sequence,
            host=settings.host,
            address=self._address,
            beacon_address=self.beacon_address,
            local_address=self._local_address,
            zone=settings.zone,
            targets=self._targets,
            broken_links=tuple(self._correspondence.unreachable(self._clock.boot_s())),
            version=settings.version,
        )
        answer = await self.mgmtd.call(REPORT, request, timeout_s=REPORT_TIMEOUT_S)
        if not answer.is_primary:
            self.mgmtd.primary.found(answer.primary_address)
            raise Unavailable("reported to a mgmtd that is no primary any more")
        if answer.routing_version > self.routing.version:
            await self._catch_up()


def _without_space(targets: Sequence[TargetReport]) -> list[TargetReport]:
    """Reports as they are compared: space in use and pace change all the time, and are no event."""
    same = {"used_bytes": 0, "chain_version": ChainVersion(0), "acknowledge_us": 0, "copy_step_count": 0}
    return [msgspec.structs.replace(t, **same) for t in targets]
