"""The simulated loop itself: virtual time, dead waits, determinism."""

from __future__ import annotations

import asyncio

import pytest

from .loop import START_S, DeadWait, SimClock, SimLoop, run_virtual


def test_sleeping_an_hour_takes_no_time() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(START_S + 3600)


def test_a_wait_that_nobody_ends_is_found() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadWait):
        run_virtual(main())


def test_a_spin_is_found() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110  # the spin that is to be found
            await asyncio.sleep(0)

    with pytest.raises(DeadWait, match="stands still"):
        run_virtual(main())


def test_timeouts_fire_in_virtual_time() -> None:
    async def main() -> bool:
        try:
            async with asyncio.timeout(5):
                await asyncio.sleep(6)
        except TimeoutError:
            return True
        return False

    assert run_virtual(main())


def test_timers_of_one_moment_run_in_the_order_they_were_set_and_cancelled_ones_never() -> None:
    async def main() -> list[int]:
        loop, ran = asyncio.get_running_loop(), list[int]()
        timers = [loop.call_at(START_S + 5, ran.append, number) for number in range(50)]
        loop.call_at(START_S + 4, timers[7].cancel)
        loop.call_at(START_S + 5.5, ran.append, -1)
        await asyncio.sleep(5)
        return ran

    assert run_virtual(main()) == [number for number in range(50) if number != 7]


def test_a_drifting_clock_is_monotone_and_a_wall_jump_leaves_it_alone() -> None:
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        clock = SimClock(loop, drift=0.009)
        before = clock.boot_s()
        clock.wall_jump_ns = -3_600_000_000_000
        await asyncio.sleep(100)
        return before, clock.boot_s()

    before, after = run_virtual(main())
    assert after - before == pytest.approx(100.9)


def test_a_thread_pool_is_refused() -> None:
    async def main() -> None:
        await asyncio.to_thread(print)

    with pytest.raises(AssertionError, match="thread pool"):
        run_virtual(main())


def test_a_clock_that_stands_still_loses_that_time_and_goes_on() -> None:
    async def main() -> tuple[float, float, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        clock = SimClock(loop, offset_s=7.0)
        await asyncio.sleep(10)
        clock.stand_still(2.0)
        await asyncio.sleep(1)
        standing_s = clock.boot_s()
        await asyncio.sleep(3)
        clock.drift(0.005)
        moved_s = clock.boot_s()
        await asyncio.sleep(100)
        return standing_s, moved_s, clock.boot_s() - moved_s

    assert run_virtual(main()) == pytest.approx((17.0, 19.0, 100.5))
