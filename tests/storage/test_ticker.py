"""Ticks come as long as they are wanted, and cost nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fs3.storage.ticker import TICK_S, Ticker
from tests.sim.loop import SimLoop, run_virtual


def test_ticks_come_while_they_are_wanted() -> None:
    loop = SimLoop()
    came_s: list[float] = []

    async def work() -> None:
        began_s = loop.time()

        def tick() -> None:
            came_s.append(round(loop.time() - began_s, 3))
            if len(came_s) < 3:
                ticker.want()

        ticker = Ticker(lambda work: work(), tick)
        ticker.want()
        ticker.want()
        await asyncio.sleep(10.05)
        ticker.want()
        await asyncio.sleep(10.0)
        ticker.want()
        ticker.stop()
        await asyncio.sleep(1.0)

    run_virtual(work(), loop)
    assert came_s == [TICK_S, 2 * TICK_S, round(3 * TICK_S, 3), 10.15]


def test_a_tick_that_is_wanted_from_elsewhere_is_set_on_the_loop_unless_it_was_stopped() -> None:
    handed: list[Callable[[], None]] = []
    ticks: list[None] = []

    async def work() -> None:
        ticker = Ticker(handed.append, lambda: ticks.append(None))
        ticker.want()
        ticker.want()
        await asyncio.sleep(1.0)
        assert len(handed) == 1 and not ticks
        handed[0]()
        await asyncio.sleep(1.0)
        assert len(ticks) == 1
        ticker.want()
        ticker.stop()
        handed[1]()
        await asyncio.sleep(1.0)
        assert len(ticks) == 1

    run_virtual(work())
