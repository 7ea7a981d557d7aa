"""One process of a cluster on this machine: started detached, found again by its pid file, stopped.

A pid alone may have been given to another process since; the file therefore also holds the process's start
time (``/proc/PID/stat``, field 22), and both must match before a signal is sent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class ProcessFiles:
    """Where the files of process ``name`` lie."""

    name: str
    directory: Path
    """Of the cluster."""

    @property
    def settings(self) -> Path:
        return self.directory / "settings" / f"{self.name}.toml"

    @property
    def log(self) -> Path:
        return self.directory / "logs" / f"{self.name}.log"

    @property
    def pid(self) -> Path:
        return self.directory / "run" / f"{self.name}.pid"


def _start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none (or only its zombie).

    Its first thread may be a zombie while others still end, which wait for a disk, say: they hold its files,
    its locks and its ports.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        thread_count = len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" and thread_count <= 1 else int(fields[19])


def running_pid(files: ProcessFiles) -> int | None:
    """The pid of the process, if it runs."""
    try:
        pid_text, ticks_text = files.pid.read_text().split()
    except (OSError, ValueError):
        return None
    pid = int(pid_text)
    return pid if _start_ticks(pid) == int(ticks_text) else None


def start(files: ProcessFiles, role: str, before: Sequence[str] = ()) -> int:
    """Start ``fs3 ROLE --config …`` in a session of its own, log appended to its file; returns the pid.

    ``before``: words in front of the command, of a program that becomes it.
    """
    for path in (files.log, files.pid):
        path.parent.mkdir(parents=True, exist_ok=True)
    command = [*before, sys.executable, "-m", "fs3.deploy.main", role, "--config", str(files.settings)]
    with files.log.open("ab") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    ticks = _start_ticks(child.pid)
    files.pid.write_text(f"{child.pid} {ticks or 0}\n")
    _CHILDREN[child.pid] = child
    return child.pid


_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
"""Children of this process, so that one which ends is reaped and does not stay a zombie."""


def send(files: ProcessFiles, number: signal.Signals) -> bool:
    """Send a signal; False if the process does not run."""
    pid = running_pid(files)
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    return True


def wait_gone(files: ProcessFiles, timeout_s: float) -> bool:
    """Wait until the process has ended; False if it has not within ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while running_pid(files) is not None:
        if time.monotonic() > deadline:
            return False
        _reap()
        time.sleep(POLL_S)
    _reap()
    files.pid.unlink(missing_ok=True)
    return True


def _reap() -> None:
    for pid, child in list(_CHILDREN.items()):
        if child.poll() is not None:
            _CHILDREN.pop(pid, None)  # threads may look at the same time


def log_tail(files: ProcessFiles, line_count: int = 15) -> str:
    """The last lines of the log, for an error message."""
    try:
        with files.log.open("rb") as log:
            log.seek(max(0, files.log.stat().st_size - 64 * 1024))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(lines[-line_count:])
