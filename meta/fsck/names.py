"""Counts what directory entries say: how many names an inode has, who lies where. PURE.

Inode ids are spread evenly over their space, so a part of the space holds a known share of all inodes: the
counts of one part fit into memory however large the file system is (design 3.12).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from fs3.ids import InodeId
from fs3.wire.meta import InodeKind

from ..dirent import Dirent

INODE_SPACE = 1 << 64
INODES_PER_PART = 2_000_000
"""Counted at a time: a few hundred MiB."""


class Part(NamedTuple):
    """Inodes ``first … end - 1``."""

    first: int
    end: int

    def holds(self, inode: int) -> bool:
        """Whether an inode is of this part."""
        return self.first <= inode < self.end


def parts(inode_count: int) -> list[Part]:
    """The parts in which so many inodes are checked."""
    count = max(1, -(-inode_count // INODES_PER_PART))
    width = -(-INODE_SPACE // count)
    return [Part(i * width, min(INODE_SPACE, (i + 1) * width)) for i in range(count)]


@dataclass(slots=True)
class Names:
    """What the entries seen so far say of the inodes that ``holds`` is true of."""

    holds: Callable[[int], bool]
    links: dict[int, int] = field(default_factory=dict)
    """inode -> names."""
    directories: dict[int, int] = field(default_factory=dict)
    """inode that an entry calls a directory -> the directory that holds the entry."""
    symlinks: dict[int, None] = field(default_factory=dict)
    subdirectories: dict[int, int] = field(default_factory=dict)
    """directory that has entries -> how many of them are directories."""
    _sorted: list[int] | None = None

    def add(self, directory: InodeId, entry: Dirent) -> None:
        """Count one entry; each is counted once."""
        is_directory = entry.kind is InodeKind.DIRECTORY
        if self.holds(directory):
            self.subdirectories[directory] = self.subdirectories.get(directory, 0) + is_directory
        if self.holds(entry.inode):
            self.links[entry.inode] = self.links.get(entry.inode, 0) + 1
            if is_directory:
                self.directories[entry.inode] = directory
            elif entry.kind is InodeKind.SYMLINK:
                self.symlinks[entry.inode] = None

    def between(self, low: int, high: int) -> list[tuple[int, bool]]:
        """Inodes ``low … high`` in order that have a name (True), or have entries only (False)."""
        if self._sorted is None:
            self._sorted = sorted({**self.links, **self.subdirectories})
        found = self._sorted[bisect_left(self._sorted, low) : bisect_left(self._sorted, high + 1)]
        return [(number, number in self.links) for number in found]

    def kind_of(self, inode: InodeId) -> InodeKind | None:
        """What its entry calls it; None: no entry names it."""
        if inode not in self.links:
            return None
        if inode in self.directories:
            return InodeKind.DIRECTORY
        return InodeKind.SYMLINK if inode in self.symlinks else InodeKind.FILE
