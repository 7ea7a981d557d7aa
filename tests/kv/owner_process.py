"""The owner as a process of its own, to be killed, stopped and started again by tests.

``python -m tests.kv.owner_process DIR WINDOW_S [LOG]`` runs it until SIGTERM; it says "ready" when it serves.
With LOG, every write and sync of the store is recorded there (see ``call_recorder``).
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fs3.clock import SystemClock
from fs3.kv.conflicts import WINDOW_S
from fs3.kv.owner import Owner, OwnerSettings
from fs3.rng import system_rng

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
ROOT = Path(__file__).resolve().parents[2]


async def serve(directory: Path, window_s: float) -> int:
    """Run an owner until SIGTERM (0) or its own failure (1)."""
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def fail(name: str, error: BaseException) -> None:
        sys.stderr.write(f"{name}: {error!r}\n")
        if not done.done():
            done.set_result(1)

    owner = Owner(OwnerSettings(directory, window_s), clock=SystemClock(), rng=system_rng(), on_failure=fail)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: done.set_result(0))
    await owner.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        return await done
    finally:
        await owner.stop()


def _is_stopped(thread: Path) -> bool:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0] in "TZX"


class OwnerProcess:
    """An owner that the test has in hand."""

    def __init__(self, directory: Path, window_s: float = WINDOW_S, log: Path | None = None) -> None:
        self._directory = directory
        self._window_s = window_s
        self._log = [os.fspath(log)] if log is not None else []
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns when it serves."""
        assert self._process is None
        command = [sys.executable, "-m", "tests.kv.owner_process"]
        self._process = subprocess.Popen(
            [*command, os.fspath(self._directory), str(self._window_s), *self._log],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise AssertionError(f"owner did not start: exit {self._end(signal.SIGKILL)}")

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send a signal; after SIGSTOP return only when it stands still: it runs on for a moment."""
        assert self._process is not None
        self._process.send_signal(number)
        threads = Path(f"/proc/{self._process.pid}/task")
        while number == signal.SIGSTOP and not all(map(_is_stopped, threads.iterdir())):
            time.sleep(0.001)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            return process.wait(STOP_TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


if __name__ == "__main__":
    import uvloop

    if sys.argv[3:]:
        from .call_recorder import Recorder

        recorder = Recorder(Path(sys.argv[3]))
    sys.exit(uvloop.run(serve(Path(sys.argv[1]), float(sys.argv[2]))))
