"""Records the writes and syncs that LMDB makes in this process, bytes included, without any tool.

LMDB's library calls ``pwrite`` and the like through pointers in its global offset table. The recorder finds
them (they are listed in the library's own relocation table) and puts functions of ours in their place, which
make the real call and then append an event to a file::

    u8 kind, u64 inode, u64 offset, u32 length, bytes

Kind 0: a write that is not durable yet; 1: a write to a descriptor opened with O_DSYNC, durable on return;
2: everything written to the inode before is durable. An event is in the file before LMDB goes on.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lmdb.cpython

EVENT = struct.Struct("<BQQI")
WRITE, DURABLE_WRITE, SYNC = 0, 1, 2

_DT_STRTAB, _DT_SYMTAB, _DT_PLTRELSZ, _DT_JMPREL = 5, 6, 2, 23
_PT_LOAD, _PT_DYNAMIC = 1, 2


class Event(NamedTuple):
    """One event of the file, and where in the file it ends."""

    kind: int
    inode: int
    offset: int
    data: bytes
    log_end: int


def events(path: Path) -> Iterator[Event]:
    """The events of a recording."""
    data = path.read_bytes()
    at = 0
    while at < len(data):
        kind, inode, offset, length = EVENT.unpack_from(data, at)
        at += EVENT.size + length
        yield Event(kind, inode, offset, data[at - length : at], at)


def jump_slots(library: Path) -> dict[str, int]:
    """Imported function → offset of its pointer from the library's base (64-bit little-endian ELF)."""
    data = library.read_bytes()
    assert data[:6] == b"\x7fELF\x02\x01", "not a 64-bit little-endian ELF file"
    (headers_at,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    loads: list[tuple[int, int, int]] = []
    dynamic = (0, 0)
    for number in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, headers_at + number * size)
        if kind == _PT_LOAD:
            loads.append((address, offset, length))
        elif kind == _PT_DYNAMIC:
            dynamic = offset, length

    def place(address: int) -> int:
        return next(address - a + o for a, o, length in loads if a <= address < a + length)

    tags = dict(struct.iter_unpack("<QQ", data[dynamic[0] : sum(dynamic)]))
    strings, symbols = place(tags[_DT_STRTAB]), place(tags[_DT_SYMTAB])
    start = place(tags[_DT_JMPREL])
    found: dict[str, int] = {}
    for slot, info, _ in struct.iter_unpack("<QQq", data[start : start + tags[_DT_PLTRELSZ]]):
        (name_at,) = struct.unpack_from("<I", data, symbols + 24 * (info >> 32))
        name = data[strings + name_at : data.index(b"\0", strings + name_at)]
        found[name.decode()] = slot
    return found


class Recorder:
    """Installs itself; has to live as long as the process."""

    def __init__(self, log: Path) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._kept: list[Any] = []
        library = Path(lmdb.cpython.__file__)
        base = self._base(library)
        slots = jump_slots(library)
        number, pointer = ctypes.c_int, ctypes.c_void_p
        size, length, offset = ctypes.c_ssize_t, ctypes.c_size_t, ctypes.c_int64
        self._replace(base, slots, "pwrite", self._pwrite, size, number, pointer, length, offset)
        self._replace(base, slots, "writev", self._writev, size, number, pointer, number)
        self._replace(base, slots, "fdatasync", self._fdatasync, number, number)
        self._replace(base, slots, "fsync", self._fsync, number, number)

    @staticmethod
    def _base(library: Path) -> int:
        for line in Path("/proc/self/maps").read_text().splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5] == os.fspath(library) and int(fields[2], 16) == 0:
                return int(fields[0].split("-")[0], 16)
        raise AssertionError(f"{library} is not loaded")

    def _replace(
        self, base: int, slots: dict[str, int], name: str, ours: Callable[..., int], *types: Any
    ) -> None:
        assert name in slots, f"LMDB does not import {name}: the recording would miss it"
        function = ctypes.CFUNCTYPE(*types, use_errno=True)(ours)
        self._kept.append(function)
        address = ctypes.cast(function, ctypes.c_void_p).value
        assert address is not None
        ctypes.c_void_p.from_address(base + slots[name]).value = address

    def _record(self, kind: int, fd: int, offset: int, data: bytes) -> None:
        os.write(self._log, EVENT.pack(kind, os.fstat(fd).st_ino, offset, len(data)) + data)

    def _wrote(self, fd: int, offset: int, data: bytes) -> None:
        durable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DSYNC
        self._record(DURABLE_WRITE if durable else WRITE, fd, offset, data)

    def _pwrite(self, fd: int, address: int, length: int, offset: int) -> int:
        data = ctypes.string_at(address, length)
        done = os.pwrite(fd, data, offset)
        self._wrote(fd, offset, data[:done])
        return done

    def _writev(self, fd: int, address: int, count: int) -> int:
        parts = (ctypes.c_size_t * (2 * count)).from_address(address)
        data = b"".join(ctypes.string_at(parts[2 * n], parts[2 * n + 1]) for n in range(count))
        offset = os.lseek(fd, 0, os.SEEK_CUR)
        done = os.write(fd, data)
        self._wrote(fd, offset, data[:done])
        return done

    def _fdatasync(self, fd: int) -> int:
        os.fdatasync(fd)
        self._record(SYNC, fd, 0, b"")
        return 0

    def _fsync(self, fd: int) -> int:
        os.fsync(fd)
        self._record(SYNC, fd, 0, b"")
        return 0
