"""Attributes as ``os.stat_result``."""

from __future__ import annotations

import os
import stat

from fs3.wire.meta import Attributes, InodeKind

_KINDS = {
    InodeKind.FILE: stat.S_IFREG,
    InodeKind.DIRECTORY: stat.S_IFDIR,
    InodeKind.SYMLINK: stat.S_IFLNK,
}
BLOCK_BYTES = 512


def stat_of(found: Attributes, length_bytes: int = 0) -> os.stat_result:
    """``found`` as ``os.stat`` gives it; ``length_bytes``: a lower bound that is known beside it."""
    size = max(found.length_bytes, length_bytes) if found.kind is InodeKind.FILE else found.length_bytes
    chunk_bytes = found.layout.chunk_size_bytes if found.layout is not None else 4096
    fields = (
        _KINDS[found.kind] | found.mode,
        found.inode,
        0,
        found.nlink,
        found.uid,
        found.gid,
        size,
        found.atime_ns // 1_000_000_000,
        found.mtime_ns // 1_000_000_000,
        found.ctime_ns // 1_000_000_000,
    )
    exact = {
        "st_atime": found.atime_ns / 1e9,
        "st_mtime": found.mtime_ns / 1e9,
        "st_ctime": found.ctime_ns / 1e9,
        "st_atime_ns": found.atime_ns,
        "st_mtime_ns": found.mtime_ns,
        "st_ctime_ns": found.ctime_ns,
        "st_blksize": chunk_bytes,
        "st_blocks": -(-size // BLOCK_BYTES),
    }
    return os.stat_result(fields, exact)
