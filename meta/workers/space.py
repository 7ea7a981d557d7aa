"""Asks the storage nodes for their space, for statfs and for the choice of chains of new files."""

from __future__ import annotations

from ..services import Services

EVERY_S = 5.0
TIMEOUT_S = 3.0


class SpaceWorker:
    """One survey after the other; every service makes its own."""

    name = "space"

    def __init__(self, services: Services) -> None:
        self._services = services

    async def work_once(self) -> float:
        """One survey; nodes that do not answer are left out."""
        targets = await self._services.chains.space(timeout_s=TIMEOUT_S)
        self._services.placement.survey(targets)
        return EVERY_S
