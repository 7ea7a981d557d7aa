"""A standby's reports: so that routing names it, and nodes send it their beacons when it takes over."""

from __future__ import annotations

import asyncio

from fs3.errors import InternalError, MaybeApplied, Rejected, Retryable
from fs3.routing import NodeInfo
from fs3.stubs.mgmtd import MgmtdStub
from fs3.wire.mgmtd import REPORT, ReportRequest

from ..services import Services

PERIOD_S = 1.0
TIMEOUT_S = 1.0


class StandbyReports:
    """Reports to the primary while this mgmtd is none."""

    def __init__(self, services: Services, stub: MgmtdStub, own: NodeInfo) -> None:
        self._services = services
        self._stub = stub
        self._own = own
        self._sequence = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            where = self._services.lease.primary_address
            if self._services.primary_term() is None and where and where != self._own.address:
                try:
                    await self._report(where)
                except (Retryable, MaybeApplied, Rejected, InternalError) as error:
                    self._services.log.debug("report not delivered", reason=str(error))
            await asyncio.sleep(PERIOD_S)

    async def _report(self, where: str) -> None:
        own = self._own
        self._sequence += 1
        self._stub.primary.found(where)
        request = ReportRequest(
            node=own.node,
            kind=own.kind,
            generation=own.generation,
            sequence=self._sequence,
            host=own.host,
            address=own.address,
            beacon_address=own.beacon_address,
            zone=own.zone,
            version=self._services.settings.version,
        )
        await self._stub.call(REPORT, request, timeout_s=TIMEOUT_S)
