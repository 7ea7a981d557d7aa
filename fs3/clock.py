"""Time as a component: servers are handed a clock, so that a simulated world can hand them its own.

``boot_s`` (CLOCK_BOOTTIME) is what leases are counted on: unlike CLOCK_MONOTONIC it goes on while the
machine is suspended (design 2.2). Wall-clock time is only ever *shown* to people. Waiting is done by the
event loop (``asyncio.timeout``, ``loop.call_later``), which the simulated world replaces as a whole.
"""

from __future__ import annotations

import time
from typing import Protocol

SHORTEST_WAIT_S = 0.001
"""A wait is counted by the loop's clock and its end by a ``Clock``: what is left by one may be nothing by the
other, and whoever waits for so little would go round and round."""


class Clock(Protocol):
    """What a server may ask of time."""

    def boot_s(self) -> float:
        """Seconds since an arbitrary start; never steps, never stops while the process exists."""
        ...

    def wall_ns(self) -> int:
        """Nanoseconds since 1970 UTC; may step either way."""
        ...


class SystemClock:
    """The machine's clocks."""

    def boot_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_ns(self) -> int:
        return time.time_ns()
