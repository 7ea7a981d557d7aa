"""A daemon for tests: does at start, in between and at stop what its settings say.

Run as ``python -m tests.core.daemon_program SETTINGS``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from fs3.daemon import Components, DaemonSettings, run_daemon
from fs3.errors import Unavailable
from fs3.tasks import TaskScope


@dataclass(frozen=True, slots=True)
class ProgramSettings:
    """What goes wrong, and when."""

    start: str = "ok"
    """``ok``, ``refuse`` (raises Unavailable), ``hang``."""
    serving: str = "ok"
    """``ok``, ``fail`` (a background task raises)."""
    stop: str = "ok"
    """``ok``, ``hang`` (waits for ever), ``block`` (blocks the event loop)."""
    daemon: DaemonSettings = field(default_factory=DaemonSettings)


class Program:
    """The server."""

    def __init__(self, settings: ProgramSettings, components: Components) -> None:
        self._settings = settings
        self._log = components.log
        self._scope = TaskScope("program", components.fail)

    async def start(self) -> None:
        """As told."""
        if self._settings.start == "refuse":
            raise Unavailable("the store at /x does not answer")
        if self._settings.start == "hang":
            self._log.info("hanging")
            await asyncio.Event().wait()
        if self._settings.serving == "fail":
            self._scope.spawn("bad task", self._fail())

    async def _fail(self) -> None:
        raise ValueError("planted")

    async def stop(self) -> None:
        """As told."""
        if self._settings.stop == "hang":
            await asyncio.Event().wait()
        if self._settings.stop == "block":
            time.sleep(60)  # noqa: ASYNC251  # blocks on purpose
        await self._scope.aclose()

    def health(self) -> dict[str, object]:
        """One figure."""
        return {"tasks_count": len(self._scope)}


if __name__ == "__main__":
    sys.exit(run_daemon("program", ProgramSettings, Path(sys.argv[1]), Program))
