"""Removal: chunks of files without a name, and detached trees.

A file waits until nobody has it open for writing; then its epoch is raised, its chunks are cut on every
chain, and only then its records go: a service that dies in between leaves work, never an orphaned chunk.

A tree is deleted depth first, a page of files a transaction, with the rights of whoever removed it, checked
again. Where somebody has taken these rights away meanwhile, what is left is put back under its name.

Source: design 3.7; ``3fs`` mistakes 23, 24.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, TypeVar

import msgspec

from fs3.errors import Fs3Error
from fs3.ids import ROOT_INODE, Epoch, InodeId
from fs3.kv.run import OnMaybeApplied, run
from fs3.kv.transaction import Transaction
from fs3.stubs.storage import for_each
from fs3.tasks import TaskScope
from fs3.wire.meta import NAME_BYTES_MAX, InodeKind

from ..acl import READ, SEARCH, WRITE, allowed, may_unlink
from ..dirent import Dirent, clear_dirent, get_dirent, is_empty, list_dirents, put_dirent
from ..files import drop_inode, unlink_file
from ..inode import (
    Inode,
    clear_inode,
    get_inode,
    put_inode,
    put_parent,
    touch_directory,
)
from ..intents import REMOVALS, Removal, clear_intent, decode_removal, get_removal, list_intents
from ..services import Event, Services
from ..session import writers
from .leases import WorkLeases
from .pace import has_to_wait

T = TypeVar("T")
SHARDS = 8
"""Parts of the queue, by the upper bits of the inode, that services may divide among them."""
PAGE = 128
AT_ONCE = 16
TREE_PAGE = 64
"""Files deleted in one transaction: far below its limits."""
STEP_S = 30.0
IDLE_S = 2.0
BLOCKED_S = 5.0
"""Pause when all that is queued has to wait (open files, chains that do not answer)."""


class _NotAllowed(Exception):  # a finding, handled in this file
    """The rights to delete the rest of a tree are gone."""


class _Page(NamedTuple):
    """What emptying the first page of a directory came to."""

    below: tuple[InodeId, bytes] | None
    """A directory to go down to."""
    again: bool
    """There was something, and there may be more."""


class RemovalWorker:
    """Works off the removal queue."""

    name = "removal"

    def __init__(self, services: Services, leases: WorkLeases, scope: TaskScope) -> None:
        self._services = services
        self._leases = leases
        self._scope = scope
        self._after: dict[int, InodeId | None] = {}  # where each shard's next page begins
        self.queued_count = 0
        """Entries seen in the last pass."""

    async def work_once(self) -> float:
        """A page of each shard that is ours; the pause says whether anything moved."""
        seen = done = 0
        more = False
        for shard in range(SHARDS):
            if not await self._leases.hold(f"removal {shard}"):
                continue
            page = await self._page(shard)
            results = await for_each(self._scope, f"removal {shard}", self._try, page, at_once=AT_ONCE)
            seen += len(page)
            done += sum(results)
            full = len(page) == PAGE
            more = more or full
            self._after[shard] = page[-1][0] if full else None
        self.queued_count = seen
        if done or more:
            return 0.0 if done else IDLE_S
        return BLOCKED_S if seen else IDLE_S

    async def _page(self, shard: int) -> list[tuple[InodeId, bytes]]:
        width = (1 << 64) // SHARDS
        after = self._after.get(shard)
        if after is None and shard:
            after = InodeId(shard * width - 1)
        return await self._transact(
            lambda txn: list_intents(txn.snapshot, REMOVALS, after, PAGE, (shard + 1) * width)
        )

    async def _try(self, item: tuple[InodeId, bytes]) -> bool:
        """One entry; False: it has to wait. What cannot be done now must not stop the others."""
        inode, data = item
        removal = decode_removal(data)
        try:
            return await (self._tree(inode, removal) if removal.is_tree else self._file(inode))
        except Fs3Error as error:
            if not has_to_wait(error):
                raise
            return False

    # -- files ---------------------------------------------------------------------------------------

    async def _file(self, inode: InodeId) -> bool:
        async def look(txn: Transaction) -> tuple[Inode | None, bool]:
            reads = txn.snapshot
            return await get_inode(reads, inode), bool(await writers(reads, inode, limit=1))

        record, is_open = await self._transact(look)
        if is_open:
            return False
        if record is not None and (record.has_chunks or record.cutting):
            await self._cut_all(record)

        async def drop(txn: Transaction) -> bool:
            present = await get_inode(txn, inode)
            if present is None or await get_removal(txn, inode) is None:
                clear_intent(txn, REMOVALS, inode)
                return True
            assert not present.nlink, f"file {inode:x} is queued for removal and has a name: {present}"
            if await writers(txn, inode, limit=1):
                return False
            await drop_inode(txn, present)
            return True

        return await self._transact(drop)

    async def _cut_all(self, record: Inode) -> None:
        """No new writer can come (open refuses what has no name), so one epoch is enough."""
        assert record.layout is not None, record
        services = self._services
        chains = services.placement.chains_of(record.layout)
        epoch = Epoch(record.epoch + 1)
        in_force = await services.chains.raise_epoch(record.inode, epoch, chains, timeout_s=STEP_S)
        if in_force > epoch:  # a cut that was not finished, or an earlier try
            epoch = in_force
            await services.chains.raise_epoch(record.inode, epoch, chains, timeout_s=STEP_S)
        await services.chains.cut(record.inode, record.layout, chains, 0, epoch, timeout_s=STEP_S)

    # -- trees ---------------------------------------------------------------------------------------

    async def _tree(self, top: InodeId, removal: Removal) -> bool:
        """Delete a detached tree; goes on where it is after a restart, for it always begins at the top."""
        try:
            path: list[tuple[InodeId, bytes]] = [(top, b"")]  # the way down: (directory, its name)
            while path:
                directory, name = path[-1]
                page = await self._transact(partial(self._empty_page, directory, removal))
                if page.below is not None:
                    path.append(page.below)
                elif page.again:
                    continue
                elif len(path) > 1:
                    path.pop()
                    await self._transact(partial(self._rmdir, path[-1][0], name, directory, removal))
                elif await self._transact(partial(self._drop_top, top)):
                    path.pop()
        except _NotAllowed as refusal:
            await self._transact(partial(self._put_back, top, removal))
            self._services.publish(Event("tree put back", top, detail=str(refusal)))
        return True

    async def _empty_page(self, directory: InodeId, removal: Removal, txn: Transaction) -> _Page:
        """Delete the files of a directory's first page."""
        record = await get_inode(txn, directory)
        entries = await list_dirents(txn.snapshot, directory, b"", TREE_PAGE)
        if record is None or not entries:
            return _Page(None, again=False)
        who = removal.who
        if not allowed(who, record, READ | WRITE | SEARCH):
            raise _NotAllowed(f"directory {directory:x} may not be emptied by uid {who.uid}")
        below: tuple[InodeId, bytes] | None = None
        for name, entry in entries:
            if entry.kind is InodeKind.DIRECTORY:
                below = below or (entry.inode, name)
                continue
            node = await get_inode(txn, entry.inode)
            assert node is not None, f"entry {name!r} of {directory:x} names no inode"
            if not may_unlink(who, record, node):
                raise _NotAllowed(f"inode {entry.inode:x} may not be deleted by uid {who.uid}")
            clear_dirent(txn, directory, name)
            await unlink_file(txn, node, self._services.clock.wall_ns())
        return _Page(below, again=below is None)

    async def _rmdir(
        self, parent: InodeId, name: bytes, directory: InodeId, removal: Removal, txn: Transaction
    ) -> None:
        """Drop a directory that was found empty; if it is not any more, the next page shows it again."""
        entry = await get_dirent(txn, parent, name)
        above, node = await get_inode(txn, parent), await get_inode(txn, directory)
        if entry is None or entry.inode != directory or above is None or node is None:
            return
        if not await is_empty(txn, directory):
            return
        if not may_unlink(removal.who, above, node):
            raise _NotAllowed(f"directory {directory:x} may not be deleted by uid {removal.uid}")
        clear_dirent(txn, parent, name)
        touch_directory(txn, parent, self._services.clock.wall_ns(), subdirectories=-1)
        clear_inode(txn, node)

    async def _drop_top(self, top: InodeId, txn: Transaction) -> bool:
        """The tree is gone but for its top; False: something has come into it."""
        node = await get_inode(txn, top)
        if node is not None and await get_removal(txn, top) is not None:
            if not await is_empty(txn, top):
                return False
            clear_inode(txn, node)
        clear_intent(txn, REMOVALS, top)
        return True

    async def _put_back(self, top: InodeId, removal: Removal, txn: Transaction) -> None:
        """Give what is left of a tree a name again: its own, where it was, if it can be."""
        node = await get_inode(txn, top)
        if node is None or await get_removal(txn, top) is None:
            return
        parent = await get_inode(txn, removal.parent)
        if parent is None or not parent.nlink:
            parent = await get_inode(txn, ROOT_INODE)
        assert parent is not None, "there is always a root directory"
        name = removal.name
        if await get_dirent(txn, parent.inode, name) is not None:
            mark = b".kept-%x" % top
            name = name[: NAME_BYTES_MAX - len(mark)] + mark
        put_dirent(txn, parent.inode, name, Dirent(top, InodeKind.DIRECTORY))
        put_parent(txn, top, parent.inode)
        touch_directory(txn, parent.inode, self._services.clock.wall_ns(), subdirectories=1)
        put_inode(txn, msgspec.structs.replace(node, nlink=2))
        clear_intent(txn, REMOVALS, top)

    async def _transact(self, body: Callable[[Transaction], Awaitable[T]]) -> T:
        services = self._services
        return await run(
            services.kv,
            body,
            clock=services.clock,
            rng=services.rng,
            deadline_s=services.clock.boot_s() + STEP_S,
            on_maybe_applied=OnMaybeApplied.RETRY,
        )
