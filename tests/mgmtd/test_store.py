"""The transactions of mgmtd: nobody writes whose term is over, and nothing is written twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from fs3.clock import SystemClock
from fs3.errors import TransactionConflict
from fs3.ids import Generation, NodeId
from fs3.kv.memory import MemoryKv, MemoryStore
from fs3.kv.transaction import Transaction
from fs3.mgmtd.lease import LeaseRecord
from fs3.mgmtd.store import Change, TermOver, load, put_bound, put_change, swap_lease
from fs3.routing import NodeInfo, NodeKind

T = TypeVar("T")


def term(holder: int, start: int) -> LeaseRecord:
    return LeaseRecord(holder=NodeId(holder), generation=Generation(1), start=start, renewal=1)


FIRST, SECOND = term(1, 1), term(2, 2)


def node(host: str) -> Change:
    info = NodeInfo(
        node=NodeId(11), kind=NodeKind.STORAGE, generation=Generation(1), host=host, address="s:1"
    )
    return Change(nodes=(info,))


def in_store(scenario: Callable[[MemoryKv], Awaitable[T]]) -> T:
    """With a store in which ``FIRST`` is primary."""

    async def main() -> T:
        kv = MemoryKv(MemoryStore(SystemClock()))
        try:
            await commit(kv, lambda txn: swap_lease(txn, None, FIRST))
            return await scenario(kv)
        finally:
            await kv.aclose()

    return asyncio.run(main())


async def commit(kv: MemoryKv, body: Callable[[Transaction], Awaitable[T]]) -> T:
    txn = kv.transaction()
    result = await body(txn)
    await txn.commit()
    return result


def test_who_has_lost_the_lease_writes_nothing() -> None:
    async def scenario(kv: MemoryKv) -> None:
        await commit(kv, lambda txn: put_change(txn, FIRST, node("before"), 1))
        assert await commit(kv, lambda txn: swap_lease(txn, FIRST, SECOND)) == SECOND
        with pytest.raises(TermOver):
            await commit(kv, lambda txn: put_change(txn, FIRST, node("late"), 2))
        with pytest.raises(TermOver):
            await commit(kv, lambda txn: put_bound(txn, FIRST, 1000))
        loaded = await commit(kv, lambda txn: load(txn, SECOND, "alpha"))
        assert loaded.routing.version == 1 and loaded.routing.nodes[NodeId(11)].host == "before"
        assert loaded.cluster_time_bound_ms == 0

    in_store(scenario)


def test_a_take_over_between_reading_and_committing_ends_the_write() -> None:
    """The lease record is read with conflict: a term that ends meanwhile is enough."""

    async def scenario(kv: MemoryKv) -> None:
        late = kv.transaction()
        await put_change(late, FIRST, node("late"), 1)
        await commit(kv, lambda txn: swap_lease(txn, FIRST, SECOND))
        with pytest.raises(TransactionConflict):
            await late.commit()

    in_store(scenario)


def test_a_change_whose_answer_was_lost_is_written_once() -> None:
    async def scenario(kv: MemoryKv) -> None:
        for _ in range(2):
            await commit(kv, lambda txn: put_change(txn, FIRST, node("once"), 1))
        loaded = await commit(kv, lambda txn: load(txn, FIRST, "alpha"))
        assert loaded.routing.version == 1

    in_store(scenario)
