"""An asyncio event loop under virtual time: nothing waits, the clock jumps to the next timer.

A whole cluster runs in it in one thread: 90 simulated seconds take milliseconds when nothing happens. Only
what is deterministic is allowed: no threads, no sockets, no real time. When no timer is left and the work
is not done, ``DeadWait`` is raised: somebody waits for what can never come (a liveness check for free).
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

START_S = 1_000.0
"""Loop time at the start; not 0, so that a forgotten ``or now`` shows."""
WALL_START_NS = 1_700_000_000_000_000_000


class DeadWait(AssertionError):
    """Nothing is left to run, or something spins, and the main task has not ended."""


STANDSTILL_TURNS = 200_000
"""Turns of the loop without any progress of time after which somebody is spinning."""


class _NoWait(selectors.BaseSelector):
    """A selector without events whose ``select`` advances the loop's clock instead of waiting."""

    def __init__(self) -> None:
        self.now_s = START_S
        self._still_turns = 0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, getattr(fileobj, "fileno", lambda: 0)(), events, data)
        self._keys[fileobj] = key  # the loop's own wake-up pipe, never used here
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise DeadWait("every task waits and no timer is set")
        self._still_turns = 0 if timeout > 0 else self._still_turns + 1
        if self._still_turns > STANDSTILL_TURNS:
            self._still_turns = 0
            raise DeadWait(f"time stands still at {self.now_s!r}: something runs again and again")
        self.now_s += max(0.0, timeout)
        return []

    def get_map(self) -> Any:
        return self._keys

    def close(self) -> None:
        self._keys.clear()


class SimLoop(asyncio.SelectorEventLoop):
    """The loop; ``time()`` is virtual."""

    def __init__(self) -> None:
        self._virtual = _NoWait()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s

    def advance(self, seconds: float) -> None:
        """Let the clock run without running anything: the whole process was paused."""
        self._virtual.now_s += seconds

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]  # refuses all calls alike
        raise AssertionError("a thread pool in the simulated world: hand the component in instead")

    async def create_connection(self, *_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a real socket in the simulated world: go through the network component")

    async def create_server(self, *_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a real socket in the simulated world: go through the network component")

    async def create_datagram_endpoint(self, *_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a real socket in the simulated world: go through the network component")


class SimClock:
    """A node's clock: its rate may drift and its wall clock may jump; ``boot_s`` never steps back."""

    def __init__(self, loop: SimLoop, *, drift: float = 0.0, offset_s: float = 0.0) -> None:
        assert abs(drift) < 0.01, drift
        self._loop = loop
        self._rate = 1.0 + drift
        self._offset_s = offset_s
        self.wall_jump_ns = 0

    def boot_s(self) -> float:
        return self._offset_s + (self._loop.time() - START_S) * self._rate

    def wall_ns(self) -> int:
        return WALL_START_NS + int((self._loop.time() - START_S) * 1e9) + self.wall_jump_ns


def run_virtual(main: Coroutine[Any, Any, T], loop: SimLoop | None = None) -> T:
    """Run ``main`` to its end under virtual time; asserts that it leaves no task behind."""
    loop = loop or SimLoop()
    failed: list[str] = []
    loop.set_exception_handler(lambda _, context: failed.append(repr(context)))
    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(main)
        assert not failed, f"failures in callbacks: {failed}"
        left = [task.get_name() for task in asyncio.all_tasks(loop)]
        assert not left, f"tasks left running: {sorted(left)}"
        return result
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, DeadWait):
                loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
