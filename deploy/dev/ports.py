"""Free ports of this machine, and who has a port that is wanted."""

from __future__ import annotations

import socket
from pathlib import Path

from .plan import HOST

LISTENING = "0A"


def free_ports(count: int) -> list[int]:
    """``count`` different ports that nobody listens on, TCP and UDP."""
    held: list[socket.socket] = []
    ports: list[int] = []
    try:
        while len(ports) < count:
            tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            held.append(tcp)
            tcp.bind((HOST, 0))
            port = tcp.getsockname()[1]
            if is_free(port, kind=socket.SOCK_DGRAM):
                ports.append(port)
    finally:
        for sock in held:
            sock.close()
    return ports


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
