"""What a file system with one user is meant to do, as plainly as it can be said: the reference of pair tests.

No transactions, no keys, no epochs on chains: a tree of nodes, one operation after the other. It was written
from POSIX and design 3, not from the code under test.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Any

INLINE, SPILLING, CHUNKED = 1, 2, 3


class Refused(Exception):  # the model's answer "no"
    """An errno, or the name of an error class."""

    def __init__(self, what: int | str) -> None:
        super().__init__(what)
        self.what = what


@dataclass(eq=False)
class Node:
    """A file or directory."""

    is_dir: bool
    mode: int
    entries: dict[bytes, Node] = field(default_factory=dict)
    linked: bool = True
    length: int = 0
    content: bytes = b""
    version: int = 0
    storage: int = INLINE
    spiller: str = ""
    cuts: int = 0
    """How often older writers were fenced off."""
    opens: dict[str, int] = field(default_factory=dict)
    written_end: int = 0

    def shown(self) -> tuple[Any, ...]:
        """What an answer tells of it."""
        if self.is_dir:
            nlink = (2 + sum(n.is_dir for n in self.entries.values())) if self.linked else 0
            return "dir", self.mode, nlink
        return "file", self.mode, int(self.linked), self.length, self.storage


class Model:
    """The tree and its operations; ``who`` is a client's name. Each returns what the answer is to show."""

    def __init__(self) -> None:
        self.root = Node(True, 0o777)
        self.start: dict[bytes, Node] = {}
        """What open handles refer to, wherever its name goes."""

    def find(self, path: bytes) -> tuple[Node, bytes, Node | None]:
        """(directory, last name, what is there)."""
        *above, name = path.split(b"/")
        at = self.root
        for step in above:
            at = self._enter(at, step)
        if not at.is_dir:
            raise Refused(errno.ENOTDIR)
        return at, name, at.entries.get(name)

    def _enter(self, at: Node, step: bytes) -> Node:
        if not at.is_dir:
            raise Refused(errno.ENOTDIR)
        if step not in at.entries:
            raise Refused(errno.ENOENT)
        return at.entries[step]

    def get(self, path: bytes) -> Node:
        """What must be there."""
        node = self.find(path)[2]
        if node is None:
            raise Refused(errno.ENOENT)
        return node

    def create(
        self, who: str, path: bytes, content: bytes | None, *, exclusive: bool, write: bool, cut: bool
    ) -> Any:
        parent, name, node = self.find(path)
        created = node is None
        if node is None:
            node = parent.entries[name] = Node(False, 0o644)
            node.content = content or b""
            node.length = len(node.content)
            node.version = int(bool(node.content))
        elif exclusive:
            raise Refused(errno.EEXIST)
        elif node.is_dir:
            raise Refused(errno.EISDIR)
        elif content is not None:
            if node.storage != INLINE:
                raise Refused("StaleFile")
            self._put(node, content)
        elif cut:
            self.set_length(node, 0)
        if write:
            node.opens[who] = node.opens.get(who, 0) + 1
        return node.shown(), created

    def _put(self, node: Node, content: bytes) -> None:
        node.content, node.length = content, len(content)
        node.version += 1

    def set_length(self, node: Node, length: int) -> None:
        if node.is_dir:
            raise Refused(errno.EISDIR)
        if node.storage == SPILLING:
            raise Refused("DeadlineExceeded")
        if node.storage == INLINE:
            self._put(node, node.content[:length].ljust(length, b"\0"))
            return
        if length < node.length or node.written_end > length or (length == 0 and node.opens):
            node.cuts += 1
            node.written_end = min(node.written_end, length)
        node.length = length

    def mkdir(self, path: bytes, *, parents: bool) -> Any:
        if parents:
            names = path.split(b"/")
            for end in range(1, len(names)):
                parent, name, node = self.find(b"/".join(names[:end]))
                if node is None:
                    parent.entries[name] = Node(True, 0o755)
                elif not node.is_dir:
                    raise Refused(errno.ENOTDIR)
        parent, name, node = self.find(path)
        if node is not None:
            raise Refused(errno.EEXIST)
        made = parent.entries[name] = Node(True, 0o755)
        return made.shown()

    def remove(self, path: bytes, *, recursive: bool) -> Any:
        parent, name, node = self.find(path)
        if node is None:
            raise Refused(errno.ENOENT)
        if node.entries and not recursive:
            raise Refused(errno.ENOTEMPTY)
        del parent.entries[name]
        node.linked = False
        return True

    def rename(self, source: bytes, target: bytes, flag: str = "") -> Any:
        source_dir, source_name, node = self.find(source)
        if node is None:
            raise Refused(errno.ENOENT)
        target_dir, target_name, other = self.find(target)
        if flag == "exchange" and other is None:
            raise Refused(errno.ENOENT)
        if flag == "noreplace" and other is not None:
            raise Refused(errno.EEXIST)
        if other is node:
            return node.shown()
        if node.is_dir and self._below(node, target_dir):
            raise Refused(errno.EINVAL)
        if flag == "exchange":
            assert other is not None
            if other.is_dir and self._below(other, source_dir):
                raise Refused(errno.EINVAL)
            source_dir.entries[source_name], target_dir.entries[target_name] = other, node
            return node.shown()
        if other is not None:
            if other.is_dir and not node.is_dir:
                raise Refused(errno.EISDIR)
            if node.is_dir and not other.is_dir:
                raise Refused(errno.ENOTDIR)
            if other.entries:
                raise Refused(errno.ENOTEMPTY)
            other.linked = False
        del source_dir.entries[source_name]
        target_dir.entries[target_name] = node
        return node.shown()

    def _below(self, top: Node, at: Node) -> bool:
        return at is top or any(self._below(n, at) for n in top.entries.values() if n.is_dir)

    def chmod(self, path: bytes, mode: int) -> Any:
        node = self.get(path)
        node.mode = mode
        return node.shown()

    def truncate(self, path: bytes, length: int) -> Any:
        node = self.get(path)
        self.set_length(node, length)
        return node.shown()

    def open(self, who: str, path: bytes, *, write: bool, cut: bool = False) -> Any:
        node = self.get(path)
        if node.is_dir:
            raise Refused(errno.EISDIR)
        if write:
            node.opens[who] = node.opens.get(who, 0) + 1
        if cut:
            self.set_length(node, 0)
        return node.shown(), None if write or node.storage == CHUNKED else node.content

    def close(self, who: str, node: Node, cuts: int, end: int, *, keep: bool) -> Any:
        if not node.opens.get(who):
            raise Refused(errno.EBADF)
        if end and node.storage != CHUNKED:
            raise Refused("StaleFile")
        if not keep:
            node.opens[who] -= 1
            if not node.opens[who]:
                del node.opens[who]
        if node.cuts == cuts:
            node.length = max(node.length, end)
        return node.shown()

    def write_inline(self, who: str, node: Node, version: int, content: bytes) -> Any:
        if not node.opens.get(who):
            raise Refused(errno.EBADF)
        if node.storage != INLINE or node.version != version:
            raise Refused("StaleFile")
        self._put(node, content)
        return node.shown()

    def spill(self, who: str, node: Node, version: int) -> Any:
        if not node.opens.get(who):
            raise Refused(errno.EBADF)
        if node.storage == CHUNKED or node.version != version:
            raise Refused("StaleFile")
        if node.storage == SPILLING and node.spiller != who:
            raise Refused("DeadlineExceeded")
        if not node.content:
            node.storage = CHUNKED
            return node.shown(), b""
        node.storage, node.spiller = SPILLING, who
        return node.shown(), node.content

    def picture(self) -> dict[bytes, Any]:
        """Everything that can be seen from the root."""
        found: dict[bytes, Any] = {}
        waiting = [(b"", self.root)]
        while waiting:
            path, node = waiting.pop()
            content = node.content if not node.is_dir and node.storage != CHUNKED else None
            found[path] = (*node.shown(), content)
            for name, below in node.entries.items():
                waiting.append((path + b"/" + name if path else name, below))
        return found
