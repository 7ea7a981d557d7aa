"""Who may do what: POSIX owner, group and other, sticky and setgid. PURE.

EACCES: the mode bits forbid it. EPERM: only the owner (or root) may. uid 0 may everything.

Source: design 3.8; POSIX.1-2017 4.5 (file access permissions), chmod, chown, unlink.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from fs3.errors import fs_error
from fs3.wire.meta import Attributes, InodeKind

READ = 4
WRITE = 2
SEARCH = 1
SETUID = 0o4000
SETGID = 0o2000
STICKY = 0o1000


@dataclass(frozen=True, slots=True)
class Who:
    """The user that a request acts for."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def in_group(self, gid: int) -> bool:
        """Member by primary or supplementary group."""
        return gid == self.gid or gid in self.groups


ROOT = Who(0, 0)


def allowed(who: Who, node: Attributes, want: int) -> bool:
    """Do the mode bits give ``who`` all of ``want`` (READ | WRITE | SEARCH)?"""
    if who.uid == 0:
        return True
    if who.uid == node.uid:
        bits = node.mode >> 6
    elif who.in_group(node.gid):
        bits = node.mode >> 3
    else:
        bits = node.mode
    return bits & want == want


def require(who: Who, node: Attributes, want: int, path: bytes = b"") -> None:
    """EACCES unless ``allowed``."""
    if who.uid != 0 and not allowed(who, node, want):
        raise fs_error(errno.EACCES, "", path or None)


def require_owner(who: Who, node: Attributes, path: bytes = b"") -> None:
    """EPERM unless ``who`` owns it."""
    if who.uid not in (0, node.uid):
        raise fs_error(errno.EPERM, "only the owner may do this", path or None)


def require_unlink(who: Who, directory: Attributes, node: Attributes, path: bytes = b"") -> None:
    """May ``who`` take the name of ``node`` out of ``directory``? EACCES, or EPERM when it is sticky."""
    require(who, directory, WRITE | SEARCH, path)
    if directory.mode & STICKY and who.uid not in (0, directory.uid, node.uid):
        raise fs_error(
            errno.EPERM, "directory is sticky, and neither it nor the entry is yours", path or None
        )


def may_unlink(who: Who, directory: Attributes, node: Attributes) -> bool:
    """``require_unlink`` as a question."""
    if not allowed(who, directory, WRITE | SEARCH):
        return False
    return not directory.mode & STICKY or who.uid in (0, directory.uid, node.uid)


def new_group_and_mode(who: Who, directory: Attributes, kind: InodeKind, mode: int) -> tuple[int, int]:
    """gid and mode of something new in ``directory``: setgid passes on the group, and itself."""
    mode &= 0o7777
    if not directory.mode & SETGID:
        return who.gid, mode
    if kind is InodeKind.DIRECTORY:
        return directory.gid, mode | SETGID
    if who.uid != 0 and not who.in_group(directory.gid):
        mode &= ~SETGID
    return directory.gid, mode


def changed_mode(who: Who, node: Attributes, mode: int) -> int:
    """The mode after chmod; a file of a foreign group loses setgid."""
    mode &= 0o7777
    if who.uid != 0 and node.kind is not InodeKind.DIRECTORY and not who.in_group(node.gid):
        mode &= ~SETGID
    return mode


def require_chown(who: Who, node: Attributes, uid: int, gid: int, path: bytes = b"") -> None:
    """EPERM unless root, or the owner giving it to a group of their own."""
    if who.uid == 0 or (uid == node.uid and gid == node.gid and who.uid == node.uid):
        return
    if uid != node.uid or who.uid != node.uid:
        raise fs_error(errno.EPERM, "only root may change the owner", path or None)
    if not who.in_group(gid):
        raise fs_error(errno.EPERM, f"you are not in group {gid}", path or None)


def without_set_id(node: Attributes) -> int:
    """The mode after a write or chown by somebody who is not root: no setuid, no effective setgid."""
    mode = node.mode & ~SETUID
    return mode & ~SETGID if mode & 0o010 else mode
