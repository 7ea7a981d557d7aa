"""Frozen limit program: the raw read loop. A server process sends 1 MiB pieces of a file with sendfile, a
client receives each with recv_into into a buffer of its own and, unless told not to, computes one CRC32C
over it. One thread at each end for each connection; 16-byte requests; no protocol at all.

It is what bulk reads are measured against (design 5.6). Do not improve it: ratios of different years are
only comparable while it stays as it is.

    python -m tests.bench.limits.raw_read serve FILE
    python -m tests.bench.limits.raw_read read PORT --threads 2 --mib 2048 [--bare]
"""

from __future__ import annotations

import argparse
import mmap
import os
import socket
import struct
import threading
import time

import crc32c

MIB = 1 << 20
REQUEST = struct.Struct("<QQ")


def serve_connection(connection: socket.socket, fd: int) -> None:
    while True:
        request = connection.recv(REQUEST.size, socket.MSG_WAITALL)
        if len(request) < REQUEST.size:
            return
        offset, length = REQUEST.unpack(request)
        while length:
            sent = os.sendfile(connection.fileno(), fd, offset, length)
            offset += sent
            length -= sent


def serve(path: str) -> None:
    """Answer on a free port, which is printed."""
    fd = os.open(path, os.O_RDONLY)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve_connection, args=(connection, fd), daemon=True).start()


def read_pieces(port: int, pieces: int, file_mib: int, is_bare: bool) -> None:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(mmap.mmap(-1, MIB))
    for number in range(pieces):
        connection.sendall(REQUEST.pack(number % file_mib * MIB, MIB))
        got = 0
        while got < MIB:
            got += connection.recv_into(buffer[got:], 0, socket.MSG_WAITALL)
        if not is_bare:
            crc32c.crc32c(buffer)
    connection.close()


def read(port: int, threads: int, mib: int, file_mib: int, is_bare: bool) -> float:
    """GiB a second."""
    began_s = time.perf_counter()
    running = [
        threading.Thread(target=read_pieces, args=(port, mib // threads, file_mib, is_bare))
        for _ in range(threads)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return mib // threads * threads / 1024 / (time.perf_counter() - began_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["serve", "read"])
    parser.add_argument("where")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--file-mib", type=int, default=64)
    parser.add_argument("--bare", action="store_true")
    arguments = parser.parse_args()
    if arguments.role == "serve":
        serve(arguments.where)
    else:
        print(
            read(int(arguments.where), arguments.threads, arguments.mib, arguments.file_mib, arguments.bare)
        )


if __name__ == "__main__":
    main()
