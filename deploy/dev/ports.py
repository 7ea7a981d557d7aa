"""Free ports of this machine, and who has a port that is wanted."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from fs3.rng import system_rng

from .plan import HOST

LISTENING = "0A"
FIRST_PORT = 20_000
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
DEFAULT_EPHEMERAL = 32_768
PORTS_MIN = 1_000
"""A system that leaves fewer below its ephemeral range has to live with the danger."""


def free_ports(count: int) -> list[int]:
    """``count`` different ports that nobody listens on, TCP and UDP.

    Not of the range that the system gives to outgoing connections: while a process of the cluster is away, a
    connection of any other one could take its port, and it could not come back.
    """
    ports: list[int] = []
    candidates = range(FIRST_PORT, _first_ephemeral_port())
    for port in system_rng().sample(candidates, len(candidates)):
        if len(ports) == count:
            break
        if is_free(port) and is_free(port, kind=socket.SOCK_DGRAM):
            ports.append(port)
    if len(ports) < count:
        raise OSError(errno.EADDRINUSE, f"no {count} ports from {candidates[0]} to {candidates[-1]} are free")
    return ports


def _first_ephemeral_port() -> int:
    try:
        first = int(EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError):
        first = DEFAULT_EPHEMERAL
    return first if first > FIRST_PORT + PORTS_MIN else DEFAULT_EPHEMERAL


def is_free(port: int, *, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    """Whether a server could listen on ``port`` now."""
    with socket.socket(socket.AF_INET, kind) as sock:
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except OSError:
            return False
        return True


def holder_of(port: int) -> str:
    """Who listens on a TCP port, as "pid 123 (nginx)"; "another process" if that cannot be seen."""
    inode = _listening_inode(port)
    if inode is not None:
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and _has_socket(process, inode):
                name = (process / "comm").read_text().strip()
                return f"pid {process.name} ({name})"
    return "another process"


def _listening_inode(port: int) -> str | None:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
            return fields[9]
    return None


def _has_socket(process: Path, inode: str) -> bool:
    wanted = f"socket:[{inode}]"
    try:
        return any(str(link.readlink()) == wanted for link in (process / "fd").iterdir())
    except OSError:
        return False  # another user's, or gone
