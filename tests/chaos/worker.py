"""One chaos worker: writes and reads slots, makes and removes files of its own, and logs every operation.

    python -m tests.chaos.worker CLIENT_FILE ROOT NUMBER SEED LOG

It says "ready", and works until its standard input ends. The log has a JSON line when an operation begins,
and one when it ends, with times of the machine's clock: a worker that is killed has told what it had begun.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from typing import Any

import fs3.client
from fs3.client.blocking_file import File
from fs3.rng import Rng, derived_rng

from .registers import MIB, Register, content_of, registers, value_of

READ_SHARE = 0.5
NAME_SHARE = 0.15
OWN_BYTES = (1024, 1024, 64 * 1024, 2 * MIB)
"""Within the inode, a chunk, several chunks."""


class Worker:
    """Operations one after the other. Values are ``number << 32 | count``: no two are equal."""

    def __init__(self, filesystem: fs3.client.FileSystem, root: str, number: int, rng: Rng, log: Any) -> None:
        self._filesystem = filesystem
        self._root = root
        self._number = number
        self._rng = rng
        self._log = log
        self._count = 0
        self._slots = registers(root)
        self._written = [slot for slot in self._slots if not slot.is_quiet]
        self._files: dict[str, File] = {}

    def run(self, stopped: threading.Event) -> None:
        """Until told to stop."""
        while not stopped.is_set():
            share = self._rng.random()
            if share < NAME_SHARE:
                self._names()
            elif share < NAME_SHARE + READ_SHARE:
                self._read(self._rng.choice(self._slots))
            else:
                self._write(self._rng.choice(self._written))

    def close(self) -> None:
        """Close the files."""
        for path in list(self._files):
            self._close(path)

    def _file(self, slot: Register) -> File | None:
        """The slot's file, opened if it is not; None: it could not be, which is told."""
        file = self._files.get(slot.path)
        if file is None:
            count = self._begin("names", path=slot.path)
            try:
                file = self._filesystem.open(slot.path, "rb" if slot.is_quiet else "r+b")
            except OSError as error:
                self._failed(count, error)
                return None
            self._files[slot.path] = file
            self._tell(end=count)
        return file

    def _close(self, path: str) -> None:
        with contextlib.suppress(OSError):  # of a write that failed: that has been told
            self._files.pop(path).close()

    def _tell(self, **fields: object) -> None:
        self._log.write(json.dumps({"at_s": time.monotonic(), **fields}) + "\n")
        self._log.flush()

    def _begin(self, kind: str, **fields: object) -> int:
        self._count += 1
        self._tell(begin=self._count, kind=kind, **fields)
        return self._count

    def _failed(self, count: int, error: OSError) -> None:
        self._tell(end=count, error=f"{type(error).__name__}: {error}", errno=error.errno)

    def _write(self, slot: Register) -> None:
        if (file := self._file(slot)) is None:
            return
        value = self._number << 32 | (self._count + 1)
        count = self._begin("write", register=slot.name, value=value)
        try:
            file.pwrite(content_of(value, slot.size_bytes), slot.offset_bytes)
            file.flush()  # its chain has it then: before, it may wait in this process
        except OSError as error:
            self._failed(count, error)
            self._close(slot.path)  # a handle that has lost bytes says so until it is closed
        else:
            self._tell(end=count)
            self._sync(slot, file)

    def _sync(self, slot: Register, file: File) -> None:
        """Tell the file's length and times: that needs the services of names and their store."""
        count = self._begin("sync", register=slot.name)
        try:
            file.fsync()
        except OSError as error:
            self._failed(count, error)
            self._close(slot.path)
        else:
            self._tell(end=count)

    def _read(self, slot: Register) -> None:
        if (file := self._file(slot)) is None:
            return
        count = self._begin("quiet read" if slot.is_quiet else "read", register=slot.name)
        try:
            content = file.pread(slot.size_bytes, slot.offset_bytes)
        except OSError as error:
            self._failed(count, error)
        else:
            value = value_of(content)
            self._tell(end=count, value=value if value is not None else f"torn: {content[:32].hex()}")

    def _names(self) -> None:
        """A file of one's own, small or with chunks: made, read back, renamed, removed."""
        path = f"{self._root}/own/{self._number}-{self._count}"
        content = content_of(self._number << 32 | self._count, self._rng.choice(OWN_BYTES))
        count = self._begin("names", path=path)
        try:
            self._filesystem.write_file(path, content)
            self._filesystem.rename(path, f"{path}.renamed")
            found = self._filesystem.read_file(f"{path}.renamed")
            self._filesystem.remove(f"{path}.renamed")
        except OSError as error:
            self._failed(count, error)
        else:
            self._tell(end=count, wrong=found != content)


def _stop_at_end_of_input(stopped: threading.Event) -> None:
    sys.stdin.read()
    stopped.set()


def main() -> None:
    """Entry point of the process."""
    client_file, root, number, seed, log_file = sys.argv[1:]
    stopped = threading.Event()
    threading.Thread(target=_stop_at_end_of_input, args=(stopped,), daemon=True).start()
    rng = derived_rng(int(seed), f"worker {number}")
    with open(log_file, "w") as log, fs3.client.connect(client_file) as filesystem:
        worker = Worker(filesystem, root, int(number), rng, log)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        worker.run(stopped)
        worker.close()


if __name__ == "__main__":
    main()
