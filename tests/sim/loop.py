"""An asyncio event loop under virtual time: nothing waits, the clock jumps to the next timer.

A whole cluster runs in it in one thread: 90 simulated seconds take milliseconds when nothing happens. Only
what is deterministic is allowed: no threads, no sockets, no real time. When no timer is left and the work
is not done, ``DeadWait`` is raised: somebody waits for what can never come (a liveness check for free).
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from heapq import heappop, heappush
from typing import Any, NoReturn, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START_S = 1_000.0
"""Loop time at the start; not 0, so that a forgotten ``or now`` shows."""
WALL_START_NS = 1_700_000_000_000_000_000


class DeadWait(AssertionError):
    """Nothing is left to run, or something spins, and the main task has not ended."""


STANDSTILL_TURNS = 200_000
"""Turns of the loop without any progress of time after which somebody is spinning."""


class _NoEvents(selectors.BaseSelector):
    """Keeps the loop's own wake-up pipe, which is never used here; nothing ever selects."""

    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, getattr(fileobj, "fileno", lambda: 0)(), events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> NoReturn:
        raise AssertionError(f"the simulated loop does not select, timeout {timeout}")

    def get_map(self) -> Any:
        return self._keys

    def close(self) -> None:
        self._keys.clear()


class Due(asyncio.TimerHandle):
    """Something that is to run; made without the checks of a real loop, which cost the most."""

    __slots__ = ()
    _callback: Any
    _context: Context

    def __init__(self, when: float, callback: Any, args: Any, context: Context) -> None:
        self._callback, self._args, self._context = callback, args, context
        self._when = when
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<Due {self._callback!r}>"

    @property
    def set_in(self) -> Context:
        """Where it was set."""
        return self._context

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]  # as asyncio does


class SimLoop(asyncio.SelectorEventLoop):
    """The loop; ``time()`` is virtual.

    It has its own turn and its own heap of timers: tuples are compared without Python code, and timers of one
    moment run in the order in which they were set. A turn of ``asyncio`` does the same otherwise.
    """

    _ready: deque[Any]
    _stopping: bool
    _closed: bool

    def __init__(self) -> None:
        super().__init__(_NoEvents())
        self._now_s = START_S
        self._timers: list[tuple[float, int, Due]] = []
        self._timers_made = 0
        self._standing: dict[Callable[[Context], bool], deque[Due]] = {}

    def time(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let the clock run without running anything: the whole process was paused."""
        self._now_s += seconds

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        assert not self._closed, callback
        handle = Due(self._now_s, callback, args, copy_context() if context is None else context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = Due(when, callback, args, copy_context() if context is None else context)
        self._timers_made += 1
        heappush(self._timers, (when, self._timers_made, timer))
        return timer

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        when = self._now_s + delay
        timer = Due(when, callback, args, copy_context() if context is None else context)
        self._timers_made += 1
        heappush(self._timers, (when, self._timers_made, timer))
        return timer

    def cancel_timers(self, is_of: Callable[[Context], bool]) -> None:
        """Cancel the timers that were set in contexts of which ``is_of`` is true."""
        for _, _, timer in self._timers:
            if is_of(timer.set_in):
                timer.cancel()

    def hold_back(self, is_of: Callable[[Context], bool]) -> None:
        """What is due in contexts of which ``is_of`` is true waits until ``let_go``."""
        self._standing[is_of] = deque()

    def let_go(self, is_of: Callable[[Context], bool]) -> None:
        """Run what has waited, in the order in which it became due."""
        self._ready.extend(self._standing.pop(is_of))

    def _stands(self, handle: Any) -> bool:
        for is_of, held in self._standing.items():
            if is_of(handle._context):
                held.append(handle)
                return True
        return False

    def _run_once(self) -> None:
        """All turns until the loop is stopped."""
        timers, due = self._timers, self._ready
        still_turns = 0
        while True:
            while timers and timers[0][2]._cancelled:
                heappop(timers)
            still_turns += 1
            if not due:
                if not timers:
                    raise DeadWait("every task waits and no timer is set")
                if timers[0][0] > self._now_s:
                    self._now_s = timers[0][0]
                    still_turns = 0
            if still_turns > STANDSTILL_TURNS:
                raise DeadWait(f"time stands still at {self._now_s!r}: something runs again and again")
            while timers and timers[0][0] <= self._now_s:
                due.append(heappop(timers)[2])
            self._run_ready()
            if self._stopping:
                return

    def _run_ready(self) -> None:
        """One turn: what is ready now. What it makes ready belongs to the next turn."""
        due, standing = self._ready, self._standing
        for _ in range(len(due)):
            handle = due.popleft()
            if handle._cancelled or (standing and self._stands(handle)):
                continue
            try:
                handle._context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # border: a callback's bug, as asyncio takes it
                self.call_exception_handler({"message": f"failure in {handle!r}", "exception": error})

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]  # refuses all calls alike
        raise AssertionError("a thread pool in the simulated world: hand the component in instead")

    async def create_connection(self, *_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a real socket in the simulated world: go through the network component")

    async def create_server(self, *_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a real socket in the simulated world: go through the network component")

    async def create_datagram_endpoint(self, *_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a real socket in the simulated world: go through the network component")


class SimClock:
    """A node's clock: its rate may drift, its wall clock may jump and it may stand still for a while;
    ``boot_s`` never steps back."""

    def __init__(self, loop: SimLoop, *, drift: float = 0.0, offset_s: float = 0.0) -> None:
        self._loop = loop
        self._rate = 1.0
        self._from_s, self._boot_s = START_S, offset_s
        """At loop time ``_from_s`` it showed ``_boot_s``, and goes at ``_rate`` since."""
        self.wall_jump_ns = 0
        self.drift(drift)

    def boot_s(self) -> float:
        since_s = self._loop._now_s - self._from_s
        return self._boot_s + since_s * self._rate if since_s > 0 else self._boot_s

    def wall_ns(self) -> int:
        return WALL_START_NS + int((self._loop.time() - START_S) * 1e9) + self.wall_jump_ns

    def drift(self, drift: float) -> None:
        """From now on it goes so much too fast (or, below 0, too slowly)."""
        assert abs(drift) < 0.01, drift
        if self._loop.time() > self._from_s:
            self._boot_s, self._from_s = self.boot_s(), self._loop.time()
        self._rate = 1.0 + drift

    def stand_still(self, seconds: float) -> None:
        """It shows the same for so long, and has lost that time for good."""
        self._boot_s, self._from_s = self.boot_s(), max(self._from_s, self._loop.time()) + seconds


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
