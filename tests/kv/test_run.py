"""The driver: when it runs a body again, when it stops, and what it says then."""

from __future__ import annotations

import asyncio

import pytest

from fs3.errors import (
    DeadlineExceeded,
    Exists,
    Fs3Error,
    MaybeApplied,
    TransactionConflict,
    Unavailable,
    fs_error,
)
from fs3.kv.faults import FaultRates, RandomFaults, ScriptedFaults
from fs3.kv.memory import MemoryKv, MemoryStore
from fs3.kv.run import OnMaybeApplied, RetryPace, RunStats, run
from fs3.kv.transaction import AtomicOp, Kv, Transaction
from fs3.rng import derived_rng
from tests.sim.loop import run_virtual


class LoopClock:
    """The running loop's (simulated) time."""

    def boot_s(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_ns(self) -> int:
        return int(self.boot_s() * 1e9)


CLOCK = LoopClock()


class World:
    """A store, its faults, and the driver's settings."""

    def __init__(self) -> None:
        self.faults = ScriptedFaults()
        self.store = MemoryStore(CLOCK)
        self.kv: Kv = MemoryKv(self.store, faults=self.faults)
        self.stats = RunStats()
        self.rng = derived_rng(1, "retry")

    async def add(self, *, policy: OnMaybeApplied = OnMaybeApplied.RAISE, within_s: float = 5.0) -> int:
        """Add one to a counter by reading and writing; returns what was written."""

        async def body(txn: Transaction) -> int:
            value = int.from_bytes(await txn.get(b"n") or b"\0", "little") + 1
            txn.set(b"n", value.to_bytes(4, "little"))
            return value

        return await run(
            self.kv,
            body,
            clock=CLOCK,
            rng=self.rng,
            deadline_s=CLOCK.boot_s() + within_s,
            on_maybe_applied=policy,
            stats=self.stats,
        )

    async def count(self) -> int:
        txn = self.kv.transaction()
        try:
            return int.from_bytes(await txn.get(b"n") or b"\0", "little")
        finally:
            txn.cancel()


def test_conflicts_start_the_body_again() -> None:
    async def scenario() -> None:
        world = World()

        async def get_in_between() -> None:
            txn = MemoryKv(world.store).transaction()
            txn.atomic(AtomicOp.ADD, b"n", b"\x0a\0\0\0")
            await txn.commit()

        world.faults.before = [get_in_between, get_in_between]
        assert await world.add() == 21
        assert world.stats == RunStats(attempts=3, commits=1, retries=2)

    run_virtual(scenario())


@pytest.mark.parametrize("error", [Unavailable("x"), TransactionConflict("x")])
def test_retries_end_at_the_deadline_with_the_cause(error: Fs3Error) -> None:
    async def scenario() -> None:
        world = World()
        world.faults.before = [error] * 10_000
        start_s = CLOCK.boot_s()
        with pytest.raises(DeadlineExceeded) as caught:
            await world.add(within_s=2.0)
        assert caught.value.__cause__ is error
        assert 1.5 < CLOCK.boot_s() - start_s <= 2.0
        assert 10 < world.stats.attempts < 200, "pauses grow"
        world.faults.before = []
        assert await world.add() == 1

    run_virtual(scenario())


def test_a_lost_answer_is_raised_or_retried_as_the_caller_says() -> None:
    async def scenario() -> None:
        world = World()
        world.faults.after = [MaybeApplied("lost")]
        with pytest.raises(MaybeApplied):
            await world.add()
        assert await world.count() == 1
        world.faults.after = [MaybeApplied("lost")]
        assert await world.add(policy=OnMaybeApplied.RETRY) == 3, "this body does not recognise itself"
        world.faults.before = [MaybeApplied("lost"), *[Unavailable("away")] * 1000]
        with pytest.raises(MaybeApplied):
            await world.add(policy=OnMaybeApplied.RETRY, within_s=1.0)
        assert world.stats.unknown_results == 3

    run_virtual(scenario())


def test_a_stuck_commit_is_in_doubt_at_the_deadline() -> None:
    async def scenario() -> None:
        world = World()

        async def stuck() -> None:
            await asyncio.sleep(100)

        world.faults.after = [stuck]
        start_s = CLOCK.boot_s()
        with pytest.raises(MaybeApplied):
            await world.add(within_s=1.0)
        assert CLOCK.boot_s() - start_s == pytest.approx(1.0)

    run_virtual(scenario())


def test_other_errors_of_the_body_end_it_at_once() -> None:
    async def scenario() -> None:
        world = World()

        async def body(txn: Transaction) -> None:
            txn.set(b"n", b"\x07")
            raise fs_error(17, "there already")

        with pytest.raises(Exists):
            await run(world.kv, body, clock=CLOCK, rng=world.rng, deadline_s=CLOCK.boot_s() + 1)
        assert await world.count() == 0

    run_virtual(scenario())


@pytest.mark.parametrize("seed", range(5))
def test_counting_under_faults_is_exact_within_the_doubt(seed: int) -> None:
    async def scenario() -> list[object]:
        store = MemoryStore(CLOCK)
        trace: list[object] = []
        rates = FaultRates(0.05, 0.1, 0.1, 0.05, 0.05, 0.5, 0.05)

        async def client(name: str) -> tuple[int, int]:
            kv = MemoryKv(store, faults=RandomFaults(derived_rng(seed, name), rates))
            rng = derived_rng(seed, name + "/retry")
            sure = doubtful = 0

            async def body(txn: Transaction) -> None:
                value = int.from_bytes(await txn.get(b"n") or b"\0", "little") + 1
                txn.set(b"n", value.to_bytes(4, "little"))

            for _ in range(20):
                try:
                    deadline_s = CLOCK.boot_s() + 20
                    await run(kv, body, clock=CLOCK, rng=rng, deadline_s=deadline_s, pace=RetryPace())
                    sure += 1
                except MaybeApplied:
                    doubtful += 1
                trace.append((name, CLOCK.boot_s(), sure, doubtful))
            return sure, doubtful

        counts = await asyncio.gather(*(client(f"client{number}") for number in range(4)))
        final = int.from_bytes(store.value_at(b"n", store.version) or b"\0", "little")
        sure, doubtful = (sum(column) for column in zip(*counts, strict=True))
        assert sure <= final <= sure + doubtful
        trace.append(final)
        return trace

    assert run_virtual(scenario()) == run_virtual(scenario()), "the same seed gives the same run"
