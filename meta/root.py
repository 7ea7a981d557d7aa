"""The root directory: made once, by whichever service comes first."""

from __future__ import annotations

from fs3.ids import ROOT_INODE
from fs3.kv.run import OnMaybeApplied, run
from fs3.kv.transaction import Transaction
from fs3.layout import Layout
from fs3.wire.meta import InodeKind

from .inode import Inode, count_inodes, get_inode, put_inode, put_parent
from .services import Services


async def make_root(services: Services, *, uid: int, gid: int, mode: int, deadline_s: float) -> bool:
    """Make the root directory if there is none; True if this call made it."""
    now_ns = services.clock.wall_ns()

    async def body(txn: Transaction) -> bool:
        if await get_inode(txn, ROOT_INODE) is not None:
            return False
        root = Inode(
            inode=ROOT_INODE,
            kind=InodeKind.DIRECTORY,
            mode=mode,
            uid=uid,
            gid=gid,
            nlink=2,
            length_bytes=0,
            atime_ns=now_ns,
            mtime_ns=now_ns,
            ctime_ns=now_ns,
            layout=Layout(),
        )
        put_inode(txn, root)
        put_parent(txn, ROOT_INODE, ROOT_INODE)
        count_inodes(txn, ROOT_INODE, 1)
        return True

    return await run(
        services.kv,
        body,
        clock=services.clock,
        rng=services.rng,
        deadline_s=deadline_s,
        on_maybe_applied=OnMaybeApplied.RETRY,
    )
