"""The frozen limit programs beside C tools that do the same: fio on the disk, iperf3 on the loopback.

The limit programs are Python; one that is far below the C tool would make ratios look better than they are,
so a row below 0.8 is called suspicious. A tool that is not installed is left out.
"""

from __future__ import annotations

import json
import mmap
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .data import RawRead
from .engine_write import RawLoop
from .harness import Row, paired, rate, row

SECONDS = 3
LISTEN_S = 5
PORT = 5209
MIB = 1 << 20
BATCH = 8
SUSPICIOUS_BELOW = 0.8


def rows(directory: Path, runs: int) -> Iterator[Row]:
    """A row for each tool that is there."""
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        if shutil.which("fio"):
            loop = RawLoop(folder, memoryview(mmap.mmap(-1, MIB)), BATCH)
            try:
                loop.run(256)
                ours, limit = paired(
                    lambda: rate(512, lambda: loop.run(512)), lambda: fio_mib_s(Path(folder)), runs
                )
            finally:
                loop.close()
            yield _row("limit: O_DIRECT writes, fdatasync each 8 MiB", ours, limit, "fio")
        if shutil.which("iperf3"):
            raw = RawRead(Path(folder))
            try:
                ours, limit = paired(lambda: raw.mib_s("--bare", "--threads", "1"), iperf_mib_s, runs)
            finally:
                raw.close()
            yield _row("limit: sendfile → recv_into, no sums", ours, limit, "iperf3")


def _row(name: str, ours: float, limit: float, tool: str) -> Row:
    made = row(name, ours, "MiB/s", limit=limit, limit_name=tool)
    verdict = "suspicious" if made.ratio is not None and made.ratio < SUSPICIOUS_BELOW else "sound"
    made.note = f"beside {tool}: {verdict}"
    return made


def fio_mib_s(directory: Path) -> float:
    """The same writes by fio: one thread, 1 MiB, a sync after each eighth."""
    command = [
        "fio", "--name=limit", f"--directory={directory}", "--rw=write", "--bs=1m", "--size=128m",
        "--direct=1", f"--fdatasync={BATCH}", "--ioengine=psync", "--overwrite=1", "--time_based",
        f"--runtime={SECONDS}", "--output-format=json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=directory)
    text = done.stdout[done.stdout.index("{") :]
    return float(json.loads(text)["jobs"][0]["write"]["bw_bytes"]) / MIB


def iperf_mib_s() -> float:
    """One TCP stream over the loopback."""
    server = subprocess.Popen(["iperf3", "-s", "-1", "-p", str(PORT)], stdout=subprocess.DEVNULL)
    try:
        command = ["iperf3", "-c", "127.0.0.1", "-p", str(PORT), "-t", str(SECONDS), "-J"]
        deadline = time.monotonic() + LISTEN_S
        while True:
            found = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
            if "error" not in found:
                return float(found["end"]["sum_received"]["bits_per_second"]) / 8 / MIB
            assert time.monotonic() < deadline, found["error"]  # it did not listen yet
    finally:
        server.kill()
        server.wait()
