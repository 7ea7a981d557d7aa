"""Runs a program and records what it writes and syncs below a folder, by tracing its system calls.

    python -m tests.power.recorder OUT FOLDER -- PROGRAM ARGUMENT …

Only what reaches the kernel through calls is seen: writes through a shared map are not (LMDB in its default
mode makes none). Threads and children are followed. Linux on x86-64 and aarch64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from .calls import Call, Create, Remove, Rename, Resize, Sync, Write, encode

_TRACEME, _SYSCALL, _SETOPTIONS, _SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_FOLLOW = 0x1 | 0x2 | 0x4 | 0x8 | 0x100000  # syscall-good, fork, vfork, clone; killed when the tracer ends
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_WALL = 0x40000000
_INFO = struct.Struct("<B3xIQQ7Q")
_ENTRY, _EXIT = 1, 2

_NUMBERS: dict[str, dict[int, str]] = {
    "x86_64": {
        1: "write", 18: "pwrite", 20: "writev", 296: "pwritev", 328: "pwritev",
        2: "open", 85: "open", 257: "open", 437: "open", 74: "sync", 75: "sync", 285: "fallocate",
        77: "ftruncate", 83: "mkdir", 258: "mkdir", 87: "unlink", 263: "unlink", 26: "msync",
        82: "rename", 264: "rename", 316: "rename",
    },
    "aarch64": {
        64: "write", 68: "pwrite", 66: "writev", 70: "pwritev", 287: "pwritev",
        56: "open", 437: "open", 82: "sync", 83: "sync", 47: "fallocate",
        46: "ftruncate", 34: "mkdir", 35: "unlink", 227: "msync",
        38: "rename", 276: "rename",
    },
}  # fmt: skip
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {pid}")


class Recorder:
    """Calls of one process and what it starts."""

    def __init__(self, folder: str) -> None:
        self._folder = os.path.realpath(folder) + "/"
        self._names = _NUMBERS[platform.machine()]
        self._entered: dict[int, Callable[[], Call | None]] = {}
        """By thread: what to note if the call that it is in succeeds."""
        self._known: dict[str, None] = {}
        self.calls: list[Call] = []

    def run(self, command: list[str]) -> int:
        """Run to the end; the exit status."""
        pid = os.fork()
        if pid == 0:
            _ptrace(_TRACEME, 0)
            os.execvp(command[0], command)
        os.waitpid(pid, 0)
        _ptrace(_SETOPTIONS, pid, 0, _FOLLOW)
        _ptrace(_SYSCALL, pid)
        while True:
            thread, status = os.waitpid(-1, _WALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                if thread == pid:
                    return os.waitstatus_to_exitcode(status)
                continue
            stop = os.WSTOPSIG(status)
            deliver = 0 if stop in (_SYSCALL_STOP, signal.SIGTRAP, signal.SIGSTOP) else stop
            if stop == _SYSCALL_STOP:
                self._stopped(thread)
            try:
                _ptrace(_SYSCALL, thread, 0, deliver)
            except ProcessLookupError:
                continue

    def _stopped(self, thread: int) -> None:
        buffer = ctypes.create_string_buffer(_INFO.size)
        _ptrace(_SYSCALL_INFO, thread, len(buffer), ctypes.addressof(buffer))
        op, _, _, _, number, *arguments = _INFO.unpack(buffer.raw)
        if op == _ENTRY:
            self._entered.pop(thread, None)
            name = self._names.get(number)
            if name is not None:
                noted = self._enter(name, thread, arguments)
                if noted is not None:
                    self._entered[thread] = noted
        elif op == _EXIT:
            pending = self._entered.pop(thread, None)
            result = ctypes.c_int64(number).value
            if pending is not None and result >= 0:
                self._leave(thread, pending, result)

    def _leave(self, thread: int, pending: Callable[[], Call | None], result: int) -> None:
        if pending is self._opened:
            path = self._path(thread, result)
            if path is not None and path not in self._known:
                self._known[path] = None
                if os.path.isfile(self._folder + path):
                    self.calls.append(Create(path))
            return
        call = pending()
        if isinstance(call, Write):
            assert len(call.data) == result, (call.path, len(call.data), result)
        if isinstance(call, Rename):
            moved = {name: None for name in self._known if (name + "/").startswith(call.path + "/")}
            self._known |= {call.to + name.removeprefix(call.path): None for name in moved}
        if call is not None:
            self.calls.append(call)

    @staticmethod
    def _opened() -> Call | None:
        return None

    def _enter(self, name: str, thread: int, arguments: list[int]) -> Callable[[], Call | None] | None:
        if name == "open":
            return self._opened
        if name in ("mkdir", "unlink", "rename"):
            return self._names_call(name, thread, arguments)
        path = self._path(thread, arguments[0])
        if path is None:
            return None
        call = self._file_call(name, thread, path, arguments)
        return lambda: call

    def _names_call(self, name: str, thread: int, arguments: list[int]) -> Callable[[], Call | None] | None:
        # The …at calls have directories too; absolute paths need none.
        texts = [self._text(thread, argument) for argument in arguments[:4]]
        paths = [text.removeprefix(self._folder) for text in texts if text.startswith(self._folder)]
        if not paths:
            return None
        calls: dict[str, Callable[[], Call]] = {
            "mkdir": lambda: Create(paths[0], is_directory=True),
            "unlink": lambda: Remove(paths[0]),
            "rename": lambda: Rename(paths[0], paths[1]),
        }
        return calls[name]

    def _file_call(self, name: str, thread: int, path: str, arguments: list[int]) -> Call:
        match name:
            case "sync":
                return Sync(path)
            case "ftruncate":
                return Resize(path, arguments[1])
            case "fallocate":
                return Resize(path, arguments[2] + arguments[3], only_grow=True)
            case "write" | "pwrite":
                data = self._memory(thread, arguments[1], arguments[2])
            case "writev" | "pwritev":
                data = self._vector(thread, arguments[1], arguments[2])
            case _:
                raise AssertionError(f"{name} of {path} is not recorded")
        position, flags = self._descriptor(thread, arguments[0])
        offset_bytes = arguments[3] if name.startswith("p") else position
        return Write(path, offset_bytes, data, synced=bool(flags & os.O_DSYNC))

    def _path(self, thread: int, descriptor: int) -> str | None:
        try:
            path = os.readlink(f"/proc/{thread}/fd/{ctypes.c_int(descriptor).value}")
        except OSError:
            return None
        return path.removeprefix(self._folder) if path.startswith(self._folder) else None

    def _descriptor(self, thread: int, descriptor: int) -> tuple[int, int]:
        lines = Path(f"/proc/{thread}/fdinfo/{descriptor}").read_text().split("\n")
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        return int(fields["pos"]), int(fields["flags"], 8)

    def _memory(self, thread: int, address: int, length_bytes: int) -> bytes:
        with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            data = memory.read(length_bytes)
        assert data is not None and len(data) == length_bytes, (address, length_bytes)
        return data

    def _vector(self, thread: int, address: int, count: int) -> bytes:
        table = self._memory(thread, address, 16 * count)
        return b"".join(self._memory(thread, *pair) for pair in struct.iter_unpack("<QQ", table))

    def _text(self, thread: int, address: int) -> str:
        try:
            with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
                memory.seek(address)
                return os.fsdecode((memory.read(4096) or b"").split(b"\0", 1)[0])
        except (OSError, OverflowError, ValueError):
            return ""  # not an address: another argument


def main() -> None:
    out, folder, dashes, *command = sys.argv[1:]
    assert dashes == "--", "usage: recorder OUT FOLDER -- PROGRAM ARGUMENT …"
    recorder = Recorder(folder)
    status = recorder.run(command)
    Path(out).write_bytes(encode(recorder.calls))
    sys.exit(status if status >= 0 else errno.EIO)


if __name__ == "__main__":
    main()
