"""The disk as it may be when the power goes after so many recorded calls.

Synced bytes and names are there. Of what was not synced each 512-byte sector of each write is there or not,
by chance; so is each size and each name.
"""

from __future__ import annotations

from pathlib import Path

from fs3.rng import Rng

from .calls import Call, Create, Remove, Rename, Resize, Sync, Write

SECTOR_BYTES = 512


class _File:
    def __init__(self) -> None:
        self.synced = bytearray()
        self.waiting: list[Write | Resize] = []
        self.is_named = False

    def sync(self) -> None:
        for call in self.waiting:
            _do(self.synced, call)
        self.waiting = []

    def after_cut(self, rng: Rng, share: float) -> bytes:
        content = bytearray(self.synced)
        for call in self.waiting:
            if isinstance(call, Resize):
                if rng.random() < share:
                    _do(content, call)
                continue
            for start in range(0, len(call.data), SECTOR_BYTES):
                if rng.random() < share:
                    piece = call.data[start : start + SECTOR_BYTES]
                    _do(content, Write(call.path, call.offset_bytes + start, piece))
        return bytes(content)


def _do(content: bytearray, call: Write | Resize) -> None:
    if isinstance(call, Resize):
        if call.size_bytes < len(content) and not call.only_grow:
            del content[call.size_bytes :]
        content.extend(bytes(max(0, call.size_bytes - len(content))))
        return
    end = call.offset_bytes + len(call.data)
    content.extend(bytes(max(0, end - len(content))))
    content[call.offset_bytes : end] = call.data


class _Image:
    """Files and names at one moment."""

    def __init__(self) -> None:
        self.files: dict[str, _File] = {}
        self.directories: dict[str, None] = {}

    def apply(self, call: Call) -> None:
        match call:
            case Create(path=path, is_directory=True):
                self.directories[path] = None
            case Create(path=path):
                self.files[path] = _File()
            case Remove(path=path):
                self.files.pop(path, None)
            case Rename(path=path, to=to):
                self._rename(path, to)
            case Sync(path=path):
                self._sync(path)
            case Write(synced=True):
                # This write is durable, those before it are not: it is done in both worlds.
                _do(self.files[call.path].synced, call)
                self.files[call.path].waiting.append(call)
            case Write() | Resize():
                self.files[call.path].waiting.append(call)

    def _sync(self, path: str) -> None:
        if path in self.files:
            self.files[path].sync()
        for name, file in self.files.items():
            file.is_named = file.is_named or str(Path(name).parent) == path

    def _rename(self, path: str, to: str) -> None:
        """At once and for good: what is renamed here is named by nothing else before."""
        for name in [name for name in self.files if name == path or name.startswith(path + "/")]:
            self.files[to + name.removeprefix(path)] = self.files.pop(name)
        for name in [name for name in self.directories if name == path or name.startswith(path + "/")]:
            del self.directories[name]
            self.directories[to + name.removeprefix(path)] = None


def write_image(calls: list[Call], cut: int, folder: Path, rng: Rng, share: float) -> None:
    """Make in ``folder`` what is left of ``calls[:cut]``; ``share`` of what was not synced survived."""
    image = _Image()
    for call in calls[:cut]:
        image.apply(call)
    for path in image.directories:
        (folder / path).mkdir(parents=True, exist_ok=True)
    for path, file in image.files.items():
        if file.is_named or rng.random() < share:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(file.after_cut(rng, share))
