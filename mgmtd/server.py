"""A mgmtd, composed from settings and components: the same in production and in the simulated world."""

from __future__ import annotations

from collections.abc import Callable, Sized

from fs3.identity.handshake import NodeCredentials, ServerIdentity
from fs3.ids import Generation
from fs3.kv.transaction import Transaction
from fs3.metrics import Metrics
from fs3.routing import NodeInfo, NodeKind
from fs3.rpc.client import RpcClient
from fs3.rpc.exported import export_client, export_server
from fs3.rpc.server import RpcServer
from fs3.rpc.service import Routes
from fs3.stubs.mgmtd import MgmtdStub
from fs3.tasks import TaskScope
from fs3.wire.member import EXCHANGE
from fs3.wire.mgmtd import CREATE_CHAIN_TABLE, GET_ROUTING, ISSUE_TOKEN, REPORT, REVOKE, STATUS

from .hearing import Hearing
from .lease import PrimaryLease
from .liveness import Verdict
from .ops.create_chain_table import create_chain_table
from .ops.get_routing import get_routing
from .ops.issue_token import issue_token
from .ops.report import report
from .ops.revoke import revoke
from .ops.status import status
from .services import MgmtdComponents, MgmtdSettings, Services
from .store import next_generation
from .term import Term
from .workers.keeper import LeaseKeeper
from .workers.prober import Prober
from .workers.standby import StandbyReports
from .workers.verdicts import VerdictPass

START_TIMEOUT_S = 5.0

__all__ = ["MgmtdComponents", "MgmtdServer", "MgmtdSettings"]


class MgmtdServer:
    """One mgmtd. ``start`` returns when it listens; whether it is primary shows in ``health``."""

    def __init__(self, settings: MgmtdSettings, components: MgmtdComponents) -> None:
        problem = settings.timing.problem()
        assert problem is None, problem
        self.settings = settings
        self._components = components
        self.address = settings.address
        """RPC address; as it really is after the start."""
        self.services: Services | None = None
        self._scope = TaskScope("mgmtd", components.fail)
        self._keeper: LeaseKeeper | None = None
        self._hearing: Hearing | None = None
        self._rpc: RpcServer | None = None
        self._client: RpcClient | None = None
        self._metrics: Metrics | None = None

    async def start(self) -> None:
        """Listen and take part in the election. Fs3Error: no KV store; OSError: an address is taken."""
        components, settings = self._components, self.settings
        lease = PrimaryLease(settings.node, Generation(0), settings.address, settings.timing)
        services = Services(settings, components, lease, self._scope)
        self.services = services

        async def body(txn: Transaction) -> Generation:
            return await next_generation(txn, settings.node)

        lease.generation = await services.transact(body, START_TIMEOUT_S)
        self._hearing = Hearing(services)
        await self._listen(services, self._hearing)
        await self._hearing.start()
        own = NodeInfo(
            node=settings.node,
            kind=NodeKind.MGMTD,
            generation=lease.generation,
            host=settings.host,
            address=self.address,
            beacon_address=self._hearing.address,
            zone=settings.zone,
        )
        self._run(services, own)

    async def _listen(self, services: Services, hearing: Hearing) -> None:
        components, settings = self._components, self.settings
        generation = services.lease.generation
        self._rpc = RpcServer(
            self._routes(services, hearing),
            ServerIdentity(
                components.key, settings.node, generation, lambda uid: _least_key_generation(services, uid)
            ),
            components.network,
            make_nonce=components.make_nonce,
            on_bug=self._on_bug,
        )
        services.keys_changed = self._rpc.revalidate
        (self.address,) = await self._rpc.start([settings.address])
        services.lease.address = self.address
        self._client = RpcClient(
            NodeCredentials(components.key, settings.node, generation),
            components.network,
            rng=components.rng,
            make_nonce=components.make_nonce,
            on_failure=components.fail,
        )
        if self._metrics is not None:
            export_server(self._metrics, self._rpc.counters)
            export_client(self._metrics, self._client.counters)

    def _run(self, services: Services, own: NodeInfo) -> None:
        assert self._client is not None
        components = self._components
        self._keeper = LeaseKeeper(services, own)
        seeds = self.settings.seeds or (self.address,)
        stub = MgmtdStub(self._client, seeds, components.clock, components.rng)
        self._scope.spawn("lease", self._keeper.run())
        self._scope.spawn("verdicts", VerdictPass(services).run())
        self._scope.spawn("probes", Prober(services, self._client).run())
        self._scope.spawn("standby", StandbyReports(services, stub, own).run())

    def _routes(self, services: Services, hearing: Hearing) -> Routes:
        routes = Routes()
        routes.add(GET_ROUTING, lambda call, request: get_routing(services, call, request))
        routes.add(REPORT, lambda call, request: report(services, call, request))
        routes.add(CREATE_CHAIN_TABLE, lambda call, request: create_chain_table(services, call, request))
        routes.add(STATUS, lambda call, request: status(services, call, request))
        routes.add(ISSUE_TOKEN, lambda call, request: issue_token(services, call, request))
        routes.add(REVOKE, lambda call, request: revoke(services, call, request))
        routes.add(EXCHANGE, hearing.on_exchange)
        return routes

    async def stop(self) -> None:
        """Release the lease, then close. Works after a start that failed half-way."""
        if self.services is not None:
            self.services.is_stopping = True
            self.services.standing_changed.wake()
        if self._keeper is not None:
            await self._keeper.release()
        if self._hearing is not None:
            self._hearing.stop()
        await self._scope.aclose()
        if self._client is not None:
            await self._client.aclose()
        if self._rpc is not None:
            await self._rpc.aclose()

    def health(self) -> dict[str, object]:
        """For ``/healthz``: a standby is well too."""
        services = self.services
        term = services.primary_term() if services is not None else None
        return {
            "ok": self._rpc is not None,
            "node": self.settings.node,
            "address": self.address,
            "role": "primary" if term is not None else "standby",
            "primary": services.lease.primary_address if services is not None else "",
            "routing_version": term.routing.version if term is not None else 0,
        }

    def describe(self, metrics: Metrics) -> None:
        """Register this server's metrics, before its start; they are read when somebody asks."""
        self._metrics = metrics
        metrics.computed("fs3_mgmtd_is_primary", lambda: float(self.health()["role"] == "primary"))
        metrics.computed("fs3_mgmtd_broken_links", lambda: _of_term(self, lambda t: t.liveness.links.broken))
        metrics.computed("fs3_mgmtd_slow_targets", lambda: _of_term(self, lambda t: t.slowness.slow))
        metrics.computed("fs3_mgmtd_takeovers_total", self._takeover_count)
        metrics.computed("fs3_mgmtd_routing_changes_total", self._change_count)
        for kind in NodeKind:
            for verdict in Verdict:
                count = _counts(self, kind, verdict)
                metrics.computed("fs3_mgmtd_nodes", count, kind=kind.name.lower(), state=verdict.value)

    def _takeover_count(self) -> float:
        return self.services.takeover_count if self.services is not None else 0

    def _change_count(self) -> float:
        term = self.services.term if self.services is not None else None
        return term.change_count if term is not None else 0

    def _on_bug(self, method: str, request_id: int, error: BaseException) -> None:
        self._components.log.error("handler failed", method=method, request_id=request_id, exc_info=error)


def _least_key_generation(services: Services, uid: int) -> int:
    term = services.term
    return term.routing.key_generations.get(uid, 0) if term is not None else 0


def _of_term(server: MgmtdServer, what: Callable[[Term], Sized]) -> float:
    """How many there are of something that the primary knows; 0 on a standby."""
    term = server.services.primary_term() if server.services is not None else None
    return len(what(term)) if term is not None else 0


def _counts(server: MgmtdServer, kind: NodeKind, verdict: Verdict) -> Callable[[], float]:
    def count() -> float:
        term = server.services.primary_term() if server.services is not None else None
        if term is None:
            return 0
        nodes = term.routing.nodes.values()
        return sum(1 for n in nodes if n.kind is kind and term.verdicts.get(n.node) is verdict)

    return count
