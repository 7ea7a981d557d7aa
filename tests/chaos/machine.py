"""The machine that chaos runs on: its commands, one run at a time, which kinds of fault it allows.

Namespaces, loop devices and mounts need root and a few tools. Whoever is not root, or lacks a tool, still
gets the faults that need neither; ``Machine.off`` says which kinds are off, and why.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

LOCK = Path("/run/fs3-chaos.lock")
COMMAND_TIMEOUT_S = 60.0
NETWORK_TOOLS = ("ip", "nft", "tc", "nsenter")
VOLUME_TOOLS = ("losetup", "mount", "umount", "findmnt", "mkfs.ext4", "e2fsck", "fallocate")


class MachineError(Exception):
    """A command of the system failed, or another run is under way; the message is all there is to know."""


def command(*words: str, text: str = "", worst: int = 0, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Run a command of the system; returns its standard output.

    MachineError: it failed (its exit code is above ``worst``), with what it said.
    """
    try:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"{' '.join(words)}: {error}") from error
    if not 0 <= done.returncode <= worst:
        raise MachineError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def succeeds(*words: str) -> bool:
    """Whether a command of the system can be run without an error."""
    try:
        command(*words)
    except MachineError:
        return False
    return True


@dataclass(slots=True)
class Machine:
    """What may be done here."""

    has_network: bool
    """Namespaces and packet filters."""
    has_volumes: bool
    """File systems on loop devices."""
    has_xfs: bool
    has_mapper: bool
    """Device-mapper, in the kernel as well."""
    off: list[str] = field(default_factory=list)
    """What is not possible, and why; for people."""


def look_around() -> Machine:
    """What this machine allows."""
    if os.geteuid() != 0:
        return Machine(False, False, False, False, ["network and disk faults are off: they need root"])
    off: list[str] = []

    def has(tools: Sequence[str], what: str) -> bool:
        missing = [tool for tool in tools if shutil.which(tool) is None]
        if missing:
            off.append(f"{what} are off: {', '.join(missing)} missing (.ci/chaos-tools installs what it can)")
        return not missing

    network = has(NETWORK_TOOLS, "network faults")
    volumes = has(VOLUME_TOOLS, "disk faults")
    if network and not succeeds("nft", "list", "tables"):
        off.append("network faults are off: the kernel has no nftables")
        network = False
    if volumes and not Path("/dev/loop-control").exists():
        off.append("disk faults are off: the kernel has no loop devices")
        volumes = False
    mapper = volumes and shutil.which("dmsetup") is not None and succeeds("dmsetup", "targets")
    if volumes and not mapper:
        off.append("faults of single blocks are off: no device-mapper (disks fail as whole file systems)")
    return Machine(network, volumes, shutil.which("mkfs.xfs") is not None, mapper, off)


@contextmanager
def only_run() -> Iterator[None]:
    """Namespaces and mounts have names that all runs share. MachineError: another run is under way."""
    if os.geteuid() != 0:
        yield
        return
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MachineError("another `make chaos` is under way on this machine: wait for it") from None
        yield
