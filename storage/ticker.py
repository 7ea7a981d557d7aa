"""Ticks that come only while somebody wants them: a node has many targets, and most of them are at rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TICK_S = 0.1


class Ticker:
    """Calls ``tick`` on the event loop, ``TICK_S`` after it was wanted.

    ``on_loop``: runs something in the loop's thread, at once if this is it. ``tick`` takes the lock under
    which ``want`` is called: what there was when ``want`` found a tick to come is seen by that one.
    """

    def __init__(self, on_loop: Callable[[Callable[[], None]], None], tick: Callable[[], None]) -> None:
        self._on_loop = on_loop
        self._tick = tick
        self._timer: asyncio.TimerHandle | None = None
        self._is_coming = False
        self._is_over = False

    def want(self) -> None:
        """A tick is to come. From any thread, under the owner's lock."""
        if not self._is_coming:
            self._is_coming = True
            self._on_loop(self._set)

    def stop(self) -> None:
        """None comes any more. On the loop."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def _set(self) -> None:
        if not self._is_over:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._run)

    def _run(self) -> None:
        self._is_coming = False
        self._tick()
