"""Processes of a development cluster: which run, and when one has really ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fs3.deploy.dev import process
from fs3.deploy.dev.process import ProcessFiles

FIRST_THREAD_ENDS = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall(60, 0)  # exit: of this thread only
"""


def test_a_process_runs_as_long_as_any_of_its_threads(tmp_path: Path) -> None:
    """What it holds is free only then: a successor that comes earlier finds its port taken."""
    with subprocess.Popen(
        [sys.executable, "-c", FIRST_THREAD_ENDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == b"ready\n"
        files = ProcessFiles("one", tmp_path)
        files.pid.parent.mkdir(parents=True, exist_ok=True)
        files.pid.write_text(f"{child.pid} {process._start_ticks(child.pid)}\n")
        while "Z" not in Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2]:
            pass
        assert process.running_pid(files) == child.pid
        assert not process.wait_gone(files, 0.1)
        child.stdin.close()
        assert process.wait_gone(files, 10.0)
