"""One source's line to its receiver, under the chain version that the job has now."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from fs3.errors import StaleRouting, Unavailable
from fs3.ids import ChainVersion
from fs3.rpc.service import Caller, Method
from fs3.wire.storage import ResyncFrom

from ..forwarding import BULK_BYTES
from ..membership import Membership
from ..runner import TargetRunner
from .job import Job

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

CALL_TIMEOUT_S = 5.0


class Link:
    """Made anew for each step: it never speaks under another version than the one it was made for."""

    def __init__(self, runner: TargetRunner, job: Job, membership: Membership, caller: Caller) -> None:
        self.runner = runner
        self.version: ChainVersion = job.version
        self._job = job
        self._membership = membership
        self._caller = caller

    def speaker(self) -> ResyncFrom:
        """Who speaks. StaleRouting: the chain has changed since this was made."""
        standing = self.runner.replica.gate.standing
        if standing is None or standing.version != self.version:
            raise StaleRouting(f"target {self.runner.target:x} is not at version {self.version} any more")
        since = ChainVersion(0) if self._job.must_begin else self._job.since
        return ResyncFrom(
            chain=standing.chain, chain_version=self.version, sender=self.runner.target, since=since
        )

    async def call(
        self,
        method: Method[Q, R],
        request: Q,
        payload: memoryview | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> R:
        """Ask the receiver; raises what it answers, Unavailable, MaybeApplied: everything may be repeated."""
        target = self._job.receiver.target
        address = self._membership.routing.address_of(target)
        if address is None:
            raise Unavailable(f"the node of target {target:x} is not in routing")
        view = payload if payload is not None else memoryview(b"")
        return await self._caller.call(
            address,
            method,
            request,
            timeout_s=timeout_s,
            payload=(view,) if len(view) else (),
            bulk=len(view) > BULK_BYTES,
        )
