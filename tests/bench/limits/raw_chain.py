"""Frozen limit program: a raw durable chain of n processes, no protocol at all.

Each hop: receive 1 MiB into page-aligned memory → CRC32C → O_DIRECT pwrite into preallocated space → one
fdatasync for all writes that wait → pass on → wait for the hop behind → answer. One thread and one
connection a client slot and hop. It is what the write path of fs3 is measured against (design 5.6); do not
improve it: ratios of different years are only comparable while it stays as it is.

    python -m tests.bench.limits.raw_chain --directory DIR --replicas 3 --depth 8 --mib 512
"""

from __future__ import annotations

import argparse
import mmap
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import crc32c

MIB = 1 << 20
HEADER = struct.Struct("<QII")
SLOTS_MAX = 64
BLOCKS_PER_SLOT = 8


class GroupSync:
    """One fdatasync for everybody who waits."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._changed = threading.Condition()
        self._asked = 0
        self._done = 0
        threading.Thread(target=self._run, daemon=True).start()

    def wait(self) -> None:
        with self._changed:
            self._asked += 1
            mine = self._asked
            self._changed.notify_all()
            while self._done < mine:
                self._changed.wait()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._asked == self._done:
                    self._changed.wait()
                upto = self._asked
            os.fdatasync(self._fd)
            with self._changed:
                self._done = upto
                self._changed.notify_all()


def receive(connection: socket.socket, buffer: memoryview) -> bool:
    """Fill ``buffer``; False at the end of the stream."""
    got = 0
    while got < len(buffer):
        count = connection.recv_into(buffer[got:], 0, socket.MSG_WAITALL)
        if count == 0:
            return False
        got += count
    return True


def serve_connection(connection: socket.socket, successor_port: int, fd: int, sync: GroupSync) -> None:
    """One client slot on one hop."""
    buffer = memoryview(mmap.mmap(-1, MIB))
    header = memoryview(bytearray(HEADER.size))
    following = socket.create_connection(("127.0.0.1", successor_port)) if successor_port else None
    while receive(connection, header):
        number, length, checksum = HEADER.unpack(header)
        if not receive(connection, buffer[:length]):
            return
        assert crc32c.crc32c(buffer[:length]) == checksum
        os.pwrite(fd, buffer[:length], number * MIB)
        sync.wait()
        if following:
            following.sendall(header)
            following.sendall(buffer[:length])
            receive(following, memoryview(bytearray(8)))
        connection.sendall(b"\0" * 8)


def serve(directory: str, successor_port: int) -> None:
    """A hop: print the port, serve until killed."""
    path = os.path.join(directory, f"raw-{os.getpid()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    os.posix_fallocate(fd, 0, SLOTS_MAX * BLOCKS_PER_SLOT * MIB)
    zeros = memoryview(mmap.mmap(-1, MIB))
    for block in range(SLOTS_MAX * BLOCKS_PER_SLOT):  # written once: the measured writes change no extent
        os.pwrite(fd, zeros, block * MIB)
    os.fdatasync(fd)
    sync = GroupSync(fd)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(
            target=serve_connection, args=(connection, successor_port, fd, sync), daemon=True
        ).start()


def client(port: int, slot: int, count: int, data: memoryview) -> None:
    """One slot: write, wait for the answer, again."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answer = memoryview(bytearray(8))
    for i in range(count):
        number = slot * BLOCKS_PER_SLOT + i % BLOCKS_PER_SLOT
        connection.sendall(HEADER.pack(number, len(data), crc32c.crc32c(data)))
        connection.sendall(data)
        assert receive(connection, answer)
    connection.close()


def measure(directory: str, replicas: int, depth: int, mib: int) -> float:
    """MiB/s of client payload through a chain of ``replicas`` with ``depth`` writes in flight."""
    hops: list[subprocess.Popen[str]] = []
    port = 0
    command = [sys.executable, "-m", "tests.bench.limits.raw_chain"]
    try:
        for _ in range(replicas):
            hop = subprocess.Popen(
                [*command, "--serve", str(port), "--directory", directory],
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[3],
            )
            hops.append(hop)
            assert hop.stdout is not None
            port = int(hop.stdout.readline())
        data = memoryview(os.urandom(MIB))
        per_slot = max(1, mib // depth)
        threads = [threading.Thread(target=client, args=(port, i, per_slot, data)) for i in range(depth)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return depth * per_slot / (time.monotonic() - began)
    finally:
        for hop in hops:
            hop.kill()
            hop.wait()
            assert hop.stdout is not None
            hop.stdout.close()
            Path(directory, f"raw-{hop.pid}").unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", type=int, default=-1, metavar="SUCCESSOR_PORT")
    parser.add_argument("--directory", default=tempfile.gettempdir())
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--mib", type=int, default=512)
    arguments = parser.parse_args()
    if arguments.serve >= 0:
        serve(arguments.directory, arguments.serve)
        return
    rate = measure(arguments.directory, arguments.replicas, arguments.depth, arguments.mib)
    print(f"raw durable chain, {arguments.replicas} replicas, depth {arguments.depth}: {rate:.0f} MiB/s")


if __name__ == "__main__":
    main()
