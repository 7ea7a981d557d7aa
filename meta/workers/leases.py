"""Which service does a piece of background work: a record in the KV store, renewed by its holder.

A lease saves double work; nothing depends on it for safety. Two holders at once do no harm, because every
step of the workers is a conditioned transaction or is fenced by an epoch. The record holds no time: an
observer takes it over when it has not changed for ``TAKE_OVER_S`` by the observer's own clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from fs3.ids import Generation, NodeId
from fs3.kv.run import run
from fs3.kv.schema import key_u64
from fs3.kv.transaction import Transaction

from ..inode import decoded, encode
from ..services import Services

RENEW_S = 4.0
TAKE_OVER_S = 15.0
TIMEOUT_S = 5.0


class WorkLease(msgspec.Struct, frozen=True, array_like=True):
    """Who does the work, and how often that was renewed."""

    node: NodeId
    generation: Generation
    renewals: int


@dataclass(slots=True)
class _Seen:
    record: WorkLease | None
    since_s: float
    """Own clock, when the record was first seen like this (the holder: when its last renewal began)."""


_DECODER = msgspec.msgpack.Decoder(WorkLease)


class WorkLeases:
    """The leases of one service, by name of the work."""

    def __init__(self, services: Services, node: NodeId, generation: Generation) -> None:
        self._services = services
        self._node = node
        self._generation = generation
        self._seen: dict[str, _Seen] = {}

    async def hold(self, work: str) -> bool:
        """Is the work this service's now? Takes it over when its holder has gone silent."""
        now_s = self._services.clock.boot_s()
        seen = self._seen.get(work)
        if seen is not None and self._is_mine(seen.record) and now_s - seen.since_s < RENEW_S:
            return True
        may_take = seen is not None and now_s - seen.since_s >= TAKE_OVER_S
        known = seen.record if seen is not None else None
        record = await self._look_or_take(work, known, may_take=may_take)
        if seen is None or record != seen.record:
            self._seen[work] = _Seen(record, now_s)
        return self._is_mine(record)

    def _is_mine(self, record: WorkLease | None) -> bool:
        return record is not None and (record.node, record.generation) == (self._node, self._generation)

    async def _look_or_take(self, work: str, known: WorkLease | None, *, may_take: bool) -> WorkLease:
        key = key_u64(b"WLSE", tail=work.encode())
        services = self._services

        async def body(txn: Transaction) -> WorkLease:
            data = await txn.get(key)
            present = None if data is None else decoded(_DECODER, data, f"work lease {work}")
            free = present is None or (may_take and present == known) or self._own_earlier(present)
            if present is not None and not free and not self._is_mine(present):
                return present
            renewals = present.renewals + 1 if present is not None else 1
            mine = WorkLease(self._node, self._generation, renewals)
            txn.set(key, encode(mine))
            return mine

        return await run(
            services.kv,
            body,
            clock=services.clock,
            rng=services.rng,
            deadline_s=services.clock.boot_s() + TIMEOUT_S,
        )

    def _own_earlier(self, record: WorkLease) -> bool:
        """Of an earlier run of this node, which is certainly gone."""
        return record.node == self._node and record.generation < self._generation
