"""The event loop behind the blocking face: one thread a process, made at first need, gone with its last user.

A forked child has none of its parent's threads: it starts anew, and never touches what it inherited (kept
alive, so that no destructor of it runs in the child).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from .deadlines import time_left_s, timed_out

T = TypeVar("T")

JOIN_TIMEOUT_S = 5.0


class LoopThread:
    """A running loop in a thread of its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="fs3-client-loop", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    @property
    def is_here(self) -> bool:
        """The caller is in the loop's own thread, where nothing may wait for it."""
        return threading.current_thread() is self._thread

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it.

        An interrupt here, or the end of the caller's time (``deadlines``), cancels it there, and is raised
        when it has ended: what it reads into is the caller's again then.
        """
        if self.is_here:
            work.close()
            raise RuntimeError("a blocking call in the client's own event loop: use connect_async there")
        ended = threading.Event()
        future = asyncio.run_coroutine_threadsafe(_noting_end(work, ended), self._loop)
        try:
            return future.result(time_left_s())
        except BaseException as error:
            if future.cancel():
                ended.wait(JOIN_TIMEOUT_S)
                if isinstance(error, TimeoutError):
                    raise timed_out() from None
            elif isinstance(error, TimeoutError):
                return future.result()  # done after all, in this moment; or it raised this itself
            raise

    def run_later(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine there; nobody waits."""
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        if not self.is_here:
            self._thread.join(JOIN_TIMEOUT_S)


async def _noting_end(work: Coroutine[Any, Any, T], ended: threading.Event) -> T:
    try:
        return await work
    finally:
        ended.set()


class _Shared:
    """The process's loop thread and how many use it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: LoopThread | None = None
        self.user_count = 0
        self.inherited: list[object] = []

    def forked(self) -> None:
        """In a child: the parent's thread does not exist here."""
        if self.thread is not None:
            self.inherited.append(self.thread)
        self.lock = threading.Lock()
        self.thread = None
        self.user_count = 0


_shared = _Shared()
os.register_at_fork(after_in_child=_shared.forked)


def acquire_loop() -> LoopThread:
    """The process's loop thread; ``release_loop`` when it is no longer needed."""
    with _shared.lock:
        if _shared.thread is None:
            _shared.thread = LoopThread()
        _shared.user_count += 1
        return _shared.thread


def release_loop(thread: LoopThread) -> None:
    """One user less; the last one ends the thread."""
    with _shared.lock:
        if _shared.thread is not thread:
            return  # the parent's, in a forked child
        _shared.user_count -= 1
        if _shared.user_count:
            return
        _shared.thread = None
    thread.stop()


def keep_inherited(value: object) -> None:
    """Keep what a forked child inherited from ever being destroyed there."""
    _shared.inherited.append(value)
