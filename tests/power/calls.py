"""What a recorded process did to the files below a folder, in order. Paths are relative to the folder."""

from __future__ import annotations

import msgspec


class Create(msgspec.Struct, tag=True, frozen=True):
    """A file or directory appeared."""

    path: str
    is_directory: bool = False


class Remove(msgspec.Struct, tag=True, frozen=True):
    """A name is gone."""

    path: str


class Rename(msgspec.Struct, tag=True, frozen=True):
    """A file or directory has another name."""

    path: str
    to: str


class Write(msgspec.Struct, tag=True, frozen=True):
    """Bytes were written; ``synced``: through a descriptor that makes each write durable."""

    path: str
    offset_bytes: int
    data: bytes
    synced: bool = False


class Resize(msgspec.Struct, tag=True, frozen=True):
    """The file has another size; ``only_grow``: space was taken, the size is at least this."""

    path: str
    size_bytes: int
    only_grow: bool = False


class Sync(msgspec.Struct, tag=True, frozen=True):
    """Everything of a file, or the names in a directory, is on the disk."""

    path: str


Call = Create | Remove | Rename | Write | Resize | Sync


def encode(calls: list[Call]) -> bytes:
    """For a file between the recorder and the test."""
    return msgspec.msgpack.encode(calls)


def decode(data: bytes) -> list[Call]:
    """Inverse of ``encode``."""
    return msgspec.msgpack.decode(data, type=list[Call])
