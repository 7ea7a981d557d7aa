"""Keeps the primary's lease: renews it, or watches it and takes over; begins and ends terms.

Also persists the bound of cluster time. Source: design 2.4, 7.
"""

from __future__ import annotations

import asyncio

from fs3.errors import Fs3Error, MaybeApplied, Retryable
from fs3.kv.transaction import Transaction
from fs3.routing import NodeInfo

from ..lease import LeaseRecord
from ..services import Services
from ..store import Change, Loaded, TermOver, load, put_bound, read_lease, swap_lease
from ..term import Term

LOAD_TIMEOUT_S = 2.0
RELEASE_TIMEOUT_S = 0.5


class LeaseKeeper:
    """One mgmtd's part in the election. ``own``: how it registers itself."""

    def __init__(self, services: Services, own: NodeInfo) -> None:
        self._services = services
        self._own = own
        self._told: tuple[bool, str] = (False, "")
        """Whether this is the primary, and who is, as last told to those who look for it."""

    async def run(self) -> None:
        """Until cancelled: one step each period."""
        timing = self._services.settings.timing
        while True:
            began_s = self._services.clock.boot_s()
            self._end_what_is_over()  # first: a pause must not let an old term act under a new lease
            try:
                await self._step(began_s)
            except (Retryable, MaybeApplied) as error:
                self._services.log.warning("lease record not reached", reason=str(error))
            except TermOver as error:
                self._services.step_down(str(error))
            self._end_what_is_over()
            self._tell_standing()
            took_s = self._services.clock.boot_s() - began_s
            await asyncio.sleep(max(0.01, timing.renew_s - took_s))

    def _end_what_is_over(self) -> None:
        if self._services.term is not None and self._services.primary_term() is None:
            self._services.step_down("the lease was not renewed in time")

    def _tell_standing(self) -> None:
        services = self._services
        standing = services.primary_term() is not None, services.lease.primary_address
        if standing != self._told:
            self._told = standing
            services.standing_changed.wake()

    async def _step(self, began_s: float) -> None:
        services, lease = self._services, self._services.lease
        limit_s = services.settings.timing.primary_holds_s / 2
        if not (lease.is_own and lease.is_primary(began_s)):
            found = await services.transact(read_lease, limit_s)
            lease.observe(found, services.clock.boot_s())
        wanted = lease.next_record(services.clock.boot_s())
        if wanted is None:
            return
        began_s = services.clock.boot_s()
        seen = lease.record

        async def body(txn: Transaction) -> LeaseRecord | None:
            return await swap_lease(txn, seen, wanted)

        found = await services.transact(body, limit_s)
        now_s = services.clock.boot_s()
        if found != wanted:
            lease.observe(found, now_s)
            return
        is_new = lease.wrote(wanted, began_s, now_s)
        if not lease.is_primary(now_s):
            return  # it took too long, or this term was given up meanwhile
        if is_new or services.term is None or services.term.is_over:
            await self._begin_term(wanted, now_s)
        else:
            services.term.record = wanted
            await self._raise_bound(services.term)

    async def _begin_term(self, record: LeaseRecord, began_s: float) -> None:
        """Read everything, then act. Grants go out at once; nobody is left out before G has passed."""
        services = self._services

        async def body(txn: Transaction) -> Loaded:
            return await load(txn, record, services.components.key.cluster)

        loaded = await services.transact(body, LOAD_TIMEOUT_S)
        term = Term(record, loaded, began_s, services.settings.timing, services.components.make_nonce)
        await self._raise_bound(term)
        if services.term is not None:
            services.term.end()
        services.term = term
        services.takeover_count += 1
        services.log.info(
            "primary", term=record.start, routing_version=term.routing.version,
            removes_nobody_for_s=round(term.grants.floor_s - services.clock.boot_s(), 3),
        )  # fmt: skip
        services.pass_wanted.set()
        if term.routing.nodes.get(self._own.node) != self._own:
            await services.write(term, lambda at: Change(nodes=(self._own,)))

    async def _raise_bound(self, term: Term) -> None:
        bound_ms = term.clock.next_bound_ms(self._services.clock.boot_s())
        if bound_ms is None:
            return

        async def body(txn: Transaction) -> None:
            await put_bound(txn, term.record, bound_ms)

        await self._services.transact(body, LOAD_TIMEOUT_S)
        term.clock.persisted(bound_ms)

    async def release(self) -> None:
        """At a clean stop: another mgmtd may take over without waiting."""
        seen = self._services.lease.record
        wanted = self._services.lease.release()
        self._services.step_down("stopped")
        if wanted is None:
            return

        async def body(txn: Transaction) -> LeaseRecord | None:
            return await swap_lease(txn, seen, wanted)

        try:
            await self._services.transact(body, RELEASE_TIMEOUT_S)
        except Fs3Error as error:
            self._services.log.info("lease not released, it will run out", reason=str(error))
