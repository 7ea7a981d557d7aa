"""Runs the reader processes, has a storage node killed in the middle of it, gathers what they saw."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from .report import ReaderResult

READERS = 4
KILL_AT_SHARE = 0.4
"""Share of the bytes that has been read when the node is killed."""
READ_TIMEOUT_S = 150.0


@dataclass(slots=True)
class Reading:
    """What the readers saw together."""

    results: list[ReaderResult] = field(default_factory=list)
    killed: str = ""

    @property
    def errors(self) -> list[str]:
        """Every error of every reader."""
        return [error for result in self.results for error in result.errors]


def read_set(
    url: str,
    manifest_file: Path,
    root: str,
    total_bytes: int,
    kill: Callable[[], str],
    on_bytes: Callable[[int], None],
) -> Reading:
    """Read and verify everything below ``root`` from ``READERS`` processes.

    ``kill`` is called once, at ``KILL_AT_SHARE``, and returns the name of what it killed. TimeoutError when
    the readers are not done in ``READ_TIMEOUT_S``; RuntimeError when one ends without a result.
    """
    command = [sys.executable, "-m", "fs3.deploy.demo.reader", url, str(manifest_file), root]
    readers = [
        subprocess.Popen(
            [*command, str(rank), str(READERS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
        )
        for rank in range(READERS)
    ]
    reading = Reading()
    lock = threading.Lock()
    seen_bytes = 0

    def follow(reader: subprocess.Popen[bytes]) -> None:
        nonlocal seen_bytes
        assert reader.stdout is not None
        for line in reader.stdout:
            message = msgspec.json.decode(line)
            with lock:
                if "read" not in message:
                    reading.results.append(msgspec.convert(message, ReaderResult))
                    continue
                seen_bytes += message["read"]
                on_bytes(message["read"])
                if not reading.killed and seen_bytes > total_bytes * KILL_AT_SHARE:
                    reading.killed = kill()
                    _tell(readers)

    threads = [threading.Thread(target=follow, args=(reader,), daemon=True) for reader in readers]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(READ_TIMEOUT_S)
        if any(thread.is_alive() for thread in threads):
            raise TimeoutError(f"the readers were not done after {READ_TIMEOUT_S:.0f} s")
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
    if len(reading.results) < READERS:
        raise RuntimeError(f"{READERS - len(reading.results)} of {READERS} readers ended without a result")
    return reading


def _tell(readers: list[subprocess.Popen[bytes]]) -> None:
    for reader in readers:
        assert reader.stdin is not None
        try:
            reader.stdin.write(b"killed\n")
            reader.stdin.flush()
        except BrokenPipeError:
            continue  # that reader is done
