"""What C tools reach on this machine now: fio on the disk, iperf3 on the loopback. Left out if not installed.

They tell whether the frozen limit programs, which are Python, are themselves far below the machine.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from .harness import Row, row

SECONDS = 4
PORT = 5209


def rows(directory: Path) -> Iterator[Row]:
    """The figures of the tools that are there."""
    if shutil.which("fio"):
        yield row(
            "fio: 1 MiB O_DIRECT writes, depth 8, fdatasync each", fio_mib_s(directory), "MiB/s", note="C"
        )
    if shutil.which("iperf3"):
        yield row("iperf3: 1 stream over loopback", iperf_mib_s(), "MiB/s", note="C, no checksums")


def fio_mib_s(directory: Path) -> float:
    """Durable 1 MiB writes of 8 threads."""
    command = [
        "fio", "--name=chain", f"--directory={directory}", "--rw=write", "--bs=1m", "--size=64m",
        "--numjobs=8", "--thread", "--direct=1", "--fdatasync=1", "--ioengine=psync", "--overwrite=1",
        "--time_based", f"--runtime={SECONDS}", "--group_reporting", "--output-format=json", "--unlink=1",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text = done.stdout[done.stdout.index("{") :]
    return float(json.loads(text)["jobs"][0]["write"]["bw_bytes"]) / (1 << 20)


def iperf_mib_s() -> float:
    """One TCP stream."""
    server = subprocess.Popen(["iperf3", "-s", "-1", "-p", str(PORT)], stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.3)
        command = ["iperf3", "-c", "127.0.0.1", "-p", str(PORT), "-t", str(SECONDS), "-J"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 8 / (1 << 20)
    finally:
        server.kill()
        server.wait()
